//! What a group costs in memory: three group nodes of one process, a network and a disk that take no
//! time, and one client node with so many calls in flight. `entries [IN FLIGHT] [CALLS] [PAYLOAD]`.
//!
//! All nodes share one processor, so the figure is the sum of what all of them and the client do. In
//! flight is what a busy group has; the disk "syncs" once per turn, as a group commit does.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant as Wall;

use bytes::BytesMut;
use stubborn_core::limits::Limits;
use stubborn_core::node::{ChannelConfig, ChannelKey, Event, Node, NodeConfig};
use stubborn_core::service::{
    Answer, Applied, Encoded, Image, Machine, Machines, Metadata, Method, OutgoingCall, Piece,
    RestoreError, Semantics, ServiceDescriptor, Shape,
};
use stubborn_core::time::{Duration, Instant, earliest};
use stubborn_core::transport::endpoint::{Ecn, EndpointConfig, Received};
use stubborn_group::node::{GroupConfig, GroupNode, Peer};
use stubborn_group::replica::{Roster, Settings};
use stubborn_group::replication::{Durable, Members, NodeId};
use stubborn_tls::{Authority, ClientCertificates, ServerTrust, TlsClient, TlsServer, Usage};

const PUT: Method = Method::new("bench.Store/Put", Semantics::ExactlyOnce, Shape::Unary);
static STORE: ServiceDescriptor =
    ServiceDescriptor { name: "bench.Store", methods: &[PUT], file_descriptor_set: &[] };

/// Counts puts.
#[derive(Default)]
struct Store(u64);

impl Machine for Store {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &STORE
    }

    fn apply(&mut self, _: &Applied, _: usize, _: &Encoded) -> Answer {
        self.0 += 1;
        Answer::Reply(Encoded::from_body(PUT.id(), bytes::Bytes::new()), Metadata::new())
    }

    fn query(&self, _: usize, request: &Encoded) -> Answer {
        Answer::Reply(request.clone(), Metadata::new())
    }

    fn snapshot(&self) -> Image {
        self.0.to_be_bytes().to_vec().into()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        let count = piece.bytes().try_into().map_err(|_| RestoreError::new("no count"))?;
        self.0 = u64::from_be_bytes(count);
        Ok(())
    }
}

const GROUP: u64 = 0x6702_5500;

fn address(host: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8], 7_400))
}

fn name(host: u64) -> String {
    format!("node-{host}.test")
}

/// A client of the group.
struct Client {
    node: Node,
    channel: ChannelKey,
    in_flight: usize,
    ended: usize,
}

struct World {
    start: Wall,
    nodes: BTreeMap<u64, GroupNode>,
    client: Client,
    wire: VecDeque<(u64, Received)>,
    buffer: Vec<u8>,
    entries: u64,
    syncs: u64,
}

const CLIENT: u64 = 9;

impl World {
    fn new(in_flight: u32) -> Self {
        let authority = Authority::generate().expect("entropy");
        let roots = authority.roots();
        let trust = || ServerTrust::Roots(authority.roots());
        let limits = Limits { slots: in_flight, ..Limits::default() };
        let endpoint = || EndpointConfig { limits: limits.clone(), ..EndpointConfig::default() };
        let ids = || (1..=3).filter_map(NodeId::new);
        let node = |id: NodeId| {
            let own = [name(id.get()), "group.test".to_owned()];
            let identity = authority.issue(own, Usage::Node).expect("a certificate").identity;
            let server = TlsServer::builder(identity.clone())
                .client_certificates(ClientCertificates::Optional(roots.clone()));
            let client = TlsClient::builder(trust()).identity(identity);
            let peers = ids().map(|id| Peer {
                id,
                address: address(id.get()),
                name: name(id.get()),
                identity: None,
            });
            let config = GroupConfig {
                folder: None,
                group: GROUP,
                id,
                peers: peers.collect(),
                roster: Roster::default(),
                name_of: |id| name(id.get()),
                node: NodeConfig { endpoint: endpoint() },
                server: Arc::new(server.build().expect("a configuration")),
                client: Arc::new(client.build().expect("a configuration")),
                settings: Settings { limits: limits.clone(), ..Settings::default() },
                gate: None,
            };
            let mut machines = Machines::new();
            machines.add(Box::new(Store::default())).expect("one machine");
            let durable = Durable::new_group(Members::of(ids()));
            let seed = [id.get() as u8; 32];
            GroupNode::new(Instant::ZERO, config, durable, machines, seed).expect("a new group")
        };
        let mut client = Node::new(NodeConfig { endpoint: endpoint() }, None, [9; 32]);
        let tls = Arc::new(TlsClient::builder(trust()).build().expect("a configuration"));
        let targets = ids().map(|id| address(id.get())).collect();
        let config =
            ChannelConfig { targets, slots: in_flight, ..ChannelConfig::new("group.test", tls) };
        let channel = client.open_channel(Instant::ZERO, config);
        Self {
            start: Wall::now(),
            nodes: ids().map(|id| (id.get(), node(id))).collect(),
            client: Client { node: client, channel, in_flight: 0, ended: 0 },
            wire: VecDeque::new(),
            buffer: Vec::new(),
            entries: 0,
            syncs: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Lets calls run until so many have ended.
    fn run(&mut self, in_flight: usize, calls: usize, payload: &Encoded) {
        let until = self.client.ended + calls;
        while self.client.ended < until {
            let now = self.now();
            while self.client.in_flight < in_flight {
                let call = OutgoingCall {
                    method: PUT,
                    request: payload.clone(),
                    metadata: Metadata::new(),
                    deadline: None,
                    wait_for_ready: Some(true),
                    reserved: None,
                    max_staleness: None,
                };
                self.client.node.call(now, self.client.channel, call);
                self.client.in_flight += 1;
            }
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Instant) {
        for (host, datagram) in std::mem::take(&mut self.wire) {
            match self.nodes.get_mut(&host) {
                Some(node) => node.handle(now, datagram),
                None => self.client.node.handle(now, datagram),
            }
        }
        self.turn_client(now);
        for (host, node) in &mut self.nodes {
            if node.poll_timeout().is_some_and(|due| due <= now) {
                node.handle_timeout(now);
            }
            while node.poll_event(now).is_some() {}
            let mut last = None;
            while let Some((number, write)) = node.poll_write() {
                self.entries += write.entries.len() as u64;
                last = Some(number);
            }
            if let Some(number) = last {
                self.syncs += 1;
                node.written(number);
                while node.poll_event(now).is_some() {}
            }
            loop {
                self.buffer.clear();
                let Some(transmit) = node.poll_transmit(now, &mut self.buffer) else { break };
                send(&mut self.wire, *host, &transmit, &self.buffer);
            }
        }
    }

    fn turn_client(&mut self, now: Instant) {
        let Client { node, in_flight, ended, .. } = &mut self.client;
        if earliest(node.poll_timeout(), None).is_some_and(|due| due <= now) {
            node.handle_timeout(now);
        }
        while let Some(event) = node.poll_event(now) {
            if let Event::Resolved(_, result) = event {
                result.expect("nothing goes wrong");
                *in_flight -= 1;
                *ended += 1;
            }
        }
        loop {
            self.buffer.clear();
            let Some(transmit) = node.poll_transmit(now, &mut self.buffer) else { break };
            send(&mut self.wire, CLIENT, &transmit, &self.buffer);
        }
    }
}

fn send(
    wire: &mut VecDeque<(u64, Received)>,
    from: u64,
    transmit: &stubborn_core::transport::endpoint::Transmit,
    buffer: &[u8],
) {
    let SocketAddr::V4(to) = transmit.to else { return };
    let size = transmit.segment.unwrap_or(transmit.size).max(1);
    for segment in buffer[..transmit.size].chunks(size) {
        let data = BytesMut::from(segment);
        let received = Received { from: address(from), local: None, ecn: Ecn::NotEct, data };
        wire.push_back((u64::from(to.ip().octets()[3]), received));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| {
        argument.parse::<usize>().unwrap_or_else(|_| panic!("not a number: {argument}"))
    });
    let in_flight = arguments.next().unwrap_or(128);
    let calls = arguments.next().unwrap_or(200_000);
    let payload = arguments.next().unwrap_or(64);
    let payload = Encoded::from_body(PUT.id(), vec![7; payload].into());
    let mut world = World::new(in_flight as u32);
    world.run(in_flight, calls / 10, &payload);
    let (begun, entries, syncs) = (Wall::now(), world.entries, world.syncs);
    world.run(in_flight, calls, &payload);
    let took = begun.elapsed();
    let per_call = Duration::from_nanos((took.as_nanos() / calls as u128) as u64);
    let (entries, syncs) = (world.entries - entries, world.syncs - syncs);
    println!(
        "{in_flight} in flight: {:.0} calls/s, {per_call:?} of processor time a call for client and \
         three nodes, {:.1} calls an entry, {:.2} entries a sync",
        calls as f64 / took.as_secs_f64(),
        calls as f64 * 3.0 / entries as f64,
        entries as f64 / syncs as f64,
    );
}
