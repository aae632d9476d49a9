//! Parts of several messages.

use alloc::borrow::Cow;

use crate::rpc::codec::{Malformed, Reader, Writer};
use crate::service::{NotExecuted, Shape};
use crate::session::NotExecutedReason;

pub(crate) fn write_not_executed(w: &mut Writer<'_>, why: &NotExecuted) {
    w.varint(why.reason.to_wire()).text(&why.detail);
    if let Some(pause) = why.retry_after() {
        w.duration(Some(pause));
    }
}

/// What ends a message.
pub(crate) fn not_executed(r: &mut Reader) -> Result<NotExecuted, Malformed> {
    let why = NotExecuted::because(reason(r.varint()?), Cow::Owned(r.text()?));
    let pause = if r.is_empty() { None } else { r.duration()? };
    Ok(match pause {
        Some(pause) => why.with_retry_after(pause),
        None => why,
    })
}

pub(super) fn reason(number: u64) -> NotExecutedReason {
    // A newer server may know more reasons; the call is not executed either way.
    NotExecutedReason::from_wire(number).unwrap_or(NotExecutedReason::Fenced)
}

/// Bit 0: the client streams; bit 1: the server does.
pub(super) fn shape_byte(shape: Shape) -> u8 {
    u8::from(shape.client_streams()) | u8::from(shape.server_streams()) << 1
}

pub(super) fn shape(byte: u8) -> Option<Shape> {
    [Shape::ClientStreaming, Shape::ServerStreaming, Shape::BidiStreaming]
        .into_iter()
        .find(|shape| shape_byte(*shape) == byte)
}

pub(super) fn flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}
