//! One secured association with a peer: handshake, packets, recovery, paths, closing.
//!
//! A connection is driven by its [`Endpoint`](super::endpoint::Endpoint); applications reach it
//! through [`Endpoint::connection_mut`](super::endpoint::Endpoint::connection_mut).
//!
//! | file | owns |
//! |---|---|
//! | `handshake` | TLS, CRYPTO bytes, installing and discarding keys, transport parameters, Retry, version negotiation |
//! | `process` | packets and frames that come in |
//! | `transmit`, `write` | datagrams that go out |
//! | `copy` | copies of what is under way on a lossy path |
//! | `recover` | acknowledgements, losses, probe timeouts, timers |
//! | `keys` | key phases and AEAD limits |
//! | `ahead` | telling the processor what the next packet needs |
//! | `rest` | giving memory back while nothing happens |
//! | `path`, `migrate` | addresses: their proof, changes, estimates |
//! | `ids` | connection ids of both sides |
//! | `close` | closing and draining |

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::crypto::TlsSession;
use super::endpoint::EndpointConfig;
use super::receive::Inbox;
use super::record;
use super::send::{Outbox, OutboxEvent};
use super::timers::Timers;
use super::{ConnectionId, Side, Space};
use crate::random::Random;
use crate::time::{Duration, Instant};
use crate::wire::fields::Head;
use crate::wire::frame::DatagramHeader;

pub use super::crypto::PeerIdentity;
pub use super::error::TransportError;
pub use super::receive::Chunk;
pub use super::send::{MessageId, SendError};
pub use event::{ConnectionError, ConnectionEvent, UnreliableError};
use stats::Counters;
pub use stats::{EcnState, Stats, Traffic};

use close::{CloseReason, State};
use ids::{LocalIds, RemoteIds, ResetToken};
use keys::DataKeys;
use path::Path;
use space::{PacketSpace, Spaces};

mod ahead;
mod close;
mod copy;
mod crypto_stream;
mod event;
mod handshake;
mod ids;
mod keys;
mod migrate;
mod path;
mod process;
mod recover;
mod rest;
mod space;
mod stats;
mod transmit;
mod write;

pub(super) use handshake::{RoleSetup, Setup};
pub(super) use process::Origin;
pub(super) use recover::Scratch;

/// A change of the ids by which the endpoint finds this connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum IdChange {
    /// Datagrams to this id belong here.
    Add(ConnectionId),
    /// No more.
    Remove(ConnectionId),
    /// A datagram from this address that ends with this token resets the connection.
    ExpectReset(SocketAddr, ResetToken),
    /// No more.
    ForgetReset(SocketAddr, ResetToken),
}

/// One connection: the public face.
pub struct Connection {
    side: Side,
    version: u32,
    config: Arc<EndpointConfig>,
    random: Random,
    state: State,
    tls: Box<dyn TlsSession>,
    handshake: handshake::Progress,
    spaces: Spaces,
    data_keys: Option<DataKeys>,
    local_ids: LocalIds,
    remote_ids: RemoteIds,
    id_changes: VecDeque<IdChange>,
    /// The reset tokens that the endpoint knows of, with the address they hold for.
    announced_tokens: Vec<(SocketAddr, ResetToken)>,
    path: Path,
    /// The path before the last migration, until the new one is proven.
    previous_path: Option<Box<Path>>,
    migration: migrate::Migration,
    outbox: Outbox,
    inbox: Inbox,
    unreliable: VecDeque<Bytes>,
    events: VecDeque<ConnectionEvent>,
    readable_queued: bool,
    unreliable_queued: usize,
    recovery: recover::Recovery,
    timers: Timers,
    keep_alive: bool,
    awaits_answer: bool,
    answer_probe: Duration,
    answer_patience: Duration,
    /// Packets that came before their keys.
    early: Vec<process::EarlyPacket>,
    open_failures: u64,
    counters: Counters,
    record: Option<Box<dyn record::Record>>,
}

impl Connection {
    /// True once the peer is authenticated, until the connection closes.
    pub fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// True once the connection is over, whatever the reason.
    pub fn is_closed(&self) -> bool {
        !self.state.is_open()
    }

    /// Which side this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Queues a message made of `head` and then `body`; neither is copied. May be called before the
    /// handshake is done: it goes out as soon as keys and window allow.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&mut self, head: Bytes, body: impl Into<Rope>) -> Result<MessageId, SendError> {
        if !self.state.is_open() {
            return Err(SendError::Closed);
        }
        self.outbox.queue(head, body)
    }

    /// The same with a head that the caller keeps: it is copied, once if the message is short.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_written(&mut self, head: &[u8], body: Rope) -> Result<MessageId, SendError> {
        if !self.state.is_open() {
            return Err(SendError::Closed);
        }
        self.outbox.queue_written(head, body)
    }

    /// The same with a short body, of which the caller keeps both parts.
    ///
    /// # Errors
    /// See [`SendError`].
    #[inline]
    pub fn send_short(&mut self, head: &impl Head, body: &[u8]) -> Result<MessageId, SendError> {
        if !self.state.is_open() {
            return Err(SendError::Closed);
        }
        self.outbox.queue_short(head, body)
    }

    /// Asks for [`ConnectionEvent::MessageAcked`] of a message that was just sent.
    pub fn tell_acked(&mut self, id: MessageId) {
        self.outbox.tell_acked(id);
    }

    /// True while [`send`](Self::send) would take no message for want of room.
    pub fn is_full(&self) -> bool {
        self.outbox.is_full()
    }

    /// True while [`send`](Self::send) would take no message for want of room;
    /// [`ConnectionEvent::Writable`] follows then when there is some.
    pub fn lacks_room(&mut self) -> bool {
        self.outbox.want_room();
        self.outbox.is_full()
    }

    /// Gives a message of ours up: what is not sent yet never will be. Returns whether all of it had
    /// been in a packet before, so that the peer may have it; no later event changes that.
    ///
    /// # Panics
    /// If `code` is above 2^62 - 1.
    pub fn reset(&mut self, id: MessageId, code: u64) -> bool {
        self.outbox.reset(id, code)
    }

    /// True if every byte of the message has been in a packet at least once. If not, the peer
    /// cannot have acted on it, and after [`Connection::reset`] or the end of the connection it
    /// never will.
    pub fn ever_fully_sent(&self, id: MessageId) -> bool {
        self.outbox.ever_fully_sent(id)
    }

    /// Queues a message for one packet without retransmission. The oldest is dropped when the queue
    /// is full (`limits.unreliable_queue`).
    ///
    /// # Errors
    /// See [`UnreliableError`].
    pub fn send_unreliable(&mut self, data: Bytes) -> Result<(), UnreliableError> {
        if !self.is_established() {
            return Err(UnreliableError::NotConnected);
        }
        let max = self.max_unreliable().ok_or(UnreliableError::Unsupported)?;
        if data.len() > max {
            return Err(UnreliableError::TooLarge(max));
        }
        if self.unreliable.len() >= self.config.limits.unreliable_queue {
            self.unreliable.pop_front();
        }
        self.unreliable.push_back(data);
        Ok(())
    }

    /// Takes the next message of the peer that came in one piece, and so ends it. Cheaper than to
    /// accept and read it.
    pub fn take_whole_message(&mut self) -> Option<(MessageId, Bytes)> {
        self.inbox.take_whole()
    }

    /// The next message that the peer has begun and nobody has accepted or taken.
    pub fn accept_message(&mut self) -> Option<MessageId> {
        self.inbox.accept()
    }

    /// The next accepted message that can be read on after it was [`Chunk::Blocked`].
    pub fn readable_message(&mut self) -> Option<MessageId> {
        self.inbox.next_readable()
    }

    /// True if a message of the peer can be read to its end, or to its reset, with what is there.
    pub fn has_end(&self, id: MessageId) -> bool {
        self.inbox.has_end(id)
    }

    /// The next bytes of a message of the peer, in order; taking them grants the peer more window.
    pub fn read(&mut self, id: MessageId) -> Chunk {
        self.inbox.read(id)
    }

    /// Tells the peer that the message will not be read on; its bytes are dropped from here on.
    ///
    /// # Panics
    /// If `code` is above 2^62 - 1.
    pub fn stop(&mut self, id: MessageId, code: u64) {
        self.inbox.stop(id, code);
    }

    /// Ends the connection: what is queued is dropped, the peer is told. Does nothing once closed.
    ///
    /// # Panics
    /// If `code` is above 2^62 - 1.
    pub fn close(&mut self, now: Instant, code: u64, reason: Bytes) {
        self.begin_closing(
            now,
            CloseReason::Application { code, reason },
            ConnectionError::LocalClose,
        );
    }

    /// Something new hangs on this connection (a call): if it waits in a backed-off probe timeout,
    /// probe now instead.
    pub fn probe(&mut self, now: Instant) {
        self.probe_early(now);
    }

    /// Whether to keep the connection alive while nothing is sent. Off at first.
    pub fn keep_alive(&mut self, now: Instant, on: bool) {
        self.keep_alive = on;
        self.reset_keepalive(now);
    }

    /// How much silence is taken as it is at first where an answer is awaited: 200 ms if nothing else
    /// is said, at most two seconds.
    pub fn answers_within(&mut self, patience: Duration) {
        self.answer_patience = patience.min(recover::ANSWER_PROBE_MAX);
    }

    /// Whether something hangs on an answer of the peer. While it does, silence is probed: after
    /// 200 ms (or [as said](Self::answers_within)), then after twice as long each time, up to two seconds. A peer that has acknowledged
    /// everything and was then restarted would otherwise not be noticed before the idle timeout.
    pub fn await_answer(&mut self, now: Instant, on: bool) {
        if on != self.awaits_answer {
            self.awaits_answer = on;
            self.answer_probe = self.answer_patience;
            self.reset_keepalive(now);
        }
    }

    /// Begins a key update as soon as the rules allow one; for tests and for the cautious.
    pub fn update_keys(&mut self) {
        self.recovery.key_update_wanted = true;
    }

    /// Whether something that was sent a probe timeout ago is not acknowledged, and nothing came since:
    /// the first sign that the peer is gone. The probe timeout itself counts from the last packet, so
    /// that it does not expire under a steady stream of them.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        let sent = &self.spaces[Space::Data.index()].sent;
        let mut eliciting = sent.outstanding().filter(|(_, packet)| packet.ack_eliciting);
        let Some((_, oldest)) = eliciting.next() else { return false };
        let silent_since = oldest.time.max(self.recovery.last_received);
        self.recovery.probe.backoff() > 0
            || now.since(silent_since) > self.path.rtt.probe_timeout_base()
    }

    /// Counters and estimates, for people and tests.
    pub fn stats(&self) -> Stats {
        let counters = &self.counters;
        Stats {
            rtt: self.path.rtt.smoothed(),
            min_rtt: self.path.rtt.min(),
            window: self.path.congestion.window(),
            in_flight: self.bytes_in_flight(),
            mtu: self.path.mtu.current(),
            probe_timeouts_in_a_row: self.recovery.probe.backoff(),
            key_updates: self.data_keys.as_ref().map_or(0, DataKeys::updates),
            ecn: self.path.ecn_state(),
            datagrams_sent: counters.datagrams_sent,
            datagrams_received: counters.datagrams_received,
            bytes_sent: counters.bytes_sent,
            bytes_received: counters.bytes_received,
            packets_sent: counters.packets_sent,
            packets_received: counters.packets_received,
            packets_lost: counters.packets_lost,
            packets_resent: counters.packets_resent,
            packets_dropped: counters.packets_dropped,
            probe_timeouts: counters.probe_timeouts,
            ecn_ce_received: counters.ecn_ce_received,
            migrations: counters.migrations,
        }
    }

    /// The estimate of the round-trip time of the present path.
    pub fn rtt(&self) -> Duration {
        self.path.rtt.smoothed()
    }

    /// Who the peer proved to be; `None` before the handshake is done and for an anonymous client.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        self.handshake.identity.as_deref()
    }

    /// The server's incarnation as its authenticated transport parameters say; `None` before the
    /// handshake is done and on the server's side.
    pub fn peer_incarnation(&self) -> Option<u64> {
        self.handshake.peer.as_ref()?.incarnation
    }

    /// Whether the server says that it is a replica: others of the same incarnation have the same
    /// sessions. False before the handshake is done and on the server's side.
    pub fn peer_is_replica(&self) -> bool {
        self.handshake.peer.as_ref().is_some_and(|peer| peer.replica)
    }

    /// Whether that replica says that it knows ids of calls.
    pub fn peer_knows_ids(&self) -> bool {
        self.handshake.peer.as_ref().is_some_and(|peer| peer.ids)
    }

    /// The peer's present address. It changes when the peer migrates.
    pub fn remote_address(&self) -> SocketAddr {
        self.path.remote
    }

    /// The largest unreliable message that fits now, in bytes; `None` if the peer takes none or is
    /// not known yet.
    pub fn max_unreliable(&self) -> Option<usize> {
        let peer = self.handshake.peer.as_ref()?.max_datagram_frame_size;
        let peer = usize::try_from(peer).unwrap_or(usize::MAX);
        let header = DatagramHeader.size(Some(self.path.mtu.current()));
        let room = peer.min(self.path.mtu.current().saturating_sub(write::ONE_RTT_OVERHEAD));
        room.checked_sub(header).filter(|_| peer > 0)
    }

    /// True once nothing is left to send or to answer: the endpoint may forget the connection.
    pub(super) fn is_drained(&self) -> bool {
        matches!(self.state, State::Drained)
    }

    /// True until the handshake is done or failed: what counts as load for Retry.
    /// When the peer was heard last; for a connection that is over, long ago.
    pub(super) fn last_heard(&self) -> Instant {
        if self.is_closed() { Instant::ZERO } else { self.recovery.last_received }
    }

    /// Ends at once and without a word, as if the idle timeout had passed.
    pub(super) fn make_room(&mut self, now: Instant) {
        self.vanish(now, ConnectionError::IdleTimeout);
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking)
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<ConnectionEvent> {
        let event = self.events.pop_front()?;
        match event {
            ConnectionEvent::MessagesReadable => self.readable_queued = false,
            ConnectionEvent::Unreliable(_) => self.unreliable_queued -= 1,
            _ => {}
        }
        Some(event)
    }

    /// The next change of ids.
    pub(super) fn poll_id_change(&mut self) -> Option<IdChange> {
        self.id_changes.pop_front()
    }

    /// Gives back every id and token, before the connection is forgotten.
    pub(super) fn release_ids(&mut self) {
        self.id_changes.extend(self.local_ids.iter().map(IdChange::Remove));
        if let Some(id) = self.handshake.forget_first_ids() {
            self.id_changes.push_back(IdChange::Remove(id));
        }
        for (address, token) in core::mem::take(&mut self.announced_tokens) {
            self.id_changes.push_back(IdChange::ForgetReset(address, token));
        }
    }

    fn space(&mut self, space: Space) -> &mut PacketSpace {
        &mut self.spaces[space.index()]
    }

    fn bytes_in_flight(&self) -> u64 {
        self.spaces.bytes_in_flight()
    }

    /// Tells the user that there is something to read, once until they have heard.
    fn tell_readable(&mut self) {
        if !core::mem::replace(&mut self.readable_queued, true) {
            self.events.push_back(ConnectionEvent::MessagesReadable);
        }
    }

    /// Hands on an unreliable message. The oldest makes room (`limits.unreliable_queue`).
    fn tell_unreliable(&mut self, data: Bytes) {
        if self.unreliable_queued >= self.config.limits.unreliable_queue {
            let oldest =
                self.events.iter().position(|e| matches!(e, ConnectionEvent::Unreliable(_)));
            if let Some(oldest) = oldest {
                self.events.remove(oldest);
                self.unreliable_queued -= 1;
            }
        }
        self.events.push_back(ConnectionEvent::Unreliable(data));
        self.unreliable_queued += 1;
    }

    /// Hands on what became of our messages.
    fn tell_outbox_events(&mut self) {
        while let Some(event) = self.outbox.poll_event() {
            self.events.push_back(match event {
                OutboxEvent::Acked(id) => ConnectionEvent::MessageAcked(id),
                OutboxEvent::Stopped { id, code } => ConnectionEvent::MessageStopped(id, code),
                OutboxEvent::Writable => ConnectionEvent::Writable,
            });
        }
    }

    /// Brings the reset tokens that the endpoint listens for up to date.
    fn announce_tokens(&mut self) {
        let remote = self.path.remote;
        // A reset answers what we sent, so it carries the token of the id in use.
        let wanted: Vec<_> =
            self.remote_ids.active().token.into_iter().map(|token| (remote, token)).collect();
        for (address, token) in &self.announced_tokens {
            if !wanted.contains(&(*address, *token)) {
                self.id_changes.push_back(IdChange::ForgetReset(*address, *token));
            }
        }
        for (address, token) in &wanted {
            if !self.announced_tokens.contains(&(*address, *token)) {
                self.id_changes.push_back(IdChange::ExpectReset(*address, *token));
            }
        }
        self.announced_tokens = wanted;
    }
}

impl core::fmt::Debug for Connection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side)
            .field("state", &self.state)
            .field("remote", &self.path.remote)
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::congestion::Cubic;
    use super::*;

    #[test]
    fn a_connection_stays_small() {
        // Ten thousand idle ones are common, and with as many busy ones each line of memory is waited
        // for. What only some need, or only a handshake, goes into a box.
        assert!(size_of::<Connection>() <= 2_720, "{}", size_of::<Connection>());
        assert!(size_of::<Cubic>() <= 360, "{}", size_of::<Cubic>());
    }
}
