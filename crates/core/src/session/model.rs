//! A client and a server half, joined by a network that does its worst, and an oracle.
//!
//! The network drops, duplicates, delays and reorders every message between several connections of
//! one session, old ones included; the server restarts and forgets; slots are granted and asked
//! back. The oracle holds the promise against what handlers really did.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::limits::Limits;
use crate::time::{Duration, Instant};

const SLOTS: u32 = 4;
const FENCES: usize = 2;
const RETENTION: Duration = Duration::from_secs(3600);

/// One thing that happens. The number picks among what it can happen to.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call(u32),
    Abandon(u32),
    Ask(u32),
    Deliver(u32),
    DeliverToServer(u32),
    Duplicate(u32),
    Drop(u32),
    Finish(u32),
    GiveUp(u32),
    SendFences,
    SendReleases,
    SendReturns,
    Connect,
    ServerDetaches(u32),
    LimitSlots(u32),
    QueryFromElsewhere(u32),
    RetentionPasses,
    Restart,
}

#[derive(Clone, Debug)]
enum Message {
    // To the server.
    Open([u8; 16]),
    Attach(SessionId),
    Request { slot: u32, sequence: u64, payload: u64 },
    Fence(SlotPosition),
    Release(Vec<SlotPosition>),
    Return(Vec<SlotPosition>),
    // To the client.
    Opened(Opened),
    Attached(Attached),
    Refused(Option<SessionId>, Refusal),
    Answer { slot: u32, sequence: u64, answer: Answer<Bytes> },
    Slots(SlotChange),
}

#[derive(Clone, Debug)]
struct Packet {
    connection: usize,
    to_server: bool,
    message: Message,
}

#[derive(Debug)]
struct Connection {
    /// Which life of the server it leads to.
    life: u64,
    attachment: Option<Attachment>,
    ended: bool,
    /// The session whose answers come on it, as the client knows.
    session: Option<SessionId>,
    early: Vec<SlotChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Executed,
    NotExecuted,
    Lost,
}

#[derive(Debug)]
struct Running {
    attachment: Attachment,
    slot: u32,
    sequence: u64,
    payload: u64,
}

struct World {
    now: Instant,
    life: u64,
    limits: Limits,
    server: Sessions<Bytes>,
    running: Vec<Running>,
    wire: Vec<Packet>,
    connections: Vec<Connection>,
    client: Option<ClientSession>,
    secret: SessionSecret,
    nonce: u128,
    active: Option<usize>,
    /// Which call has which id; ids of calls that nothing was sent of are used again.
    ids: BTreeMap<CallId, u64>,
    /// Per payload: what the caller was told, and how often the handler ran.
    outcomes: Vec<Option<Outcome>>,
    effects: Vec<u32>,
    started: BTreeSet<CallId>,
    /// Calls whose replies the server promised to keep.
    kept: BTreeSet<u64>,
    /// Every request that ever went out whole.
    sent: Vec<(CallId, u64)>,
    seen: Seen,
}

/// What a run reached.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    resent: u32,
    from_memory: u32,
    fenced_first: u32,
    fenced_while_executing: u32,
    superseded: u32,
    lost: u32,
    regranted: u32,
    given_back: u32,
    not_kept: u32,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            slots: SLOTS,
            kept_reply: 16,
            kept_replies: 40,
            held_replies: 200,
            retention: RETENTION,
            ..Limits::default()
        };
        let mut world = Self {
            now: Instant::ZERO,
            life: 1,
            server: Sessions::new(1, &limits),
            limits,
            running: Vec::new(),
            wire: Vec::new(),
            connections: Vec::new(),
            client: None,
            secret: SessionSecret::NONE,
            nonce: 1,
            active: None,
            ids: BTreeMap::new(),
            outcomes: Vec::new(),
            effects: Vec::new(),
            started: BTreeSet::new(),
            kept: BTreeSet::new(),
            sent: Vec::new(),
            seen: Seen::default(),
        };
        world.connect();
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Call(pick) => self.call(pick),
            Step::Abandon(pick) => self.abandon(pick),
            Step::Ask(pick) => {
                if let (Some(id), Some(client)) = (self.pick_id(pick), &mut self.client) {
                    client.ask(id);
                }
            }
            Step::Deliver(pick) => self.deliver(pick, None),
            Step::DeliverToServer(pick) => self.deliver(pick, Some(true)),
            Step::Duplicate(pick) => self.duplicate(pick),
            Step::Drop(pick) => {
                if let Some(index) = at(pick, self.wire.len()) {
                    self.wire.swap_remove(index);
                }
            }
            Step::Finish(pick) => self.finish(pick),
            Step::GiveUp(pick) => self.give_up(pick),
            Step::SendFences => self.send_fences(),
            Step::SendReleases => self.send_releases(),
            Step::SendReturns => self.send_returns(),
            Step::Connect => self.connect(),
            Step::ServerDetaches(pick) => {
                if let Some(index) = at(pick, self.connections.len()) {
                    self.server_detaches(index);
                }
            }
            Step::LimitSlots(limit) => {
                for (connection, change) in self.server.limit_slots(1 + limit % SLOTS) {
                    self.seen.regranted += change.granted.len() as u32;
                    self.send_back(connection as usize, Message::Slots(change));
                }
            }
            Step::QueryFromElsewhere(pick) => self.query(pick),
            Step::RetentionPasses => {
                self.now += RETENTION;
                self.server.expire(self.now);
            }
            Step::Restart => self.restart(),
        }
        self.check();
    }

    fn check(&self) {
        self.server.check();
        let print = self.server.footprint();
        assert!(print.kept <= self.limits.kept_replies && print.held <= self.limits.held_replies);
        if let Some(client) = &self.client {
            assert!(client.held() <= SLOTS && client.in_flight() <= SLOTS);
        }
    }

    // The client.

    fn call(&mut self, pick: u32) {
        let attached = self.client.as_ref().is_some_and(ClientSession::is_attached);
        let Some(client) = &mut self.client else { return };
        let Some(id) = client.reserve() else { return };
        let payload = self.outcomes.len() as u64;
        self.outcomes.push(None);
        self.effects.push(0);
        self.ids.insert(id, payload);
        match pick % 8 {
            0 => {}
            1 => client.sent(id, Sent::Part),
            _ if attached => self.send_request(id),
            _ => {}
        }
    }

    fn send_request(&mut self, id: CallId) {
        let payload = self.ids[&id];
        self.client.as_mut().unwrap().sent(id, Sent::Whole);
        self.sent.push((id, payload));
        self.send(Message::Request { slot: id.slot, sequence: id.sequence, payload });
    }

    fn abandon(&mut self, pick: u32) {
        let Some(id) = self.pick_id(pick) else { return };
        let Some(client) = &mut self.client else { return };
        if client.abandon(id) == Abandoned::NeverSent {
            let payload = self.ids[&id];
            // A call of which a part was sent can be abandoned again while its fence is under way.
            if self.outcomes[payload as usize].is_none() {
                self.settle(payload, Outcome::NotExecuted);
            }
        }
    }

    /// A call whose outcome is not known.
    fn pick_id(&self, pick: u32) -> Option<CallId> {
        let open = |id: &CallId| self.outcomes[self.ids[id] as usize].is_none();
        let ids: Vec<_> = self.ids.keys().copied().filter(open).collect();
        Some(ids[at(pick, ids.len())?])
    }

    fn send_fences(&mut self) {
        while let Some(position) = self.client.as_mut().and_then(ClientSession::next_fence) {
            self.send(Message::Fence(position));
        }
    }

    fn send_releases(&mut self) {
        let Some(client) = &mut self.client else { return };
        let releases = client.take_releases(SLOTS as usize);
        if !releases.is_empty() {
            self.send(Message::Release(releases));
        }
    }

    fn send_returns(&mut self) {
        let Some(client) = &mut self.client else { return };
        let returns = client.take_returns();
        if !returns.is_empty() {
            self.seen.given_back += returns.len() as u32;
            self.send(Message::Return(returns));
        }
    }

    fn connect(&mut self) {
        let session = self.client.as_ref().map(ClientSession::id);
        self.connections.push(Connection {
            life: self.life,
            attachment: None,
            ended: false,
            session,
            early: Vec::new(),
        });
        self.active = Some(self.connections.len() - 1);
        self.introduce();
    }

    fn introduce(&mut self) {
        match &mut self.client {
            Some(client) => {
                client.detached();
                let id = client.id();
                self.send(Message::Attach(id));
            }
            None => self.send(Message::Open(self.nonce.to_be_bytes())),
        }
    }

    fn client_receives(&mut self, connection: usize, message: Message) {
        let active = self.active == Some(connection);
        let current = self.client.as_ref().map(ClientSession::id);
        match message {
            Message::Opened(opened) if active && self.client.is_none() => {
                self.connections[connection].session = Some(opened.session);
                self.secret = opened.secret.clone();
                let mut client = ClientSession::new(&opened, SLOTS, FENCES);
                for change in core::mem::take(&mut self.connections[connection].early) {
                    client.slots_changed(&change);
                }
                self.client = Some(client);
                if opened.epoch > 1 {
                    // A repeated opening does not tell what changed since the first.
                    self.introduce();
                }
            }
            Message::Attached(attached) if active => self.attached(&attached),
            Message::Refused(id, refusal) if active && id == current && refusal.is_lost() => {
                self.session_lost();
            }
            Message::Refused(id, Refusal::Superseded) if active && id == current => {
                self.seen.superseded += 1;
                if self.client.as_ref().is_some_and(ClientSession::is_attached) {
                    self.introduce();
                }
            }
            Message::Slots(change) if active && current.is_some() => {
                self.client.as_mut().unwrap().slots_changed(&change);
            }
            // It has overtaken the answer to the opening.
            Message::Slots(change) if active => self.connections[connection].early.push(change),
            Message::Answer { slot, sequence, answer }
                if current.is_some() && self.connections[connection].session == current =>
            {
                self.answered(slot, sequence, &answer);
            }
            _ => {}
        }
    }

    fn answered(&mut self, slot: u32, sequence: u64, answer: &Answer<Bytes>) {
        let client = self.client.as_mut().unwrap();
        let id = CallId { session: client.id(), slot, sequence };
        match client.answer(slot, sequence, answer) {
            Effect::Settled { .. } => {
                let payload = self.ids[&id];
                if let Answer::Reply(reply) = answer {
                    assert_eq!(reply[..8], payload.to_be_bytes(), "the reply of another call");
                }
                let outcome = match answer {
                    Answer::NotExecuted(_) => Outcome::NotExecuted,
                    _ => Outcome::Executed,
                };
                if *answer == Answer::NotKept {
                    self.not_kept(payload);
                }
                self.settle_abandoned_too(payload, outcome);
            }
            Effect::Lost => panic!("the server called {id} stale, which is in flight"),
            Effect::Working | Effect::Ignored => {}
        }
    }

    fn attached(&mut self, attached: &Attached) {
        let Some(client) = &mut self.client else { return };
        for (id, todo) in client.attached(attached).unwrap_or_default() {
            match todo {
                Reconciled::Send => {
                    self.seen.resent += 1;
                    self.send_request(id);
                }
                Reconciled::NotKept => {
                    let payload = self.ids[&id];
                    self.not_kept(payload);
                    self.settle_abandoned_too(payload, Outcome::Executed);
                }
                Reconciled::Ended(fate) => panic!("{id} ended as {fate:?} with a live session"),
                Reconciled::Ask | Reconciled::WillCome => {}
            }
        }
    }

    fn not_kept(&mut self, payload: u64) {
        assert!(!self.kept.contains(&payload), "the reply of {payload} was to be kept");
        self.seen.not_kept += 1;
    }

    fn session_lost(&mut self) {
        let Some(client) = self.client.take() else { return };
        self.nonce += 1;
        for (id, fate) in client.lost() {
            let payload = self.ids[&id];
            let outcome = match fate {
                Fate::NeverSent => Outcome::NotExecuted,
                Fate::Lost => Outcome::Lost,
            };
            if outcome == Outcome::Lost {
                self.seen.lost += 1;
                let claim = Claim { certificate: None, secret: self.secret.clone() };
                assert_eq!(self.server.query(id, &claim), Ok(QueryAnswer::UnknownSession));
            }
            self.settle_abandoned_too(payload, outcome);
        }
        self.introduce();
    }

    /// A call of which a part was sent is settled for its caller first, then for its slot.
    fn settle_abandoned_too(&mut self, payload: u64, outcome: Outcome) {
        match &self.outcomes[payload as usize] {
            None => self.settle(payload, outcome),
            Some(known) => assert_eq!(known, &outcome, "{payload} settled in two ways"),
        }
    }

    fn settle(&mut self, payload: u64, outcome: Outcome) {
        let effects = self.effects[payload as usize];
        match outcome {
            Outcome::Executed => assert_eq!(effects, 1, "{payload} reported executed"),
            Outcome::NotExecuted => assert_eq!(effects, 0, "{payload} reported not executed"),
            Outcome::Lost => assert!(effects <= 1),
        }
        self.outcomes[payload as usize] = Some(outcome);
    }

    // The server.

    fn server_receives(&mut self, connection: usize, message: Message) {
        let Connection { life, ended, attachment, .. } = self.connections[connection];
        if life != self.life || ended {
            return;
        }
        match message {
            Message::Open(nonce) => return self.server_opens(connection, nonce),
            Message::Attach(session) => return self.server_attaches(connection, session),
            _ => {}
        }
        let Some(at) = attachment else { return };
        let result = self.server_handles(connection, &at, message);
        match result {
            Ok(()) => {}
            Err(Refused::Session(refusal)) => {
                self.send_back(connection, Message::Refused(Some(at.session()), refusal));
            }
            Err(Refused::Violation(violation)) => panic!("a correct client did this: {violation}"),
        }
    }

    fn server_opens(&mut self, connection: usize, nonce: [u8; 16]) {
        if self.connections[connection].attachment.is_some() {
            // A connection speaks for one session in its life.
            return;
        }
        let mut secret = [7; 32];
        secret[..16].copy_from_slice(&nonce);
        let request = OpenRequest {
            nonce,
            certificate: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            slots_wanted: 3,
            fresh_secret: SessionSecret::new(secret),
            connection: connection as u64,
        };
        match self.server.open(&request) {
            Ok((opened, attachment)) => {
                self.connections[connection].attachment = Some(attachment);
                self.send_back(connection, Message::Opened(opened));
            }
            Err(refusal) => self.send_back(connection, Message::Refused(None, refusal)),
        }
    }

    fn server_attaches(&mut self, connection: usize, session: SessionId) {
        let claim = Claim { certificate: None, secret: self.secret.clone() };
        match self.server.attach(session, &claim, connection as u64) {
            Ok((attached, attachment)) => {
                self.connections[connection].attachment = Some(attachment);
                self.send_back(connection, Message::Attached(attached));
            }
            Err(refusal) => self.send_back(connection, Message::Refused(Some(session), refusal)),
        }
    }

    fn server_handles(
        &mut self,
        connection: usize,
        at: &Attachment,
        message: Message,
    ) -> Result<(), Refused> {
        match message {
            Message::Request { slot, sequence, payload } => {
                let answer = match self.server.request(at, slot, sequence, payload)? {
                    Decision::Execute => {
                        let id = CallId { session: at.session(), slot, sequence };
                        assert!(self.started.insert(id), "{id} started twice");
                        self.running.push(Running { attachment: *at, slot, sequence, payload });
                        return Ok(());
                    }
                    Decision::Answer(answer) => answer,
                    Decision::FalseRetry => panic!("a false retry of a correct client"),
                };
                self.seen.from_memory += u32::from(matches!(answer, Answer::Reply(_)));
                self.send_back(connection, Message::Answer { slot, sequence, answer });
            }
            Message::Fence(SlotPosition { slot, sequence }) => {
                let answer = self.server.fence(at, slot, sequence)?;
                self.seen.fenced_first += u32::from(matches!(answer, Answer::NotExecuted(_)));
                self.seen.fenced_while_executing += u32::from(matches!(answer, Answer::Working));
                self.send_back(connection, Message::Answer { slot, sequence, answer });
            }
            Message::Release(positions) => {
                for SlotPosition { slot, sequence } in positions {
                    self.server.release(at, slot, sequence)?;
                }
            }
            Message::Return(positions) => {
                if let Some(change) = self.server.return_slots(at, &positions)? {
                    self.seen.regranted += change.granted.len() as u32;
                    self.send_back(connection, Message::Slots(change));
                }
            }
            _ => unreachable!("a message to the client"),
        }
        Ok(())
    }

    fn finish(&mut self, pick: u32) {
        let Some(index) = at(pick, self.running.len()) else { return };
        let Running { attachment, slot, sequence, payload } = self.running.swap_remove(index);
        let effects = &mut self.effects[payload as usize];
        *effects += 1;
        assert_eq!(*effects, 1, "{payload} ran twice");
        let told = &self.outcomes[payload as usize];
        assert!(
            !matches!(told, Some(Outcome::NotExecuted | Outcome::Lost)),
            "{payload} ran after {told:?}"
        );
        let mut reply = payload.to_be_bytes().to_vec();
        if payload.is_multiple_of(3) {
            reply.resize(60, 0);
        }
        let reply = Bytes::from(reply);
        let done = self.server.complete(self.now, &attachment, slot, sequence, reply.clone());
        let Completion { connection, keep } = done.expect("an executing call completes");
        if keep == Some(Keep::Session) {
            self.kept.insert(payload);
        }
        if let Some(connection) = connection {
            let answer = Answer::Reply(reply);
            self.send_back(connection as usize, Message::Answer { slot, sequence, answer });
        }
    }

    fn give_up(&mut self, pick: u32) {
        let Some(index) = at(pick, self.running.len()) else { return };
        let Running { attachment, slot, sequence, .. } = self.running.swap_remove(index);
        let why = NotExecutedReason::Overloaded;
        let told = self.server.give_up(self.now, &attachment, slot, sequence, why);
        if let Some(connection) = told.expect("an executing call can be given up") {
            let answer = Answer::NotExecuted(why);
            self.send_back(connection as usize, Message::Answer { slot, sequence, answer });
        }
    }

    fn server_detaches(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if let (false, Some(attachment)) = (connection.ended, connection.attachment)
            && connection.life == self.life
        {
            self.server.detach(self.now, &attachment);
        }
        self.connections[index].ended = true;
    }

    fn restart(&mut self) {
        self.life += 1;
        self.server = Sessions::new(self.life, &self.limits);
        self.running.clear();
    }

    fn query(&mut self, pick: u32) {
        let Some(index) = at(pick, self.sent.len()) else { return };
        let (id, payload) = self.sent[index];
        let claim = Claim { certificate: None, secret: self.secret.clone() };
        let effects = self.effects[payload as usize];
        // The secret is that of the current session: other sessions' calls are denied.
        match self.server.query(id, &claim) {
            Ok(QueryAnswer::Done(reply)) => {
                assert_eq!((effects, &reply[..8]), (1, &payload.to_be_bytes()[..]));
            }
            Ok(QueryAnswer::NotKept) => {
                assert_eq!(effects, 1);
                self.not_kept(payload);
            }
            Ok(QueryAnswer::NotExecuted(_) | QueryAnswer::NotArrived) => assert_eq!(effects, 0),
            Ok(QueryAnswer::Executing) => {
                assert!(self.running.iter().any(|running| running.payload == payload));
            }
            Ok(QueryAnswer::AlreadySettled) => {
                assert!(self.outcomes[payload as usize].is_some(), "{id} is not settled");
            }
            Ok(QueryAnswer::UnknownSession) | Err(_) => {}
        }
    }

    // The network.

    fn send(&mut self, message: Message) {
        if let Some(connection) = self.active {
            self.wire.push(Packet { connection, to_server: true, message });
        }
    }

    fn send_back(&mut self, connection: usize, message: Message) {
        self.wire.push(Packet { connection, to_server: false, message });
    }

    fn deliver(&mut self, pick: u32, to_server: Option<bool>) {
        let fits = |packet: &Packet| to_server.is_none_or(|side| packet.to_server == side);
        let indexes: Vec<_> = (0..self.wire.len()).filter(|i| fits(&self.wire[*i])).collect();
        if let Some(index) = at(pick, indexes.len()) {
            let packet = self.wire.remove(indexes[index]);
            self.arrive(packet);
        }
    }

    fn arrive(&mut self, Packet { connection, to_server, message }: Packet) {
        if to_server {
            self.server_receives(connection, message);
        } else {
            self.client_receives(connection, message);
        }
    }

    /// Copies a message. Attaching is the one exchange of which a connection, which delivers a
    /// message once, must not make copies.
    fn duplicate(&mut self, pick: u32) {
        if let Some(index) = at(pick, self.wire.len())
            && !matches!(self.wire[index].message, Message::Attach(_) | Message::Attached(_))
        {
            let copy = self.wire[index].clone();
            self.wire.push(copy);
        }
    }

    /// The faults end: what is under way arrives, the client connects anew, and all settles.
    fn heal(&mut self) {
        while let Some(packet) = self.wire.pop() {
            self.arrive(packet);
            self.check();
        }
        for index in 0..self.connections.len() {
            self.server_detaches(index);
        }
        self.connect();
        for _ in 0..64 {
            while !self.wire.is_empty() {
                self.deliver(0, None);
                self.check();
            }
            while !self.running.is_empty() {
                self.finish(0);
            }
            // The rest of calls of which nothing or a part was sent.
            if let Some(client) = &self.client
                && client.is_attached()
            {
                let unsent = |id: &CallId| {
                    let progress = client.progress(*id);
                    progress.is_some_and(|(sent, _)| sent != Sent::Whole)
                        && self.outcomes[self.ids[id] as usize].is_none()
                };
                let unsent: Vec<_> = self.ids.keys().copied().filter(unsent).collect();
                unsent.into_iter().for_each(|id| self.send_request(id));
            }
            self.send_fences();
            self.send_releases();
            self.send_returns();
        }
        self.check_healed();
    }

    fn check_healed(&mut self) {
        for (payload, outcome) in self.outcomes.iter().enumerate() {
            assert!(outcome.is_some(), "{payload} is not settled");
        }
        assert_eq!(self.server.footprint(), Footprint::default(), "memory is kept for nothing");
        let client = self.client.as_ref().expect("a session");
        assert_eq!(client.in_flight(), 0);
        assert_eq!(Some(client.held()), self.server.held(client.id()), "a slot has leaked");
        // Copies of everything that was ever sent in this session come late: nothing starts.
        let id = client.id();
        for (call, payload) in self.sent.clone().into_iter().filter(|(call, _)| call.session == id)
        {
            let (slot, sequence) = (call.slot, call.sequence);
            let message = Message::Request { slot, sequence, payload };
            self.server_receives(self.active.unwrap(), message);
            assert!(self.running.is_empty(), "a late copy of {call} started");
        }
    }
}

fn at(pick: u32, len: usize) -> Option<usize> {
    (len > 0).then(|| pick as usize % len)
}

fn steps(restarts: bool) -> impl Strategy<Value = Vec<Step>> {
    let (forget, pass) = match restarts {
        true => (Step::Restart, Step::RetentionPasses),
        false => (Step::Connect, Step::SendFences),
    };
    let step = prop_oneof![
        20 => any::<u32>().prop_map(Step::Call),
        6 => any::<u32>().prop_map(Step::Abandon),
        2 => any::<u32>().prop_map(Step::Ask),
        40 => any::<u32>().prop_map(Step::Deliver),
        10 => any::<u32>().prop_map(Step::DeliverToServer),
        8 => any::<u32>().prop_map(Step::Duplicate),
        4 => any::<u32>().prop_map(Step::Drop),
        12 => any::<u32>().prop_map(Step::Finish),
        2 => any::<u32>().prop_map(Step::GiveUp),
        6 => Just(Step::SendFences),
        3 => Just(Step::SendReleases),
        3 => Just(Step::SendReturns),
        3 => Just(Step::Connect),
        1 => any::<u32>().prop_map(Step::ServerDetaches),
        3 => any::<u32>().prop_map(Step::LimitSlots),
        3 => any::<u32>().prop_map(Step::QueryFromElsewhere),
        1 => Just(forget),
        1 => Just(pass),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_call_resolves_and_runs_at_most_once_whatever_the_network_does(
        steps in steps(false),
    ) {
        run(&steps);
    }

    #[test]
    fn a_restarted_or_forgetful_server_loses_calls_but_never_doubles_one(steps in steps(true)) {
        run(&steps);
    }
}

#[test]
fn the_model_reaches_every_race_that_it_is_for() {
    let mut runner = TestRunner::deterministic();
    let mut seen = Seen::default();
    for _ in 0..300 {
        let steps = steps(true).new_tree(&mut runner).unwrap().current();
        let run = run(&steps);
        seen.resent += run.resent;
        seen.from_memory += run.from_memory;
        seen.fenced_first += run.fenced_first;
        seen.fenced_while_executing += run.fenced_while_executing;
        seen.superseded += run.superseded;
        seen.lost += run.lost;
        seen.regranted += run.regranted;
        seen.given_back += run.given_back;
        seen.not_kept += run.not_kept;
    }
    let Seen { resent, from_memory, fenced_first, fenced_while_executing, .. } = seen;
    let Seen { superseded, lost, regranted, given_back, not_kept, .. } = seen;
    for count in [resent, from_memory, fenced_first, fenced_while_executing, superseded] {
        assert!(count > 20, "{seen:?}");
    }
    for count in [lost, regranted, given_back, not_kept] {
        assert!(count > 20, "{seen:?}");
    }
}

fn run(steps: &[Step]) -> Seen {
    let mut world = World::new();
    for step in steps {
        world.step(*step);
    }
    world.heal();
    world.seen
}
