//! The messages of sessions and calls: `docs/protocol.md` section 4.

mod kinds;
mod reply;
mod request;
mod short;
mod to_client;
mod to_server;
mod words;

use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use stubborn_rope::Rope;

use crate::session::SessionId;
use crate::time::Duration;
use crate::wire::varint;

use self::kinds::{AS_OF, FENCE, REQUEST};
pub(crate) use self::reply::ReplyPayload;
pub(crate) use self::request::{PayloadRef, RequestPayload};
use self::short::position;
pub(crate) use self::short::{PlainReply, PlainRequest, ReplyHead};
pub(crate) use self::to_client::ToClient;
pub(crate) use self::to_server::ToServer;
pub(crate) use self::words::{not_executed, write_not_executed};

/// How old the state may be that a read is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// It holds everything up to this entry of the group's log: what the caller has seen already.
    pub seen: u64,
    /// It holds everything that was committed so long ago.
    pub at_most: Duration,
}

/// The first bytes of an encoded message, and the body that follows them uncopied. A short body is
/// copied to the first bytes instead.
pub(crate) type Parts = (Vec<u8>, Rope);

/// Puts the place in the group's log in front of what a replica says to a client: what it says is
/// true once this entry is applied.
pub(crate) fn as_of(index: u64, (written, body): Parts) -> Parts {
    let mut out = Vec::with_capacity(written.len() + 9);
    out.push(AS_OF);
    varint::encode(index.min(varint::MAX), &mut out);
    out.extend_from_slice(&written);
    (out, body)
}

/// Takes off the place in the group's log that stands in front of a message, if one does.
#[inline]
pub(crate) fn take_as_of(message: &mut Bytes) -> Option<u64> {
    let (index, rest) = message.strip_prefix(&[AS_OF]).and_then(varint::decode)?;
    let at = message.len() - rest.len();
    message.advance(at);
    Some(index)
}

/// Which number of a slot a REQUEST or FENCE is about, and whether it is a FENCE.
pub(crate) fn about(message: &[u8]) -> Option<(u32, u64, bool)> {
    let request = position(message, REQUEST).map(|(slot, sequence, _)| (slot, sequence, false));
    request.or_else(|| position(message, FENCE).map(|(slot, sequence, _)| (slot, sequence, true)))
}

/// The 16 bytes by which REFUSED refers to a session.
pub(crate) fn session_reference(session: SessionId) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&session.incarnation.to_be_bytes());
    out[8..].copy_from_slice(&session.number.to_be_bytes());
    out
}

/// Joins the parts of a message, for a DATAGRAM frame and for tests.
pub(crate) fn join((mut whole, body): Parts) -> Bytes {
    whole.reserve_exact(body.len());
    body.pieces().iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.into()
}

#[cfg(test)]
mod tests;
