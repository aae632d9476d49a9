//! Replicas in memory, each with a clock of its own: packets arrive at once, writes are on the disk
//! at once.

use std::collections::{BTreeMap, VecDeque};

use stubborn_core::service::Machines;
use stubborn_core::time::{Duration, Instant};
use stubborn_group::replica::{Packet, PacketError, Replica, Settings};
use stubborn_group::replication::{Durable, Entry, Members, NodeId, Role, Write};

use super::node;

pub const GROUP: u64 = 0x100;

/// A replica, its disk, and the reads that it has answered.
pub struct One {
    pub replica: Replica,
    pub durable: Durable,
    pub answered: Vec<u64>,
    /// By how much its clock goes faster than the world's, in thousandths.
    pub gains: i64,
}

pub struct Replicas {
    pub all: BTreeMap<NodeId, One>,
    /// Nodes that nothing reaches and that reach nobody.
    pub cut: Vec<NodeId>,
    pub now: Instant,
    pub settings: Settings,
    first: Members,
    lives: u8,
}

impl Replicas {
    /// A group of so many voters, with these machines.
    pub fn new(nodes: u64, settings: Settings, machines: impl Fn() -> Machines) -> Self {
        let first = Members::of((1..=nodes).map(node));
        let now = Instant::ZERO + Duration::from_secs(1);
        let mut group =
            Self { all: BTreeMap::new(), cut: Vec::new(), now, settings, first, lives: 0 };
        for number in 1..=nodes {
            let durable = Durable::new_group(group.first.clone());
            group.start(node(number), durable, machines());
        }
        group
    }

    pub fn start(&mut self, id: NodeId, durable: Durable, machines: Machines) {
        self.lives += 1;
        let seed = [self.lives; 32];
        let settings = self.settings.clone();
        let replica =
            Replica::new(self.now, (GROUP, id), settings, durable.clone(), machines, seed)
                .expect("a sound disk");
        let one = One { replica, durable, answered: Vec::new(), gains: 0 };
        self.all.insert(id, one);
    }

    /// Kills a replica and starts it from its disk, with machines as a new group has them.
    pub fn restart(&mut self, id: NodeId, machines: Machines) {
        let One { durable, gains, .. } = self.all.remove(&id).expect("a replica");
        self.start(id, durable, machines);
        self.get(id).gains = gains;
    }

    pub fn get(&mut self, id: NodeId) -> &mut One {
        self.all.get_mut(&id).expect("a replica")
    }

    /// The time on this node's clock.
    pub fn local(&self, id: NodeId) -> Instant {
        let gains = self.all.get(&id).map_or(0, |one| one.gains);
        let nanos = self.now.as_nanos() as i128 * i128::from(1_000 + gains) / 1_000;
        Instant::from_nanos(nanos as u64)
    }

    /// The nodes that think that they lead, by term.
    pub fn leaders(&self) -> BTreeMap<u64, NodeId> {
        let status = |one: &One| one.replica.standing().consensus;
        let leads = self.all.iter().filter(|(_, one)| status(one).role == Role::Leader);
        leads.map(|(id, one)| (status(one).term, *id)).collect()
    }

    /// Whoever leads in the latest term.
    pub fn leader(&self) -> Option<NodeId> {
        let leaders = self.leaders();
        leaders.values().rev().find(|id| !self.cut.contains(id)).copied()
    }

    pub fn elect(&mut self) -> NodeId {
        for _ in 0..2_000 {
            self.step();
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    pub fn run(&mut self, millis: u64) {
        (0..millis).for_each(|_| self.step());
    }

    /// Lets a millisecond pass.
    pub fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let ids: Vec<NodeId> = self.all.keys().copied().collect();
        for id in &ids {
            let now = self.local(*id);
            let one = self.get(*id);
            if one.replica.poll_timeout() <= now {
                one.replica.handle_timeout(now);
            }
        }
        self.settle();
    }

    /// Works and delivers until nothing moves.
    pub fn settle(&mut self) {
        let mut wire = VecDeque::new();
        let ids: Vec<NodeId> = self.all.keys().copied().collect();
        for _ in 0..100_000 {
            for id in &ids {
                self.work(*id, &mut wire);
            }
            let Some((from, to, packet)) = wire.pop_front() else { return };
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            let now = self.local(to);
            if let Some(one) = self.all.get_mut(&to) {
                let taken = match &packet.state {
                    None => one.replica.receive(now, from, &packet.bytes),
                    Some(state) => one.replica.begin_snapshot(from, &packet.bytes).and_then(|()| {
                        for piece in state.pieces() {
                            one.replica.snapshot_piece(from, &piece.expect("it is in memory"));
                        }
                        one.replica.end_snapshot(now, from)
                    }),
                };
                // One that has begun anew is honest, too.
                if taken != Err(PacketError::OtherFolder) {
                    taken.expect("honest peers are listened to");
                }
            }
        }
        panic!("the replicas never stop talking");
    }

    fn work(&mut self, id: NodeId, wire: &mut VecDeque<(NodeId, NodeId, Packet)>) {
        let now = self.local(id);
        let one = self.get(id);
        one.replica.flush(now);
        while let Some((number, write)) = one.replica.poll_write() {
            one.write(write);
            one.replica.written(number);
        }
        one.replica.flush(now);
        while one.replica.poll_told().is_some() {}
        while let Some(read) = one.replica.poll_read() {
            one.answered.push(read);
        }
        while let Some(packet) = one.replica.poll_packet() {
            wire.push_back((id, packet.to, packet));
        }
    }
}

impl One {
    fn write(&mut self, write: Write) {
        let Durable { ballot, snapshot, entries } = &mut self.durable;
        if let Some(new) = write.snapshot {
            *snapshot = new;
            entries.clear();
        }
        if let Some(new) = write.compact {
            entries.retain(|entry: &Entry| entry.at.index > new.at.index);
            *snapshot = new;
        }
        if let Some(first) = write.entries.first() {
            entries.retain(|entry| entry.at.index < first.at.index);
        }
        entries.extend(write.entries);
        *ballot = write.ballot.unwrap_or(*ballot);
    }
}
