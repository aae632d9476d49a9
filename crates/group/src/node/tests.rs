//! Where the nodes of a group look for one another: a few of them, on a network that takes a millisecond
//! and with disks that take no time.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::BytesMut;
use stubborn_core::node::NodeConfig;
use stubborn_core::transport::endpoint::{Ecn, EndpointConfig};
use stubborn_tls::{
    Authority, ClientCertificates, SelfSigned, ServerTrust, TlsClient, TlsServer, Usage,
};

use super::*;
use crate::replica::{Packet, PacketKind, Roster, Settings};
use crate::replication::Members;

const VOTERS: [u64; 3] = [1, 2, 3];

const WIRE: Duration = Duration::from_millis(1);

pub(super) fn id(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Where a node is at first.
pub(super) fn home(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8], 7_400))
}

/// Where it is after it has moved.
pub(super) fn elsewhere(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, number as u8], 7_400))
}

fn name(id: NodeId) -> String {
    format!("node-{}.test", id.get())
}

pub(super) struct World {
    pub(super) now: Instant,
    authority: Authority,
    certificates: BTreeMap<u64, SelfSigned>,
    nodes: BTreeMap<SocketAddr, GroupNode>,
    wire: VecDeque<(Instant, SocketAddr, Received)>,
    starts: u8,
    /// Names that are to be looked up.
    pub(super) asked: Vec<(NodeId, String)>,
    /// Where datagrams went.
    pub(super) spoken_to: BTreeSet<SocketAddr>,
}

impl World {
    pub(super) fn new() -> Self {
        let authority = Authority::generate().unwrap();
        let issue = |number| (number, authority.issue([name(id(number))], Usage::Node).unwrap());
        let certificates = VOTERS.into_iter().map(issue).collect();
        Self {
            now: Instant::ZERO,
            authority,
            certificates,
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            starts: 0,
            asked: Vec::new(),
            spoken_to: BTreeSet::new(),
        }
    }

    /// Starts a node of a new group at an address, configured with where these others are.
    pub(super) fn start(&mut self, number: u64, at: SocketAddr, others: &[(u64, SocketAddr)]) {
        let own = self.certificates[&number].identity.clone();
        let roots = self.authority.roots();
        let server = TlsServer::builder(own.clone())
            .client_certificates(ClientCertificates::Optional(roots.clone()));
        let client = TlsClient::builder(ServerTrust::Roots(roots)).identity(own);
        let peer = |(number, address): &(u64, SocketAddr)| Peer {
            id: id(*number),
            address: *address,
            name: name(id(*number)),
            identity: self.certificates[number].identity.key_digest(),
        };
        let config = GroupConfig {
            group: 0x100,
            id: id(number),
            folder: None,
            peers: others.iter().map(peer).collect(),
            roster: Roster::default(),
            name_of: name,
            node: NodeConfig { endpoint: EndpointConfig::default() },
            server: Arc::new(server.build().unwrap()),
            client: Arc::new(client.build().unwrap()),
            settings: Settings::default(),
            gate: None,
        };
        let durable = Durable::new_group(Members::of(VOTERS.map(id)));
        self.starts += 1;
        let node = GroupNode::new(self.now, config, durable, Machines::new(), [self.starts; 32]);
        self.nodes.insert(at, node.unwrap());
    }

    /// The node at this address.
    pub(super) fn at(&mut self, address: SocketAddr) -> &mut GroupNode {
        self.nodes.get_mut(&address).unwrap()
    }

    /// Whom the node at this address follows.
    fn leader(&self, address: SocketAddr) -> Option<NodeId> {
        self.nodes[&address].replica().leader()
    }

    /// Runs until `done`, or for so many virtual milliseconds. Returns whether it was done.
    pub(super) fn run_until(&mut self, millis: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + Duration::from_millis(millis);
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let due = self.nodes.values_mut().filter_map(GroupNode::poll_timeout);
            let next = due.chain(self.wire.front().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        while let Some((_, to, datagram)) = self.wire.pop_front_if(|(at, ..)| *at <= now) {
            if let Some(node) = self.nodes.get_mut(&to) {
                node.handle(now, datagram);
            }
        }
        for node in self.nodes.values_mut() {
            if node.poll_timeout().is_some_and(|due| due <= now) {
                node.handle_timeout(now);
            }
        }
    }

    fn settle(&mut self) {
        let now = self.now;
        for (at, node) in &mut self.nodes {
            loop {
                while let Some(event) = node.poll_event(now) {
                    if let GroupEvent::LookUp(id, name) = event {
                        self.asked.push((id, name));
                    }
                }
                let Some((number, _)) = node.poll_write() else { break };
                node.written(number);
            }
            let mut buffer = Vec::new();
            while let Some(Transmit { to, size, segment, .. }) =
                node.poll_transmit(now, &mut buffer)
            {
                self.spoken_to.insert(to);
                for datagram in buffer.chunks(segment.unwrap_or(size).max(1)) {
                    let data = BytesMut::from(datagram);
                    let received = Received { from: *at, local: None, ecn: Ecn::NotEct, data };
                    self.wire.push_back((now + WIRE, to, received));
                }
                buffer.clear();
            }
        }
    }
}

#[test]
fn a_member_that_has_moved_is_answered_where_it_speaks_from() {
    // The others agreed that the first one moves while the second was down. Now the third is, so that
    // nobody leads without the second's vote; and the second learns of the move from a leader alone.
    let mut world = World::new();
    world.start(1, elsewhere(1), &[(2, home(2)), (3, home(3))]);
    world.start(2, home(2), &[(1, home(1)), (3, home(3))]);
    let both = [elsewhere(1), home(2)];
    let led = world.run_until(10_000, |world| both.iter().all(|at| world.leader(*at).is_some()));
    assert!(led, "the two that are up never elected a leader");
    assert_eq!(world.leader(both[0]), world.leader(both[1]));
}

#[test]
fn a_node_that_was_restarted_gives_no_packet_in_pieces_the_number_of_one_from_before() {
    let mut world = World::new();
    let mut first_number = || {
        world.start(1, home(1), &[(2, home(2)), (3, home(3))]);
        let now = world.now;
        let GroupNode { node, peers, receipts, .. } = world.at(home(1));
        let bytes = vec![0; Settings::default().piece_bytes + 1].into();
        let packet = Packet { to: id(2), bytes, kind: PacketKind::Normal, state: None };
        peers.send(now, node, receipts, packet);
        peers.departing(id(2)).expect("a packet on its way")
    };
    assert_ne!(first_number(), first_number());
}
