//! What the record of a call's end costs a replica: commands of real clients are applied to a
//! session table, and beside it the same calls run without one.
//!
//! ```text
//! cargo run --release -p stubborn-core --example session_record
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use stubborn_core::limits::Limits;
use stubborn_core::node::{
    ChannelConfig, ChannelKey, Event, Node, NodeConfig, ServerConfig, SessionCommand, SessionTable,
};
use stubborn_core::service::{
    Answer, Call, Encoded, Metadata, Method, MethodId, OutgoingCall, Semantics, Shape,
};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{EndpointConfig, Received};
use stubborn_tls::{ServerTrust, TlsClient, TlsServer, self_signed};

const PUT: Method = Method::new("test.Kv/Put", Semantics::ExactlyOnce, Shape::Unary);
const BODY: [u8; 64] = [7; 64];
const GROUP: u64 = 256;
const IN_FLIGHT: usize = 128;
const CALLS: usize = 100_000;
const REPEATS: usize = 7;

/// A client, a replica, and what the log would hold.
struct World {
    now: Instant,
    client: Node,
    replica: Node,
    channel: ChannelKey,
    table: SessionTable,
    /// When each command was applied, and its bytes.
    log: Vec<(Instant, Bytes)>,
    resolved: usize,
}

fn main() {
    let mut world = World::new();
    world.run();
    let log = world.log;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        with.push(each(&log, apply));
        without.push(each(&log, run_only));
    }
    let (with, without) = (median(with), median(without));
    println!("{} commands of {IN_FLIGHT} calls in flight, {} B each", log.len(), BODY.len());
    println!("decoded, applied, recorded, answered: {with} ns each");
    println!("decoded and run, without sessions, messages and answers: {without} ns each");
    println!("so the record and the answer cost at most {} ns", with.saturating_sub(without));
}

/// Nanoseconds for each command.
fn each(log: &[(Instant, Bytes)], act: impl FnOnce(&[(Instant, Bytes)])) -> u64 {
    let began = std::time::Instant::now();
    act(log);
    began.elapsed().as_nanos() as u64 / log.len() as u64
}

fn median(mut times: Vec<u64>) -> u64 {
    times.sort();
    times[times.len() / 2]
}

fn apply(log: &[(Instant, Bytes)]) {
    let mut table = SessionTable::new(GROUP, &Limits::default());
    let mut told = Vec::new();
    for (at, bytes) in log {
        let command = SessionCommand::decode(bytes.clone()).expect("a command");
        told.clear();
        table.apply(*at, 1, &command, put, &mut told);
    }
}

fn run_only(log: &[(Instant, Bytes)]) {
    for (_, bytes) in log {
        let command = SessionCommand::decode(bytes.clone()).expect("a command");
        std::hint::black_box(&command);
        let request = Encoded::from_body(PUT.id(), Bytes::from_static(&BODY));
        std::hint::black_box(put(PUT.id(), Call::new(request, Default::default())));
    }
}

fn put(method: MethodId, call: Call<Encoded>) -> Answer {
    match call.message().verified(method) {
        Ok(body) => Answer::Reply(Encoded::from_body(method, body), Metadata::new()),
        Err(error) => Answer::unreadable(error),
    }
}

impl World {
    fn new() -> Self {
        let made = self_signed(["server.test"]).expect("a certificate");
        let trust = ServerTrust::Roots(made.roots());
        let client_tls = TlsClient::builder(trust).build().expect("a client configuration");
        let tls = TlsServer::builder(made.identity).build().expect("a server configuration");
        let server = ServerConfig { tls: Arc::new(tls), incarnation: GROUP, group: true };
        let config = || NodeConfig { endpoint: EndpointConfig::default() };
        let mut client = Node::new(config(), None, [1; 32]);
        let mut channel = ChannelConfig::new("server.test", Arc::new(client_tls));
        channel.targets = vec![address(2)];
        Self {
            now: Instant::ZERO,
            channel: client.open_channel(Instant::ZERO, channel),
            client,
            replica: Node::new(config(), Some(server), [2; 32]),
            table: SessionTable::new(GROUP, &Limits::default()),
            log: Vec::new(),
            resolved: 0,
        }
    }

    /// Makes the calls.
    fn run(&mut self) {
        (0..IN_FLIGHT).for_each(|_| self.call());
        while self.resolved < CALLS {
            let moved = self.client_round() | self.replica_round();
            self.now += Duration::from_micros(50);
            if !moved {
                let next = earliest(self.client.poll_timeout(), self.replica.poll_timeout());
                self.now = self.now.max(next.expect("a timer runs while nothing moves"));
                self.client.handle_timeout(self.now);
                self.replica.handle_timeout(self.now);
            }
        }
    }

    fn call(&mut self) {
        let call = OutgoingCall {
            method: PUT,
            request: Encoded::from_body(PUT.id(), Bytes::from_static(&BODY)),
            metadata: Metadata::new(),
            deadline: None,
            wait_for_ready: Some(true),
            reserved: None,
            max_staleness: None,
        };
        self.client.call(self.now, self.channel, call);
    }

    fn client_round(&mut self) -> bool {
        while let Some(event) = self.client.poll_event(self.now) {
            if let Event::Resolved(_, result) = event {
                result.expect("a reply");
                self.resolved += 1;
                self.call();
            }
        }
        pass_on(self.now, &mut self.client, &mut self.replica, 1, 2)
    }

    fn replica_round(&mut self) -> bool {
        while let Some(event) = self.replica.poll_event(self.now) {
            let Event::Command(command) = event else { continue };
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            self.log.push((self.now, bytes.into()));
            let mut told = Vec::new();
            self.table.apply(self.now, 1, &command, put, &mut told);
            for told in told {
                self.replica.tell(self.now, told.client, told.message);
            }
        }
        pass_on(self.now, &mut self.replica, &mut self.client, 2, 1)
    }
}

/// Hands what one node sends to the other. Returns whether there was anything.
fn pass_on(now: Instant, from: &mut Node, to: &mut Node, sender: u8, receiver: u8) -> bool {
    let (mut any, mut buffer) = (false, Vec::new());
    while let Some(transmit) = from.poll_transmit(now, &mut buffer) {
        any = true;
        for datagram in buffer.chunks(transmit.segment.unwrap_or(transmit.size).max(1)) {
            let data = BytesMut::from(datagram);
            let local = Some(address(receiver).ip());
            to.handle(
                now,
                Received { from: address(sender), local, ecn: Default::default(), data },
            );
        }
        buffer.clear();
    }
    any
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 7400))
}
