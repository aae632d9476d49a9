//! What every request carries.

use stubborn_rope::Rope;

use super::Parts;
use super::kinds::{REQUEST, STREAM};
use super::short::RequestHead;
use super::words::shape_byte;
use crate::rpc::codec::{COPIED, Malformed, MessageBuffer, Reader, Writer, duration_number};
use crate::service::{Metadata, MethodId, Shape};
use crate::session::CallId;
use crate::time::Duration;

/// What every request carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestPayload {
    pub(crate) method: MethodId,
    /// Time left when it was sent.
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    pub(crate) metadata: Metadata,
    pub(crate) body: Rope,
}

/// The same in the hands of its call: sent without a copy of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadRef<'a> {
    pub(crate) method: MethodId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    pub(crate) metadata: &'a Metadata,
    pub(crate) body: &'a Rope,
}

impl PayloadRef<'_> {
    /// The REQUEST message.
    pub(crate) fn encode_request(
        self,
        slot: u32,
        sequence: u64,
        buffer: &mut MessageBuffer,
    ) -> Parts {
        let mut w = buffer.writer();
        w.position(REQUEST, slot, sequence);
        self.encode_head(&mut w);
        buffer.finish_ref(self.body)
    }

    /// The same in two parts, if it is what nearly all are: short, and without metadata.
    #[inline(always)]
    pub(crate) fn short_request(&self, slot: u32, sequence: u64) -> Option<(RequestHead, &[u8])> {
        let [body] = self.body.pieces() else { return None };
        if body.len() > COPIED || !self.metadata.is_empty() {
            return None;
        }
        let deadline = duration_number(self.deadline);
        let head =
            RequestHead { slot, sequence, method: self.method, deadline, digest: self.digest };
        Some((head, body))
    }

    /// The STREAM message.
    pub(crate) fn encode_stream(
        self,
        id: CallId,
        shape: Shape,
        window: u64,
        buffer: &mut MessageBuffer,
    ) -> Parts {
        let mut w = buffer.writer();
        w.position(STREAM, id.slot, id.sequence);
        w.byte(shape_byte(shape)).varint(window);
        self.encode_head(&mut w);
        buffer.finish_ref(self.body)
    }

    pub(crate) fn to_owned(self) -> RequestPayload {
        RequestPayload {
            method: self.method,
            deadline: self.deadline,
            digest: self.digest,
            metadata: self.metadata.clone(),
            body: self.body.clone(),
        }
    }

    pub(super) fn encode_head(self, w: &mut Writer<'_>) {
        w.fixed64(self.method.0).duration(self.deadline).fixed64(self.digest);
        w.metadata(self.metadata);
    }
}

impl RequestPayload {
    pub(super) fn encode(self, w: &mut Writer<'_>) -> Rope {
        self.borrow().encode_head(w);
        self.body
    }

    pub(super) fn borrow(&self) -> PayloadRef<'_> {
        PayloadRef {
            method: self.method,
            deadline: self.deadline,
            digest: self.digest,
            metadata: &self.metadata,
            body: &self.body,
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            method: MethodId(r.fixed64()?),
            deadline: r.duration()?,
            digest: r.fixed64()?,
            metadata: r.metadata()?,
            body: r.rest().into(),
        })
    }
}
