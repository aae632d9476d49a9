//! A replica: one log, and what its entries make of sessions and state machines.
//!
//! Commands of clients go into the log and are applied by every replica; where the table of sessions
//! says so, the machine runs, and the slot is completed in the same step. So the record that a call
//! ran is never apart from what it changed, and any replica can answer for it.
//!
//! # Driving contract
//! Call what changes it ([`handle_timeout`](Replica::handle_timeout), [`receive`](Replica::receive),
//! [`command`](Replica::command), [`read`](Replica::read), [`written`](Replica::written)), then
//! [`flush`](Replica::flush); then take out writes, packets, what clients are told and reads that may
//! be answered, until there are none. Writes go to the disk in order; several may be synced together.

mod clock;
mod entry;
mod folders;
mod image;
mod lease;
mod message;
mod outbox;
mod pending;
mod reads;
mod restore;
mod roster;
mod settings;
mod state;
mod submit;
mod telling;
mod versions;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use stubborn_core::node::{
    CallName, CallStep, Finding, IncomingQuery, SessionCommand, Staleness, StepKind, Told,
};
use stubborn_core::random::Random;
use stubborn_core::service::{Answer, Encoded, Image, Machines, MethodId};
use stubborn_core::session::SessionId;
use stubborn_core::time::{Duration, Instant};

use self::clock::LogClock;
use self::entry::{Origin, Record, encode_sessions};
use self::folders::Folders;
use self::lease::Lease;
use self::message::Message;
use self::outbox::Outbox;
use self::pending::{Pending, Wanted};
use self::reads::{Answered, Reads};
use self::restore::Restoring;
use self::state::State;
use self::submit::Gathered;
use self::telling::Telling;
use self::versions::Supports;
use crate::replication::{
    Consensus, Durable, Entry, EntryKind, Frame, MemberChange, Members, NodeId, Outgoing, Position,
    Refusal, Refused, Role, Snapshot, Work, Write,
};
use crate::served::Ledger;

pub use self::entry::refounding;
pub use self::message::PacketError;
pub use self::outbox::{Packet, PacketKind};
pub use self::pending::Full;
pub use self::roster::{Roster, RosterChange, Seat};
pub use self::settings::{Fault, Settings, Standing};

/// One replica of a group. See the [module](self) for how to drive it.
pub struct Replica {
    id: NodeId,
    group: u64,
    /// Drawn at each start: names this process in the log.
    life: u64,
    settings: Settings,
    consensus: Consensus,
    state: State,
    /// A snapshot of a leader that is on its way here.
    arriving: Option<Arriving>,
    /// One that has arrived, until consensus takes it.
    restored: Option<(Position, Restoring)>,
    /// With whom a new group begins.
    beginning: Roster,
    clock: LogClock,
    pending: Pending,
    gathered: Gathered,
    /// Written into the log in this term by this leader and not applied yet: a copy is not written
    /// again.
    proposed: BTreeSet<Origin>,
    reads: Reads,
    supports: Supports,
    folders: Folders,
    lease: Lease,
    telling: Telling,
    /// The term and the leader for which commands were sent last.
    seen: (u64, Option<NodeId>),
    /// When the leader last said something, or this replica led.
    in_touch: Instant,
    next_tick: Instant,
    /// The log's time that was last proposed.
    stamped: Instant,
    growth: Growth,
    writes: VecDeque<(u64, Write)>,
    /// What waits for the disk: up to which number, and what is sent then.
    held: VecDeque<(u64, Vec<Outgoing>)>,
    outbox: Outbox,
    told: VecDeque<Told>,
    due: VecDeque<u64>,
    /// Calls of this replica's clients that were answered.
    pub(crate) served: Ledger,
    fault: Option<Fault>,
}

/// A snapshot whose state comes in pieces, and is put together beside the one that is here.
struct Arriving {
    from: NodeId,
    frame: Frame,
    at: Position,
    restoring: Restoring,
}

/// How much the log has grown since the last snapshot.
#[derive(Clone, Copy, Debug, Default)]
struct Growth {
    snapshot: u64,
    entries: u64,
    bytes: u64,
    /// The last piece of work that was handed to the disk.
    number: u64,
}

impl Replica {
    /// Starts a replica of `group` from what its disk holds. `machines` are as a new group has them.
    /// `seed` is all the randomness it ever gets, and must be new at each start.
    ///
    /// # Errors
    /// If the disk's contents contradict themselves, or are those of other machines.
    pub fn new(
        now: Instant,
        (group, id): (u64, NodeId),
        settings: Settings,
        durable: Durable,
        machines: Machines,
        seed: [u8; 32],
    ) -> Result<Self, Fault> {
        let mut random = Random::from_seed(seed);
        let life = random.u64();
        let mut state = State::new(group, &settings, machines);
        if durable.snapshot.at.index > 0 {
            state.restore_all(&durable.snapshot.data)?;
        }
        let snapshot = durable.snapshot.at.index;
        let consensus = Consensus::new(id, settings.consensus.clone(), durable, random.fork())
            .map_err(|fault| Fault::Start(fault.to_string()))?;
        Ok(Self {
            id,
            group,
            life,
            consensus,
            state,
            arriving: None,
            restored: None,
            beginning: Roster::default(),
            clock: LogClock::default(),
            pending: Pending::new(life, settings.pending, settings.pending_bytes),
            gathered: Gathered::new(settings.pending_bytes),
            proposed: BTreeSet::new(),
            reads: Reads::new(random.fork()),
            supports: Supports::default(),
            folders: Folders::default(),
            lease: Lease::new(settings.lease, settings.consensus.election, settings.tick),
            telling: Telling::default(),
            seen: (0, None),
            in_touch: now,
            next_tick: now + settings.tick,
            stamped: Instant::ZERO,
            growth: Growth { snapshot, ..Growth::default() },
            writes: VecDeque::new(),
            held: VecDeque::new(),
            outbox: Outbox::default(),
            told: VecDeque::new(),
            due: VecDeque::new(),
            served: Ledger::default(),
            fault: None,
            settings,
        })
    }

    /// With whom the group begins, if it has no roster yet. Without one, members are changed with
    /// [`change_members`](Self::change_members) alone.
    pub fn begin_with(&mut self, roster: Roster) {
        self.beginning = roster;
    }

    /// Who is to belong to the group.
    pub fn roster(&self) -> &Roster {
        self.state.roster()
    }

    /// The members that there are, as of the last entry that was applied.
    pub fn members(&self) -> &Members {
        self.consensus.members()
    }

    /// Whether the members do without this node for good. As long as it is one of those that a change of
    /// members leaves behind, its word may be needed; so it may until a member knows of the change, and
    /// does so after a restart, too. Who leaves by the same change may be the only one that knows of it.
    pub fn does_without(&self, node: NodeId) -> bool {
        let members = self.consensus.members();
        let is_settled = members.contains(self.id) && self.consensus.has_settled_members();
        is_settled && !members.contains(node)
    }

    /// The others say that this replica has left the group.
    pub fn expel(&mut self) {
        self.fault.get_or_insert(Fault::Left);
    }

    /// What the replica names itself in the log: a connection of a session is of a life, and a
    /// connection of an earlier one is nobody's.
    pub fn life(&self) -> u64 {
        self.life
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Instant {
        self.telling.by().map_or(self.next_tick, |by| by.min(self.next_tick))
    }

    /// Lets ticks pass that are due at `now`. One that was slept through passes once.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        let tick = self.settings.tick;
        let late = now.since(self.next_tick);
        self.next_tick = if late > tick { now + tick } else { self.next_tick + tick };
        let again = self.consensus.tick();
        self.send(again);
        if self.consensus.status().role == Role::Leader {
            self.in_touch = now;
        }
        self.state.tick_if_planted(tick);
        self.pending.send_old_again(now, self.settings.patience);
        self.reads.handle_timeout(now, self.settings.patience);
        self.let_time_pass(now);
        self.note_folders(now);
        self.reconcile();
        self.keep_versions(now);
    }

    /// Takes a packet of a peer. `from` is who the peer was proved to be.
    ///
    /// # Errors
    /// If something of it is refused: the first of that. The rest is listened to.
    pub fn receive(
        &mut self,
        now: Instant,
        from: NodeId,
        packet: &Bytes,
    ) -> Result<(), PacketError> {
        let messages = message::decode(self.group, packet)?;
        self.check_folders(from, &messages)?;
        let mut result = Ok(());
        for message in messages {
            match message {
                // Its state would be missing: see `begin_snapshot`.
                Message::Frame(Frame::Install { .. }) => {
                    result = result.and(Err(PacketError::Malformed));
                }
                Message::Frame(frame) => {
                    result = result.and(self.frame(now, from, frame));
                }
                Message::Forward(items) => self.gather(items),
                Message::AskIndex(read) => self.ask_for(now, from, read),
                Message::Index { read, index } => {
                    self.reads.answered(read, index);
                }
                Message::Supports(versions) => self.supports.told(from, versions),
                Message::Folders { .. } | Message::Unknown => {}
            }
        }
        result
    }

    /// A peer begins to send a snapshot, as this packet says. Its state follows in pieces; a snapshot
    /// that was begun before is dropped.
    ///
    /// # Errors
    /// If no honest peer says this.
    pub fn begin_snapshot(&mut self, from: NodeId, packet: &Bytes) -> Result<(), PacketError> {
        let Ok([Message::Frame(frame)]) = <[_; 1]>::try_from(message::decode(self.group, packet)?)
        else {
            return Err(PacketError::Malformed);
        };
        let Frame::Install { snapshot: Snapshot { at, .. }, .. } = frame else {
            return Err(PacketError::Malformed);
        };
        let useful = self.consensus.would_install(from, &frame).map_err(PacketError::Refused)?;
        if useful {
            let restoring = Restoring::default();
            self.arriving = Some(Arriving { from, frame, at, restoring });
        }
        Ok(())
    }

    /// Takes the next bytes of the state that this peer sends.
    pub fn snapshot_piece(&mut self, from: NodeId, bytes: &[u8]) {
        if let Some(arriving) = self.arriving.as_mut().filter(|arriving| arriving.from == from) {
            self.state.restore(&mut arriving.restoring, bytes);
        }
    }

    /// All of the state that this peer sends has come: consensus decides whether it counts.
    ///
    /// # Errors
    /// If consensus refuses the snapshot.
    pub fn end_snapshot(&mut self, now: Instant, from: NodeId) -> Result<(), PacketError> {
        let Some(arriving) = self.arriving.take_if(|arriving| arriving.from == from) else {
            return Ok(());
        };
        self.restored = Some((arriving.at, arriving.restoring));
        let taken = self.frame(now, from, arriving.frame);
        self.flush(now);
        self.restored = None;
        taken
    }

    /// A snapshot is still on its way to this peer.
    pub fn is_sending(&mut self, to: NodeId) {
        self.consensus.is_sending(to);
    }

    /// A peer has said that it hears this node.
    pub fn is_heard_by(&mut self, peer: NodeId) {
        self.consensus.is_heard_by(peer);
    }

    /// Takes a client's message that changes sessions: it goes into the log.
    ///
    /// # Errors
    /// If the replica holds as many as it may, or the call names itself and a member of the group may know
    /// no ids: the command comes back, and its client is to send it again later
    /// ([`SessionCommand::push_back`]).
    pub fn command(
        &mut self,
        now: Instant,
        command: SessionCommand,
    ) -> Result<(), Box<SessionCommand>> {
        if command.has_id() && !self.state.table().keeps_ids() {
            return Err(Box::new(command));
        }
        let command = command.as_of(self.version());
        if let Some((call, fence)) = command.call() {
            let kind = if fence { StepKind::FenceCame } else { StepKind::Came };
            self.state.log().push(now, call, kind);
        }
        match self.pending.add(now, Wanted::Command(command)).map_err(|wanted| *wanted) {
            Err(Wanted::Command(command)) => Err(Box::new(command)),
            Ok(()) | Err(Wanted::Renewal(_)) => Ok(()),
        }
    }

    /// The methods of calls that came here and were not applied yet. Looks at all of them.
    pub fn in_flight(&self) -> Vec<MethodId> {
        self.pending.calls().into_values().collect()
    }

    /// What happened to a call here lately, in the order of time.
    pub fn call_steps(&self, name: CallName) -> Vec<CallStep> {
        self.state.call_steps(name)
    }

    /// Says that the clients of these sessions are there still. To be said every
    /// [`renew_every`](Self::renew_every).
    ///
    /// # Errors
    /// If the replica holds as many commands as it may: say so later.
    pub fn renew(&mut self, now: Instant, sessions: &[SessionId]) -> Result<(), Full> {
        let renewal = Wanted::Renewal(encode_sessions(sessions));
        self.pending.add(now, renewal).map_err(|_| Full)
    }

    /// How often the sessions that are connected to this replica are to be renewed.
    pub fn renew_every(&self) -> Duration {
        self.state.table().renew_every()
    }

    /// Begins a linearizable read; `read` comes out of [`poll_read`](Self::poll_read) when it may be
    /// answered, by [`query`](Self::query).
    pub fn read(&mut self, read: u64) {
        self.reads.add(read);
    }

    /// The same for a read that may be answered from an older state. What the caller has seen is in
    /// it, and all that was committed before the time that it names: by the word of a leader that was
    /// asked at that time or later, so that no two clocks are compared.
    pub fn read_stale(&mut self, now: Instant, read: u64, stale: Staleness) {
        match self.new_enough(now, &stale) {
            Some(age) => {
                self.due.push_back(read);
                // Before the next read finds the state too old.
                if age > stale.at_most / 2 {
                    self.reads.ask_soon();
                }
            }
            None => self.reads.add(read),
        }
    }

    /// Whether such a read may be answered from the state as it is.
    pub fn is_new_enough(&self, now: Instant, stale: &Staleness) -> bool {
        self.new_enough(now, stale).is_some()
    }

    /// How old the state is at most, if that is new enough.
    fn new_enough(&self, now: Instant, stale: &Staleness) -> Option<Duration> {
        let applied = self.consensus.applied().index;
        let seen = stale.seen <= applied || cfg!(feature = "planted-backward-read");
        self.reads.age(now).filter(|age| seen && *age <= stale.at_most)
    }

    /// Whether it has a method: one of its machines, or of its own.
    pub fn has(&self, method: MethodId) -> bool {
        method == roster::MEMBERS.id() || self.state.machines().semantics(method).is_some()
    }

    /// Answers a query from the state as it is.
    pub fn query(&self, method: MethodId, request: &Encoded) -> Answer {
        self.state.query(method, request)
    }

    /// Whether the state is known to hold everything that was committed so long ago. If that is soon not
    /// so any more, the leader is asked.
    pub fn is_fresh(&mut self, now: Instant, at_most: Duration) -> bool {
        let age = self.reads.age(now);
        if age.is_none_or(|age| age > at_most / 4) {
            self.reads.ask_soon();
        }
        age.is_some_and(|age| age <= at_most)
    }

    /// What is known of a call that a client asks about; to be asked as a read.
    pub fn find(&self, query: &IncomingQuery) -> Finding {
        self.state.table().query(query)
    }

    /// The disk has all writes up to this number.
    pub fn written(&mut self, number: u64) {
        self.consensus.written(number);
        while let Some((_, frames)) = self.held.pop_front_if(|(of, _)| *of <= number) {
            self.send(frames);
        }
    }

    /// Does all that is to be done now.
    pub fn flush(&mut self, now: Instant) {
        while self.fault.is_none() {
            self.notice_leader();
            self.submit(now);
            self.ask_index(now);
            let Some(work) = self.consensus.work() else {
                let (told, committed) = (self.consensus.told(), self.committed());
                if self.telling.is_due(now, told, committed) {
                    self.consensus.tell();
                    continue;
                }
                break;
            };
            if let Err(fault) = self.carry_out(now, work) {
                self.fault = Some(fault);
            }
        }
        if self.fault.is_none() {
            self.snapshot_if_due();
            self.due.extend(self.reads.due(self.consensus.applied().index));
        }
    }

    /// The next write for the disk, and its number for [`written`](Self::written).
    pub fn poll_write(&mut self) -> Option<(u64, Write)> {
        self.writes.pop_front()
    }

    /// The next packet for another replica.
    pub fn poll_packet(&mut self) -> Option<Packet> {
        let mut outbox = std::mem::take(&mut self.outbox);
        let packet = outbox.poll(self.group, |to| self.heading(to));
        self.outbox = outbox;
        packet
    }

    /// The next thing to be told to a client of this replica.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// The next read that may be answered.
    pub fn poll_read(&mut self) -> Option<u64> {
        self.due.pop_front()
    }

    /// Why the replica has stopped, if it has. It does nothing any more, but its peers do not need
    /// it to.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Who leads, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.consensus.status().leader
    }

    /// Since when this replica has neither led nor heard of whoever leads. Removed ones do not even
    /// stand for election.
    pub fn out_of_touch(&self) -> Instant {
        self.in_touch
    }

    /// The last entry that it knows to be committed.
    pub fn committed(&self) -> u64 {
        self.consensus.status().committed
    }

    /// The end of its log.
    pub fn last(&self) -> Position {
        self.consensus.status().last
    }

    /// The last entry that it has applied.
    pub fn applied(&self) -> u64 {
        self.consensus.applied().index
    }

    /// How the replica stands.
    pub fn standing(&self) -> Standing {
        Standing {
            consensus: self.consensus.status(),
            members: self.consensus.members().clone(),
            applied: self.consensus.applied().index,
            time: self.state.time(),
            sessions: self.state.table().len(),
            pending: self.pending.len(),
            reads: self.reads.len(),
            snapshot: self.growth.snapshot,
            versions: self.state.machines().active().to_vec(),
            version: self.version(),
            ids: self.state.table().ids(),
        }
    }

    /// The version of the group itself that is active.
    pub fn version(&self) -> u32 {
        self.state.version()
    }

    /// The state machines, for reading.
    pub fn machines(&self) -> &Machines {
        self.state.machines()
    }

    /// The last entry that was applied.
    pub fn applied_at(&self) -> Position {
        self.consensus.applied()
    }

    /// The whole replicated state as it is now: the same on every replica that has applied the same
    /// entries. The replica goes on; what it changes from now on is copied.
    pub fn freeze(&mut self) -> Image {
        self.state.freeze()
    }

    /// Proposes a change of members.
    ///
    /// # Errors
    /// If this replica does not lead, or another change is under way.
    pub fn change_members(&mut self, change: &MemberChange) -> Result<(), Refused> {
        self.consensus.change_members(change)
    }

    /// Lets another replica lead, if it keeps up.
    ///
    /// # Errors
    /// If this one does not lead.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.consensus.transfer(to)?;
        self.lease.bar();
        Ok(())
    }
}

impl Replica {
    /// Takes a peer's word.
    fn frame(&mut self, now: Instant, from: NodeId, frame: Frame) -> Result<(), PacketError> {
        let taken = self.consensus.receive(from, frame);
        if self.leader() == Some(from) {
            self.in_touch = now;
        }
        if taken == Err(Refusal::CountsOnLostEntries) {
            self.fault.get_or_insert(Fault::LostDisk);
        }
        taken.map_err(PacketError::Refused)
    }

    fn carry_out(&mut self, now: Instant, work: Work) -> Result<(), Fault> {
        let Work { number, mut write, send, send_when_written, committed, reads } = work;
        if let Some(snapshot) = &mut write.snapshot {
            let restored = self.restored.take_if(|(at, _)| *at == snapshot.at);
            let (_, restoring) = restored.expect("a snapshot is taken when its state is there");
            self.state.adopt(restoring.complete()?)?;
            snapshot.data = self.state.freeze();
            self.growth = Growth { snapshot: snapshot.at.index, ..self.growth };
            (self.growth.entries, self.growth.bytes) = (0, 0);
        }
        self.growth.number = number;
        if !write.is_empty() || !send_when_written.is_empty() {
            self.writes.push_back((number, write));
        }
        self.send(send);
        if cfg!(feature = "planted-early-vote") {
            self.send(send_when_written);
        } else if !send_when_written.is_empty() {
            self.held.push_back((number, send_when_written));
        }
        for entry in committed {
            self.apply(now, &entry)?;
        }
        for read in reads {
            let Some(Answered { asked, other }) = self.reads.answered(read.read, read.index) else {
                continue;
            };
            if self.consensus.status().role == Role::Leader {
                self.lease.renew(asked);
            }
            if let Some((node, number)) = other {
                self.telling.is_awaited(read.index);
                self.outbox.push(node, Message::Index { read: number, index: read.index });
            }
        }
        Ok(())
    }

    fn apply(&mut self, now: Instant, entry: &Entry) -> Result<(), Fault> {
        self.growth.entries += 1;
        self.growth.bytes += entry.data.len() as u64;
        if entry.kind == EntryKind::Members {
            return Ok(());
        }
        if entry.data.is_empty() {
            self.begin_term(now, entry);
            return Ok(());
        }
        let Some(record) = Record::decode(&entry.data) else { return Ok(()) };
        let told = self.state.apply(now, entry.at.index, &record)?;
        for (origin, method, ending) in self.state.take_ended() {
            if let Some(came) = self.pending.came(origin) {
                self.served.note(method, ending, now.since(came));
            }
        }
        self.told.extend(told.into_iter().filter(|told| told.replica == self.life));
        for item in &record.items {
            self.pending.applied(item.origin);
            self.proposed.remove(&item.origin);
        }
        Ok(())
    }

    /// The entry with which a leader begins its term: all that was before it is applied.
    fn begin_term(&mut self, now: Instant, entry: &Entry) {
        let status = self.consensus.status();
        if status.role == Role::Leader && status.term == entry.at.term {
            self.clock.start(now, self.state.time());
        }
    }

    fn send(&mut self, frames: Vec<Outgoing>) {
        for Outgoing { to, frame } in frames {
            self.outbox.push(to, Message::Frame(frame));
        }
    }

    /// Takes a snapshot when the log has grown, and freezes one for whoever needs it.
    fn snapshot_if_due(&mut self) {
        let Growth { entries, bytes, number, .. } = self.growth;
        let grown =
            entries >= self.settings.snapshot_entries || bytes >= self.settings.snapshot_bytes;
        let wanted = self.consensus.wants_snapshot();
        if !grown && !wanted {
            return;
        }
        let at = self.consensus.applied();
        let members = self.consensus.members().clone();
        let snapshot = Snapshot { at, members, data: self.state.freeze() };
        if wanted {
            self.consensus.offer(snapshot.clone());
        }
        if !grown {
            return;
        }
        self.consensus.compact(&snapshot);
        self.growth = Growth { snapshot: at.index, entries: 0, bytes: 0, number };
        self.writes.push_back((number, Write { compact: Some(snapshot), ..Write::default() }));
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({}, {:?})", self.id, self.consensus.status())
    }
}
