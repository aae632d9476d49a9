//! All connections of one socket: finding the connection of a datagram, accepting new ones, and
//! answering what belongs to none.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::{self, Vec};
use core::iter;
use core::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

use super::ConnectionId;
use super::connection::{
    Connection, ConnectionEvent, Origin, RoleSetup, Scratch, Setup, Traffic, TransportError,
};
use super::crypto::{ClientTls, ServerTls};
use crate::random::Random;
use crate::time::{Duration, Instant, earliest};
use crate::wire::packet;

pub use super::ecn::Ecn;
pub(crate) use by_handle::ByHandle;
pub use config::EndpointConfig;

use ahead::Ahead;
use table::Table;

mod accept;
mod ahead;
mod by_handle;
mod by_id;
mod config;
mod reset;
mod table;
mod timeouts;

/// Answers to datagrams that belong to no connection, waiting to be sent. When full, further ones
/// go unanswered: whoever asked will ask again.
const REPLIES: usize = 256;

/// Names one connection of an [`Endpoint`]. Never reused for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionHandle {
    slot: u32,
    generation: u32,
}

/// A datagram that came in.
#[derive(Debug)]
pub struct Received {
    /// The sender's address.
    pub from: SocketAddr,
    /// The local address that it was sent to, if known.
    pub local: Option<IpAddr>,
    /// The ECN field.
    pub ecn: Ecn,
    /// The UDP payload.
    pub data: BytesMut,
}

/// What to do with the bytes that [`Endpoint::poll_transmit`] appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Which local address from; `None`: as the system chooses.
    pub from: Option<IpAddr>,
    /// The ECN field to set.
    pub ecn: Ecn,
    /// Bytes appended in all.
    pub size: usize,
    /// If set, `size` is several datagrams of this size each, the last perhaps shorter (GSO).
    pub segment: Option<usize>,
}

/// Why a connection could not be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// `limits.connections` is reached.
    TooMany,
    /// The address cannot be sent to (port 0, unspecified or multicast address).
    InvalidAddress,
    /// TLS refused to start, for example since the name is not a valid one.
    Tls(TransportError),
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooMany => f.write_str("too many connections"),
            Self::InvalidAddress => f.write_str("no address that can be connected to"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ConnectError {}

/// The connections of one socket.
///
/// # Driving contract
/// Mutate ([`handle`](Self::handle), [`handle_timeout`](Self::handle_timeout),
/// [`connect`](Self::connect), [`connection_mut`](Self::connection_mut)), then call
/// [`poll_event`](Self::poll_event) and [`poll_transmit`](Self::poll_transmit) until both give
/// `None`, events first: an acknowledgement leaves with the next datagram, so what answers an event
/// takes it along. Then sleep until input comes or [`poll_timeout`](Self::poll_timeout) is due. All calls
/// take the present time, which never goes back.
pub struct Endpoint {
    config: Arc<EndpointConfig>,
    server: Option<Server>,
    random: Random,
    table: Table,
    /// Connections accepted whose handshake is not done, as far as known: what makes for load.
    handshaking: Vec<ConnectionHandle>,
    /// At the bound on connections: none gives way to another one before this.
    no_room_before: Instant,
    replies: VecDeque<(Transmit, Vec<u8>)>,
    hold_acks: Duration,
    ahead: Ahead,
    /// Lent to the connection that works.
    scratch: Option<Box<Scratch>>,
}

struct Server {
    tls: Arc<dyn ServerTls>,
    incarnation: u64,
    group: bool,
    ids: bool,
    accepting: bool,
}

impl Endpoint {
    /// An endpoint. With `server` it also accepts connections, and `incarnation` goes into the
    /// server's transport parameters; without one it is drawn.
    ///
    /// # Panics
    /// If `config.versions` is empty.
    pub fn new(
        config: EndpointConfig,
        server: Option<Arc<dyn ServerTls>>,
        mut random: Random,
        incarnation: Option<u64>,
    ) -> Self {
        assert!(!config.versions.is_empty(), "an endpoint that speaks no version");
        let incarnation = incarnation.unwrap_or_else(|| random.u64());
        let server = server.map(|tls| Server {
            tls,
            incarnation,
            group: false,
            ids: false,
            accepting: true,
        });
        Self {
            config: Arc::new(config),
            server,
            random,
            table: Table::default(),
            handshaking: Vec::new(),
            no_room_before: Instant::ZERO,
            replies: VecDeque::new(),
            hold_acks: Duration::ZERO,
            ahead: Ahead::default(),
            scratch: Some(Box::default()),
        }
    }

    /// Begins a connection. `remembered` is the round-trip time that an earlier connection to this
    /// address saw; it seeds the estimator (RFC 9002 §6.2.2). `steer` is the first byte of the id by
    /// which the server is first spoken to, and so chooses among its workers; `None`: any.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        server_name: &str,
        tls: &Arc<dyn ClientTls>,
        remembered: Option<Duration>,
        steer: Option<u8>,
    ) -> Result<ConnectionHandle, ConnectError> {
        if self.table.len() >= self.config.limits.connections {
            return Err(ConnectError::TooMany);
        }
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(ConnectError::InvalidAddress);
        }
        let server_name = server_name.to_string();
        let role = RoleSetup::Client { tls: tls.clone(), server_name, steer };
        let setup = self.setup(self.config.versions[0], remote, None, remembered, role);
        let connection = Connection::new(now, setup).map_err(ConnectError::Tls)?;
        let slot = self.table.insert(Box::new(connection));
        Ok(self.table.handle_of(slot))
    }

    fn setup(
        &mut self,
        version: u32,
        remote: SocketAddr,
        local: Option<IpAddr>,
        remembered: Option<Duration>,
        role: RoleSetup,
    ) -> Setup {
        let (config, random) = (self.config.clone(), self.random.fork());
        Setup { config, random, version, remote, local, remembered, role }
    }

    /// Takes in a datagram.
    pub fn handle(&mut self, now: Instant, datagram: Received) {
        match self.table.find_for(&datagram.data) {
            Some(slot) => self.hand_to(now, slot, split(datagram)),
            None => {
                let (origin, data) = split(datagram);
                self.handle_unknown(now, origin, data);
            }
        }
    }

    /// Takes the next datagram out of `batch` and in, and with it those that follow it to the same
    /// connection: it is looked up, and set to work, once for all of them. No more than `most`; returns how
    /// many.
    pub(crate) fn handle_row(
        &mut self,
        now: Instant,
        batch: &mut vec::Drain<'_, Received>,
        most: usize,
    ) -> usize {
        let Some(first) = batch.next() else { return 0 };
        let id = packet::destination(&first.data).and_then(ConnectionId::new);
        let Some((slot, id)) = id.and_then(|id| Some((self.table.find(&id)?, id))) else {
            self.handle(now, first);
            return 1;
        };
        let follows = |next: &Received| packet::destination(&next.data) == Some(id.as_ref());
        let row =
            1 + batch.as_slice().iter().take(most - 1).take_while(|next| follows(next)).count();
        self.hand_row(now, slot, split(first), batch.take(row - 1).map(split));
        row
    }

    fn hand_to(&mut self, now: Instant, slot: u32, datagram: (Origin, BytesMut)) {
        self.hand_row(now, slot, datagram, iter::empty());
    }

    fn hand_row(
        &mut self,
        now: Instant,
        slot: u32,
        (origin, data): (Origin, BytesMut),
        further: impl Iterator<Item = (Origin, BytesMut)>,
    ) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.lend(&mut self.scratch);
            connection.on_datagram(now, origin, data);
            further.for_each(|(origin, data)| connection.on_datagram(now, origin, data));
            connection.after_datagrams(now);
            connection.take_back(&mut self.scratch);
            self.table.apply_id_changes(slot);
            self.table.touch(slot);
        }
    }

    /// Lets every timer that is due at `now` fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(slot) = self.table.pop_due(now) {
            if let Some(connection) = self.table.get_mut(slot) {
                connection.lend(&mut self.scratch);
                connection.on_timeout(now);
                connection.take_back(&mut self.scratch);
                self.table.touch(slot);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next. Of connections that were
    /// changed it is known only once [`poll_transmit`](Self::poll_transmit) has given `None`.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let held = self.table.held_since().map(|since| since + self.hold_acks);
        earliest(self.table.earliest(), held)
    }

    /// True if [`poll_transmit`](Self::poll_transmit) may have something.
    pub fn wants_to_send(&self) -> bool {
        !self.replies.is_empty() || self.table.has_to_send()
    }

    /// How long an acknowledgement that may wait is held back for something to ride on; not at all by
    /// default, and again with zero. For a driver that knows that an answer follows soon, and that
    /// comes back in time. Peers reckon with what it takes (`ack_delay`).
    pub fn hold_acks(&mut self, longest: Duration) {
        self.hold_acks = longest;
    }

    /// True if an acknowledgement is held back, once [`poll_transmit`](Self::poll_transmit) has given
    /// `None`.
    pub fn is_holding_acks(&self) -> bool {
        self.table.held_since().is_some()
    }

    /// Appends the next datagrams to `buf` and says where they go. Connections take turns, batch by
    /// batch.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        if let Some((transmit, bytes)) = self.replies.pop_front() {
            buf.extend_from_slice(&bytes);
            return Some(transmit);
        }
        self.table.release(now, self.hold_acks);
        while let Some(slot) = self.table.next_to_send() {
            let Some(connection) = self.table.get_mut(slot) else {
                self.table.sent_all();
                continue;
            };
            if self.hold_acks > Duration::ZERO && connection.may_wait(now, self.hold_acks) {
                self.table.hold(now);
                continue;
            }
            connection.lend(&mut self.scratch);
            let transmit = connection.poll_transmit(now, buf);
            connection.take_back(&mut self.scratch);
            if let Some(transmit) = transmit {
                let sent_all = connection.has_sent_all();
                self.table.has_sent(slot);
                if sent_all {
                    self.table.touch(slot);
                    self.table.sent_all();
                } else {
                    self.table.send_again_later();
                }
                return Some(transmit);
            }
            self.table.touch(slot);
            self.table.sent_all();
        }
        None
    }

    /// The next thing that a connection has to tell.
    pub fn poll_event(&mut self) -> Option<(ConnectionHandle, ConnectionEvent)> {
        while let Some(slot) = self.table.next_to_tell() {
            let event = self.table.get_mut(slot).and_then(Connection::poll_event);
            match event {
                Some(event) => return Some((self.table.handle_of(slot), event)),
                None => self.table.told_all(),
            }
        }
        None
    }

    /// Reads a connection; `None` once it is forgotten.
    pub fn connection(&self, handle: ConnectionHandle) -> Option<&Connection> {
        self.table.get(self.table.slot_of(handle)?)
    }

    /// Changes a connection; what it then wants to send comes out of
    /// [`poll_transmit`](Self::poll_transmit).
    pub fn connection_mut(&mut self, handle: ConnectionHandle) -> Option<&mut Connection> {
        let slot = self.table.slot_of(handle)?;
        self.table.touch(slot);
        self.table.get_mut(slot)
    }

    /// Every connection that is not forgotten, in a fixed order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionHandle> + '_ {
        self.table.iter().map(|slot| self.table.handle_of(slot))
    }

    /// What all connections have counted since the endpoint was made. Looks at each connection.
    pub fn traffic(&self) -> Traffic {
        self.table.traffic()
    }

    /// From now on clients are told that this is a replica of a group, whose id is the incarnation.
    pub fn serve_group(&mut self) {
        if let Some(server) = &mut self.server {
            server.group = true;
        }
    }

    /// From now on clients are told that this replica knows ids of calls.
    pub fn serve_ids(&mut self) {
        if let Some(server) = &mut self.server {
            server.ids = true;
        }
    }

    /// Refuse new connections from now on (drain); those there are stay.
    pub fn stop_accepting(&mut self) {
        if let Some(server) = &mut self.server {
            server.accepting = false;
        }
    }

    /// This host's own address changed: every client connection tells its server and probes at once.
    pub fn address_changed(&mut self, now: Instant) {
        let slots: Vec<u32> = self.table.iter().collect();
        for slot in slots {
            if let Some(connection) = self.table.get_mut(slot) {
                connection.address_changed(now);
                self.table.touch(slot);
            }
        }
    }

    /// Queues an answer to a datagram that belongs to no connection.
    fn reply(&mut self, origin: Origin, bytes: Vec<u8>) {
        if self.replies.len() < REPLIES {
            let transmit = Transmit {
                to: origin.from,
                from: origin.local,
                ecn: Ecn::NotEct,
                size: bytes.len(),
                segment: None,
            };
            self.replies.push_back((transmit, bytes));
        }
    }
}

fn split(datagram: Received) -> (Origin, BytesMut) {
    let Received { from, local, ecn, data } = datagram;
    (Origin { from, local, ecn, size: data.len() }, data)
}

impl core::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Endpoint").field("connections", &self.table.len()).finish_non_exhaustive()
    }
}
