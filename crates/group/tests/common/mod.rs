//! Nodes of a group in memory: every frame arrives, every write is on the disk at once, but for ballots that
//! nobody asked to be synced.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod replicas;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use stubborn_core::random::Random;
use stubborn_group::replication::{
    Ballot, Consensus, Durable, Entry, Frame, MemberChange, Members, NodeId, Role, Settings,
    Snapshot, Write,
};

pub fn node(number: u64) -> NodeId {
    NodeId::new(number).expect("not 0")
}

/// A node, its disk, and what it has applied and answered.
pub struct Replica {
    pub consensus: Consensus,
    pub durable: Durable,
    /// What the next write that is synced takes along.
    pub unsynced: Option<Ballot>,
    pub applied: Vec<Bytes>,
    pub reads: Vec<u64>,
    /// What a stuck disk was to write.
    pub unwritten: Vec<(u64, Write)>,
}

pub struct Cluster {
    pub replicas: BTreeMap<NodeId, Replica>,
    pub wire: VecDeque<(NodeId, NodeId, Frame)>,
    /// Nodes that nothing reaches and that reach nobody.
    pub cut: Vec<NodeId>,
    /// Nodes whose disks take nothing now.
    pub stuck: Vec<NodeId>,
    /// Peers may lie, so that frames may be refused.
    pub tolerant: bool,
    pub settings: Settings,
    first: Members,
}

impl Cluster {
    pub fn new(nodes: u64) -> Self {
        Self::keeping(nodes, 2)
    }

    /// With so many entries kept before a snapshot.
    pub fn keeping(nodes: u64, keep: u64) -> Self {
        let first = Members::of((1..=nodes).map(node));
        let settings = Settings { keep, ..Settings::default() };
        let mut cluster = Self {
            replicas: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: Vec::new(),
            stuck: Vec::new(),
            tolerant: false,
            settings,
            first,
        };
        (1..=nodes).for_each(|number| cluster.add(node(number)));
        cluster
    }

    /// Adds a node with an empty disk.
    pub fn add(&mut self, id: NodeId) {
        self.start(id, Durable::new_group(self.first.clone()), Vec::new());
    }

    fn start(&mut self, id: NodeId, durable: Durable, applied: Vec<Bytes>) {
        let random = Random::from_seed([id.get() as u8; 32]);
        let consensus = Consensus::new(id, self.settings.clone(), durable.clone(), random)
            .expect("a sound disk");
        self.replicas.insert(
            id,
            Replica {
                consensus,
                durable,
                unsynced: None,
                applied,
                reads: Vec::new(),
                unwritten: Vec::new(),
            },
        );
    }

    /// Kills a node and starts it from its disk.
    pub fn restart(&mut self, id: NodeId) {
        let Replica { durable, .. } = self.replicas.remove(&id).expect("a node");
        let applied = split(&durable.snapshot.data.to_bytes().expect("in memory"));
        self.start(id, durable, applied);
    }

    pub fn get(&mut self, id: NodeId) -> &mut Replica {
        self.replicas.get_mut(&id).expect("a node")
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |replica: &Replica| replica.consensus.status().role == Role::Leader;
        let mut leaders: Vec<_> = self
            .replicas
            .iter()
            .filter(|(id, replica)| leads(replica) && !self.cut.contains(id))
            .map(|(id, replica)| (replica.consensus.status().term, *id))
            .collect();
        leaders.sort_unstable();
        leaders.last().map(|(_, id)| *id)
    }

    /// Lets time pass until somebody leads.
    pub fn elect(&mut self) -> NodeId {
        for _ in 0..200 {
            self.tick();
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    pub fn propose(&mut self, text: &str) {
        let leader = self.leader().expect("a leader");
        let data = Bytes::copy_from_slice(text.as_bytes());
        self.get(leader).consensus.propose(data).expect("the leader takes it");
        self.settle();
    }

    pub fn change_members(&mut self, change: &MemberChange) {
        let leader = self.leader().expect("a leader");
        self.get(leader).consensus.change_members(change).expect("the leader takes it");
        self.settle();
    }

    pub fn tick(&mut self) {
        self.tick_all();
        self.settle();
    }

    pub fn tick_some(&mut self, frames: usize) {
        self.tick_all();
        self.settle_some(frames);
    }

    fn tick_all(&mut self) {
        for (id, replica) in &mut self.replicas {
            let again = replica.consensus.tick();
            self.wire.extend(again.into_iter().map(|out| (*id, out.to, out.frame)));
        }
    }

    /// Works and delivers until nothing moves.
    pub fn settle(&mut self) {
        self.settle_some(100_000);
        assert!(self.wire.is_empty(), "the nodes never stop talking");
    }

    /// The same for so many frames at most.
    pub fn settle_some(&mut self, frames: usize) {
        for _ in 0..frames {
            let ids: Vec<NodeId> = self.replicas.keys().copied().collect();
            ids.into_iter().for_each(|id| self.work(id));
            let Some((from, to, frame)) = self.wire.pop_front() else { return };
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            let Ok(frame) = Frame::decode(&frame.encode()) else {
                assert!(self.tolerant, "what an honest node says decodes");
                continue; // a term that a liar drove to its end
            };
            if let Some(replica) = self.replicas.get_mut(&to) {
                let taken = replica.consensus.receive(from, frame);
                assert!(self.tolerant || taken.is_ok(), "{taken:?}");
            }
        }
    }

    fn work(&mut self, id: NodeId) {
        let replica = self.replicas.get_mut(&id).expect("a node");
        let is_stuck = self.stuck.contains(&id);
        while let Some(work) = replica.consensus.work() {
            if is_stuck {
                assert!(work.write.may_wait && work.send_when_written.is_empty());
                let commands = work.committed.iter().filter(|entry| entry.is_command());
                replica.applied.extend(commands.map(|entry| entry.data.clone()));
                replica.unwritten.push((work.number, work.write));
                self.wire.extend(work.send.into_iter().map(|out| (id, out.to, out.frame)));
                continue;
            }
            let is_synced = work.write.must_sync || work.write.snapshot.is_some();
            replica.unsynced = work.write.ballot.or(replica.unsynced);
            if is_synced && let Some(ballot) = replica.unsynced.take() {
                replica.durable.ballot = ballot;
            }
            if let Some(snapshot) = work.write.snapshot {
                replica.applied = split(&snapshot.data.to_bytes().expect("in memory"));
                replica.durable.snapshot = snapshot;
                replica.durable.entries.clear();
            }
            append(&mut replica.durable.entries, work.write.entries);
            let commands = work.committed.iter().filter(|entry| entry.is_command());
            replica.applied.extend(commands.map(|entry| entry.data.clone()));
            replica.reads.extend(work.reads.iter().map(|read| read.read));
            replica.consensus.written(work.number);
            let sent = work.send.into_iter().chain(work.send_when_written);
            self.wire.extend(sent.map(|out| (id, out.to, out.frame)));
        }
    }

    /// A stuck disk writes all that waited.
    pub fn unstick(&mut self, id: NodeId) {
        self.stuck.retain(|stuck| *stuck != id);
        let replica = self.replicas.get_mut(&id).expect("a node");
        for (number, write) in replica.unwritten.drain(..) {
            append(&mut replica.durable.entries, write.entries);
            replica.durable.ballot = write.ballot.unwrap_or(replica.durable.ballot);
            replica.consensus.written(number);
        }
        self.settle();
    }

    /// Lets a node take a snapshot of what it has applied.
    pub fn compact(&mut self, id: NodeId) {
        let replica = self.get(id);
        let snapshot = Snapshot {
            at: replica.consensus.applied(),
            members: replica.consensus.members().clone(),
            data: Bytes::from(replica.applied.join(&b"\n"[..])).into(),
        };
        replica.durable.ballot = replica.unsynced.take().unwrap_or(replica.durable.ballot);
        replica.durable.entries.retain(|entry| entry.at.index > snapshot.at.index);
        replica.durable.snapshot = snapshot.clone();
        replica.consensus.compact(&snapshot);
        replica.consensus.offer(snapshot);
    }
}

fn append(log: &mut Vec<Entry>, entries: Vec<Entry>) {
    if let Some(first) = entries.first() {
        log.retain(|entry| entry.at.index < first.at.index);
    }
    log.extend(entries);
}

fn split(data: &Bytes) -> Vec<Bytes> {
    data.split(|byte| *byte == b'\n')
        .filter(|part| !part.is_empty())
        .map(Bytes::copy_from_slice)
        .collect()
}
