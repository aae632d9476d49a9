//! The process of a replica: consensus, a disk, a counter, a socket.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use stubborn_core::datagram::{Datagram as Received, Datagrams};
use stubborn_group::replication::{
    Consensus, Entry, NodeId, Outgoing, Settings, Snapshot, Work, Write,
};

use super::Sabotage;
use super::counter::{Command, Counter};
use super::group::{Group, Standing};
use super::wire::{Ask, Datagram};
use crate::disk::Disk;
use crate::nodes::{Nodes, Order, host};
use crate::world::{SimSocket, millis};

pub(super) struct Replica {
    group: Group,
    id: NodeId,
    disk: Disk,
}

/// What wakes the process.
enum Event {
    Came(Received),
    Tick,
    Synced,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A replica that runs.
struct Process {
    group: Group,
    id: NodeId,
    disk: Disk,
    socket: SimSocket,
    consensus: Consensus,
    counter: Counter,
    tick: Sleep,
    /// The sync that is under way: how many records, up to which piece of work.
    sync: Option<(Sleep, usize, u64)>,
    /// What waits for the disk: up to which piece of work, and what is sent then.
    waiting: Vec<(u64, Vec<Outgoing>)>,
    /// The last piece of work that was written.
    written: u64,
    /// Clients that wait for their command.
    asked: BTreeMap<Command, SocketAddr>,
    /// Reads that wait for a majority, then for their index.
    reads: BTreeMap<u64, (Command, SocketAddr)>,
    confirmed: Vec<(u64, u64)>,
    snapshot_at: u64,
    dead: bool,
}

impl Replica {
    pub(super) fn new(group: Group, id: NodeId, disk: Disk) -> Self {
        Self { group, id, disk }
    }

    pub(super) async fn run(self) {
        let Self { group, id, disk } = self;
        let socket = group.world.socket(&host(id));
        group.register(id, socket.local_addr());
        let durable = disk.recover();
        let counter = Counter::decode(&durable.snapshot.data.to_bytes().expect("in memory"));
        let snapshot_at = durable.snapshot.at.index;
        // Frames go as bare datagrams: they must fit the 1,472 bytes of the network.
        let settings =
            Settings { keep: group.habits.keep, frame_bytes: 1_000, ..Settings::default() };
        let random = group.lock().random.fork();
        let consensus = Consensus::new(id, settings, durable, random)
            .unwrap_or_else(|fault| panic!("{id} cannot start: {fault}"));
        let tick = sleep(&group, group.tick_of(id));
        let mut process = Process {
            group,
            id,
            disk,
            socket,
            consensus,
            counter,
            tick,
            sync: None,
            waiting: Vec::new(),
            written: 0,
            asked: BTreeMap::new(),
            reads: BTreeMap::new(),
            confirmed: Vec::new(),
            snapshot_at,
            dead: false,
        };
        process.stand();
        while !process.dead {
            let event = poll_fn(|cx| process.poll_event(cx)).await;
            process.on_event(event);
            process.work();
        }
    }
}

fn sleep(group: &Group, duration: Duration) -> Sleep {
    Box::pin(group.world.sleep(duration))
}

impl Process {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.tick.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Tick);
        }
        if let Some((sync, ..)) = &mut self.sync
            && sync.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Event::Synced);
        }
        match self.socket.poll_recv_from(cx) {
            Poll::Ready(Ok(received)) => Poll::Ready(Event::Came(received)),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.tick = sleep(&self.group, self.group.tick_of(self.id));
                let again = self.consensus.tick();
                self.send_all(again);
                self.take_order();
            }
            Event::Synced => self.on_synced(),
            Event::Came(received) => match Datagram::decode(&received.data) {
                Some(Datagram::Peer(frame)) => {
                    let Some(from) = self.group.node_at(received.from) else { return };
                    self.group
                        .note(frame.term(), || format!("{} hears {from}: {frame:?}", self.id));
                    let taken = self.consensus.receive(from, frame);
                    let honest = taken.map_err(|refusal| {
                        ("honest peers are listened to", format!("{}: {refusal}", self.id))
                    });
                    self.group.judge(honest);
                }
                Some(Datagram::Ask(ask)) => self.on_ask(ask, received.from),
                Some(Datagram::Answer(..)) | None => {}
            },
        }
    }

    fn take_order(&mut self) {
        let mut shared = self.group.lock();
        let Some(order) = shared.order.take() else { return };
        let done = match &order {
            Order::Change(change) => self.consensus.change_members(change),
            Order::Transfer(to) => self.consensus.transfer(*to),
        };
        match (done, &order) {
            (Err(_), _) => shared.order = Some(order), // somebody else's
            (Ok(()), Order::Change(_)) => shared.counts.member_changes += 1,
            (Ok(()), Order::Transfer(_)) => shared.counts.transfers += 1,
        }
    }

    fn on_ask(&mut self, ask: Ask, from: SocketAddr) {
        match ask {
            Ask::Count(command) => {
                if self.consensus.propose(command.encode()).is_ok() {
                    self.asked.insert(command, from);
                }
            }
            Ask::Read(command) if self.group.habits.sabotage == Some(Sabotage::ReadAlone) => {
                self.answer(Ask::Read(command), from);
            }
            Ask::Read(command) => {
                // Never the number of a read of an earlier life: its confirmation may be late.
                let read = self.group.below(u64::MAX);
                if self.consensus.read(read).is_ok() {
                    self.reads.insert(read, (command, from));
                }
            }
        }
    }

    fn answer(&self, ask: Ask, to: SocketAddr) {
        self.send(&Datagram::Answer(ask, self.counter.value()), to);
    }

    fn send(&self, datagram: &Datagram, to: SocketAddr) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // A simulated socket is always ready; what is lost is sent again.
        let _ = self.socket.poll_send_to(&mut cx, &datagram.encode(), to);
    }

    /// Does all that consensus wants done.
    fn work(&mut self) {
        while let Some(work) = self.consensus.work() {
            let status = self.consensus.status();
            let verdict = self.group.lock().invariants.on_status(self.id, &status);
            self.group.judge(verdict);
            self.carry_out(work);
            if self.dead {
                return;
            }
        }
        self.snapshot_maybe();
        self.answer_reads();
        self.start_sync();
        self.stand();
    }

    fn carry_out(&mut self, work: Work) {
        let Work { number, write, send, send_when_written, committed, reads } = work;
        self.crash_maybe();
        let must_sync = write.must_sync;
        if let Some(snapshot) = &write.snapshot {
            self.group.lock().counts.snapshots += 1;
            self.counter = Counter::decode(&snapshot.data.to_bytes().expect("in memory"));
            self.snapshot_at = snapshot.at.index;
        }
        if !write.is_empty() {
            self.disk.write(write);
        }
        self.written = number;
        self.crash_maybe();
        if self.dead {
            return;
        }
        self.send_all(send);
        if self.group.habits.sabotage == Some(Sabotage::SendBeforeSync) {
            self.send_all(send_when_written);
            self.waiting.push((number, Vec::new()));
        } else if must_sync || !send_when_written.is_empty() {
            self.waiting.push((number, send_when_written));
        }
        committed.iter().for_each(|entry| self.apply(entry));
        self.confirmed.extend(reads.iter().map(|read| (read.read, read.index)));
    }

    fn apply(&mut self, entry: &Entry) {
        if entry.is_command() {
            let forgetful = self.group.habits.sabotage == Some(Sabotage::ForgetCommands);
            let command = Command::decode(&entry.data).expect("only commands are proposed");
            let answer = self.counter.apply(command, forgetful);
            if let (Some(client), Some(value)) = (self.asked.remove(&command), answer) {
                self.send(&Datagram::Answer(Ask::Count(command), value), client);
            }
        }
        let mut shared = self.group.lock();
        shared.counts.applied += 1;
        let verdict = shared.invariants.on_applied(self.id, entry, &self.counter);
        drop(shared);
        self.group.judge(verdict);
        self.group.note(entry.at.index, || format!("{} applied {:?}", self.id, entry.at));
    }

    /// Answers the reads whose index is applied.
    fn answer_reads(&mut self) {
        let applied = self.consensus.applied().index;
        let (due, later) =
            std::mem::take(&mut self.confirmed).into_iter().partition(|(_, at)| *at <= applied);
        self.confirmed = later;
        let due: Vec<(u64, u64)> = due;
        for (read, _) in due {
            if let Some((command, client)) = self.reads.remove(&read) {
                self.group.lock().counts.reads += 1;
                self.answer(Ask::Read(command), client);
            }
        }
    }

    fn snapshot_maybe(&mut self) {
        let at = self.consensus.applied();
        let due = at.index >= self.snapshot_at + self.group.habits.snapshot_every;
        if !due && !self.consensus.wants_snapshot() {
            return;
        }
        self.snapshot_at = at.index;
        let members = self.consensus.members().clone();
        let snapshot = Snapshot { at, members, data: self.counter.encode().into() };
        self.disk.write(Write { compact: Some(snapshot.clone()), ..Write::default() });
        self.consensus.compact(&snapshot);
        self.consensus.offer(snapshot);
    }

    fn start_sync(&mut self) {
        if self.sync.is_none() && !self.waiting.is_empty() {
            let most = u64::try_from(self.group.habits.sync.as_micros()).unwrap_or(u64::MAX);
            let takes = Duration::from_micros(self.group.below(most.max(1)));
            let sync = (sleep(&self.group, takes), self.disk.unsynced(), self.written);
            self.sync = Some(sync);
        }
    }

    fn on_synced(&mut self) {
        let Some((_, records, number)) = self.sync.take() else { return };
        self.disk.sync(records);
        self.crash_maybe();
        if self.dead {
            return;
        }
        self.consensus.written(number);
        let (done, rest) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(of, _)| *of <= number);
        self.waiting = rest;
        let done: Vec<(u64, Vec<Outgoing>)> = done;
        done.into_iter().for_each(|(_, frames)| self.send_all(frames));
    }

    fn send_all(&self, frames: Vec<Outgoing>) {
        for Outgoing { to, frame } in frames {
            if let Some(address) = self.group.address(to) {
                self.send(&Datagram::Peer(frame), address);
            }
        }
    }

    /// Loses power between two steps, by chance.
    fn crash_maybe(&mut self) {
        let healed = self.group.lock().healed;
        if self.dead || healed || !self.group.chance(self.group.habits.crash) {
            return;
        }
        self.dead = true;
        let down = millis(1 + self.group.below(1_000));
        self.group.crash(self.id, down);
    }

    fn stand(&self) {
        let standing = Standing {
            status: self.consensus.status(),
            applied: self.consensus.applied().index,
            value: self.counter.value(),
            members: self.consensus.members().clone(),
        };
        self.group.stand(self.id, standing);
    }
}
