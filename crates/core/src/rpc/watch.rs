//! A stream of reads at a group of replicas, as it travels: the client asks again and again, each time
//! with the position that it has, so that any replica can go on with it. `docs/protocol.md`, "Groups".

use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::codec::{Malformed, Reader, Writer};
use super::message::Staleness;
use super::stream::cost;
use crate::service::Encoded;
use crate::time::Duration;

/// How a client asks for what follows in a stream of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// How old the state may be; none if it has to be that of now.
    pub stale: Option<Staleness>,
    /// It has everything up to here.
    pub position: u64,
    /// What the messages of the answer may count: a message its bytes and 256. One that counts more
    /// comes alone.
    pub room: u64,
    /// How long the question may be kept while there is nothing to answer.
    pub hold: Duration,
}

/// Messages that follow a position of a stream of reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    messages: Vec<Encoded>,
    cost: u64,
}

impl Batch {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message.
    pub fn push(&mut self, message: Encoded) {
        self.cost = self.cost.saturating_add(cost(&message));
        self.messages.push(message);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message of this size would be more than fits into `room`; the first one always fits.
    pub fn has_room(&self, room: u64, message: &Encoded) -> bool {
        self.is_empty() || self.cost.saturating_add(cost(message)) <= room
    }

    pub(super) fn into_messages(self) -> Vec<Encoded> {
        self.messages
    }

    /// The messages, each behind its digest and its length.
    pub(super) fn encode(&self) -> Rope {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        for Encoded { body, digest } in &self.messages {
            w.fixed64(*digest).varint(body.len() as u64);
            body.pieces().iter().for_each(|piece| {
                w.raw(piece);
            });
        }
        Bytes::from(out).into()
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut batch = Self::new();
        let mut r = Reader::new(bytes);
        while r.end().is_err() {
            let digest = r.fixed64()?;
            batch.push(Encoded { body: r.sized()?.into(), digest });
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::service::MethodId;

    fn message(length: usize) -> Encoded {
        Encoded::from_body(MethodId(7), vec![length as u8; length].into())
    }

    #[test]
    fn a_batch_comes_back_as_it_was_and_one_that_is_torn_is_refused() {
        let mut batch = Batch::new();
        [0, 1, 300, 70_000].into_iter().for_each(|length| batch.push(message(length)));
        let whole = Bytes::from(batch.encode().to_vec());
        assert_eq!(Batch::decode(whole.clone()), Ok(batch.clone()));
        for end in [1, 8, 9, 17, 200, whole.len() - 1] {
            let torn = Batch::decode(whole.slice(..end));
            assert!(torn.is_err() || torn.is_ok_and(|torn| torn != batch), "{end}");
        }
    }

    #[test]
    fn a_message_larger_than_the_room_fits_alone() {
        let mut batch = Batch::new();
        assert!(batch.has_room(100, &message(5_000)));
        batch.push(message(5_000));
        assert!(!batch.has_room(100, &message(0)));
        assert!(batch.has_room(5_512, &message(0)));
    }
}
