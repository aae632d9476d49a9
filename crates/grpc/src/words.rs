//! What Stubborn says in gRPC's words, and the other way round: metadata, statuses, deadlines.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use stubborn_core::service::{Code, Metadata, MetadataError, NotExecuted, Status};
use stubborn_core::session::NotExecutedReason;
use tonic::metadata::{
    AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, KeyAndValueRef,
    MetadataMap,
};

use crate::{EXECUTED, EXECUTING, NOT_EXECUTED, PUSHBACK};

/// Headers that are gRPC's or HTTP's own, and no metadata.
fn is_reserved(key: &str) -> bool {
    key.starts_with("grpc-")
        || matches!(key, "te" | "content-type" | "content-length" | "accept-encoding" | "host")
}

/// The metadata among headers.
///
/// # Errors
/// If a key is none of ours or there is too much of it.
pub(crate) fn metadata_of(map: &MetadataMap) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::new();
    add_metadata(&mut metadata, map)?;
    Ok(metadata)
}

/// Adds the metadata among headers.
///
/// # Errors
/// As [`metadata_of`]; what came before is added.
pub(crate) fn add_metadata(to: &mut Metadata, map: &MetadataMap) -> Result<(), MetadataError> {
    for pair in map.iter() {
        match pair {
            KeyAndValueRef::Ascii(key, value) if !is_reserved(key.as_str()) => {
                to.insert(key.as_str(), value.as_bytes())?;
            }
            KeyAndValueRef::Binary(key, value) if !is_reserved(key.as_str()) => {
                let value = value.to_bytes().map_err(|_| MetadataError::Key)?;
                to.insert(key.as_str(), &value[..])?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Metadata as headers.
///
/// # Errors
/// The first key that gRPC cannot carry: it is reserved, or its value is not visible ASCII though the
/// key does not end in `-bin`. The others are there.
pub(crate) fn headers_of(metadata: &Metadata, map: &mut MetadataMap) -> Result<(), String> {
    let mut refused = None;
    for (key, value) in metadata.iter() {
        if !put(map, key, value) {
            refused.get_or_insert_with(|| key.to_owned());
        }
    }
    refused.map_or(Ok(()), Err)
}

fn put(map: &mut MetadataMap, key: &str, value: &[u8]) -> bool {
    if is_reserved(key) {
        return false;
    }
    if key.ends_with("-bin") {
        let Ok(key) = BinaryMetadataKey::from_bytes(key.as_bytes()) else { return false };
        map.append_bin(key, BinaryMetadataValue::from_bytes(value));
        return true;
    }
    let key = AsciiMetadataKey::from_bytes(key.as_bytes());
    let visible = value.iter().all(|byte| (0x20..0x7f).contains(byte));
    match (key, AsciiMetadataValue::try_from(value)) {
        (Ok(key), Ok(value)) if visible => {
            map.append(key, value);
            true
        }
        _ => false,
    }
}

/// A handler's status, for a caller.
pub(crate) fn status_to(status: &Status) -> tonic::Status {
    let mut map = MetadataMap::new();
    // What gRPC cannot carry stays behind: the status is worth more.
    let _ = headers_of(status.metadata(), &mut map);
    tonic::Status::with_details_and_metadata(
        tonic::Code::from_i32(status.code() as i32),
        status.message(),
        status.details().clone(),
        map,
    )
}

/// The same, marked as what a handler said where the code also stands for a failure on the way.
pub(crate) fn executed_to(status: &Status) -> tonic::Status {
    let mut said = status_to(status);
    if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) {
        said.metadata_mut().insert(EXECUTED, 1.into());
    }
    said
}

/// A server's status.
pub(crate) fn status_from(status: &tonic::Status) -> Status {
    // What does not fit is left out: the status is worth more.
    let mut metadata = Metadata::new();
    let _ = add_metadata(&mut metadata, status.metadata());
    Status::new(Code::from_number(status.code() as u64), status.message().to_owned())
        .with_details(Bytes::copy_from_slice(status.details()))
        .with_metadata(metadata)
}

/// A call that did not run, for its caller: with a code that gRPC's clients understand, and the reason.
pub(crate) fn not_executed_to(why: &NotExecuted) -> tonic::Status {
    use NotExecutedReason as Reason;
    let code = match why.reason {
        Reason::Fenced => tonic::Code::Aborted,
        Reason::Deadline => tonic::Code::DeadlineExceeded,
        Reason::Cancelled => tonic::Code::Cancelled,
        Reason::TooLarge => tonic::Code::ResourceExhausted,
        // Also of a server that has too much to do: clients heed push-back only with a code that their
        // policy retries, which is this one (gRFC A6, "Retryable Status Codes").
        Reason::Overloaded | Reason::Draining | Reason::NeverSent => tonic::Code::Unavailable,
        Reason::UnknownMethod => tonic::Code::Unimplemented,
        Reason::Malformed => tonic::Code::InvalidArgument,
        Reason::Corrupted => tonic::Code::DataLoss,
        Reason::FalseRetry => tonic::Code::FailedPrecondition,
        Reason::Unauthenticated => tonic::Code::Unauthenticated,
        Reason::PermissionDenied => tonic::Code::PermissionDenied,
    };
    let mut status = tonic::Status::new(code, why.to_string());
    status.metadata_mut().insert(NOT_EXECUTED, why.reason.to_wire().into());
    if let Some(pause) = why.retry_after() {
        // A negative number, or one that does not fit, would ask them not to come back.
        let millis = i32::try_from(pause.as_millis()).unwrap_or(i32::MAX);
        status.metadata_mut().insert(PUSHBACK, millis.into());
    }
    status
}

/// Why the call did not run, if the server says that it did not.
pub(crate) fn not_executed_from(status: &tonic::Status) -> Option<NotExecuted> {
    let number = status.metadata().get(NOT_EXECUTED)?.to_str().ok()?.parse().ok()?;
    let reason = NotExecutedReason::from_wire(number).unwrap_or(NotExecutedReason::Fenced);
    let why = NotExecuted::because(reason, status.message().to_owned());
    Some(match pushback_of(status) {
        Some(pause) => why.with_retry_after(pause),
        None => why,
    })
}

/// When to come back, if the server says so.
fn pushback_of(status: &tonic::Status) -> Option<Duration> {
    let millis: i32 = status.metadata().get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
    u64::try_from(millis).ok().map(Duration::from_millis)
}

/// A call that is still executing, for who asked.
pub(crate) fn executing(code: tonic::Code, why: &str) -> tonic::Status {
    let mut status = tonic::Status::new(code, why);
    status.metadata_mut().insert(EXECUTING, 1.into());
    status
}

/// Reads `grpc-timeout`: up to eight digits and a unit. What is malformed counts as none.
pub(crate) fn timeout_from(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        timeout_from(&headers)
    }

    #[test]
    fn a_timeout_that_is_malformed_is_none() {
        for text in ["", "S", "5", "123456789m", "-1S", "1.5S", "1s", "é", "1é"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(timeout_from(&headers), None, "{text}");
        }
    }

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        for (text, nanos) in [("5n", 5), ("5u", 5_000), ("5m", 5_000_000), ("5S", 5_000_000_000)] {
            assert_eq!(read(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
    }

    #[test]
    fn reserved_keys_and_values_that_are_no_text_are_told_and_the_others_carried() {
        let mut metadata = Metadata::new();
        metadata.insert("grpc-status", "0").unwrap();
        metadata.insert("a-bin", [0, 255]).unwrap();
        metadata.insert("text", "yes").unwrap();
        metadata.insert("text", [200]).unwrap();
        let mut map = MetadataMap::new();
        assert_eq!(headers_of(&metadata, &mut map), Err("grpc-status".to_owned()));
        let back = metadata_of(&map).unwrap();
        assert_eq!((back.get("a-bin"), back.get_str("text")), (Some(&[0, 255][..]), Some("yes")));
        assert_eq!(back.len(), 2);
    }

    #[test]
    fn a_status_comes_back_as_it_went() {
        let mut metadata = Metadata::new();
        metadata.insert("why", "because").unwrap();
        let status =
            Status::aborted("\t\ntest ☺ 😈").with_details(vec![1, 2]).with_metadata(metadata);
        assert_eq!(status_from(&status_to(&status)), status);
    }

    #[test]
    fn a_call_that_did_not_run_is_known_as_such_by_its_status() {
        let why = NotExecuted::because(NotExecutedReason::Draining, "leaving");
        let status = not_executed_to(&why);
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(not_executed_from(&status), Some(why));
        assert_eq!(not_executed_from(&tonic::Status::unavailable("so it seems")), None);
    }

    #[test]
    fn who_is_to_come_back_later_is_told_so_as_grpc_has_it() {
        let why = NotExecuted::because(NotExecutedReason::Overloaded, "later");
        for (pause, said) in [(12, "12"), (u64::MAX, "2147483647")] {
            let later = why.clone().with_retry_after(Duration::from_millis(pause));
            let status = not_executed_to(&later);
            assert_eq!(status.code(), tonic::Code::Unavailable);
            assert_eq!(status.metadata().get(PUSHBACK).unwrap(), said);
        }
        for (said, pause) in [("12", Some(12)), ("-1", None), ("soon", None), ("4294967296", None)]
        {
            let mut status = not_executed_to(&why);
            status.metadata_mut().insert(PUSHBACK, said.parse().unwrap());
            let read = not_executed_from(&status).unwrap();
            assert_eq!(read.retry_after(), pause.map(Duration::from_millis), "{said}");
        }
    }
}
