//! What peers are answered for what they have told: that it arrived. Where this node has something to
//! tell them in turn soon, the answer waits for it and carries it, so that a round of consensus is one
//! datagram each way.

use std::collections::VecDeque;

use bytes::Bytes;
use stubborn_core::node::{Node, RequestKey};
use stubborn_core::service::{Answer, Encoded, Metadata};
use stubborn_core::time::{Duration, Instant};

use super::peers::TELL;
use crate::replication::NodeId;

/// Receipts that wait at once, at most; a further one has all of them sent.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// Who waits for one, and since when.
    owed: VecDeque<(Instant, NodeId, RequestKey)>,
    /// How long they wait.
    longest: Duration,
}

impl Receipts {
    /// How long they wait, and acknowledgements as well.
    pub(super) fn hold(&mut self, node: &mut Node, longest: Duration) {
        self.longest = longest;
        node.hold_acks(longest);
    }

    /// Whether anything waits.
    pub(super) fn is_holding(&self, node: &Node) -> bool {
        !self.owed.is_empty() || node.endpoint().is_holding_acks()
    }

    /// Until when they wait at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.owed.front().map(|(since, ..)| *since + self.longest)
    }

    /// Sends those that have waited long enough.
    pub(super) fn send_due(&mut self, now: Instant, node: &mut Node) {
        let longest = self.longest;
        let mut due = || self.owed.pop_front_if(|(since, ..)| *since + longest <= now);
        while let Some((_, _, key)) = due() {
            answer(now, node, key, Bytes::new());
        }
    }

    /// What `from` has told has arrived.
    pub(super) fn owe(&mut self, now: Instant, node: &mut Node, from: NodeId, key: RequestKey) {
        self.owed.push_back((now, from, key));
        if self.owed.len() > MOST {
            self.owed.drain(..).for_each(|(_, _, key)| answer(now, node, key, Bytes::new()));
        }
        self.send_due(now, node);
    }

    /// The receipt that `to` has waited for longest: what is told to it may go along.
    pub(super) fn take(&mut self, to: NodeId) -> Option<RequestKey> {
        let at = self.owed.iter().position(|(_, from, _)| *from == to)?;
        self.owed.remove(at).map(|(_, _, key)| key)
    }
}

/// Answers what a peer has told.
pub(super) fn answer(now: Instant, node: &mut Node, key: RequestKey, body: Bytes) {
    node.answer(now, key, Answer::Reply(Encoded::from_body(TELL.id(), body), Metadata::new()));
}
