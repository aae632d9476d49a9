//! A client and a server endpoint joined by a network in memory, with virtual time and one seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_core::transport::connection::{
    Chunk, Connection, ConnectionError, ConnectionEvent, MessageId,
};
use stubborn_core::transport::crypto::{ClientTls, ServerTls};
use stubborn_core::transport::endpoint::{
    ConnectionHandle, Ecn, Endpoint, EndpointConfig, Received,
};

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// What the network does to datagrams, one way.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) corrupt: f64,
    pub(crate) delay: Duration,
    /// Up to this much is added to the delay, so that datagrams overtake one another.
    pub(crate) jitter: Duration,
    /// Larger datagrams vanish.
    pub(crate) mtu: usize,
    /// Congestion marks, if the sender marked the packet as capable.
    pub(crate) mark: f64,
    /// The ECN field is cleared on the way.
    pub(crate) bleach: bool,
    /// Nothing gets through.
    pub(crate) cut: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            mtu: 1500,
            mark: 0.0,
            bleach: false,
            cut: false,
        }
    }
}

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: Ecn,
    pub(crate) data: Vec<u8>,
}

/// One side: its endpoint, and what it told.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    pub(crate) events: Vec<(ConnectionHandle, ConnectionEvent)>,
    /// Connections whose last event came.
    over: Vec<ConnectionHandle>,
    /// Messages read, by connection and id.
    pub(crate) messages: BTreeMap<(ConnectionHandle, MessageId), Vec<u8>>,
    /// Messages read to their end, in the order in which they ended.
    pub(crate) whole: Vec<(ConnectionHandle, MessageId)>,
    /// Whether to read messages as they come.
    pub(crate) reads: bool,
    /// Answer each whole message with its own bytes.
    pub(crate) echo: bool,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent: Vec<Flight>,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// Rules for what each side sends.
    pub(crate) rules: [Rules; 2],
    pub(crate) random: Random,
    /// What is under way, by arrival time and order of sending.
    pub(crate) air: BTreeMap<(Instant, u64), Flight>,
    /// Address translation: the client's own address seen as another.
    pub(crate) nat: Option<SocketAddr>,
    /// Keep a copy of what each side sends in `Host::sent`.
    pub(crate) record: bool,
    sequence: u64,
    client_tls: Arc<dyn ClientTls>,
}

pub(crate) fn config() -> EndpointConfig {
    EndpointConfig::default()
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, config(), config())
    }

    pub(crate) fn with(seed: u64, client: EndpointConfig, server: EndpointConfig) -> Self {
        let tls = crate::tls::pair();
        Self::with_tls(seed, client, server, tls.0, tls.1)
    }

    pub(crate) fn with_tls(
        seed: u64,
        client: EndpointConfig,
        server: EndpointConfig,
        client_tls: Arc<dyn ClientTls>,
        server_tls: Arc<dyn ServerTls>,
    ) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let mut random = Random::from_seed(bytes);
        let host = |endpoint, address: &str| Host {
            endpoint,
            address: address.parse().unwrap(),
            events: Vec::new(),
            over: Vec::new(),
            messages: BTreeMap::new(),
            whole: Vec::new(),
            reads: true,
            echo: false,
            sent_bytes: 0,
            received_bytes: 0,
            sent: Vec::new(),
        };
        let hosts = [
            host(Endpoint::new(client, None, random.fork(), None), "10.0.0.1:1111"),
            host(
                Endpoint::new(server, Some(server_tls), random.fork(), Some(INCARNATION)),
                "10.0.0.2:2222",
            ),
        ];
        Self {
            now: Instant::from_nanos(1_000_000_000),
            hosts,
            rules: [Rules::default(), Rules::default()],
            random,
            air: BTreeMap::new(),
            nat: None,
            record: false,
            sequence: 0,
            client_tls,
        }
    }

    /// The same rules both ways.
    pub(crate) fn rules(&mut self, rules: Rules) {
        self.rules = [rules.clone(), rules];
    }

    pub(crate) fn connect(&mut self) -> ConnectionHandle {
        self.connect_remembering(None)
    }

    pub(crate) fn connect_remembering(&mut self, rtt: Option<Duration>) -> ConnectionHandle {
        let to = self.hosts[SERVER].address;
        let tls = self.client_tls.clone();
        self.hosts[CLIENT].endpoint.connect(self.now, to, "server.test", &tls, rtt, None).unwrap()
    }

    /// Connects and waits until both sides know it.
    pub(crate) fn established(&mut self) -> (ConnectionHandle, ConnectionHandle) {
        let client = self.connect();
        assert!(
            self.run_until(Duration::from_secs(60), |pair| {
                pair.hosts.iter().all(|h| h.is_connected())
            }),
            "no handshake: {:?} {:?}",
            self.hosts[CLIENT].events,
            self.hosts[SERVER].events
        );
        (client, self.server_handle())
    }

    /// The server's last accepted connection.
    pub(crate) fn server_handle(&self) -> ConnectionHandle {
        self.hosts[SERVER].endpoint.connections().last().expect("the server has a connection")
    }

    pub(crate) fn client(&mut self, handle: ConnectionHandle) -> &mut Connection {
        self.hosts[CLIENT].endpoint.connection_mut(handle).unwrap()
    }

    pub(crate) fn server(&mut self, handle: ConnectionHandle) -> &mut Connection {
        self.hosts[SERVER].endpoint.connection_mut(handle).unwrap()
    }

    /// Lets time pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done`, or the limit; true if `done`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut steps = 0_u64;
        loop {
            self.flush();
            if done(self) {
                return true;
            }
            let timeout = self.hosts.iter_mut().filter_map(|h| h.endpoint.poll_timeout()).min();
            let arrival = self.air.first_key_value().map(|((at, _), _)| *at);
            let next = [timeout, arrival].into_iter().flatten().min();
            match next {
                Some(at) if at <= end => self.now = at.max(self.now),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            for host in &mut self.hosts {
                if host.endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                    host.endpoint.handle_timeout(self.now);
                }
            }
            self.deliver();
            steps += 1;
            assert!(steps < 5_000_000, "it spins at {:?}", self.now);
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.air.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let flight = entry.remove();
            self.arrive(flight);
        }
    }

    /// Hands a datagram to whoever has its address.
    pub(crate) fn arrive(&mut self, flight: Flight) {
        let to = if Some(flight.to) == self.nat { self.hosts[CLIENT].address } else { flight.to };
        let Some(host) = self.hosts.iter_mut().find(|h| h.address == to) else { return };
        host.received_bytes += flight.data.len() as u64;
        host.endpoint.handle(
            self.now,
            Received {
                from: flight.from,
                local: None::<IpAddr>,
                ecn: flight.ecn,
                data: BytesMut::from(&flight.data[..]),
            },
        );
    }

    /// Takes out everything that the endpoints have to send and to tell.
    pub(crate) fn flush(&mut self) {
        loop {
            let mut idle = true;
            for side in [CLIENT, SERVER] {
                while let Some((handle, event)) = self.hosts[side].endpoint.poll_event() {
                    idle = false;
                    self.hosts[side].on_event(handle, event);
                }
                let mut buffer = Vec::new();
                while let Some(t) = self.hosts[side].endpoint.poll_transmit(self.now, &mut buffer) {
                    idle = false;
                    assert_eq!(t.size, buffer.len());
                    assert!(t.size > 0 && t.size <= 65_507);
                    for datagram in buffer.chunks(t.segment.unwrap_or(t.size)) {
                        self.launch(side, t.to, t.ecn, datagram);
                    }
                    buffer.clear();
                }
            }
            if idle {
                break;
            }
        }
    }

    fn launch(&mut self, side: usize, to: SocketAddr, ecn: Ecn, datagram: &[u8]) {
        let host = &mut self.hosts[side];
        host.sent_bytes += datagram.len() as u64;
        let from = match (side, self.nat) {
            (CLIENT, Some(nat)) => nat,
            _ => host.address,
        };
        let mut flight = Flight { from, to, ecn, data: datagram.to_vec() };
        if self.record {
            host.sent.push(flight.clone());
        }
        let rules = self.rules[side].clone();
        if rules.cut || datagram.len() + 28 > rules.mtu || self.random.chance(rules.loss) {
            return;
        }
        if rules.bleach {
            flight.ecn = Ecn::NotEct;
        } else if flight.ecn != Ecn::NotEct && self.random.chance(rules.mark) {
            flight.ecn = Ecn::Ce;
        }
        let copies = 1 + u32::from(self.random.chance(rules.duplicate));
        for _ in 0..copies {
            let mut copy = flight.clone();
            if self.random.chance(rules.corrupt) {
                let at = self.random.below(copy.data.len() as u64) as usize;
                copy.data[at] ^= 1 << self.random.below(8);
            }
            let jitter = rules.jitter.as_nanos() as u64;
            let extra = if jitter > 0 { self.random.below(jitter) } else { 0 };
            let at = self.now + rules.delay + Duration::from_nanos(extra);
            self.sequence += 1;
            self.air.insert((at, self.sequence), copy);
        }
    }
}

pub(crate) const INCARNATION: u64 = 0x1234_5678_9abc_def0;

impl Host {
    pub(crate) fn is_connected(&self) -> bool {
        self.events.iter().any(|(_, e)| *e == ConnectionEvent::Connected)
    }

    pub(crate) fn lost(&self) -> Option<&ConnectionError> {
        self.events.iter().find_map(|(_, e)| match e {
            ConnectionEvent::Lost(error) => Some(error),
            _ => None,
        })
    }

    fn on_event(&mut self, handle: ConnectionHandle, event: ConnectionEvent) {
        assert!(!self.over.contains(&handle), "{event:?} after the last event");
        if matches!(event, ConnectionEvent::Lost(_)) {
            self.over.push(handle);
        }
        if event == ConnectionEvent::MessagesReadable && self.reads {
            self.read(handle);
        }
        self.events.push((handle, event));
    }

    /// Reads whatever can be read of a connection.
    pub(crate) fn read(&mut self, handle: ConnectionHandle) {
        let connection = self.endpoint.connection_mut(handle).unwrap();
        while let Some(id) = connection.accept_message() {
            self.messages.insert((handle, id), Vec::new());
        }
        let open: Vec<_> = self
            .messages
            .range((handle, MessageId(0))..=(handle, MessageId(u64::MAX)))
            .map(|((_, id), _)| *id)
            .filter(|id| !self.whole.contains(&(handle, *id)))
            .collect();
        for id in open {
            loop {
                match connection.read(id) {
                    Chunk::Data { data, end } => {
                        let whole = self.messages.get_mut(&(handle, id)).unwrap();
                        whole.extend_from_slice(&data);
                        if end {
                            self.whole.push((handle, id));
                            if self.echo {
                                let body = Bytes::copy_from_slice(whole);
                                connection.send(Bytes::new(), body).unwrap();
                            }
                            break;
                        }
                    }
                    Chunk::Blocked | Chunk::Ended => break,
                    Chunk::Reset(_) => {
                        self.messages.remove(&(handle, id));
                        break;
                    }
                }
            }
        }
    }
}

/// Bytes that differ from place to place, so that a mix-up shows.
pub(crate) fn pattern(len: usize, salt: u8) -> Bytes {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ salt).collect()
}
