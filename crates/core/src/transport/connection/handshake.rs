//! TLS, the CRYPTO bytes that carry it, installing and discarding keys, transport parameters, Retry
//! and version negotiation (RFC 9001 §4, RFC 9000 §7, RFC 9368).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::super::cid;
use super::super::crypto::{ClientTls, InitialCrypto, KeyChange, ServerTls};
use super::super::endpoint::EndpointConfig;
use super::super::error::{Code, TransportError};
use super::super::receive::Inbox;
use super::super::record::{Beginning, Event};
use super::super::send::Outbox;
use super::super::timers::{Timer, Timers};
use super::close::State;
use super::crypto_stream::CryptoOut;
use super::ids::{ACTIVE_IDS, LocalIds, RemoteIds};
use super::keys::DataKeys;
use super::migrate::Migration;
use super::path::{AddressProof, Path};
use super::recover::Recovery;
use super::space::{PacketSpace, Spaces};
use super::{
    Connection, ConnectionError, ConnectionEvent, ConnectionId, Counters, IdChange, PeerIdentity,
    Side, Space,
};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::wire::packet::{Retry, VersionNegotiation};
use crate::wire::params::{ServerParameters, TransportParameters, VersionInformation};

/// A handshake that takes longer than this has failed: its peer may hold a place in the table for so
/// long without having proved anything.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a server answers a repeated hello before its own probe timeout (RFC 9002 §6.2.3: for a
/// limited number of times).
const EARLY_ANSWERS: u8 = 8;

/// What a new connection is made from.
pub(in super::super) struct Setup {
    pub(in super::super) config: Arc<EndpointConfig>,
    pub(in super::super) random: Random,
    pub(in super::super) version: u32,
    pub(in super::super) remote: SocketAddr,
    pub(in super::super) local: Option<IpAddr>,
    /// The round-trip time that is known of this path from before.
    pub(in super::super) remembered: Option<Duration>,
    pub(in super::super) role: RoleSetup,
}

/// What differs between the sides.
pub(in super::super) enum RoleSetup {
    Client {
        tls: Arc<dyn ClientTls>,
        server_name: String,
        /// The first byte of the first packets' destination.
        steer: Option<u8>,
    },
    Server {
        tls: Arc<dyn ServerTls>,
        incarnation: u64,
        /// Whether the server is a replica of a group.
        group: bool,
        /// Whether it knows ids of calls.
        ids: bool,
        /// Destination of the Initial packet that begins this connection: what its keys come from.
        destination: ConnectionId,
        /// The client's id.
        source: ConnectionId,
        /// Destination of the client's very first packet, if it was sent back with a Retry; then its
        /// address is proven.
        before_retry: Option<ConnectionId>,
    },
}

enum Role {
    /// Apart, since a server has far more connections.
    Client(Box<ClientRole>),
    Server(Arc<dyn ServerTls>),
}

/// What a client needs to begin anew.
struct ClientRole {
    tls: Arc<dyn ClientTls>,
    server_name: String,
    steer: Option<u8>,
    token: Vec<u8>,
    /// A Version Negotiation packet was followed: from its list the present version was chosen.
    negotiated: bool,
}

/// What is needed of a peer's transport parameters as long as there is a connection.
pub(super) struct Declared {
    max_idle_timeout: u64,
    max_udp_payload_size: u64,
    pub(super) active_connection_id_limit: u64,
    pub(super) max_datagram_frame_size: u64,
    /// Of a server: its incarnation.
    pub(super) incarnation: Option<u64>,
    /// Whether it is a replica.
    pub(super) replica: bool,
    /// Whether it knows ids of calls.
    pub(super) ids: bool,
}

impl Declared {
    fn of(peer: &TransportParameters) -> Self {
        Self {
            max_idle_timeout: peer.max_idle_timeout,
            max_udp_payload_size: peer.max_udp_payload_size,
            active_connection_id_limit: peer.active_connection_id_limit,
            max_datagram_frame_size: peer.max_datagram_frame_size,
            incarnation: peer.server.as_ref().map(|server| server.incarnation),
            replica: peer.server.as_ref().is_some_and(|server| server.group),
            ids: peer.server.as_ref().is_some_and(|server| server.ids),
        }
    }
}

/// How far the handshake is, and what came of it.
pub(super) struct Progress {
    role: Role,
    /// The space that TLS writes in.
    write_space: Space,
    complete: bool,
    confirmed: bool,
    /// HANDSHAKE_DONE is to be sent.
    pub(super) done_due: bool,
    /// Apart, since most clients are anonymous.
    pub(super) identity: Option<Box<PeerIdentity>>,
    /// What the peer declared; `None` until the handshake is complete, and it is authentic.
    pub(super) peer: Option<Declared>,
    /// `None` once the handshake is confirmed: what would be held against them is dropped then.
    first_ids: Option<Box<FirstIds>>,
    /// The peer has acknowledged a Handshake packet: a server then knows our address.
    handshake_acked: bool,
    /// How often a repeated hello may still be answered early.
    early_answers: u8,
}

/// The ids of the first packets, by which each side sees that nobody meddled with them.
struct FirstIds {
    /// Destination of the client's very first Initial packet.
    original_destination: ConnectionId,
    retry_source: Option<ConnectionId>,
    /// The source of the peer's long headers, once one was authentic.
    peer_source: Option<ConnectionId>,
    /// The id that a client chose for a server before the server chose its own.
    route: Option<ConnectionId>,
}

impl FirstIds {
    /// True while nothing of the server has been taken in.
    fn is_first(&self) -> bool {
        self.peer_source.is_none() && self.retry_source.is_none()
    }
}

impl Progress {
    /// True once TLS is done here (RFC 9001 §4.1.1).
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// True once the peer is known to be done too (RFC 9001 §4.1.2).
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// True once the server must hold our address for proven, so that it may send what it likes
    /// (RFC 9002 §6.2.2.1).
    pub(super) fn server_has_our_address(&self) -> bool {
        self.handshake_acked || self.confirmed
    }

    /// The Retry token that the next Initial packets carry.
    pub(super) fn token(&self) -> &[u8] {
        match &self.role {
            Role::Client(client) => &client.token,
            Role::Server(_) => &[],
        }
    }

    /// The idle timeout that the peer declared; zero for none.
    pub(super) fn peer_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.peer.as_ref().map_or(0, |peer| peer.max_idle_timeout))
    }

    /// The peer's first authentic long header says who it is; later ones must say the same
    /// (RFC 9000 §7.2).
    pub(super) fn accept_source(&mut self, source: ConnectionId, ids: &mut RemoteIds) -> bool {
        let Some(first) = &mut self.first_ids else { return false };
        match first.peer_source {
            Some(known) => known == source,
            None => {
                first.peer_source = Some(source);
                ids.set_first(source);
                true
            }
        }
    }

    /// Forgets the ids of the first packets. Returns the one that a client chose for a server, by which
    /// the server is found no longer.
    pub(super) fn forget_first_ids(&mut self) -> Option<ConnectionId> {
        self.first_ids.take()?.route
    }

    /// A Handshake packet of ours was acknowledged.
    pub(super) fn on_handshake_acked(&mut self) {
        self.handshake_acked = true;
    }

    fn initial_crypto(&self) -> &dyn InitialCrypto {
        match &self.role {
            Role::Client(client) => &*client.tls,
            Role::Server(tls) => &**tls,
        }
    }

    /// The space whose CRYPTO bytes TLS waits for.
    fn read_space(&self) -> Space {
        match self.write_space {
            _ if self.complete => Space::Data,
            Space::Initial => Space::Initial,
            _ => Space::Handshake,
        }
    }
}

impl Connection {
    /// Begins a connection.
    ///
    /// # Errors
    /// When TLS refuses to start.
    pub(in super::super) fn new(now: Instant, setup: Setup) -> Result<Self, TransportError> {
        let Setup { config, mut random, version, remote, local, remembered, role } = setup;
        let local_id = cid::fresh(config.worker, &mut random);
        let inbox = Inbox::new(&config.limits);
        let mut parameters = declare(&config, local_id, version, &inbox);
        let (side, role, tls, original, peer, retry_source, route, proof) = match role {
            RoleSetup::Client { tls, server_name, steer } => {
                let original = cid::first(steer, &mut random);
                let session = tls.start(version, &server_name, &parameters.encode())?;
                let client =
                    ClientRole { tls, server_name, steer, token: Vec::new(), negotiated: false };
                let (client, proof) = (Box::new(client), AddressProof::given());
                (Side::Client, Role::Client(client), session, original, original, None, None, proof)
            }
            RoleSetup::Server {
                tls,
                incarnation,
                group,
                ids,
                destination,
                source,
                before_retry,
            } => {
                let retry_source = before_retry.map(|_| destination);
                let original = before_retry.unwrap_or(destination);
                parameters.server = Some(ServerParameters {
                    original_destination: original,
                    retry_source,
                    stateless_reset_token: Some(tls.reset_token(&local_id)),
                    incarnation,
                    group,
                    ids,
                });
                let session = tls.start(version, &parameters.encode())?;
                let proof = match before_retry {
                    Some(_) => AddressProof::given(),
                    None => AddressProof::default(),
                };
                let route = Some(destination);
                let role = Role::Server(tls);
                (Side::Server, role, session, original, source, retry_source, route, proof)
            }
        };
        let handshake = Progress {
            role,
            write_space: Space::Initial,
            complete: false,
            confirmed: false,
            done_due: false,
            identity: None,
            peer: None,
            first_ids: Some(Box::new(FirstIds {
                original_destination: original,
                retry_source,
                peer_source: side.is_server().then_some(peer),
                route,
            })),
            handshake_acked: side.is_server(),
            early_answers: EARLY_ANSWERS,
        };
        let mut spaces = Spaces::new();
        let keyed_by = route.unwrap_or(original);
        let keys = handshake.initial_crypto().initial_keys(version, &keyed_by, side);
        spaces[Space::Initial.index()].keys = Some(Box::new(keys));
        let mut id_changes = VecDeque::from([IdChange::Add(local_id)]);
        id_changes.extend(route.map(IdChange::Add));
        let path = Path::new(now, &config, remote, local, remembered, proof);
        let beginning = Beginning { side, version, remote, local, original };
        let record =
            config.recording.0.as_ref().and_then(|recorder| recorder.begin(now, &beginning));
        let mut timers = Timers::new();
        timers.set(Timer::Handshake, now + HANDSHAKE_TIMEOUT);
        let mut connection = Self {
            side,
            version,
            random,
            state: State::Handshaking,
            tls,
            handshake,
            spaces,
            data_keys: None,
            local_ids: LocalIds::new(local_id),
            remote_ids: RemoteIds::new(peer),
            id_changes,
            announced_tokens: Vec::new(),
            path,
            previous_path: None,
            migration: Migration::default(),
            outbox: Outbox::new(&config.limits),
            inbox,
            unreliable: VecDeque::new(),
            events: VecDeque::new(),
            readable_queued: false,
            unreliable_queued: 0,
            recovery: Recovery::new(now),
            timers,
            keep_alive: false,
            awaits_answer: false,
            answer_probe: super::recover::ANSWER_PROBE_MIN,
            answer_patience: super::recover::ANSWER_PROBE_MIN,
            early: Vec::new(),
            open_failures: 0,
            counters: Counters::default(),
            record,
            config,
        };
        connection.write_tls(now)?;
        connection.set_recovery_timer();
        Ok(connection)
    }

    /// CRYPTO bytes came.
    pub(super) fn on_crypto(
        &mut self,
        space: Space,
        offset: u64,
        data: &[u8],
    ) -> Result<(), TransportError> {
        let reading = self.handshake.read_space();
        let input = &mut self.space(space).crypto_in;
        if space < reading && !input.is_delivered(offset + data.len() as u64) {
            return Err(TransportError::violation("handshake bytes after their keys changed"));
        }
        let repeated = input.is_delivered(offset + data.len() as u64);
        input.insert(offset, data)?;
        if repeated && space == Space::Initial && self.side.is_server() {
            self.answer_early();
        }
        Ok(())
    }

    /// A client that has our hello and acknowledges nothing after it has not got the rest: it probes
    /// so that we are free to send (RFC 9002 §6.2.2.1), and its acknowledgement of the hello was
    /// lost, so the path is as unknown as before.
    pub(super) fn on_handshake_packet_read(&mut self) {
        if self.side.is_server() && !self.handshake.complete && self.path.rtt.samples() == 0 {
            self.answer_early();
        }
    }

    /// A client that repeats its hello has not got the answer. A server knows nothing of the path
    /// yet, so it would wait 300 ms to repeat that; the client may know better (RFC 9002 §6.2.3).
    fn answer_early(&mut self) {
        let Some(left) = self.handshake.early_answers.checked_sub(1) else { return };
        self.handshake.early_answers = left;
        for space in [Space::Initial, Space::Handshake] {
            self.space(space).crypto_out.resend_all();
        }
    }

    /// Hands TLS the bytes that are next in order, and does what follows.
    pub(super) fn read_tls(&mut self, now: Instant) -> Result<(), TransportError> {
        loop {
            let reading = self.handshake.read_space();
            let Some(bytes) = self.space(reading).crypto_in.take() else { break };
            self.tls.read_handshake(&bytes)?;
            self.write_tls(now)?;
        }
        Ok(())
    }

    /// Takes what TLS has to say, and the keys that it hands out.
    fn write_tls(&mut self, now: Instant) -> Result<(), TransportError> {
        let mut keys_came = false;
        loop {
            let tls = &mut self.tls;
            let out = &mut self.spaces[self.handshake.write_space.index()].crypto_out;
            let before = out.len();
            let change = out.append(|buffer| tls.write_handshake(buffer));
            let silent = out.len() == before;
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    self.space(Space::Handshake).keys = Some(Box::new(keys));
                    self.handshake.write_space = Space::Handshake;
                    keys_came = true;
                }
                Some(KeyChange::Data(keys)) => {
                    self.data_keys = Some(DataKeys::new(keys));
                    self.handshake.write_space = Space::Data;
                    keys_came = true;
                }
                None if silent => break,
                None => {}
            }
        }
        if !self.handshake.complete && !self.tls.is_handshaking() {
            keys_came = true;
            self.complete(now)?;
            self.tls.on_complete();
        }
        if keys_came {
            self.take_early_packets(now);
        }
        Ok(())
    }

    /// TLS is done: the peer is who it says it is, and so are its parameters.
    fn complete(&mut self, now: Instant) -> Result<(), TransportError> {
        let bytes = self.tls.peer_parameters().ok_or_else(|| parameter_error("missing"))?;
        let peer = TransportParameters::decode(bytes, self.side.peer())
            .map_err(|e| parameter_error(e.0))?;
        self.check_ids(&peer)?;
        self.check_version(&peer)?;
        self.handshake.complete = true;
        self.handshake.identity = self.tls.peer_identity().map(Box::new);
        if let Some(token) = peer.server.as_ref().and_then(|s| s.stateless_reset_token) {
            self.remote_ids.set_first_token(token);
            self.announce_tokens();
        }
        self.outbox.on_peer_credit(super::super::send::Credit {
            data: peer.initial_max_data,
            message_data: peer.initial_max_message_data,
            messages: peer.initial_max_messages,
        });
        self.handshake.peer = Some(Declared::of(&peer));
        if let Some(record) = &mut self.record {
            record.take(now, Event::Established(&peer));
        }
        self.state = State::Established;
        self.timers.stop(Timer::Handshake);
        self.reset_idle(now);
        self.reset_keepalive(now);
        self.events.push_back(ConnectionEvent::Connected);
        self.issue_ids();
        if self.side.is_server() {
            self.handshake.done_due = true;
            self.confirm();
        }
        Ok(())
    }

    /// Both sides are done: the Handshake keys have no use any more (RFC 9001 §4.9.2).
    pub(super) fn confirm(&mut self) {
        if !core::mem::replace(&mut self.handshake.confirmed, true) {
            self.discard(Space::Initial);
            self.discard(Space::Handshake);
            self.spaces.end_handshake();
            self.path.mtu.start(self.peer_max_udp_payload());
            if let Some(id) = self.handshake.forget_first_ids() {
                self.id_changes.push_back(IdChange::Remove(id));
            }
        }
    }

    /// Forgets the keys of a space and all that hangs on them (RFC 9001 §4.9).
    pub(super) fn discard(&mut self, space: Space) {
        if self.spaces[space.index()].keys.is_some() {
            let s = self.space(space);
            s.keys = None;
            s.crypto_out = CryptoOut::new();
            s.crypto_in.discard();
            s.ping = false;
            self.abandon_space(space);
        }
    }

    /// RFC 9000 §7.3: the ids seen in headers were not tampered with.
    fn check_ids(&self, peer: &TransportParameters) -> Result<(), TransportError> {
        let server = peer.server.as_ref();
        let right = self.handshake.first_ids.as_ref().is_some_and(|seen| {
            Some(peer.initial_source) == seen.peer_source
                && server.is_none_or(|s| {
                    s.original_destination == seen.original_destination
                        && s.retry_source == seen.retry_source
                })
        });
        if right { Ok(()) } else { Err(parameter_error("connection ids do not match")) }
    }

    /// RFC 9368 §4: nobody talked us into another version than the sides would have chosen.
    fn check_version(&self, peer: &TransportParameters) -> Result<(), TransportError> {
        let error = |reason| TransportError::new(Code::VERSION_NEGOTIATION_ERROR, reason);
        let information =
            peer.version_information.as_ref().ok_or_else(|| error("no version information"))?;
        if information.chosen != self.version {
            return Err(error("the peer chose another version"));
        }
        if let Role::Client(client) = &self.handshake.role
            && client.negotiated
            && best_version(&self.config.versions, &information.available) != Some(self.version)
        {
            return Err(error("the server speaks a better version than was negotiated"));
        }
        Ok(())
    }

    /// The server wants to see that we receive at our address (RFC 9000 §17.2.5).
    pub(super) fn on_retry(&mut self, retry: &Retry) {
        let Role::Client(client) = &mut self.handshake.role else { return };
        let Some(seen) = self.handshake.first_ids.as_mut().filter(|seen| seen.is_first()) else {
            self.counters.packets_dropped += 1;
            return;
        };
        let genuine = || {
            let original = &seen.original_destination;
            client.tls.retry_tag(retry.version, original, &retry.untagged) == retry.tag
        };
        if retry.token.is_empty() || retry.source == self.remote_ids.active().id {
            self.counters.packets_dropped += 1;
            return;
        }
        if !genuine() {
            self.counters.packets_dropped += 1;
            return;
        }
        client.token = retry.token.to_vec();
        seen.retry_source = Some(retry.source);
        self.remote_ids.set_first(retry.source);
        let keys =
            self.handshake.initial_crypto().initial_keys(self.version, &retry.source, self.side);
        // Packet numbers go on (RFC 9000 §17.2.5.3); what was sent before counts for nothing.
        self.abandon_space(Space::Initial);
        let initial = self.space(Space::Initial);
        initial.keys = Some(Box::new(keys));
        initial.crypto_out.resend_all();
        self.set_recovery_timer();
    }

    /// The server does not speak our version: begin anew with the best one that it names
    /// (RFC 9368 §2.1). What it says is not authentic; the handshake checks it.
    pub(super) fn on_version_negotiation(&mut self, now: Instant, offer: &VersionNegotiation) {
        let Role::Client(client) = &self.handshake.role else { return };
        let ours = self.local_ids.get(0);
        let answers_us = ours.is_some_and(|local| *local.id == offer.destination[..]);
        let in_time =
            self.handshake.first_ids.as_ref().is_some_and(|seen| {
                seen.is_first() && *seen.original_destination == offer.source[..]
            });
        let stale = client.negotiated || offer.versions().any(|version| version == self.version);
        if !answers_us || !in_time || stale {
            self.counters.packets_dropped += 1;
            return;
        }
        let offered: Vec<u32> = offer.versions().take(crate::limits::MAX_VERSIONS).collect();
        let Some(version) = best_version(&self.config.versions, &offered) else {
            self.vanish(now, ConnectionError::VersionNegotiation(offered));
            return;
        };
        if let Err(error) = self.begin_anew(now, version) {
            self.vanish(now, ConnectionError::Transport(error));
        }
    }

    fn begin_anew(&mut self, now: Instant, version: u32) -> Result<(), TransportError> {
        let Role::Client(client) = &mut self.handshake.role else { return Ok(()) };
        let Some(local_id) = self.local_ids.get(0).map(|local| local.id) else { return Ok(()) };
        client.negotiated = true;
        let parameters = declare(&self.config, local_id, version, &self.inbox).encode();
        self.tls = client.tls.start(version, &client.server_name, &parameters)?;
        let steer = client.steer;
        self.version = version;
        let original = cid::first(steer, &mut self.random);
        if let Some(seen) = &mut self.handshake.first_ids {
            seen.original_destination = original;
        }
        self.remote_ids.set_first(original);
        self.abandon_space(Space::Initial);
        let keys = self.handshake.initial_crypto().initial_keys(version, &original, self.side);
        let initial = self.space(Space::Initial);
        *initial = PacketSpace::new();
        initial.keys = Some(Box::new(keys));
        self.write_tls(now)?;
        self.set_recovery_timer();
        Ok(())
    }

    /// The largest datagram that the peer takes.
    pub(super) fn peer_max_udp_payload(&self) -> u64 {
        self.handshake.peer.as_ref().map_or(0, |peer| peer.max_udp_payload_size)
    }

    /// The stateless reset token of one of our ids. A client's is unpredictable and never used.
    pub(super) fn reset_token_of(&mut self, id: &ConnectionId) -> [u8; 16] {
        match &self.handshake.role {
            Role::Server(tls) => tls.reset_token(id),
            Role::Client(_) => self.random.bytes(),
        }
    }
}

/// What this side declares.
fn declare(
    config: &EndpointConfig,
    local_id: ConnectionId,
    version: u32,
    inbox: &Inbox,
) -> TransportParameters {
    let credit = inbox.initial_credit();
    TransportParameters {
        max_idle_timeout: u64::try_from(config.idle_timeout.as_millis()).unwrap_or(0),
        max_udp_payload_size: config.max_udp_payload as u64,
        initial_max_data: credit.data,
        initial_max_message_data: credit.message_data,
        initial_max_messages: credit.messages,
        active_connection_id_limit: ACTIVE_IDS,
        max_datagram_frame_size: config.max_udp_payload as u64,
        version_information: Some(VersionInformation {
            chosen: version,
            available: config.versions.clone(),
        }),
        ..TransportParameters::new(local_id)
    }
}

/// The first of `ours` that is also among `theirs`.
fn best_version(ours: &[u32], theirs: &[u32]) -> Option<u32> {
    ours.iter().copied().find(|version| theirs.contains(version))
}

fn parameter_error(reason: &'static str) -> TransportError {
    TransportError::new(Code::TRANSPORT_PARAMETER_ERROR, reason)
}
