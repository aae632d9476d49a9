//! What a journal says: the session, the last number of each slot, and the calls whose outcome the
//! application does not know yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stubborn_core::node::{JournalRequest, SessionTicket};
use stubborn_core::service::{CallState, IncomingReply};
use stubborn_core::session::{CallId, JournalSlot};

use super::record::Record;

/// Calls with an outcome that the application was not told of, at most; the oldest goes first.
const ANSWERED: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) session: Option<SessionTicket>,
    /// The last number of each slot of the session.
    last: BTreeMap<u32, u64>,
    pub(super) calls: BTreeMap<CallId, Known>,
    /// Calls that nobody wants to hear of: settled as soon as they have an outcome.
    unwanted: BTreeSet<CallId>,
    /// Calls with an outcome, the latest last.
    answered: VecDeque<CallId>,
}

/// A call that is not settled.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) request: Option<JournalRequest>,
    pub(super) outcome: Option<CallState<IncomingReply>>,
}

impl Book {
    pub(super) fn of(records: Vec<Record>) -> Self {
        let mut book = Self::default();
        records.into_iter().for_each(|record| book.apply(record));
        book
    }

    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Session(ticket) => {
                self.session = Some(ticket);
                self.last.clear();
            }
            Record::Call(id, request) => {
                if self.is_of_session(id) {
                    self.last.insert(id.slot, id.sequence);
                }
                // Nobody can be told of a number without a request.
                if request.is_none() {
                    self.unwanted.insert(id);
                }
                self.calls.insert(id, Known { request, outcome: None });
            }
            Record::Outcome(id, state) => {
                if self.unwanted.remove(&id) {
                    self.calls.remove(&id);
                } else if let Some(known) = self.calls.get_mut(&id) {
                    known.outcome = Some(state);
                    self.answered.push_back(id);
                    if self.answered.len() > ANSWERED
                        && let Some(oldest) = self.answered.pop_front()
                    {
                        self.calls.remove(&oldest);
                    }
                }
            }
            Record::Settled(id) => {
                // Without an outcome it is still to be fenced, but nobody asks.
                match self.calls.get(&id) {
                    Some(Known { outcome: None, .. }) => drop(self.unwanted.insert(id)),
                    Some(_) => {
                        self.calls.remove(&id);
                        self.answered.retain(|other| *other != id);
                    }
                    None => {}
                }
            }
        }
    }

    /// The same in as few records as possible.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records: Vec<_> = self.session.iter().cloned().map(Record::Session).collect();
        let session = self.session.as_ref().map(|ticket| ticket.session);
        for (slot, sequence) in &self.last {
            let Some(session) = session else { break };
            let id = CallId { session, slot: *slot, sequence: *sequence };
            if !self.calls.contains_key(&id) {
                records.push(Record::Call(id, None));
                records.push(Record::Outcome(id, CallState::AlreadySettled));
            }
        }
        for (id, known) in &self.calls {
            records.push(Record::Call(*id, known.request.clone()));
            if self.unwanted.contains(id) && known.request.is_some() {
                records.push(Record::Settled(*id));
            }
            if let Some(outcome) = &known.outcome {
                records.push(Record::Outcome(*id, outcome.clone()));
            }
        }
        records
    }

    /// What the session is resumed with.
    pub(super) fn slots(&self) -> Vec<JournalSlot> {
        let Some(session) = self.session.as_ref().map(|ticket| ticket.session) else {
            return Vec::new();
        };
        let slot = |(slot, sequence): (&u32, &u64)| {
            let id = CallId { session, slot: *slot, sequence: *sequence };
            let answered = self.calls.get(&id).is_none_or(|known| known.outcome.is_some());
            JournalSlot { slot: *slot, sequence: *sequence, answered }
        };
        self.last.iter().map(slot).collect()
    }

    pub(super) fn is_of_session(&self, id: CallId) -> bool {
        self.session.as_ref().is_some_and(|ticket| ticket.session == id.session)
    }

    /// Calls whose outcome the application does not know.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = CallId> {
        self.calls.keys().filter(|id| !self.unwanted.contains(id)).copied()
    }

    /// Numbers to be fenced, since nobody asks for them.
    pub(super) fn to_fence(&self) -> impl Iterator<Item = CallId> {
        let open = |id: &&CallId| self.calls.get(id).is_some_and(|known| known.outcome.is_none());
        self.unwanted.iter().filter(open).copied()
    }
}
