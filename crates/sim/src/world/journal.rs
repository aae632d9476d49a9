//! The journal of a simulated client: what it wrote outlives its host, as far as it was synced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::node::{ChannelKey, JournalEntry, JournalRequest, JournalStart, SessionTicket};
use stubborn_core::random::Random;
use stubborn_core::service::{CallState, IncomingReply};
use stubborn_core::session::{CallId, JournalSlot, Succession};

use super::state::Happening;
use super::{HostId, SimCaller, State};

/// A journal. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SimJournal(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    synced: Vec<JournalEntry>,
    unsynced: Vec<JournalEntry>,
    /// How many of those the sync that is under way takes along.
    syncing: usize,
    /// The process that has it, and those that had it since one of them attached.
    holder: u64,
    after: Vec<u64>,
}

/// What a journal says of a call.
#[derive(Clone, Debug)]
pub(crate) struct Journalled {
    pub(crate) id: CallId,
    /// What is sent under that number; none if that is only a fence.
    pub(crate) request: Option<JournalRequest>,
    pub(crate) outcome: Option<CallState<IncomingReply>>,
}

impl SimCaller {
    /// From the next start of its host on the channel keeps a journal.
    pub(crate) fn keep_journal(&self) -> SimJournal {
        let journal = SimJournal::default();
        let mut state = self.world.state();
        state.channels[self.index as usize].journal = Some(journal.clone());
        journal
    }

    /// The same with a journal that goes on from a copy.
    pub(crate) fn use_journal(&self, journal: &SimJournal) {
        let mut state = self.world.state();
        state.channels[self.index as usize].journal = Some(journal.clone());
    }

    /// The host with which the channel's session is.
    pub(crate) fn home(&self) -> Option<String> {
        let state = self.world.state();
        let alive = state.host(state.channels[self.index as usize].host).alive.as_ref()?;
        let home = alive.channels.get(&self.index)?.home?;
        Some(state.host(home).name.clone())
    }
}

impl SimJournal {
    /// A copy of what is on the disk.
    pub(crate) fn copied(&self) -> Self {
        let pages = self.pages();
        let (synced, after) = (pages.synced.clone(), pages.after.clone());
        Self(Arc::new(Mutex::new(Pages { synced, after, ..Pages::default() })))
    }

    /// A process begins with it, which drew this number.
    pub(super) fn begin(&self, holder: u64) -> (Option<SessionTicket>, JournalStart) {
        let after = {
            let mut pages = self.pages();
            pages.holder = holder;
            // As it is in a file.
            if pages.after.len() >= Succession::MAX_HOLDERS {
                pages.after.clear();
            } else if !pages.after.is_empty() {
                pages.after.push(holder);
            }
            pages.after.clone()
        };
        (self.ticket(), JournalStart { holder, after, slots: self.slots() })
    }

    /// The session that was opened last.
    pub(crate) fn ticket(&self) -> Option<SessionTicket> {
        self.pages().synced.iter().rev().find_map(|entry| match entry {
            JournalEntry::Session(ticket) => Some(ticket.clone()),
            _ => None,
        })
    }

    /// Where the members of the group were when that was last told.
    pub(crate) fn members(&self) -> Vec<String> {
        let pages = self.pages();
        let last = pages.synced.iter().rev().find_map(|entry| match entry {
            JournalEntry::Members(members) => Some(members.clone()),
            _ => None,
        });
        last.unwrap_or_default()
    }

    /// Every call that is written down, in the order of the numbers.
    pub(crate) fn calls(&self) -> Vec<Journalled> {
        let mut calls = BTreeMap::new();
        for entry in &self.pages().synced {
            match entry {
                JournalEntry::Session(_) | JournalEntry::Held(_) | JournalEntry::Members(_) => {}
                JournalEntry::Call(call) => {
                    let request = call.request.clone();
                    calls.insert(call.id, Journalled { id: call.id, request, outcome: None });
                }
                JournalEntry::Outcome(id, state) => {
                    let known: &mut Journalled = calls.get_mut(id).expect("a call of the journal");
                    known.outcome = Some(state.clone());
                }
            }
        }
        calls.into_values().collect()
    }

    /// What the session is resumed with.
    fn slots(&self) -> Vec<JournalSlot> {
        let session = self.ticket().map(|ticket| ticket.session);
        let mut slots = BTreeMap::new();
        for Journalled { id, outcome, .. } in self.calls() {
            if Some(id.session) == session {
                let answered = outcome.is_some();
                let slot = JournalSlot { slot: id.slot, sequence: id.sequence, answered };
                slots.insert(id.slot, slot);
            }
        }
        slots.into_values().collect()
    }

    /// Numbers of the session that are of no use to anybody.
    pub(super) fn to_fence(&self) -> Vec<CallId> {
        let session = self.ticket().map(|ticket| ticket.session);
        let useless = |call: &Journalled| {
            Some(call.id.session) == session && call.request.is_none() && call.outcome.is_none()
        };
        self.calls().into_iter().filter(useless).map(|call| call.id).collect()
    }

    /// Adds an entry. Returns whether a sync is to begin, since none is under way.
    fn write(&self, entry: JournalEntry) -> bool {
        let mut pages = self.pages();
        pages.unsynced.push(entry);
        let begins = pages.syncing == 0;
        if begins {
            pages.syncing = pages.unsynced.len();
        }
        begins
    }

    /// A sync has ended: what it made durable, and whether another one is to begin.
    fn synced(&self) -> (Vec<JournalEntry>, bool) {
        let mut pages = self.pages();
        let count = std::mem::take(&mut pages.syncing);
        let entries: Vec<_> = pages.unsynced.drain(..count).collect();
        pages.keep(entries.clone());
        pages.syncing = pages.unsynced.len();
        (entries, pages.syncing > 0)
    }

    /// The host loses power: of what was not synced the first entries are there, by chance.
    fn lose_power(&self, random: &mut Random) {
        let mut pages = self.pages();
        let kept = random.below(pages.unsynced.len() as u64 + 1) as usize;
        let entries = std::mem::take(&mut pages.unsynced);
        pages.keep(entries.into_iter().take(kept).collect());
        pages.syncing = 0;
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn keep(&mut self, entries: Vec<JournalEntry>) {
        if entries.iter().any(|e| matches!(e, JournalEntry::Session(_) | JournalEntry::Held(_))) {
            self.after = vec![self.holder];
        }
        self.synced.extend(entries);
    }
}

impl State {
    /// A node wants this in the journal of one of its channels.
    pub(super) fn write_journal(&mut self, id: HostId, key: ChannelKey, entry: JournalEntry) {
        let alive = self.host(id).alive.as_ref().expect("its node spoke");
        let channel = alive.channels.iter().find(|(_, channel)| channel.key == key);
        let index = *channel.expect("a channel of the host").0;
        let journal = self.channels[index as usize].journal.as_ref();
        if journal.expect("only channels with a journal write it").write(entry) {
            self.begin_journal_sync(id, index);
        }
    }

    fn begin_journal_sync(&mut self, id: HostId, index: u32) {
        let takes = Duration::from_micros(50 + self.random.below(4_000));
        let life = self.host(id).life;
        self.queue.push(self.now + takes, Happening::Journalled(id, life, index));
    }

    /// A sync of a journal has ended, if the process that began it lives.
    pub(super) fn journal_synced(&mut self, id: HostId, life: u32, index: u32) {
        if self.host(id).life != life || self.host(id).alive.is_none() {
            return;
        }
        if !self.host(id).is_awake() {
            return self.begin_journal_sync(id, index);
        }
        let local = self.local_now(id);
        let Some(journal) = self.channels[index as usize].journal.clone() else { return };
        let alive = self.host_mut(id).alive.as_mut().expect("the host is awake");
        let Some(key) = alive.channels.get(&index).map(|channel| channel.key) else { return };
        let (entries, more) = journal.synced();
        for entry in entries {
            match entry {
                JournalEntry::Session(_) | JournalEntry::Held(_) | JournalEntry::Members(_) => {}
                JournalEntry::Call(call) => alive.node.journalled(local, key, call.id),
                JournalEntry::Outcome(call, _) => alive.node.let_go(local, key, call),
            }
        }
        if more {
            self.begin_journal_sync(id, index);
        }
        self.touch(id);
    }

    /// A host loses power.
    pub(super) fn crash_journals(&mut self, id: HostId) {
        let Self { channels, random, .. } = self;
        for plan in channels.iter().filter(|plan| plan.host == id) {
            if let Some(journal) = &plan.journal {
                journal.lose_power(random);
            }
        }
    }
}
