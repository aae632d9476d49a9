//! What a journal says: its sessions, and the calls whose outcome the application does not know yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stubborn_core::node::{JournalRequest, JournalStart, SessionTicket};
use stubborn_core::service::{CallState, IncomingReply};
use stubborn_core::session::{CallId, JournalSlot, SessionId, Succession};

use super::record::Record;

/// Calls with an outcome that the application was not told of, at most; the oldest goes first.
const ANSWERED: usize = 4_096;

/// Sessions without an open call that are kept, at most; the oldest goes first.
const SESSIONS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Book {
    /// The process that has the journal.
    pub(super) holder: u64,
    /// The sessions, in the order in which they were opened.
    pages: Vec<Page>,
    pub(super) calls: BTreeMap<CallId, Known>,
    /// Calls that nobody wants to hear of: settled as soon as they have an outcome.
    unwanted: BTreeSet<CallId>,
    /// Calls with an outcome, the latest last.
    answered: VecDeque<CallId>,
    /// Where the members of the group were when that was last told.
    pub(super) members: Vec<String>,
}

/// A session.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) ticket: SessionTicket,
    /// Processes that may have it.
    after: Vec<u64>,
    /// The last number of each slot.
    last: BTreeMap<u32, u64>,
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
            Record::Session(ticket, after) => {
                self.pages.push(Page { ticket, after, last: BTreeMap::new() });
                if self.pages.len() > SESSIONS {
                    self.drop_pages(1);
                }
            }
            Record::Held(session, holder) => {
                if let Some(page) = self.page_mut(session) {
                    page.after = vec![holder];
                }
            }
            Record::Members(addresses) => self.members = addresses,
            Record::Call(id, request) => {
                if let Some(page) = self.page_mut(id.session) {
                    // A file that was written anew may name an earlier number after the last.
                    let last = page.last.entry(id.slot).or_default();
                    *last = id.sequence.max(*last);
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

    /// Another process begins with it: sessions in which nothing is open are left, but for the last.
    pub(super) fn begin(&mut self, holder: u64) {
        self.holder = holder;
        self.drop_pages(usize::MAX);
        for page in &mut self.pages {
            // Without any: whoever has the session.
            if page.after.len() >= Succession::MAX_HOLDERS {
                page.after.clear();
            } else if !page.after.is_empty() {
                page.after.push(holder);
            }
        }
    }

    /// The same in as few records as possible.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if !self.members.is_empty() {
            records.push(Record::Members(self.members.clone()));
        }
        for Page { ticket, after, last } in &self.pages {
            records.push(Record::Session(ticket.clone(), after.clone()));
            for (slot, sequence) in last {
                let id = CallId { session: ticket.session, slot: *slot, sequence: *sequence };
                if !self.calls.contains_key(&id) {
                    records.push(Record::Call(id, None));
                    records.push(Record::Outcome(id, CallState::AlreadySettled));
                }
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

    /// The session that was opened last.
    pub(super) fn last_session(&self) -> Option<SessionTicket> {
        self.pages.last().map(|page| page.ticket.clone())
    }

    /// The sessions, the last one last.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionTicket> {
        self.pages.iter().map(|page| &page.ticket)
    }

    /// What this process resumes a session with; of no session, what it begins one with.
    pub(super) fn start(&self, session: Option<SessionId>) -> JournalStart {
        let holder = self.holder;
        let page = session.and_then(|session| self.page(session));
        let Some(Page { ticket, after, last }) = page else { return JournalStart::new(holder) };
        let slot = |(slot, sequence): (&u32, &u64)| {
            let id = CallId { session: ticket.session, slot: *slot, sequence: *sequence };
            JournalSlot { slot: *slot, sequence: *sequence, answered: !self.is_open(id) }
        };
        JournalStart { holder, after: after.clone(), slots: last.iter().map(slot).collect() }
    }

    /// Calls whose outcome the application does not know.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = CallId> {
        self.calls.keys().filter(|id| !self.unwanted.contains(id)).copied()
    }

    /// Numbers to be fenced, since nobody asks for them.
    pub(super) fn to_fence(&self) -> impl Iterator<Item = CallId> {
        let fenced = |id: &&CallId| self.is_open(**id) && self.page(id.session).is_some();
        self.unwanted.iter().filter(fenced).copied()
    }

    fn is_open(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|known| known.outcome.is_none())
    }

    fn page(&self, session: SessionId) -> Option<&Page> {
        self.pages.iter().rev().find(|page| page.ticket.session == session)
    }

    fn page_mut(&mut self, session: SessionId) -> Option<&mut Page> {
        self.pages.iter_mut().rev().find(|page| page.ticket.session == session)
    }

    /// Leaves out up to so many of the oldest sessions without an open call, never the last session.
    fn drop_pages(&mut self, most: usize) {
        let open: BTreeSet<SessionId> =
            self.calls.keys().filter(|id| self.is_open(**id)).map(|id| id.session).collect();
        let last = self.last_session().map(|ticket| ticket.session);
        let mut left = most;
        self.pages.retain(|page| {
            let session = page.ticket.session;
            let keep = left == 0 || Some(session) == last || open.contains(&session);
            left -= usize::from(!keep);
            keep
        });
    }
}
