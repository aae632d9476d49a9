//! A replica that writes what consensus could write, and a model of what its disk must hold.
#![allow(dead_code)] // Each test uses its part.

use std::sync::Arc;

use stubborn_core::random::Random;
use stubborn_group::replication::{
    Ballot, Durable, Entry, EntryKind, Members, NodeId, Position, Snapshot, Write,
};
use stubborn_store::simulated::SimulatedDisk;
use stubborn_store::{Error, Identity, Options, Store};

/// Small enough that every script goes through several segments.
pub(crate) const OPTIONS: Options = Options { segment: 12_000, step: 4_096 };

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(number).expect("a number")
}

pub(crate) fn identity() -> Identity {
    Identity { group: 0xfeed, node: node(2), created: 1_700_000_000, folder: None }
}

pub(crate) fn random(seed: u64) -> Random {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    Random::from_seed(bytes)
}

pub(crate) fn new_group() -> Durable {
    Durable::new_group(Members::of([1, 2, 3].map(node)))
}

/// What a replica does with its store.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Several pieces of consensus' work at once.
    Write(Vec<Write>),
    /// A snapshot of its own.
    Compact(Snapshot),
    /// Everything is synced, and nothing waits.
    Rest,
    /// The process ends in order, and starts again.
    Reopen,
}

/// The steps of a replica, drawn at random, from what its disk holds.
pub(crate) struct Script {
    random: Random,
    /// After all steps so far.
    state: Durable,
}

impl Script {
    pub(crate) fn new(random: Random, state: Durable) -> Self {
        Self { random, state }
    }

    /// The next step, and what the disk holds after each of its parts.
    pub(crate) fn step(&mut self) -> (Step, Vec<Durable>) {
        let mut states = Vec::new();
        let step = match self.random.below(20) {
            0 | 1 if !self.state.entries.is_empty() => {
                let snapshot = self.own_snapshot();
                compact(&mut self.state, snapshot.clone());
                states.push(self.state.clone());
                if self.random.chance(0.5) {
                    let write = Write { compact: Some(snapshot), ..Write::default() };
                    return (Step::Write(vec![write]), states);
                }
                Step::Compact(snapshot)
            }
            2 => Step::Reopen,
            3 | 4 => Step::Rest,
            _ => {
                let count = 1 + self.random.below(3);
                let mut writes = Vec::new();
                for _ in 0..count {
                    let write = self.write();
                    apply(&mut self.state, write.clone());
                    states.push(self.state.clone());
                    writes.push(write);
                }
                Step::Write(writes)
            }
        };
        (step, states)
    }

    fn write(&mut self) -> Write {
        let mut ballot = self.state.ballot;
        let mut write = Write { must_sync: self.random.chance(0.7), ..Write::default() };
        if self.random.chance(0.2) {
            ballot.term += 1 + self.random.below(2);
            ballot.vote = NodeId::new(self.random.below(4));
        }
        if self.random.chance(0.05) {
            let index = last(&self.state).index + self.random.below(20) + 1;
            let at = Position { index, term: ballot.term.max(1) };
            ballot.term = at.term;
            ballot.committed = ballot.committed.max(index);
            write.snapshot = Some(self.snapshot(at));
            write.must_sync = true;
        } else if self.random.chance(0.8) {
            ballot.term = ballot.term.max(1);
            write.entries = self.entries(&ballot);
        }
        let end = write.entries.last().map_or(last(&self.state).index, |entry| entry.at.index);
        let end = write.snapshot.as_ref().map_or(end, |snapshot| snapshot.at.index);
        if ballot.committed < end && self.random.chance(0.5) {
            ballot.committed += self.random.below(end - ballot.committed + 1);
        }
        write.ballot = (ballot != self.state.ballot).then_some(ballot);
        write
    }

    /// New entries, now and then in the place of some that are not committed.
    fn entries(&mut self, ballot: &Ballot) -> Vec<Entry> {
        let committed = ballot.committed.max(self.state.snapshot.at.index);
        let mut first = last(&self.state).index + 1;
        if self.random.chance(0.1) {
            first -= self.random.below(first - committed);
        }
        let count = self.random.below(5) + 1;
        let entry = |index| {
            let size = match self.random.below(10) {
                0 => self.random.below(3_000),
                _ => self.random.below(100),
            };
            let kind =
                if self.random.chance(0.1) { EntryKind::Members } else { EntryKind::Command };
            let mut data = vec![0; size as usize];
            self.random.fill(&mut data);
            Entry { at: Position { index, term: ballot.term }, kind, data: data.into() }
        };
        (first..first + count).map(entry).collect()
    }

    fn own_snapshot(&mut self) -> Snapshot {
        let entries = &self.state.entries;
        let place = self.random.below(entries.len() as u64) as usize;
        let at = entries[place].at;
        self.snapshot(at)
    }

    fn snapshot(&mut self, at: Position) -> Snapshot {
        let mut data = vec![0; self.random.below(6_000) as usize];
        self.random.fill(&mut data);
        let members = Members::of([1, 2, 3 + self.random.below(3)].map(node));
        Snapshot { at, members, data: data.into() }
    }
}

/// What a disk holds after a write.
fn apply(state: &mut Durable, write: Write) {
    if let Some(snapshot) = write.snapshot {
        state.ballot.committed = state.ballot.committed.max(snapshot.at.index);
        state.snapshot = snapshot;
        state.entries.clear();
    }
    if let Some(first) = write.entries.first().map(|entry| entry.at.index) {
        state.entries.retain(|entry| entry.at.index < first);
    }
    state.entries.extend(write.entries);
    state.ballot = write.ballot.unwrap_or(state.ballot);
}

fn compact(state: &mut Durable, snapshot: Snapshot) {
    state.entries.retain(|entry| entry.at.index > snapshot.at.index);
    state.snapshot = snapshot;
}

fn last(state: &Durable) -> Position {
    state.entries.last().map_or(state.snapshot.at, |entry| entry.at)
}

pub(crate) fn same(a: &Durable, b: &Durable) -> bool {
    a.ballot == b.ballot && a.snapshot == b.snapshot && a.entries == b.entries
}

/// A replica's disk, what was promised of it, and what it may hold.
pub(crate) struct Trial {
    pub(crate) disk: SimulatedDisk,
    script: Script,
    store: Option<Store>,
    /// What it may hold: the first is what was promised last.
    possible: Vec<Durable>,
}

impl Trial {
    /// Makes a new node's folder.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = random(seed);
        let mut disk = SimulatedDisk::new(random.fork());
        if !seed.is_multiple_of(2) {
            disk = disk.with_synced_writes();
        }
        let store =
            Store::create(Arc::new(disk.clone()), identity(), &new_group(), OPTIONS).expect("made");
        let script = Script::new(random, new_group());
        Self { disk, script, store: Some(store), possible: vec![new_group()] }
    }

    /// Takes so many steps, or as many as the disk allows.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), Error> {
        for _ in 0..steps {
            let (step, states) = self.script.step();
            self.possible.extend(states);
            self.take(step)?;
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), Error> {
        let mut store = self.store.take().expect("a store");
        let done = match &step {
            Step::Write(writes) => {
                let result = store.write(writes);
                let synced = writes.iter().any(|write| write.must_sync);
                result.map(|()| synced)
            }
            Step::Compact(snapshot) => store.compact_with(snapshot).map(|()| true),
            Step::Rest => store.rest().map(|()| false),
            Step::Reopen => {
                let closed = store.close();
                // A process that could not close ends all the same.
                closed?;
                let (reopened, recovered) = Store::open(Arc::new(self.disk.clone()), OPTIONS)?;
                let found = reopened.durable(recovered)?;
                self.check(&found);
                self.store = Some(reopened);
                return Ok(());
            }
        };
        if let Err(error) = done {
            self.nothing_works_after(store);
            return Err(error);
        }
        if matches!(done, Ok(true)) {
            self.promised();
        }
        self.store = Some(store);
        Ok(())
    }

    fn nothing_works_after(&self, mut store: Store) {
        let write = Write { must_sync: true, ..Write::default() };
        assert!(matches!(store.write(&[write]), Err(Error::Failed(_))));
        assert!(matches!(store.sync(), Err(Error::Failed(_))));
        assert!(matches!(store.rest(), Err(Error::Failed(_))));
        assert!(matches!(store.read_snapshot(), Err(Error::Failed(_))));
    }

    /// All that was written is there for good.
    fn promised(&mut self) {
        let last = self.possible.pop().expect("a state");
        self.possible = vec![last];
    }

    /// Opens the folder after the process has ended, and goes on from what is there.
    pub(crate) fn recover(&mut self) {
        self.store = None;
        let (store, recovered) = Store::open(Arc::new(self.disk.clone()), OPTIONS)
            .unwrap_or_else(|error| panic!("after a crash: {error}"));
        let found = store.durable(recovered).expect("a snapshot that can be read");
        self.check(&found);
        self.store = Some(store);
    }

    /// Opens the folder while the disk may fail.
    pub(crate) fn try_to_recover(&mut self) -> Result<(), Error> {
        self.store = None;
        Store::open(Arc::new(self.disk.clone()), OPTIONS).map(drop)
    }

    fn check(&mut self, found: &Durable) {
        let place = self.possible.iter().rposition(|state| same(state, found));
        let Some(_) = place else {
            let brief = |state: &Durable| (state.ballot, state.snapshot.at, last(state));
            let possible: Vec<_> = self.possible.iter().map(brief).collect();
            panic!("found {:?}, which is none of {possible:?}", brief(found));
        };
        self.possible = vec![found.clone()];
        self.script.state = found.clone();
    }

    /// Ends the process in order.
    pub(crate) fn close(&mut self) -> Durable {
        self.store.take().expect("a store").close().expect("closed");
        self.promised();
        self.possible[0].clone()
    }
}
