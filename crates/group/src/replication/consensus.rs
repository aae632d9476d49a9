//! Consensus: Raft, through the `raft` crate, as a state machine that is driven.
//!
//! The contract: call anything that changes it ([`tick`](Consensus::tick),
//! [`receive`](Consensus::receive), [`propose`](Consensus::propose), ...), then take
//! [`work`](Consensus::work) until there is none. Of each piece of work: write what is to be
//! written, in order; send what may be sent at once; apply what is committed. When the disk has a
//! write for good, say so with [`written`](Consensus::written), then send what waited for it.
//! Writes of several pieces of work may be synced together.

use std::fmt;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, Entry as LibraryEntry, EntryType};
use raft::{Config, INVALID_ID, ProgressState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};
use slog::{Discard, Logger, o};
use stubborn_core::random::Random;
use stubborn_core::service::Image;

use super::check::check;
use super::log::Log;
use super::translate::{
    ballot_from, ballot_to, change_to, entry_from, entry_to, frame_from, frame_to, members_from,
    read_context, snapshot_from, snapshot_to,
};
use super::votes::Votes;
use super::{
    Ballot, Durable, Entry, EntryKind, Frame, MemberChange, Members, NodeId, Outgoing, Position,
    ReadIndex, Refusal, Snapshot, Work, Write,
};

/// How consensus is run. Times are in ticks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ticks without a leader after which a node may stand for election; it waits up to as long
    /// again, drawn at random.
    pub election: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat: u32,
    /// Bytes of entries in one frame at most, unless one entry alone is larger.
    pub frame_bytes: u64,
    /// Frames with entries under way to a follower at most.
    pub frames_under_way: usize,
    /// Bytes of entries that are proposed and not committed, at most; then [`Refused::Busy`].
    pub uncommitted_bytes: u64,
    /// Entries that are kept before a snapshot, for followers that are a little behind.
    pub keep: u64,
    /// Entries that are kept at most while a follower is sent a snapshot, so that it can go on from
    /// there.
    pub keep_most: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            election: 10,
            heartbeat: 1,
            frame_bytes: 48 << 10,
            frames_under_way: 64,
            uncommitted_bytes: 16 << 20,
            keep: 1_024,
            keep_most: 1 << 20,
        }
    }
}

/// What a node is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes, or whether it would get them.
    Candidate,
    /// It writes the log.
    Leader,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// The latest term it has seen.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    /// The end of its log.
    pub last: Position,
}

/// Why a node does not do what it was asked; it has done nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not lead; who does, if it knows.
    NotLeader(Option<NodeId>),
    /// It leads, but cannot yet, or not now: ask again.
    Busy,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader(None) => f.write_str("this node does not lead, and knows of no leader"),
            Self::NotLeader(Some(leader)) => write!(f, "this node does not lead; {leader} does"),
            Self::Busy => f.write_str("the leader is busy: ask again"),
        }
    }
}

impl std::error::Error for Refused {}

/// Why a node cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consensus cannot start from what the disk holds: {}", self.0)
    }
}

impl std::error::Error for Fault {}

/// One node's part in consensus.
pub struct Consensus {
    node: RawNode<Log>,
    id: NodeId,
    settings: Settings,
    random: Random,
    /// As of the last entry that was handed out to be applied.
    members: Members,
    /// The last entry that was handed out to be applied.
    applied: Position,
    /// The last piece of work that the disk must have, and does not have as far as we know.
    unwritten: Option<u64>,
    /// The piece of work that installs a snapshot here, until it is written, and the snapshot's
    /// index. Until then the node must not stand for election: the library would look for entries
    /// that the snapshot has replaced.
    restoring: Option<(u64, u64)>,
    /// The piece of work with the latest change of members, until the disk knows that it is committed.
    unsettled: Option<u64>,
    /// Ticks after which this node stands for election, and what they were drawn for.
    timeout: usize,
    drawn_for: Option<(u64, StateRole)>,
    /// Ticks for which this node votes for nobody, since it has started again: it may have told a
    /// leader just before that it hears it, and leases rest on that.
    abstains: u32,
    /// Snapshots under way to followers, and for how many ticks.
    installing: Vec<(NodeId, u32)>,
    /// Ticks for which nobody needed the snapshot that is on offer.
    unneeded: u32,
    /// The state of the last snapshot that came, and its place.
    received: Option<(Position, Image)>,
    votes: Votes,
    /// Up to where this leader has told the others that the log is committed.
    told: u64,
}

impl Consensus {
    /// Starts a node from what its disk holds.
    ///
    /// # Errors
    /// If that contradicts itself.
    pub fn new(
        id: NodeId,
        settings: Settings,
        durable: Durable,
        random: Random,
    ) -> Result<Self, Fault> {
        let Durable { ballot, snapshot, entries } = durable;
        let abstains = if ballot.term > 0 { settings.election } else { 0 };
        check_durable(&ballot, &snapshot, &entries)?;
        let config = config(id, &settings, snapshot.at.index);
        let log = Log::new(
            ballot_to(&ballot),
            snapshot_to(&snapshot),
            entries.into_iter().map(entry_to).collect(),
        );
        let node = RawNode::new(&config, log, &Logger::root(Discard, o!()))
            .map_err(|error| Fault(error.to_string()))?;
        let (members, applied) = (snapshot.members, snapshot.at);
        let mut consensus = Self {
            node,
            id,
            settings,
            random,
            members,
            applied,
            unwritten: None,
            restoring: None,
            unsettled: None,
            timeout: 0,
            drawn_for: None,
            abstains,
            installing: Vec::new(),
            unneeded: 0,
            received: None,
            votes: Votes::default(),
            told: 0,
        };
        consensus.draw_timeout();
        Ok(consensus)
    }

    /// Lets a tick pass. For a node that writes a leader's snapshot none does. Returns what is to be
    /// sent again, at once.
    pub fn tick(&mut self) -> Vec<Outgoing> {
        if self.restoring.is_some() {
            return Vec::new();
        }
        self.abstains = self.abstains.saturating_sub(1);
        self.node.tick();
        self.report_snapshots();
        self.draw_timeout();
        let again = self.votes.tick(self.stage());
        // What was asked for waits for the disk, as it did the first time.
        if self.unwritten.is_none() { again } else { Vec::new() }
    }

    /// A peer has said that it hears this node: if this one leads, the peer follows.
    pub fn is_heard_by(&mut self, peer: NodeId) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader
            && let Some(progress) = raft.mut_prs().get_mut(peer.get())
        {
            progress.recent_active = true;
        }
    }

    /// Takes a peer's frame. `from` is who the peer was proved to be.
    ///
    /// # Errors
    /// If no honest peer says this; then nothing has changed.
    pub fn receive(&mut self, from: NodeId, frame: Frame) -> Result<(), Refusal> {
        if from == self.id {
            return Err(Refusal::FromItself);
        }
        check(&self.node, &frame)?;
        if self.restoring.is_some() && matches!(frame, Frame::Succeed { .. }) {
            return Ok(());
        }
        if self.abstains > 0 && matches!(frame, Frame::RequestVote { transfer: false, .. }) {
            return Ok(());
        }
        if let Frame::Install { snapshot, .. } = &frame {
            self.received = Some((snapshot.at, snapshot.data.clone()));
        }
        // What the library does not want to hear it says in its result; nothing follows from that.
        let _ = self.node.step(frame_to(from, self.id, frame));
        self.draw_timeout();
        Ok(())
    }

    /// Proposes a command. It is committed, or lost with its leader: only the log tells.
    ///
    /// # Errors
    /// If the node does not lead, or too much is uncommitted.
    pub fn propose(&mut self, data: Bytes) -> Result<(), Refused> {
        self.must_lead()?;
        self.node.propose(Vec::new(), data.into()).map_err(|_| Refused::Busy)
    }

    /// Proposes a change of members. It counts from the moment that its entry is applied.
    ///
    /// # Errors
    /// If the node does not lead, or another change is under way.
    pub fn change_members(&mut self, change: &MemberChange) -> Result<(), Refused> {
        self.must_lead()?;
        if self.members.is_changing() || self.node.raft.has_pending_conf() {
            return Err(Refused::Busy);
        }
        self.node.propose_conf_change(Vec::new(), change_to(change)).map_err(|_| Refused::Busy)
    }

    /// Begins a linearizable read (Raft thesis, section 6.4): a majority confirms that this node
    /// leads, then [`Work::reads`] has it. Of a leader that is voted out it is never answered.
    ///
    /// # Errors
    /// If the node does not lead, or has not committed an entry in its term yet.
    pub fn read(&mut self, read: u64) -> Result<(), Refused> {
        self.must_lead()?;
        if !self.node.raft.commit_to_current_term() {
            return Err(Refused::Busy);
        }
        self.node.read_index(read_context(Some(read)).into());
        Ok(())
    }

    /// Lets another node lead, if it keeps up.
    ///
    /// # Errors
    /// If this one does not lead.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.must_lead()?;
        self.node.transfer_leader(to.get());
        Ok(())
    }

    /// Up to where this leader has told the others that the log is committed. Each frame of entries
    /// does, and each heartbeat; in between, [`tell`](Self::tell).
    pub fn told(&self) -> u64 {
        if self.node.raft.state == StateRole::Leader { self.told } else { u64::MAX }
    }

    /// Lets a leader tell the others now how far the log is committed.
    pub fn tell(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader {
            self.told = raft.raft_log.committed;
            raft.bcast_append();
        }
    }

    /// The entries that this node has and was not told to apply: they may be committed or not.
    pub fn unapplied(&self) -> impl Iterator<Item = Entry> + '_ {
        let entries = self.node.store().after(self.applied.index, u64::MAX);
        entries.iter().cloned().map(entry_from)
    }

    /// What is to be done next, if anything.
    pub fn work(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let log = self.node.mut_store();
        let mut write = Write { must_sync: ready.must_sync(), ..Write::default() };
        if ready.snapshot().get_metadata().index > 0 {
            log.install(ready.snapshot().clone());
            let mut snapshot = snapshot_from(ready.snapshot());
            if let Some((_, data)) = self.received.take_if(|(at, _)| *at == snapshot.at) {
                snapshot.data = data;
            }
            write.snapshot = Some(snapshot);
        }
        log.append(ready.entries());
        write.entries = ready.take_entries().into_iter().map(entry_from).collect();
        let mut promises = false;
        if let Some(state) = ready.hs() {
            promises = log.set_hard_state(state.clone());
            write.ballot = Some(ballot_from(state));
        }
        let mut work = Work {
            number: ready.number(),
            send: outgoing(log, ready.take_messages()),
            send_when_written: outgoing(log, ready.take_persisted_messages()),
            reads: ready.take_read_states().iter().filter_map(read_index).collect(),
            ..Work::default()
        };
        let stage = self.stage();
        self.votes.note(stage, &work.send);
        self.votes.note(stage, &work.send_when_written);
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        if let Some(snapshot) = &write.snapshot {
            self.members = snapshot.members.clone();
            self.applied = snapshot.at;
            self.restoring = Some((work.number, snapshot.at.index));
        }
        work.committed = self.apply(committed);
        self.apply_ahead(&mut work.committed);
        let settles = self.settle_members(&work, &mut write);
        let is_asked = promises || settles || !work.send_when_written.is_empty();
        write.may_wait = !is_asked && self.others_are_enough();
        self.follow_writes(&mut work, &write);
        work.write = write;
        self.note_snapshots(&work.send);
        self.note_told(&work);
        self.draw_timeout();
        Some(work)
    }

    /// The disk has the writes up to the piece of work of this number.
    pub fn written(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        self.unwritten.take_if(|unwritten| *unwritten <= number);
        self.unsettled.take_if(|unsettled| *unsettled <= number);
        if let Some((_, index)) = self.restoring.take_if(|(restoring, _)| *restoring <= number) {
            self.node.advance_apply_to(index);
        }
        self.draw_timeout();
    }

    /// Takes a snapshot of the state machine as it is after the last entry that was handed out, and
    /// drops entries that are in it. The caller writes the snapshot first.
    pub fn compact(&mut self, snapshot: &Snapshot) {
        debug_assert!(snapshot.at <= self.applied, "a snapshot of what is not applied");
        // The library still hands out what was applied ahead of it.
        let ahead = snapshot.at.index.saturating_sub(self.node.raft.raft_log.applied);
        let (keep, keep_most) = (self.settings.keep.max(ahead), self.settings.keep_most.max(ahead));
        self.node.mut_store().compact(snapshot_to(snapshot), keep, keep_most);
    }

    /// Followers that need a snapshot get this one, of the state machine as it is after the last entry
    /// that was handed out. It is held for as long as they do.
    pub fn offer(&mut self, snapshot: Snapshot) {
        debug_assert!(snapshot.at <= self.applied, "a snapshot of what is not applied");
        self.unneeded = 0;
        self.node.mut_store().offer(snapshot);
    }

    /// A snapshot is still on its way to this follower.
    pub fn is_sending(&mut self, to: NodeId) {
        self.installing
            .iter_mut()
            .filter(|(node, _)| *node == to)
            .for_each(|(_, ticks)| *ticks = 0);
    }

    /// Whether a frame of this peer that installs a snapshot would be taken as things are, so that its
    /// state is worth listening to.
    ///
    /// # Errors
    /// If no honest peer says this.
    pub fn would_install(&self, from: NodeId, frame: &Frame) -> Result<bool, Refusal> {
        if from == self.id {
            return Err(Refusal::FromItself);
        }
        check(&self.node, frame)?;
        let Frame::Install { term, snapshot } = frame else { return Ok(false) };
        let raft = &self.node.raft;
        Ok(*term >= raft.term && snapshot.at.index > raft.raft_log.committed)
    }

    /// Whether a follower waits for a snapshot: [`offer`](Self::offer) one.
    pub fn wants_snapshot(&self) -> bool {
        self.node.store().wants_snapshot()
    }

    /// The members, as of the last entry that was handed out to be applied.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether these are the members also after a restart. Until then those who were removed may have to
    /// vote once more.
    pub fn has_settled_members(&self) -> bool {
        self.unsettled.is_none()
    }

    /// How many entries of this leader's log another node lacks; none if it does not answer, or has
    /// not yet.
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let raft = &self.node.raft;
        let progress = raft.prs().get(node.get())?;
        let answers = progress.recent_active && progress.matched > 0;
        answers.then(|| raft.raft_log.last_index().saturating_sub(progress.matched))
    }

    /// The last entry that was handed out to be applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// How the node stands.
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        Status {
            role: match raft.state {
                StateRole::Leader => Role::Leader,
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            },
            term: raft.term,
            leader: NodeId::new(raft.leader_id),
            committed: raft.raft_log.committed,
            last: Position { index: raft.raft_log.last_index(), term: raft.raft_log.last_term() },
        }
    }
}

impl Consensus {
    fn stage(&self) -> (u64, StateRole) {
        (self.node.raft.term, self.node.raft.state)
    }

    fn must_lead(&self) -> Result<(), Refused> {
        let Status { role, leader, .. } = self.status();
        if role == Role::Leader { Ok(()) } else { Err(Refused::NotLeader(leader)) }
    }

    /// Hands committed entries out, but for those that were handed out ahead. A change of members
    /// counts from here on.
    fn apply(&mut self, mut committed: Vec<LibraryEntry>) -> Vec<Entry> {
        let last = committed.last().map(|last| last.index);
        committed.retain(|entry| entry.index > self.applied.index);
        for entry in &committed {
            self.applied = Position { index: entry.index, term: entry.term };
            if entry.get_entry_type() != EntryType::EntryNormal {
                self.apply_members(entry);
            }
        }
        if let Some(last) = last {
            self.node.advance_apply_to(last);
        }
        committed.into_iter().map(entry_from).collect()
    }

    /// What a majority has is committed, whether or not this node's own disk has it yet (Raft thesis,
    /// section 10.2.1). The library waits for that disk: a leader hands such entries out ahead of it.
    /// Not changes of members, which the library has to count first.
    fn apply_ahead(&mut self, committed: &mut Vec<Entry>) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let entries = self.node.store().after(self.applied.index, raft.raft_log.committed);
        let plain = entries.iter().take_while(|e| e.get_entry_type() == EntryType::EntryNormal);
        let before = committed.len();
        committed.extend(plain.cloned().map(entry_from));
        if let Some(last) = committed[before..].last() {
            self.applied = last.at;
        }
    }

    /// Whether this node leads, and the others can commit entries without its disk.
    fn others_are_enough(&self) -> bool {
        let leads = self.node.raft.state == StateRole::Leader;
        leads && !self.members.is_changing() && self.members.voters.len() > 2
    }

    fn apply_members(&mut self, entry: &LibraryEntry) {
        use protobuf::Message as _;
        let mut change = ConfChangeV2::default();
        // What a leader of ours proposed parses; what another wrote changes nothing.
        if change.merge_from_bytes(&entry.data).is_err() {
            return;
        }
        if let Ok(state) = self.node.apply_conf_change(&change) {
            self.members = members_from(&state);
            self.node.mut_store().note_members(entry.index);
        }
        self.step_down_if_removed();
    }

    /// A leader that has removed itself leads no more. The library lets it, and then fails to find
    /// it among the members at its next write.
    fn step_down_if_removed(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            raft.become_follower(raft.term, INVALID_ID);
        }
    }

    /// A change of members that counts from here on is to count after a restart, too: then nobody has to ask
    /// those for their votes that it has removed, and that have left since. Whether there is one.
    fn settle_members(&mut self, work: &Work, write: &mut Write) -> bool {
        if work.committed.iter().any(|entry| entry.kind == EntryKind::Members) {
            let state = self.node.raft.hard_state();
            write.ballot = Some(ballot_from(&state));
            write.must_sync = true;
            self.node.mut_store().set_hard_state(state);
        } else if write.snapshot.is_none() {
            return false;
        }
        self.unsettled = Some(work.number);
        true
    }

    /// Keeps the order: what waits for the disk waits for all that was to be written before it.
    fn follow_writes(&mut self, work: &mut Work, write: &Write) {
        if write.must_sync {
            self.unwritten = Some(work.number);
        } else if self.unwritten.is_none() {
            work.send.append(&mut work.send_when_written);
            self.node.on_persist_ready(work.number);
        }
    }

    fn note_told(&mut self, work: &Work) {
        if self.node.raft.state != StateRole::Leader {
            self.told = 0;
        }
        for Outgoing { frame, .. } in work.send.iter().chain(&work.send_when_written) {
            if let Frame::Append { committed, .. } = frame {
                self.told = self.told.max(*committed);
            }
        }
    }

    fn note_snapshots(&mut self, sent: &[Outgoing]) {
        for Outgoing { to, frame } in sent {
            if matches!(frame, Frame::Install { .. }) {
                self.installing.retain(|(node, _)| node != to);
                self.installing.push((*to, 0));
            }
        }
    }

    /// A snapshot may be lost on its way. The library waits until it is told of its end: it is told
    /// so after a while, asks the follower where it is, and sends the snapshot again if need be.
    fn report_snapshots(&mut self) {
        let patience = self.settings.election;
        for (node, ticks) in &mut self.installing {
            *ticks += 1;
            let progress = self.node.raft.prs().get(node.get());
            let waits = progress.is_some_and(|progress| progress.state == ProgressState::Snapshot);
            if waits && *ticks >= patience {
                self.node.report_snapshot(node.get(), SnapshotStatus::Finish);
            }
        }
        self.installing.retain(|(_, ticks)| *ticks < patience);
        let raft = &self.node.raft;
        let is_needed = |progress: &raft::Progress| progress.state == ProgressState::Snapshot;
        let needed = raft.prs().iter().any(|(_, progress)| is_needed(progress));
        self.unneeded = if needed || !self.installing.is_empty() { 0 } else { self.unneeded + 1 };
        if raft.state != StateRole::Leader || self.unneeded >= patience {
            self.unneeded = 0;
            self.node.mut_store().withdraw();
        }
    }

    /// The library draws election timeouts from a source that no seed governs: ours take their
    /// place after every call. A new one is drawn for each term and role, and when one has passed,
    /// so that nodes which stand at the same time do not do so for ever.
    fn draw_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let stage = (raft.term, raft.state);
        if self.drawn_for != Some(stage) || raft.election_elapsed == 0 {
            self.drawn_for = Some(stage);
            let election = u64::from(self.settings.election);
            self.timeout = (election + self.random.below(election)) as usize;
        }
        raft.set_randomized_election_timeout(self.timeout);
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consensus({}, {:?})", self.id, self.status())
    }
}

fn config(id: NodeId, settings: &Settings, applied: u64) -> Config {
    let election = settings.election as usize;
    Config {
        id: id.get(),
        election_tick: election,
        heartbeat_tick: settings.heartbeat as usize,
        applied,
        max_size_per_msg: settings.frame_bytes,
        max_inflight_msgs: settings.frames_under_way,
        check_quorum: true,
        pre_vote: true,
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: settings.uncommitted_bytes,
        skip_bcast_commit: true, // See `Consensus::tell`.
        ..Config::default()
    }
}

fn check_durable(ballot: &Ballot, snapshot: &Snapshot, entries: &[Entry]) -> Result<(), Fault> {
    let mut at = snapshot.at;
    for entry in entries {
        if entry.at.index != at.index + 1 || entry.at.term < at.term {
            return Err(Fault(format!("entry {:?} follows {at:?}", entry.at)));
        }
        at = entry.at;
    }
    if ballot.committed > at.index {
        let committed = ballot.committed;
        return Err(Fault(format!("entry {committed} is committed, the last is {}", at.index)));
    }
    if at.term > ballot.term {
        return Err(Fault(format!(
            "the log is of term {}, the ballot of {}",
            at.term, ballot.term
        )));
    }
    if !snapshot.members.is_sound() {
        return Err(Fault("no group can have such members".into()));
    }
    Ok(())
}

/// What the library wants to be sent. A snapshot gets its state back; one that is not on offer any more
/// is lost on its way.
fn outgoing(log: &Log, messages: Vec<raft::eraftpb::Message>) -> Vec<Outgoing> {
    let with_state = |(to, mut frame): (NodeId, Frame)| {
        if let Frame::Install { snapshot, .. } = &mut frame {
            snapshot.data = log.state_at(snapshot.at)?;
        }
        Some(Outgoing { to, frame })
    };
    messages.into_iter().filter_map(frame_from).filter_map(with_state).collect()
}

fn read_index(state: &raft::ReadState) -> Option<ReadIndex> {
    let read = u64::from_be_bytes(*state.request_ctx.first_chunk()?);
    Some(ReadIndex { read, index: state.index })
}
