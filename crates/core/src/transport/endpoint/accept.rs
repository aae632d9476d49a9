//! New connections: who may begin one, who is sent back with a Retry, who is refused
//! (RFC 9000 §5.2.2, §8.1).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::BytesMut;

use super::super::cid;
use super::super::connection::{Connection, Origin, RoleSetup};
use super::super::crypto::ServerTls;
use super::super::error::Code;
use super::super::token::RetryToken;
use super::super::{ConnectionId, Side};
use super::Endpoint;
use crate::limits::MIN_DATAGRAM;
use crate::time::{Duration, Instant};
use crate::wire::PacketType;
use crate::wire::frame::Frame;
use crate::wire::packet::{
    Header, OtherVersion, Packet, PacketWriter, ProtectedPacket, encode_retry,
    encode_version_negotiation,
};

/// How long a peer has to be silent before its connection gives way to another one where there is no
/// room: longer than the pauses of one that waits for an answer.
const SILENT: Duration = Duration::from_secs(5);

/// What an Initial packet proves of its sender.
enum Proof {
    /// It brings a good token: it receives at its address. With the destination of its first packet.
    Token(ConnectionId),
    /// Nothing.
    None,
    /// It brings a token that is not good.
    Bad,
}

impl Endpoint {
    /// A datagram whose destination is not known.
    pub(super) fn handle_unknown(&mut self, now: Instant, origin: Origin, data: BytesMut) {
        // Most such datagrams have short headers: strays, or resets.
        if data.first().is_none_or(|first| first & 0x80 == 0) {
            return self.handle_stray(now, origin, &data);
        }
        if self.server.is_none() || data.len() < MIN_DATAGRAM {
            return;
        }
        // The datagram goes to the new connection as it came; to look at it costs a copy.
        let first = BytesMut::from(&data[..]);
        match Packet::decode(first, &self.config.versions) {
            Ok((Packet::OtherVersion(other), _)) => self.negotiate_version(origin, &other),
            Ok((Packet::Protected(packet), _)) if packet.packet_type() == PacketType::Initial => {
                self.handle_initial(now, origin, packet, data);
            }
            _ => {}
        }
    }

    /// Names the versions spoken. As short as it is, it amplifies nothing (RFC 9000 §6.1).
    fn negotiate_version(&mut self, origin: Origin, other: &OtherVersion) {
        let mut bytes = Vec::new();
        let versions = &self.config.versions;
        let unpredictable = self.random.u64() as u8;
        encode_version_negotiation(
            unpredictable,
            &other.source,
            &other.destination,
            versions,
            &mut bytes,
        );
        self.reply(origin, bytes);
    }

    fn handle_initial(
        &mut self,
        now: Instant,
        origin: Origin,
        packet: ProtectedPacket,
        data: BytesMut,
    ) {
        let Some(server) = &self.server else { return };
        let (tls, accepting) = (server.tls.clone(), server.accepting);
        let Some(version) = packet.version() else { return };
        let (destination, source) = (packet.destination(), packet.source());
        // RFC 9000 §7.2: a client makes up at least 8 unpredictable bytes.
        if destination.len() < 8 || source.is_empty() {
            return;
        }
        let before_retry = match self.proof(now, origin, &packet, &*tls) {
            Proof::Token(original) => Some(original),
            Proof::Bad => {
                return self.refuse(
                    origin,
                    &*tls,
                    version,
                    destination,
                    source,
                    Code::INVALID_TOKEN,
                );
            }
            Proof::None if self.is_loaded() => {
                return self.retry(now, origin, &*tls, version, destination, source);
            }
            Proof::None => None,
        };
        if !accepting {
            let code = Code::CONNECTION_REFUSED;
            return self.refuse(origin, &*tls, version, destination, source, code);
        }
        // Nothing is kept for a packet that does not even open.
        if !opens(packet, &*tls, version, &destination) {
            return;
        }
        if !self.has_room(now) {
            let code = Code::CONNECTION_REFUSED;
            return self.refuse(origin, &*tls, version, destination, source, code);
        }
        self.accept(now, origin, tls, version, (destination, source), before_retry, data);
    }

    /// Whether one more connection may be held. At the bound, the one whose peer has been silent
    /// longest gives way if that is long: clients whose farewell was lost leave connections behind
    /// that nobody uses, and those would lock their successors out until the idle timeout. Of a
    /// client that is only idle nothing is lost but the connection: its session stays.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.table.len() < self.config.limits.connections {
            return true;
        }
        if now < self.no_room_before {
            return false;
        }
        let heard = |slot: u32| {
            let accepted = self.table.get(slot).filter(|c| c.side().is_server() && !c.is_drained());
            accepted.map(|connection| (connection.last_heard(), slot))
        };
        let Some((heard, slot)) = self.table.iter().filter_map(heard).min() else { return false };
        let gives_way_at = heard + SILENT;
        if now < gives_way_at {
            // Looked for once, however many ask meanwhile.
            self.no_room_before = gives_way_at;
            return false;
        }
        if let Some(connection) = self.table.get_mut(slot) {
            connection.make_room(now);
            self.table.touch(slot);
        }
        true
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, and each is named there")]
    fn accept(
        &mut self,
        now: Instant,
        origin: Origin,
        tls: Arc<dyn ServerTls>,
        version: u32,
        (destination, source): (ConnectionId, ConnectionId),
        before_retry: Option<ConnectionId>,
        data: BytesMut,
    ) {
        let incarnation = self.server.as_ref().map_or(0, |server| server.incarnation);
        let group = self.server.as_ref().is_some_and(|server| server.group);
        let ids = self.server.as_ref().is_some_and(|server| server.ids);
        let role =
            RoleSetup::Server { tls, incarnation, group, ids, destination, source, before_retry };
        let setup = self.setup(version, origin.from, origin.local, None, role);
        let Ok(connection) = Connection::new(now, setup) else { return };
        let slot = self.table.insert(Box::new(connection));
        // At most every connection is listed once, and once more since this was last done.
        if self.handshaking.len() >= 2 * self.table.len() {
            self.forget_finished_handshakes();
        }
        self.handshaking.push(self.table.handle_of(slot));
        self.hand_to(now, slot, (origin, data));
    }

    fn proof(
        &self,
        now: Instant,
        origin: Origin,
        packet: &ProtectedPacket,
        tls: &dyn ServerTls,
    ) -> Proof {
        if packet.token().is_empty() {
            return Proof::None;
        }
        let lifetime = self.config.retry_token_lifetime;
        let destination = packet.destination();
        match RetryToken::open(packet.token(), tls, origin.from, destination, now, lifetime) {
            Some(token) => Proof::Token(token.original_destination),
            None => Proof::Bad,
        }
    }

    /// True if clients have to prove their address before anything is kept of them.
    fn is_loaded(&mut self) -> bool {
        let limits = &self.config.limits;
        if self.config.always_retry || self.table.len() >= limits.connections {
            return true;
        }
        let most = limits.handshakes_before_retry;
        if self.handshaking.len() >= most {
            self.forget_finished_handshakes();
        }
        self.handshaking.len() >= most
    }

    fn forget_finished_handshakes(&mut self) {
        let table = &self.table;
        self.handshaking.retain(|handle| {
            table
                .slot_of(*handle)
                .and_then(|slot| table.get(slot))
                .is_some_and(|connection| connection.is_handshaking())
        });
    }

    /// Sends the client back with a token; nothing is kept (RFC 9000 §8.1.2).
    fn retry(
        &mut self,
        now: Instant,
        origin: Origin,
        tls: &dyn ServerTls,
        version: u32,
        destination: ConnectionId,
        source: ConnectionId,
    ) {
        let ours = cid::fresh(self.config.worker, &mut self.random);
        let token = RetryToken { original_destination: destination, issued: now };
        let token = token.seal(tls, &mut self.random, origin.from, ours);
        let mut bytes = Vec::with_capacity(token.len() + 48);
        encode_retry(version, &source, &ours, &token, &mut bytes);
        let tag = tls.retry_tag(version, &destination, &bytes);
        bytes.extend_from_slice(&tag);
        self.reply(origin, bytes);
    }

    /// Tells the client why it is not let in; nothing is kept (RFC 9000 §10.2.3).
    fn refuse(
        &mut self,
        origin: Origin,
        tls: &dyn ServerTls,
        version: u32,
        destination: ConnectionId,
        source: ConnectionId,
        code: Code,
    ) {
        let keys = tls.initial_keys(version, &destination, Side::Server);
        let mut bytes = Vec::with_capacity(128);
        let ours = cid::fresh(self.config.worker, &mut self.random);
        let header = Header::initial(source, ours, &[]).with_version(version);
        let writer = PacketWriter::begin(&header, 0, None, &mut bytes);
        Frame::ConnectionClose { code: code.0, frame_type: 0, reason: b"" }.encode(&mut bytes);
        writer.finish(&*keys.local.header, &*keys.local.packet, &mut bytes);
        self.reply(origin, bytes);
    }
}

/// True if the packet was made with the keys of its destination, as any client's is.
fn opens(
    packet: ProtectedPacket,
    tls: &dyn ServerTls,
    version: u32,
    destination: &ConnectionId,
) -> bool {
    let keys = tls.initial_keys(version, destination, Side::Server).remote;
    let Ok(packet) = packet.unprotect(&*keys.header) else { return false };
    let number = packet.number(0);
    packet.open(&*keys.packet, number).is_ok()
}
