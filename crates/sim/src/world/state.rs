//! Everything in a world but its tasks: hosts, network, and what is to happen.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use stubborn_core::node::{
    CallKey, ChannelEvent, ChannelKey, Event, Finding, IncomingRequest, StreamKey,
};
use stubborn_core::random::Random;
use stubborn_core::service::MethodId;
use stubborn_core::session::CallId;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::{EndpointConfig, Received, Transmit};

use super::World;
use super::host::{ChannelPlan, Ending, Host, HostId, RawSocket, Waiting};
use super::kept::ForKeeper;
use super::queue::Queue;
use super::trace::Trace;
use crate::crypto::TlsMaker;
use crate::network::{Attack, Attacker, Datagram, Dropped, Wire};
use crate::oracle::calls::Calls;
use crate::oracle::lies::Lies;
use crate::oracle::{RaceCounts, Violation, WorldOracles};

/// Something that is to happen at a time.
pub(crate) enum Happening {
    Arrival(Datagram),
    Timer(HostId),
    /// A busy host can take its next datagram.
    Proceed(HostId),
    Strike(u64),
    /// A client's journal is synced: of which host and life, and which of the world's channels.
    Journalled(HostId, u32, u32),
    Wake(Waker),
    Action(Box<dyn FnOnce(&World) + Send>),
}

/// What is left to do for the caller, who holds no lock.
pub(crate) enum Chore {
    Wake(Waker),
    Action(Box<dyn FnOnce(&World) + Send>),
}

/// What events of nodes ask for, to be done without a lock being held.
#[derive(Default)]
pub(crate) struct Demands {
    pub(crate) requests: Vec<(HostId, u32, IncomingRequest)>,
    pub(crate) cancelled: Vec<usize>,
    pub(crate) for_keepers: Vec<(HostId, u32, ForKeeper)>,
}

pub(crate) struct State {
    pub(crate) now: Instant,
    pub(crate) queue: Queue<Happening>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) names: BTreeMap<String, HostId>,
    pub(crate) channels: Vec<ChannelPlan>,
    pub(crate) wire: Wire,
    pub(crate) attackers: BTreeMap<u64, Attacker>,
    next_attacker: u64,
    pub(crate) trace: Trace,
    pub(crate) random: Random,
    pub(crate) tls: TlsMaker,
    pub(crate) endpoint: EndpointConfig,
    /// Nodes are handed one by one what has waited for them.
    pub(crate) one_by_one: bool,
    /// Timers fire at multiples of it.
    pub(crate) tick: Duration,
    dirty: VecDeque<HostId>,
    pub(crate) oracles: WorldOracles,
    pub(crate) violation: Option<Violation>,
    pub(crate) calls: Calls,
    pub(crate) lies: Lies,
    pub(crate) races: RaceCounts,
    /// Sessions that moved to another server while calls of theirs were under way.
    pub(crate) moves_mid_call: u64,
    /// Reused for what nodes send.
    outgoing: Vec<u8>,
    pub(crate) drain_waiters: Vec<(HostId, Waker)>,
}

/// Kinds of trace events.
mod kind {
    pub(super) const SENT: u64 = 1;
    pub(super) const DROPPED: u64 = 2;
    pub(super) const ARRIVED: u64 = 3;
    pub(super) const REFUSED: u64 = 4;
    pub(super) const LIFE: u64 = 5;
    pub(super) const REQUEST: u64 = 6;
    pub(super) const ENDED: u64 = 7;
    pub(super) const CHANNEL: u64 = 8;
    pub(super) const NOTE: u64 = 9;
}

impl State {
    pub(crate) fn new(mut random: Random, endpoint: EndpointConfig, trace: Trace) -> Self {
        Self {
            now: Instant::ZERO,
            queue: Queue::new(),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            channels: Vec::new(),
            wire: Wire::new(random.fork()),
            attackers: BTreeMap::new(),
            next_attacker: 0,
            trace,
            tls: TlsMaker::new(&mut random.fork()),
            random,
            endpoint,
            one_by_one: false,
            tick: Duration::ZERO,
            dirty: VecDeque::new(),
            oracles: WorldOracles::default(),
            violation: None,
            calls: Calls::default(),
            lies: Lies::default(),
            races: RaceCounts::default(),
            moves_mid_call: 0,
            outgoing: Vec::new(),
            drain_waiters: Vec::new(),
        }
    }

    pub(crate) fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    /// Adds a host that does not run yet.
    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        let id = HostId(self.hosts.len() as u32);
        let address = self.wire.join(id);
        let tls = self.tls.host(name, &mut self.random);
        self.hosts.push(Host::new(name, address, self.now, self.endpoint.clone(), tls));
        self.names.insert(name.to_owned(), id);
        id
    }

    /// The host's own time.
    pub(crate) fn local_now(&mut self, id: HostId) -> Instant {
        let now = self.now;
        self.host_mut(id).clock.now(now)
    }

    /// Notes that a node was changed: its events and datagrams are to be taken out.
    pub(crate) fn touch(&mut self, id: HostId) {
        if !std::mem::replace(&mut self.host_mut(id).dirty, true) {
            self.dirty.push_back(id);
        }
    }

    pub(crate) fn note_life(&mut self, id: HostId, what: &'static str) {
        let (at, life) = (self.now, self.host(id).life);
        let words = [kind::LIFE, u64::from(id.0), u64::from(life)];
        let name = &self.hosts[id.0 as usize].name;
        self.trace.event(at, words, what.as_bytes(), || format!("{name}: {what} (life {life})"));
    }

    /// The races that this run has met so far.
    pub(crate) fn races(&self) -> RaceCounts {
        let mut races = self.races;
        for alive in self.hosts.iter().filter_map(|host| host.alive.as_ref()) {
            races.servers += alive.node.races();
        }
        races
    }

    /// Adds a line of the scenario to the trace.
    pub(crate) fn note(&mut self, word: u64, line: impl FnOnce() -> String) {
        self.trace.event(self.now, [kind::NOTE, word, 0], &[], line);
    }

    /// Reports what breaks a promise; the first report counts.
    pub(crate) fn accuse(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violation.get_or_insert(violation);
        }
    }

    // --- network ---------------------------------------------------------------------------------

    pub(crate) fn add_attacker(&mut self, every: Duration, kinds: &[Attack]) -> u64 {
        let id = self.next_attacker;
        self.next_attacker += 1;
        let attacker = Attacker::new(every, kinds, self.random.fork());
        self.attackers.insert(id, attacker);
        self.queue.push(self.now + every, Happening::Strike(id));
        id
    }

    pub(crate) fn rebind(&mut self, id: HostId) {
        let old = self.host(id).address;
        let new = self.wire.rebind(id, old);
        self.host_mut(id).address = new;
        self.note_life(id, "rebound");
    }

    /// Puts a datagram on the wire. `from` is who really sends it.
    pub(crate) fn send(&mut self, from: HostId, mut datagram: Datagram) {
        let (source, to) = (datagram.from, datagram.to);
        datagram.answers = self.oracles.amplification.answers(from, source, to);
        for attacker in self.attackers.values_mut() {
            attacker.see(&datagram);
        }
        self.transport(Some(from), datagram);
    }

    fn transport(&mut self, from: Option<HostId>, datagram: Datagram) {
        let (source, to, size) = (datagram.from, datagram.to, datagram.data.len());
        if let Some(from) = from {
            // A client answers nobody: it sends where it chose to.
            if self.host(from).factory.is_some() {
                let sent = self.oracles.amplification.sent(from, to, size);
                self.accuse(sent.map_err(|what| Violation::new("amplification", self.now, what)));
            }
        }
        let sender = from.map_or(u64::MAX, |id| u64::from(id.0));
        let words = [kind::SENT, sender, address_word(to)];
        self.trace.event(self.now, words, &datagram.data, || {
            format!(
                "{source} -> {to} {size} bytes{}",
                if from.is_none() { " (forged)" } else { "" }
            )
        });
        // An attacker sits everywhere: what he sends is subject to no link's rules but the target's.
        let link = from.or_else(|| self.wire.owner(to)).unwrap_or(HostId(0));
        let fate = self.wire.send(self.now, link, datagram);
        if let Some(why) = fate.dropped {
            let words = [kind::DROPPED, sender, why as u64];
            self.trace.event(self.now, words, &[], || format!("{source} -> {to} dropped: {why:?}"));
            self.oracles.wire.dropped(why);
        }
        for (at, datagram) in fate.arrivals {
            self.queue.push(at, Happening::Arrival(datagram));
        }
    }

    fn arrive(&mut self, datagram: Datagram) {
        let (from, to, size) = (datagram.from, datagram.to, datagram.data.len());
        let Some(id) = self.wire.owner(to) else {
            return self.oracles.wire.dropped(Dropped::NoSuchAddress); // it moved meanwhile
        };
        let words = [kind::ARRIVED, address_word(from), u64::from(id.0)];
        self.trace.event(self.now, words, &[], || format!("{from} -> {to} arrived {size} bytes"));
        let now = self.now;
        let host = self.host(id);
        let in_place = host.alive.is_none() && host.sockets.contains_key(&to.port());
        if to != host.address {
            self.oracles.amplification.reached(id, from);
        } else if in_place {
            self.oracles.amplification.received(id, from, size, datagram.answers);
        }
        let host = self.host_mut(id);
        if to != host.address || in_place {
            let full = host.sockets.get_mut(&to.port()).is_some_and(|s| !s.take_in(datagram));
            return self.note_refused(id, full);
        }
        if host.alive.is_none() {
            return self.note_refused(id, true);
        }
        if host.paused || host.busy_until > now || !host.inbox.is_empty() {
            let taken = host.buffer(datagram);
            return self.note_refused(id, !taken);
        }
        self.hand_in(id, vec![datagram]);
    }

    fn note_refused(&mut self, id: HostId, refused: bool) {
        if refused {
            let words = [kind::REFUSED, u64::from(id.0), 0];
            let name = &self.hosts[id.0 as usize].name;
            self.trace.event(self.now, words, &[], || format!("{name} could not take it"));
            self.oracles.wire.dropped(Dropped::QueueFull);
        }
    }

    /// Hands datagrams that came together to a node that is awake.
    fn hand_in(&mut self, id: HostId, datagrams: Vec<Datagram>) {
        let now = self.now;
        for datagram in &datagrams {
            let size = datagram.data.len();
            self.oracles.amplification.received(id, datagram.from, size, datagram.answers);
            self.oracles.wire.delivered(size);
        }
        let mut received: Vec<Received> = datagrams.into_iter().map(received).collect();
        let host = self.host_mut(id);
        let local = host.clock.now(now);
        if host.slowness > Duration::ZERO {
            host.busy_until = now + host.slowness;
        }
        let busy_until = host.busy_until;
        host.alive
            .as_mut()
            .expect("only a live host is handed datagrams")
            .node
            .handle_batch(local, received.drain(..));
        if busy_until > now {
            self.queue.push(busy_until, Happening::Proceed(id));
        }
        self.touch(id);
    }

    /// A host takes up what it could not read before.
    pub(crate) fn proceed(&mut self, id: HostId) {
        while self.host(id).is_awake() && self.host(id).busy_until <= self.now {
            let one_by_one = self.one_by_one;
            let host = self.host_mut(id);
            let together = if host.slowness.is_zero() && !one_by_one { usize::MAX } else { 1 };
            let datagrams: Vec<_> = iter::from_fn(|| host.unbuffer()).take(together).collect();
            if datagrams.is_empty() {
                return;
            }
            self.hand_in(id, datagrams);
        }
    }

    fn strike(&mut self, id: u64) {
        let Some(attacker) = self.attackers.get_mut(&id) else { return };
        let (every, forged) = (attacker.every, attacker.strike());
        for datagram in forged {
            self.transport(None, datagram);
        }
        self.queue.push(self.now + every, Happening::Strike(id));
    }

    // --- what happens ----------------------------------------------------------------------------

    /// Lets the next thing happen, at its time.
    pub(crate) fn happen(&mut self) -> Option<Chore> {
        let (at, happening) = self.queue.pop()?;
        self.now = self.now.max(at);
        match happening {
            Happening::Arrival(datagram) => self.arrive(datagram),
            Happening::Timer(id) => self.fire(id, at),
            Happening::Proceed(id) => self.proceed(id),
            Happening::Strike(id) => self.strike(id),
            Happening::Journalled(id, life, index) => self.journal_synced(id, life, index),
            Happening::Wake(waker) => return Some(Chore::Wake(waker)),
            Happening::Action(action) => return Some(Chore::Action(action)),
        }
        None
    }

    fn fire(&mut self, id: HostId, at: Instant) {
        let now = self.now;
        let host = self.host_mut(id);
        if host.timers.last() != Some(&at) {
            return; // of an earlier life
        }
        host.timers.pop();
        if !host.is_awake() {
            return;
        }
        let local = host.clock.now(now);
        let node = &mut host.alive.as_mut().expect("the host is awake").node;
        if node.poll_timeout().is_some_and(|due| due <= local) {
            node.handle_timeout(local);
        }
        self.touch(id);
    }

    /// Takes the events of changed nodes out and wakes who waits for them.
    pub(crate) fn take_events(&mut self) -> Demands {
        let mut demands = Demands::default();
        for index in 0..self.dirty.len() {
            let id = self.dirty[index];
            while self.host(id).is_awake() {
                let local = self.local_now(id);
                let Some(alive) = &mut self.host_mut(id).alive else { break };
                let Some(event) = alive.node.poll_event(local) else { break };
                self.take_event(id, event, &mut demands);
            }
        }
        demands
    }

    fn take_event(&mut self, id: HostId, event: Event, demands: &mut Demands) {
        match event {
            Event::Resolved(key, result) => self.end(id, key, Ending::Call(result)),
            Event::Reserved(key, result) => self.end(id, key, Ending::Reserved(result)),
            Event::Outcome(key, result) => self.end(id, key, Ending::Outcome(result)),
            Event::Channel(key, event) => self.channel_changed(id, key, event),
            Event::Request(request) => self.requested(id, request, demands),
            Event::Cancelled(key) => {
                let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
                alive.streams.remove(&StreamKey::Request(key));
                demands.cancelled.extend(alive.handlers.remove(&key));
            }
            Event::Query(query) if self.host(id).is_kept => {
                demands.for_keepers.push((id, self.host(id).life, ForKeeper::Query(query)));
            }
            Event::Query(query) => {
                // A simulated server has one worker, so nobody else knows.
                let local = self.local_now(id);
                let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
                alive.node.answer_query(local, query.key, Finding::NOTHING);
            }
            Event::Command(command) => {
                demands.for_keepers.push((id, self.host(id).life, ForKeeper::Command(command)));
            }
            Event::Placed(_) | Event::Refused(..) => unreachable!("no host has another door"),
            Event::Journal(key, entry) => self.write_journal(id, key, entry),
            Event::Readable(key) => {
                let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
                let waiters = alive.streams.get_mut(&key);
                waiters.and_then(|waiters| waiters.take.take()).into_iter().for_each(Waker::wake);
            }
            Event::Writable(key) => {
                let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
                let waiters = alive.streams.get_mut(&key);
                waiters.and_then(|waiters| waiters.send.take()).into_iter().for_each(Waker::wake);
            }
            Event::Drained => self.drained(id),
        }
    }

    fn requested(&mut self, id: HostId, request: IncomingRequest, demands: &mut Demands) {
        let words = [kind::REQUEST, u64::from(id.0), request.method.0];
        let call = request.call.context().id;
        let name = &self.hosts[id.0 as usize].name;
        self.trace.event(self.now, words, &[], || match call {
            Some(call) => format!("{name} starts {call}"),
            None => format!("{name} starts a call without a number"),
        });
        let started = call.map_or(Ok(()), |call| self.oracles.starts.started(call));
        self.accuse(started.map_err(|what| Violation::new("at most once", self.now, what)));
        demands.requests.push((id, self.host(id).life, request));
    }

    /// The keeper of a host starts a handler.
    pub(super) fn note_run(&mut self, id: HostId, method: MethodId, call: Option<CallId>) {
        let sequence = call.map_or(0, |call| call.sequence);
        let words = [kind::REQUEST, u64::from(id.0) << 32 | sequence, method.0];
        let name = &self.hosts[id.0 as usize].name;
        self.trace.event(self.now, words, &[], || match call {
            Some(call) => format!("{name} runs {call}"),
            None => format!("{name} runs a call without a number"),
        });
    }

    fn end(&mut self, id: HostId, key: CallKey, ending: Ending) {
        let words = [kind::ENDED, u64::from(id.0), ending_word(&ending)];
        let name = &self.hosts[id.0 as usize].name;
        self.trace.event(self.now, words, &[], || format!("{name} learns {}", brief(&ending)));
        // What replicas run, and servers with keepers, is judged by others.
        let serves = self.hosts.iter().any(|host| host.factory.is_some() && !host.is_kept);
        if let Ending::Call(Err(error)) = &ending
            && serves
            && !error.call_id().is_some_and(|call| self.lies.told(call))
        {
            let judged = self.oracles.starts.reported(error);
            self.accuse(judged.map_err(|what| Violation::new("outcomes", self.now, what)));
        }
        let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
        let Some(waiting) = alive.waiting.get_mut(&key) else { return };
        if let Waiting::For(Some(waker)) =
            std::mem::replace(waiting, Waiting::Over(Box::new(ending)))
        {
            waker.wake();
        }
    }

    fn channel_changed(&mut self, id: HostId, key: ChannelKey, event: ChannelEvent) {
        let words = [kind::CHANNEL, u64::from(id.0), channel_word(&event)];
        let name = &self.hosts[id.0 as usize].name;
        self.trace.event(self.now, words, &[], || format!("{name} channel: {event:?}"));
        let (peer, ticket, incarnation) = match event {
            ChannelEvent::Ready { peer, ticket, incarnation } => (peer, ticket, incarnation),
            ChannelEvent::Members(members) => return self.follow(id, key, &members),
            ChannelEvent::Unreachable(_) | ChannelEvent::Refused(_) => return,
        };
        // The datagram that says so may be old: the incarnation tells which memory it is from.
        let server = self.wire.owner(peer).map(|server| (server, incarnation));
        let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
        if let Some(channel) = alive.channels.values_mut().find(|channel| channel.key == key) {
            channel.ticket = Some(ticket);
            channel.attached.extend(server);
            let home = server.map(|(server, _)| server);
            let moved = channel.home.is_some() && channel.home != home;
            channel.home = home;
            self.moves_mid_call += u64::from(moved && alive.node.calls() > 0);
        }
    }

    /// The members of a group become the targets of a channel, as the driver that ships has it.
    fn follow(&mut self, id: HostId, key: ChannelKey, members: &[String]) {
        let targets: Vec<SocketAddr> =
            members.iter().filter_map(|member| self.look_up(member)).collect();
        let local = self.local_now(id);
        let alive = self.host_mut(id).alive.as_mut().expect("its node spoke");
        if let Some(channel) = alive.channels.values_mut().find(|channel| channel.key == key) {
            channel.targets.clone_from(&targets);
            alive.node.set_targets(local, key, targets);
        }
    }

    /// The address behind HOST:PORT, of which HOST is that of an address or the name of a host.
    pub(crate) fn look_up(&self, address: &str) -> Option<SocketAddr> {
        if let Ok(address) = address.parse() {
            return Some(address);
        }
        let (name, port) = address.rsplit_once(':')?;
        let host = self.host(*self.names.get(name)?);
        Some(SocketAddr::new(host.address.ip(), port.parse().ok()?))
    }

    fn drained(&mut self, id: HostId) {
        self.note_life(id, "drained");
        self.host_mut(id).alive.as_mut().expect("its node spoke").drained = true;
        for (_, waker) in self.drain_waiters.extract_if(.., |(waiting, _)| *waiting == id) {
            waker.wake();
        }
    }

    /// Sends what changed nodes have to send and sets their timers.
    pub(crate) fn take_transmits(&mut self) {
        while let Some(id) = self.dirty.pop_front() {
            self.host_mut(id).dirty = false;
            self.take_transmits_of(id);
            self.set_timer(id);
            self.check_memory(id);
        }
        if let Some(what) = self.tls.nonces.take() {
            self.accuse(Err(Violation::new("packet numbers", self.now, what)));
        }
    }

    fn take_transmits_of(&mut self, id: HostId) {
        let mut buffer = std::mem::take(&mut self.outgoing);
        while self.host(id).is_awake() {
            let local = self.local_now(id);
            buffer.clear();
            let node = &mut self.host_mut(id).alive.as_mut().expect("the host is awake").node;
            let Some(transmit) = node.poll_transmit(local, &mut buffer) else { break };
            self.send_segments(id, &transmit, &buffer);
        }
        self.outgoing = buffer;
    }

    fn send_segments(&mut self, id: HostId, transmit: &Transmit, buffer: &[u8]) {
        let data = &buffer[..transmit.size];
        let size = transmit.segment.unwrap_or(transmit.size).max(1);
        for segment in data.chunks(size) {
            let datagram = Datagram {
                from: self.host(id).address,
                to: transmit.to,
                ecn: transmit.ecn,
                data: BytesMut::from(segment),
                answers: false,
            };
            self.send(id, datagram);
        }
    }

    pub(crate) fn set_timer(&mut self, id: HostId) {
        let (now, tick) = (self.now, self.tick);
        let host = self.host_mut(id);
        if !host.is_awake() {
            return;
        }
        let Some(due) = host.alive.as_mut().and_then(|alive| alive.node.poll_timeout()) else {
            return;
        };
        let at = next_tick(host.clock.when(due, now), tick);
        if host.timers.last().is_none_or(|earliest| at < *earliest) {
            host.timers.push(at);
            self.queue.push(at, Happening::Timer(id));
        }
    }

    fn check_memory(&mut self, id: HostId) {
        let Self { hosts, oracles, now, .. } = self;
        let host = &hosts[id.0 as usize];
        let Some(alive) = &host.alive else { return };
        let limits = &host.endpoint.limits;
        let judged = oracles.memory.check(&host.name, limits, || alive.node.footprint());
        let judged = judged.map_err(|what| Violation::new("memory", *now, what));
        self.accuse(judged);
    }

    pub(crate) fn open_socket(&mut self, id: HostId) -> SocketAddr {
        let address = self.wire.open(id);
        self.host_mut(id).sockets.insert(address.port(), RawSocket::default());
        address
    }
}

/// The first multiple of `tick` that is not before `at`.
fn next_tick(at: Instant, tick: Duration) -> Instant {
    if tick.is_zero() {
        return at;
    }
    let since = at.since(Instant::ZERO).as_nanos();
    let ticks = since.div_ceil(tick.as_nanos());
    u64::try_from(ticks * tick.as_nanos()).map_or(at, Instant::from_nanos)
}

fn address_word(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
    };
    ip << 16 | u64::from(address.port())
}

fn ending_word(ending: &Ending) -> u64 {
    match ending {
        Ending::Call(Ok(reply)) => reply.reply.digest,
        Ending::Outcome(Ok(_)) => 1,
        Ending::Reserved(Ok(id)) => id.sequence << 8 | 2,
        Ending::Call(Err(_)) => 3,
        Ending::Reserved(Err(_)) => 4,
        Ending::Outcome(Err(_)) => 5,
    }
}

fn channel_word(event: &ChannelEvent) -> u64 {
    match event {
        ChannelEvent::Ready { incarnation, .. } => *incarnation,
        ChannelEvent::Unreachable(_) => 1,
        ChannelEvent::Refused(_) => 2,
        ChannelEvent::Members(_) => 3,
    }
}

fn brief(ending: &Ending) -> String {
    match ending {
        Ending::Call(Ok(reply)) => format!("a reply of {} bytes", reply.reply.body.len()),
        Ending::Reserved(Ok(id)) => format!("the number {id}"),
        Ending::Outcome(Ok(state)) => format!("an outcome: {state:?}"),
        Ending::Call(Err(error)) | Ending::Reserved(Err(error)) | Ending::Outcome(Err(error)) => {
            error.to_string()
        }
    }
}

fn received(datagram: Datagram) -> Received {
    let Datagram { from, to, ecn, data, .. } = datagram;
    Received { from, local: Some(to.ip()), ecn, data }
}
