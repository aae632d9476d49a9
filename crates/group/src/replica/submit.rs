//! From commands to the log: a leader writes them, everybody else forwards them.

use std::collections::VecDeque;

use stubborn_core::node::{CallLog, SessionCommand, StepKind};
use stubborn_core::time::Instant;
use stubborn_core::wire::varint;

use super::Replica;
use super::entry::{ITEM_OVERHEAD, Item, Origin, Record, What};
use super::message::Message;
use super::versions::Active;
use crate::replication::{NodeId, Role};

/// What other replicas forwarded and this leader has not written yet.
#[derive(Debug)]
pub(super) struct Gathered {
    items: VecDeque<Item>,
    bytes: usize,
    most_bytes: usize,
}

impl Gathered {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, most_bytes }
    }

    /// Adds an item if there is room. Who forwarded it does so again if there is none.
    fn add(&mut self, item: Item) {
        let size = size(&item);
        if self.bytes + size <= self.most_bytes {
            self.bytes += size;
            self.items.push_back(item);
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<Item> {
        let (mut taken, mut total) = (Vec::new(), 0);
        while let Some(item) = self.items.front() {
            total += size(item);
            if total > bytes && !taken.is_empty() {
                break;
            }
            taken.extend(self.items.pop_front());
        }
        self.bytes -= taken.iter().map(size).sum::<usize>();
        taken
    }

    fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.bytes += size(&item);
            self.items.push_front(item);
        }
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }
}

fn size(item: &Item) -> usize {
    item.what.bytes().len() + ITEM_OVERHEAD
}

/// Another replica's command is taken at this time of the log. None for what is no command.
fn take(log: &mut CallLog, now: Instant, item: Item, time: Instant) -> Option<Item> {
    let Item { origin, what } = item;
    let what = match what {
        What::Command(bytes) => {
            let mut command = SessionCommand::decode(bytes).ok()?;
            command.taken_at(time);
            if let Some((call, _)) = command.call() {
                log.push(now, call, StepKind::Taken);
            }
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            What::Command(bytes.into())
        }
        What::Renewal(sessions) => What::Renewal(sessions),
        What::Founding(_)
        | What::Refounding(_)
        | What::Roster(_)
        | What::Activate(_)
        | What::Folder(_) => return None,
    };
    Some(Item { origin, what })
}

impl Replica {
    /// Another replica wants these in the log.
    pub(super) fn gather(&mut self, items: Vec<Item>) {
        // Who has heard of another leader by now forwards them there.
        if self.consensus.status().role == Role::Leader {
            items.into_iter().for_each(|item| self.gathered.add(item));
        }
    }

    /// When term or leader have changed, what was sent to the leader before may be lost with it.
    pub(super) fn notice_leader(&mut self) {
        let status = self.consensus.status();
        let seen = (status.term, status.leader);
        if seen == self.seen {
            return;
        }
        self.seen = seen;
        self.pending.send_all_again();
        self.reads.ask_again();
        self.proposed.clear();
        self.supports.leader_changed();
        self.folders.leader_changed();
        self.lease.end();
        self.telling.end();
        self.clock.stop();
        if status.role != Role::Leader {
            self.gathered.clear();
        }
    }

    /// Writes commands into the log, or forwards them to whoever can.
    pub(super) fn submit(&mut self, now: Instant) {
        match self.seen.1 {
            Some(leader) if leader == self.id => self.propose_all(now),
            Some(leader) => self.forward_all(now, leader),
            None => {}
        }
    }

    fn propose_all(&mut self, now: Instant) {
        let Some(time) = self.clock.at(now) else { return };
        if !self.found(time) {
            return;
        }
        loop {
            let items = self.gathered.take(self.settings.entry_bytes);
            if items.is_empty() {
                break;
            }
            let log = self.state.log();
            let taken = items.into_iter().filter_map(|item| take(log, now, item, time)).collect();
            if let Err(items) = self.propose(time, taken) {
                return self.gathered.put_back(items);
            }
        }
        while self.pending.has_unsent() {
            let items = self.pending.take(now, self.settings.entry_bytes, Some(time));
            if let Err(items) = self.propose(time, items) {
                return self.pending.put_back(&items);
            }
        }
    }

    /// Lets the group begin, if it has not. Returns whether something may be written after it.
    fn found(&mut self, time: Instant) -> bool {
        let beginning: Vec<(u64, What)> = match self.state.founding() {
            Some(what) => vec![(0, what)],
            None => self.first_versions().into_iter().chain(self.first_roster()).collect(),
        };
        beginning.into_iter().all(|(serial, what)| {
            let origin = Origin { life: self.life, serial };
            self.proposed.contains(&origin)
                || self.propose(time, vec![Item { origin, what }]).is_ok()
        })
    }

    /// Before any command: the versions with which the first leader's machines begin, and the newest of the
    /// group itself that it reads.
    fn first_versions(&self) -> Option<(u64, What)> {
        let first = || {
            let versions = self.state.machines().versions();
            let machines = versions.map(|versions| *versions.start()).collect();
            Active { group: self.settings.version, machines }
        };
        let begins = !self.state.has_versions();
        begins.then(|| (varint::MAX - 1, What::Activate(first().encode())))
    }

    /// Before any command, too, as one may change it: with whom the group begins.
    fn first_roster(&self) -> Option<(u64, What)> {
        let begins = self.state.roster().is_empty() && !self.beginning.is_empty();
        begins.then(|| {
            let mut bytes = Vec::new();
            self.beginning.encode(&mut bytes);
            (varint::MAX, What::Roster(bytes.into()))
        })
    }

    /// Writes an entry with those of the items that are not written yet.
    pub(super) fn propose(&mut self, time: Instant, items: Vec<Item>) -> Result<(), Vec<Item>> {
        let new = |item: &Item| !self.proposed.contains(&item.origin);
        let items: Vec<Item> = items.into_iter().filter(new).collect();
        if items.is_empty() {
            return Ok(());
        }
        let record = Record { time, items };
        if self.consensus.propose(record.encode()).is_err() {
            return Err(record.items);
        }
        self.stamped = time;
        if record.items.iter().any(|item| item.origin.life != self.life) {
            self.telling.is_awaited(self.consensus.status().last.index);
        }
        self.proposed.extend(record.items.iter().map(|item| item.origin));
        Ok(())
    }

    fn forward_all(&mut self, now: Instant, leader: NodeId) {
        while self.pending.has_unsent() {
            let items = self.pending.take(now, self.settings.entry_bytes, None);
            if !items.is_empty() {
                self.outbox.push(leader, Message::Forward(items));
            }
        }
    }

    /// Asks how far the log is committed, for reads that wait for it.
    pub(super) fn ask_index(&mut self, now: Instant) {
        let Some(leader) = self.seen.1 else { return };
        if leader == self.id && self.lease.holds(now) && self.reads.wait() {
            self.reads.need_not_ask(now, self.consensus.status().committed);
            if self.lease.is_due(now) {
                self.reads.ask_soon();
            }
        }
        let Some(number) = self.reads.ask(now) else { return };
        if cfg!(feature = "planted-lonely-read") {
            self.reads.answered(number, 0);
            return;
        }
        if leader != self.id {
            self.outbox.push(leader, Message::AskIndex(number));
        } else if self.consensus.read(number).is_err() {
            // Not before an entry of its term is committed.
            self.reads.ask_again();
        }
    }

    /// Another replica asks how far the log is committed.
    pub(super) fn ask_for(&mut self, now: Instant, from: NodeId, read: u64) {
        if self.lease.holds(now) {
            let index = self.consensus.status().committed;
            self.telling.is_awaited(index);
            self.outbox.push(from, Message::Index { read, index });
            if self.lease.is_due(now) {
                self.reads.ask_soon();
            }
            return;
        }
        if let Some(number) = self.reads.ask_for(now, from, read)
            && self.consensus.read(number).is_err()
        {
            self.reads.drop_other(number);
        }
    }

    /// Lets the log's time go on though nobody says anything, so that sessions age and expire.
    pub(super) fn let_time_pass(&mut self, now: Instant) {
        let Some(time) = self.clock.at(now) else { return };
        let table = self.state.table();
        let stands = time.since(self.stamped.max(table.time())) >= self.settings.time_every;
        let expires = table.next_expiry().is_some_and(|at| at <= time && self.stamped < at);
        if !table.is_empty() && (stands || expires) {
            let record = Record { time, items: Vec::new() };
            if self.consensus.propose(record.encode()).is_ok() {
                self.stamped = time;
            }
        }
    }
}
