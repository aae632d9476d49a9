//! Sequences of operations on a pair of connections: what applications do, what the network does, and
//! what a peer does that holds the keys and breaks the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use stubborn_core::limits::Limits;
use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_core::transport::connection::{Chunk, Connection, ConnectionEvent, MessageId};
use stubborn_core::transport::endpoint::{
    ConnectionHandle, Ecn, Endpoint, EndpointConfig, Received,
};
use stubborn_core::transport::{Code, ConnectionId, Side};
use stubborn_core::wire::frame::{Frame, Message, NewConnectionId, encode_ack};
use stubborn_core::wire::packet::{Header, PacketWriter};

use super::plain_tls::{PlainHeader, PlainKey, PlainTls};

/// Datagrams that one flush may bring forth: far more than any window allows.
const FLOOD: usize = 5_000;

/// Bytes of an operation's frames at most.
const INJECTED: usize = 200;

/// A datagram on its way: which side it goes to, from where.
type Flight = (usize, SocketAddr, Vec<u8>);

/// What a message consists of: its length tells the rest.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at ^ (at >> 8) ^ length) as u8).collect()
}

/// Frames that decode, with fields that may mean anything.
fn plausible_frames(bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for field in bytes.chunks_exact(4) {
        // Mostly small numbers, some huge ones.
        let number = |byte: u8| match byte {
            small @ 0..200 => u64::from(small % 40),
            large => 1 << (large - 195),
        };
        let [id, value] = [number(field[1]), number(field[2])];
        let data = &bytes[..usize::from(field[3]) % bytes.len()];
        let frame = match field[0] % 18 {
            0 => Frame::Ping,
            1..=4 => Frame::Message(Message { id, offset: value, data, end: field[3] & 1 == 1 }),
            5 => Frame::ResetMessage { id, code: 1, final_size: value },
            6 => Frame::StopMessage { id, code: value },
            7 => Frame::Crypto { offset: value, data },
            8 => Frame::MaxData(value),
            9 => Frame::MaxMessageData { id, limit: value },
            10 => Frame::MaxMessages(value),
            11 => Frame::NewConnectionId(NewConnectionId {
                sequence: id.max(value),
                retire_prior_to: id.min(value),
                id: ConnectionId::from([field[3]; 8]),
                reset_token: [field[3]; 16],
            }),
            12 => Frame::RetireConnectionId(value),
            13 => Frame::PathChallenge([field[1]; 8]),
            14 => Frame::PathResponse([field[1]; 8]),
            15 => Frame::HandshakeDone,
            16 => Frame::Datagram(data),
            _ => {
                let end = value.max(id) + 1;
                let below = value.min(id);
                let ranges = [end..end + 1 + u64::from(field[3]), below..end - 1];
                encode_ack(
                    ranges.into_iter().filter(|r| !r.is_empty()),
                    id,
                    None,
                    100,
                    &mut frames,
                );
                continue;
            }
        };
        frame.encode(&mut frames);
    }
    frames
}

struct Host {
    endpoint: Endpoint,
    handle: Option<ConnectionHandle>,
    /// Messages that the peer of this host sent, and that neither side gave up: to arrive.
    expected: BTreeMap<MessageId, usize>,
    got: BTreeMap<MessageId, Vec<u8>>,
    whole: BTreeSet<MessageId>,
    stopped: BTreeSet<MessageId>,
    lost: bool,
    /// Destination and key phase of the last 1-RTT packet that came.
    last: Option<([u8; 8], bool)>,
}

struct World {
    now: Instant,
    hosts: [Host; 2],
    air: Vec<Flight>,
    client_address: SocketAddr,
    /// A peer broke the rules: from here on only survival counts.
    hostile: bool,
    injected: u64,
}

/// A pair of connections and whatever the input makes of it.
pub fn fuzz_connection(data: &[u8]) {
    let Some((seed, operations)) = data.split_first() else { return };
    let mut world = World::new(*seed);
    let mut input = operations.iter().copied();
    while world.step(&mut input).is_some() {
        world.flush();
    }
    world.settle();
}

impl World {
    fn new(seed: u8) -> Self {
        let mut random = Random::from_seed([seed; 32]);
        let limits = Limits {
            receive_window: 20_000,
            send_window: 30_000,
            queued_messages: 32,
            open_messages: 16,
            unreliable_queue: 4,
            handshakes_before_retry: usize::from(seed % 3),
            ..Limits::default()
        };
        let config = EndpointConfig {
            limits,
            key_update_after: if seed.is_multiple_of(5) { 20 } else { u64::MAX },
            max_segments: 1 + usize::from(seed % 4),
            ..EndpointConfig::default()
        };
        let host = |endpoint| Host {
            endpoint,
            handle: None,
            expected: BTreeMap::new(),
            got: BTreeMap::new(),
            whole: BTreeSet::new(),
            stopped: BTreeSet::new(),
            lost: false,
            last: None,
        };
        let client = Endpoint::new(config.clone(), None, random.fork(), None);
        let server = Endpoint::new(config, Some(PlainTls::server()), random.fork(), Some(1));
        let mut world = Self {
            now: Instant::from_nanos(1 << 32),
            hosts: [host(client), host(server)],
            air: Vec::new(),
            client_address: "10.0.0.1:1".parse().unwrap(),
            hostile: false,
            injected: 0,
        };
        let client = &mut world.hosts[0];
        let connected = client.endpoint.connect(
            world.now,
            server_address(),
            "server",
            &PlainTls::client(),
            None,
            None,
        );
        client.handle = connected.ok();
        world.flush();
        world
    }

    /// Takes one operation off the input.
    fn step(&mut self, input: &mut impl Iterator<Item = u8>) -> Option<()> {
        let operation = input.next()?;
        let operand = input.next()?;
        let side = usize::from(operand & 1);
        let now = self.now;
        match operation % 20 {
            0..=3 => self.send(side, usize::from(operand) * usize::from(input.next()?)),
            4..=7 => self.deliver(usize::from(operand)),
            8 => {
                let dropped = self.pick(usize::from(operand));
                drop(dropped);
            }
            9 => {
                if let Some(flight) = self.pick(usize::from(operand)) {
                    self.air.extend([flight.clone(), flight]);
                }
            }
            10 => {
                let at = usize::from(input.next()?);
                if let Some((to, from, mut data)) = self.pick(usize::from(operand)) {
                    let at = at * 7 % data.len();
                    data[at] ^= 1 << (operand % 8);
                    self.arrive((to, from, data));
                }
            }
            11 | 12 => self.pass(Duration::from_millis(u64::from(operand))),
            13 => self.pass_to_timeout(),
            14 => self.give_up(side, u64::from(operand >> 1)),
            15 => self.stop(side, u64::from(operand >> 1)),
            16 => {
                if let Some(connection) = self.connection(side) {
                    let _ = connection.send_unreliable(pattern(usize::from(operand)));
                    connection.probe(now);
                    connection.keep_alive(now, operand & 2 == 2);
                }
            }
            17 => {
                if let Some(connection) = self.connection(side) {
                    connection.update_keys();
                }
            }
            18 => {
                self.client_address =
                    SocketAddr::from(([10, 0, operand & 1, 1], 1 + u16::from(operand)));
                self.hosts[0].endpoint.address_changed(now);
            }
            _ if operand >= 250 => {
                if let Some(connection) = self.connection(side) {
                    connection.close(now, 5, pattern(usize::from(operand)));
                }
                self.hostile = true;
            }
            _ => {
                let length = usize::from(input.next()?) % INJECTED;
                let bytes: Vec<u8> = input.by_ref().take(length).collect();
                match operand & 2 {
                    0 => self.inject(side, &bytes),
                    _ => self.inject(side, &plausible_frames(&bytes)),
                }
            }
        }
        Some(())
    }

    fn connection(&mut self, side: usize) -> Option<&mut Connection> {
        let host = &mut self.hosts[side];
        host.endpoint.connection_mut(host.handle?)
    }

    fn send(&mut self, side: usize, length: usize) {
        let sent = self
            .connection(side)
            .and_then(|connection| connection.send(Bytes::new(), pattern(length)).ok());
        if let Some(id) = sent {
            self.hosts[1 - side].expected.insert(id, length);
        }
    }

    fn give_up(&mut self, side: usize, id: u64) {
        let id = MessageId(id);
        if self.hosts[1 - side].expected.remove(&id).is_some()
            && let Some(connection) = self.connection(side)
        {
            connection.reset(id, 3);
        }
    }

    fn stop(&mut self, side: usize, id: u64) {
        let id = MessageId(id);
        if self.hosts[side].got.contains_key(&id)
            && let Some(connection) = self.connection(side)
        {
            connection.stop(id, 4);
            self.hosts[side].stopped.insert(id);
        }
    }

    fn pick(&mut self, at: usize) -> Option<Flight> {
        (!self.air.is_empty()).then(|| self.air.remove(at % self.air.len()))
    }

    fn deliver(&mut self, at: usize) {
        if let Some(flight) = self.pick(at) {
            self.arrive(flight);
        }
    }

    fn arrive(&mut self, (to, from, data): Flight) {
        let host = &mut self.hosts[to];
        if data.len() > 20 && data[0] & 0x80 == 0 {
            host.last = data[1..9].try_into().ok().map(|id| (id, data[0] & 0x04 != 0));
        }
        let data = BytesMut::from(&data[..]);
        host.endpoint.handle(self.now, Received { from, local: None, ecn: Ecn::Ect0, data });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for host in &mut self.hosts {
            host.endpoint.handle_timeout(self.now);
        }
    }

    fn pass_to_timeout(&mut self) {
        let next = self.hosts.iter_mut().filter_map(|host| host.endpoint.poll_timeout()).min();
        self.pass(next.map_or(Duration::ZERO, |at| at.since(self.now)));
    }

    /// A packet of arbitrary frames, sealed with the right keys, as if the peer of `side` sent it.
    fn inject(&mut self, side: usize, frames: &[u8]) {
        let Some((destination, phase_bit)) = self.hosts[side].last else { return };
        let Some(updates) = self.connection(side).map(|c| c.stats().key_updates) else { return };
        if frames.is_empty() {
            return;
        }
        self.hostile = true;
        self.injected += 1;
        let number = (1 << 20) + self.injected;
        let sender = if side == 0 { Side::Server } else { Side::Client };
        let key = PlainKey { space: 2, sender, phase: updates };
        let header = Header::one_rtt(ConnectionId::from(destination), phase_bit);
        let mut datagram = Vec::new();
        let writer = PacketWriter::begin(&header, number, None, &mut datagram);
        datagram.extend_from_slice(frames);
        writer.finish(&PlainHeader, &key, &mut datagram);
        let from = if side == 0 { server_address() } else { self.client_address };
        self.arrive((side, from, datagram));
    }

    /// Puts on its way what the endpoints have to send, and hears what they have to tell.
    fn flush(&mut self) {
        let mut sent = 0;
        loop {
            let mut idle = true;
            for side in 0..2 {
                while let Some((handle, event)) = self.hosts[side].endpoint.poll_event() {
                    idle = false;
                    self.on_event(side, handle, event);
                }
                let mut buffer = Vec::new();
                while let Some(transmit) =
                    self.hosts[side].endpoint.poll_transmit(self.now, &mut buffer)
                {
                    idle = false;
                    assert_eq!(transmit.size, buffer.len());
                    let from = if side == 0 { self.client_address } else { server_address() };
                    let size = transmit.segment.unwrap_or(transmit.size);
                    for datagram in buffer.chunks(size) {
                        sent += 1;
                        assert!(sent < FLOOD, "a flood out of nothing");
                        if transmit.to == server_address() || transmit.to == self.client_address {
                            self.air.push((1 - side, from, datagram.to_vec()));
                        }
                    }
                    buffer.clear();
                }
            }
            if idle {
                break;
            }
        }
        // Routers have finite queues.
        let excess = self.air.len().saturating_sub(500);
        self.air.drain(..excess);
    }

    fn on_event(&mut self, side: usize, handle: ConnectionHandle, event: ConnectionEvent) {
        let host = &mut self.hosts[side];
        let current = *host.handle.get_or_insert(handle);
        if current != handle {
            return;
        }
        assert!(!host.lost, "an event after the last one: {event:?}");
        match event {
            ConnectionEvent::Lost(error) => {
                use stubborn_core::transport::connection::ConnectionError as Error;
                host.lost = true;
                let honest = match &error {
                    Error::IdleTimeout | Error::Reset => true,
                    // The client's address changed after its Retry, or the token grew old.
                    Error::PeerTransport(told) => told.code == Code::INVALID_TOKEN,
                    _ => false,
                };
                assert!(self.hostile || honest, "two honest sides fell out: {error}");
            }
            ConnectionEvent::MessagesReadable => self.read(side),
            _ => {}
        }
    }

    fn read(&mut self, side: usize) {
        let hostile = self.hostile;
        let host = &mut self.hosts[side];
        let Some(connection) = host.handle.and_then(|h| host.endpoint.connection_mut(h)) else {
            return;
        };
        while let Some(id) = connection.accept_message() {
            let before = host.got.insert(id, Vec::new());
            assert!(before.is_none(), "message {id} was delivered twice");
        }
        for (id, got) in &mut host.got {
            while let Chunk::Data { data, end } = connection.read(*id) {
                assert!(end || !data.is_empty());
                got.extend_from_slice(&data);
                if end {
                    assert!(host.whole.insert(*id), "message {id} ended twice");
                    assert!(hostile || got[..] == pattern(got.len()), "message {id} was altered");
                }
            }
        }
    }

    /// The network heals: two honest sides then get everything across.
    fn settle(&mut self) {
        // Timeouts may have backed off far, and held packets may have made the path look slow: either a
        // timeout fires or the connection is given up.
        let rtts = [0, 1].map(|side| self.connection(side).map_or(Duration::ZERO, |c| c.rtt()));
        let end = self.now + Duration::from_secs(70) + 40 * rtts[0].max(rtts[1]);
        let now = self.now;
        if let Some(connection) = self.connection(0) {
            // Who only receives does not notice that its address was changed.
            connection.keep_alive(now, true);
            connection.probe(now);
        }
        let mut idle_turns = 0;
        for _ in 0..20_000 {
            let before = (self.now, self.air.len());
            self.flush();
            let over = self.hosts.iter().any(|host| host.lost);
            if over || self.is_done() || self.now >= end {
                break;
            }
            while !self.air.is_empty() {
                self.deliver(0);
            }
            self.flush();
            match self.air.is_empty() {
                true => self.pass_to_timeout(),
                false => self.pass(Duration::from_millis(5)),
            }
            idle_turns = if before == (self.now, self.air.len()) { idle_turns + 1 } else { 0 };
            assert!(
                idle_turns < 100,
                "timers fire and nothing happens at {:?}: {:?}",
                self.now,
                [0, 1].map(|side| self.hosts[side]
                    .handle
                    .and_then(|handle| self.hosts[side].endpoint.connection(handle)))
            );
        }
        assert!(
            self.hostile || self.hosts.iter().any(|host| host.lost) || self.is_done(),
            "not everything arrived at {:?}: {:?} {:?}",
            self.now,
            self.hosts[0].missing(),
            self.hosts[1].missing()
        );
    }

    fn is_done(&self) -> bool {
        self.hosts.iter().all(|host| host.missing().is_empty())
    }
}

impl Host {
    /// Messages that have to arrive and have not.
    fn missing(&self) -> Vec<(MessageId, usize)> {
        let arrived = |id: &MessageId| self.whole.contains(id) || self.stopped.contains(id);
        self.expected.iter().filter(|(id, _)| !arrived(id)).map(|(id, n)| (*id, *n)).collect()
    }
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([10, 9, 9, 9], 9))
}
