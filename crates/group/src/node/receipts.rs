//! What peers are answered for what they have told: that it arrived. Where this node has something to
//! tell them in turn soon, the answer waits for it and carries it, so that a round of consensus is one
//! datagram each way.

use std::collections::VecDeque;

use bytes::Bytes;
use stubborn_core::node::{Node, RequestKey};
use stubborn_core::service::{Answer, Encoded, Metadata};
use stubborn_core::time::Instant;

use super::peers::TELL;
use crate::replication::NodeId;

/// Receipts that wait at once, at most; a further one has all of them sent.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Receipts {
    owed: VecDeque<(NodeId, RequestKey)>,
    holds: bool,
}

impl Receipts {
    /// From now on they wait, and so do acknowledgements.
    pub(super) fn hold(&mut self, node: &mut Node) {
        self.holds = true;
        node.hold_acks();
    }

    /// All are sent, and none waits any longer.
    pub(super) fn release(&mut self, now: Instant, node: &mut Node) {
        self.holds = false;
        self.send_all(now, node);
        node.release_acks();
    }

    /// What `from` has told has arrived.
    pub(super) fn owe(&mut self, now: Instant, node: &mut Node, from: NodeId, key: RequestKey) {
        self.owed.push_back((from, key));
        if !self.holds || self.owed.len() > MOST {
            self.send_all(now, node);
        }
    }

    /// The receipt that `to` has waited for longest: what is told to it may go along.
    pub(super) fn take(&mut self, to: NodeId) -> Option<RequestKey> {
        let at = self.owed.iter().position(|(from, _)| *from == to)?;
        self.owed.remove(at).map(|(_, key)| key)
    }

    fn send_all(&mut self, now: Instant, node: &mut Node) {
        self.owed.drain(..).for_each(|(_, key)| answer(now, node, key, Bytes::new()));
    }
}

/// Answers what a peer has told.
pub(super) fn answer(now: Instant, node: &mut Node, key: RequestKey, body: Bytes) {
    node.answer(now, key, Answer::Reply(Encoded::from_body(TELL.id(), body), Metadata::new()));
}
