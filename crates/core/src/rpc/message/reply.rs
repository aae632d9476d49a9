//! What every reply carries.

use alloc::boxed::Box;

use stubborn_rope::Rope;

use crate::rpc::codec::{Malformed, Reader, Writer};
use crate::rpc::kept::Kept;
use crate::service::{Code, Metadata, Status, StreamEnd};

/// Added to the number of a status in the reply of a stream, which has its end behind it.
const OF_STREAM: u64 = 32;

/// What every reply carries: a status, or (no status) the reply's body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplyPayload {
    pub(crate) digest: u64,
    pub(crate) status: Option<Status>,
    pub(crate) metadata: Metadata,
    pub(crate) body: Rope,
    /// Of a stream: how it ended.
    pub(crate) stream: Option<Box<StreamEnd>>,
}

impl ReplyPayload {
    pub(super) fn encode(self, w: &mut Writer<'_>) -> Rope {
        self.encode_head(w);
        self.body
    }

    /// Everything but the body.
    pub(crate) fn encode_head(&self, w: &mut Writer<'_>) {
        w.fixed64(self.digest);
        let code = self.status.as_ref().map_or(0, status_number);
        match &self.stream {
            None => w.varint(code),
            Some(end) => w.varint(code + OF_STREAM).varint(end.taken).varint(end.sent),
        };
        if let Some(status) = &self.status {
            w.text(status.message()).sized(status.details());
        }
        w.metadata(&self.metadata);
    }

    /// The reply of what a slot kept.
    pub(crate) fn from_kept(kept: &Kept) -> Result<Self, Malformed> {
        let (head, body) = kept.parts();
        let mut reply = Self::decode(&mut Reader::new(head))?;
        if reply.body.is_empty() {
            reply.body = body;
        }
        Ok(reply)
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let digest = r.fixed64()?;
        let mut code = r.varint()?;
        let mut stream = None;
        if code >= OF_STREAM {
            code -= OF_STREAM;
            stream = Some(Box::new(StreamEnd { taken: r.varint()?, sent: r.varint()? }));
        }
        let said = if code == 0 { None } else { Some((r.text()?, r.sized()?)) };
        let metadata = r.metadata()?;
        let status = said.map(|(message, details)| {
            Status::new(Code::from_number(code), message)
                .with_details(details)
                .with_metadata(metadata.clone())
        });
        Ok(Self { digest, status, metadata, body: r.rest().into(), stream })
    }
}

/// A handler's status says that it failed, even if it was made with the code `Ok`.
fn status_number(status: &Status) -> u64 {
    match status.code() {
        Code::Ok => Code::Unknown as u64,
        code => code as u64,
    }
}
