//! What a failure says beyond a code and a text, in gRPC's richer error model: an encoded
//! `google.rpc.Status` with details of known types (`google/rpc/error_details.proto`). It goes over
//! datagrams as over gRPC, where it is `grpc-status-details-bin`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::status::{Code, Status};

/// The most bytes that details count, encoded. Over gRPC they travel in a header, which many
/// implementations bound by 8 KiB together with all others.
pub const MAX_DETAILS: usize = 6 << 10;

/// The most details that are read of one status.
const MOST: usize = 64;

/// In front of the names of types.
const PREFIX: &str = "type.googleapis.com/";

/// One detail of a failure.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// Which fields of the request are wrong.
    BadRequest(BadRequest),
    /// When to try again.
    RetryInfo(Duration),
    /// The cause, for programs.
    ErrorInfo(ErrorInfo),
    /// What has to be so before the request can be executed, and is not.
    PreconditionFailure(PreconditionFailure),
    /// Which quotas are used up.
    QuotaFailure(QuotaFailure),
    /// How to name the request to those who run the service.
    RequestInfo(RequestInfo),
    /// What was asked for.
    ResourceInfo(ResourceInfo),
    /// Where to read on.
    Help(Help),
    /// A text for the service's users, in their language.
    LocalizedMessage(LocalizedMessage),
    /// For those who look for the fault.
    DebugInfo(DebugInfo),
    /// A message of another type.
    Other {
        /// Its type: `type.googleapis.com/` and its full name.
        type_url: String,
        /// As encoded.
        value: Bytes,
    },
}

/// Messages as `google/rpc/error_details.proto` has them.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* [$($kind:tt)*] $field:ident: $of:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name { $($(#[$field_doc])* #[prost($($kind)*)] pub $field: $of,)* }
    )* };
}

messages! {
    /// Which fields of a request are wrong.
    BadRequest {
        /// Each field that is.
        [message, repeated, tag = "1"] field_violations: Vec<FieldViolation>,
    }
    /// A field that is wrong.
    FieldViolation {
        /// Its path from the request, for example `lines[2].price`.
        [string, tag = "1"] field: String,
        /// Why.
        [string, tag = "2"] description: String,
        /// The same for programs, for example `TOO_LONG`.
        [string, tag = "3"] reason: String,
    }
    /// The cause of a failure, for programs.
    ErrorInfo {
        /// For example `ACCOUNT_CLOSED`.
        [string, tag = "1"] reason: String,
        /// Who has said so, for example `bank.example`.
        [string, tag = "2"] domain: String,
        /// More about it.
        [btree_map = "string, string", tag = "3"] metadata: BTreeMap<String, String>,
    }
    /// What has to be so first.
    PreconditionFailure {
        /// Each condition that does not hold.
        [message, repeated, tag = "1"] violations: Vec<PreconditionViolation>,
    }
    /// A condition that does not hold.
    PreconditionViolation {
        /// Which kind, for example `TOS`.
        [string, tag = "1"] r#type: String,
        /// Of what.
        [string, tag = "2"] subject: String,
        /// Why.
        [string, tag = "3"] description: String,
    }
    /// Which quotas are used up.
    QuotaFailure {
        /// Each of them.
        [message, repeated, tag = "1"] violations: Vec<QuotaViolation>,
    }
    /// A quota that is used up.
    QuotaViolation {
        /// Whose.
        [string, tag = "1"] subject: String,
        /// Which one, and for how long.
        [string, tag = "2"] description: String,
    }
    /// How to name a request to those who run the service.
    RequestInfo {
        /// Its name in their logs.
        [string, tag = "1"] request_id: String,
        /// Anything that helps them.
        [string, tag = "2"] serving_data: String,
    }
    /// What was asked for.
    ResourceInfo {
        /// Its type.
        [string, tag = "1"] resource_type: String,
        /// Its name.
        [string, tag = "2"] resource_name: String,
        /// Whose it is.
        [string, tag = "3"] owner: String,
        /// What is the matter with it.
        [string, tag = "4"] description: String,
    }
    /// Where to read on.
    Help {
        /// Each place.
        [message, repeated, tag = "1"] links: Vec<Link>,
    }
    /// A place to read.
    Link {
        /// What is there.
        [string, tag = "1"] description: String,
        /// Where it is.
        [string, tag = "2"] url: String,
    }
    /// A text for the service's users.
    LocalizedMessage {
        /// Its language, for example `de-CH`.
        [string, tag = "1"] locale: String,
        /// The text.
        [string, tag = "2"] message: String,
    }
    /// For those who look for the fault.
    DebugInfo {
        /// From the innermost outwards.
        [string, repeated, tag = "1"] stack_entries: Vec<String>,
        /// Anything else.
        [string, tag = "2"] detail: String,
    }
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct Rich {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Span>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// A request with fields that are wrong, which [`field`](Self::field) and [`require`](Self::require)
    /// name.
    ///
    /// ```
    /// # use stubborn_core::service::Status;
    /// # struct Request { account: String, cents: i64 }
    /// fn check(request: &Request) -> Result<(), Status> {
    ///     Status::invalid()
    ///         .require(!request.account.is_empty(), "account", "must not be empty")
    ///         .require(request.cents > 0, "cents", "must be above zero")
    ///         .check()
    /// }
    /// let error = check(&Request { account: String::new(), cents: 5 }).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid argument: the request is not valid (account: must not be empty)");
    /// assert_eq!(error.violations()[0].field, "account");
    /// ```
    pub fn invalid() -> Self {
        Self::new(Code::InvalidArgument, "the request is not valid")
    }

    /// The same with a field that is wrong: its path from the request, and why.
    #[must_use]
    pub fn field(self, field: impl Into<String>, why: impl Into<String>) -> Self {
        let violation =
            FieldViolation { field: field.into(), description: why.into(), reason: String::new() };
        let mut rich = self.rich().unwrap_or_default();
        let known = rich.details.iter_mut().find(|any| any.type_url == url("BadRequest"));
        let mut bad = known.as_ref().map_or_else(BadRequest::default, |any| {
            BadRequest::decode(any.value.clone()).unwrap_or_default()
        });
        bad.field_violations.push(violation);
        let any = Any::of("BadRequest", &bad);
        match known {
            Some(known) => *known = any,
            None => rich.details.push(any),
        }
        self.with_rich(rich)
    }

    /// The same if a condition holds, else with a field that is wrong.
    #[must_use]
    pub fn require(self, holds: bool, field: impl Into<String>, why: impl Into<String>) -> Self {
        if holds { self } else { self.field(field, why) }
    }

    /// Nothing, if no field was found wrong.
    ///
    /// # Errors
    /// This status, if one was.
    pub fn check(self) -> Result<(), Self> {
        if self.violations().is_empty() { Ok(()) } else { Err(self) }
    }

    /// The same with one more detail; without it if all of them would count more than [`MAX_DETAILS`].
    /// Details that are of no `google.rpc.Status` are replaced.
    #[must_use]
    pub fn with_detail(self, detail: Detail) -> Self {
        let mut rich = self.rich().unwrap_or_default();
        rich.details.push(detail.encode());
        self.with_rich(rich)
    }

    /// The details, of a status whose details are those of a `google.rpc.Status`; else none.
    pub fn typed_details(&self) -> Vec<Detail> {
        let details = self.rich().map(|rich| rich.details).unwrap_or_default();
        details.into_iter().take(MOST).map(Detail::decode).collect()
    }

    /// The fields that are said to be wrong.
    pub fn violations(&self) -> Vec<FieldViolation> {
        let bad = |detail| match detail {
            Detail::BadRequest(bad) => bad.field_violations,
            _ => Vec::new(),
        };
        self.typed_details().into_iter().flat_map(bad).collect()
    }

    /// When to try again, if that is said.
    pub fn retry_after(&self) -> Option<Duration> {
        self.typed_details().into_iter().find_map(|detail| match detail {
            Detail::RetryInfo(after) => Some(after),
            _ => None,
        })
    }

    fn rich(&self) -> Option<Rich> {
        if self.details().is_empty() {
            return None;
        }
        Rich::decode(self.details().clone()).ok()
    }

    fn with_rich(self, mut rich: Rich) -> Self {
        rich.code = self.code() as i32;
        rich.message = self.message().into();
        if rich.encoded_len() > MAX_DETAILS {
            return self;
        }
        self.with_details(rich.encode_to_vec())
    }

    /// The fields that are wrong, for people.
    pub(super) fn tell_violations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations().iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { "; " })?;
            write!(f, "{}: {}", violation.field, violation.description)?;
        }
        if self.violations().is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

impl Detail {
    fn encode(&self) -> Any {
        match self {
            Self::BadRequest(detail) => Any::of("BadRequest", detail),
            Self::RetryInfo(after) => {
                let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
                let nanos = i32::try_from(after.subsec_nanos()).unwrap_or(i32::MAX);
                let retry_delay = Some(Span { seconds, nanos });
                Any::of("RetryInfo", &RetryInfo { retry_delay })
            }
            Self::ErrorInfo(detail) => Any::of("ErrorInfo", detail),
            Self::PreconditionFailure(detail) => Any::of("PreconditionFailure", detail),
            Self::QuotaFailure(detail) => Any::of("QuotaFailure", detail),
            Self::RequestInfo(detail) => Any::of("RequestInfo", detail),
            Self::ResourceInfo(detail) => Any::of("ResourceInfo", detail),
            Self::Help(detail) => Any::of("Help", detail),
            Self::LocalizedMessage(detail) => Any::of("LocalizedMessage", detail),
            Self::DebugInfo(detail) => Any::of("DebugInfo", detail),
            Self::Other { type_url, value } => {
                Any { type_url: type_url.clone(), value: value.clone() }
            }
        }
    }

    /// What cannot be read stays as it is.
    fn decode(any: Any) -> Self {
        fn read<M: Message + Default>(any: &Any, detail: fn(M) -> Detail) -> Option<Detail> {
            M::decode(any.value.clone()).ok().map(detail)
        }
        let name = any.type_url.strip_prefix(PREFIX).and_then(|n| n.strip_prefix("google.rpc."));
        let known = match name.unwrap_or_default() {
            "BadRequest" => read(&any, Self::BadRequest),
            "RetryInfo" => read(&any, |info: RetryInfo| Self::RetryInfo(info.delay())),
            "ErrorInfo" => read(&any, Self::ErrorInfo),
            "PreconditionFailure" => read(&any, Self::PreconditionFailure),
            "QuotaFailure" => read(&any, Self::QuotaFailure),
            "RequestInfo" => read(&any, Self::RequestInfo),
            "ResourceInfo" => read(&any, Self::ResourceInfo),
            "Help" => read(&any, Self::Help),
            "LocalizedMessage" => read(&any, Self::LocalizedMessage),
            "DebugInfo" => read(&any, Self::DebugInfo),
            _ => None,
        };
        known.unwrap_or(Self::Other { type_url: any.type_url, value: any.value })
    }
}

impl RetryInfo {
    /// A time that has passed is no time at all.
    fn delay(&self) -> Duration {
        let span = self.retry_delay.clone().unwrap_or_default();
        let seconds = u64::try_from(span.seconds).unwrap_or(0);
        let nanos = u32::try_from(span.nanos).unwrap_or(0).min(999_999_999);
        Duration::new(seconds, nanos)
    }
}

impl Any {
    fn of(name: &str, message: &impl Message) -> Self {
        Self { type_url: url(name), value: message.encode_to_vec().into() }
    }
}

fn url(name: &str) -> String {
    [PREFIX, "google.rpc.", name].concat()
}

impl fmt::Display for Detail {
    /// On one line, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(bad) => {
                tell(f, &bad.field_violations, |f, v| write!(f, "{}: {}", v.field, v.description))
            }
            Self::RetryInfo(after) => write!(f, "try again after {after:?}"),
            Self::ErrorInfo(info) => {
                write!(f, "reason {} of {}", info.reason, info.domain)?;
                info.metadata.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))
            }
            Self::PreconditionFailure(failure) => tell(f, &failure.violations, |f, v| {
                write!(f, "{} {}: {}", v.r#type, v.subject, v.description)
            }),
            Self::QuotaFailure(failure) => {
                tell(f, &failure.violations, |f, v| write!(f, "{}: {}", v.subject, v.description))
            }
            Self::RequestInfo(info) => {
                write!(f, "request {} {}", info.request_id, info.serving_data)
            }
            Self::ResourceInfo(info) => {
                let ResourceInfo { resource_type, resource_name, owner, description } = info;
                write!(f, "{resource_type} {resource_name}: {description}")?;
                if owner.is_empty() { Ok(()) } else { write!(f, " (owner {owner})") }
            }
            Self::Help(help) => {
                tell(f, &help.links, |f, link| write!(f, "{}: {}", link.description, link.url))
            }
            Self::LocalizedMessage(text) => write!(f, "{} ({})", text.message, text.locale),
            Self::DebugInfo(info) => {
                f.write_str(&info.detail)?;
                info.stack_entries.iter().try_for_each(|entry| write!(f, "; {entry}"))
            }
            Self::Other { type_url, value } => write!(f, "{type_url}, {} bytes", value.len()),
        }
    }
}

/// Writes a list, with `; ` between.
fn tell<T>(
    f: &mut fmt::Formatter<'_>,
    list: &[T],
    one: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, entry) in list.iter().enumerate() {
        if index > 0 {
            f.write_str("; ")?;
        }
        one(f, entry)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn sample() -> Vec<Detail> {
        let text = |text: &str| String::from(text);
        alloc::vec![
            Detail::RetryInfo(Duration::from_millis(1_500)),
            Detail::ErrorInfo(ErrorInfo {
                reason: text("CLOSED"),
                domain: text("bank.example"),
                metadata: BTreeMap::from([(text("account"), text("alice"))]),
            }),
            Detail::Help(Help {
                links: alloc::vec![Link {
                    description: text("how"),
                    url: text("https://a.example")
                }],
            }),
            Detail::Other {
                type_url: text("type.googleapis.com/a.B"),
                value: Bytes::from_static(b"x")
            },
        ]
    }

    #[test]
    fn details_are_read_as_they_were_given() {
        let status = sample().into_iter().fold(Status::aborted("no"), Status::with_detail);
        assert_eq!(status.typed_details(), sample());
        assert_eq!(status.retry_after(), Some(Duration::from_millis(1_500)));
        let rich = status.rich().unwrap();
        assert_eq!((rich.code, rich.message.as_str()), (10, "no"), "as gRPC's clients want it");
        assert_eq!(status.to_string(), "aborted: no");
    }

    #[test]
    fn fields_that_are_wrong_are_named_in_one_detail() {
        let status = Status::invalid().field("account", "is closed").field("cents", "is negative");
        assert_eq!(status.typed_details().len(), 1);
        let fields: Vec<_> = status.violations().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["account", "cents"]);
        let told =
            "invalid argument: the request is not valid (account: is closed; cents: is negative)";
        assert_eq!(status.to_string(), told);
        assert_eq!(Status::invalid().require(true, "a", "b").check(), Ok(()));
        assert!(Status::invalid().require(false, "a", "b").check().is_err());
    }

    #[test]
    fn what_is_too_large_is_left_out_and_what_is_unreadable_is_none() {
        let long = "x".repeat(MAX_DETAILS);
        let status = Status::invalid().field("a", "b").field("c", long);
        assert_eq!(status.violations().len(), 1);
        let opaque = Status::aborted("").with_details(&b"\xff\xff"[..]);
        assert!(opaque.typed_details().is_empty());
        assert_eq!(opaque.field("a", "b").violations().len(), 1);
        let any = Any { type_url: url("BadRequest"), value: Bytes::from_static(b"\xff") };
        let broken =
            Status::aborted("").with_rich(Rich { details: alloc::vec![any], ..Rich::default() });
        assert!(matches!(broken.typed_details()[..], [Detail::Other { .. }]));
    }
}
