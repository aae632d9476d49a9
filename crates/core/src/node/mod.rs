//! A node: one socket's worth of Stubborn, composed of transport, sessions and calls.
//!
//! # Driving contract
//! A node does nothing by itself. Whoever drives it
//!
//! 1. mutates: [`handle`](Node::handle) for each datagram that came, [`handle_timeout`] when
//!    [`poll_timeout`] is due, and the methods that begin, abandon or answer calls;
//! 2. then takes out: [`poll_event`](Node::poll_event) until `None` (acting on an event may mutate
//!    again), [`poll_transmit`](Node::poll_transmit) until `None`;
//! 3. then sleeps until there is input or [`poll_timeout`] is due.
//!
//! `now` never goes back. Handlers that are ready at once are best answered before the transmits
//! are taken out: then the reply is the acknowledgement.
//!
//! [`handle_timeout`]: Node::handle_timeout
//! [`poll_timeout`]: Node::poll_timeout

mod config;
mod event;

use alloc::vec::Vec;
use core::net::SocketAddr;

pub use config::{ChannelConfig, NodeConfig, ServerConfig, SessionTicket};
pub use event::{
    CallKey, ChannelEvent, ChannelKey, Event, IncomingRequest, RequestKey, RequestKind, Settled,
};

use crate::service::{Answer, Method, OutgoingCall};
use crate::session::CallId;
use crate::time::Instant;
use crate::transport::connection::Stats;
use crate::transport::endpoint::{Received, Transmit};

/// One socket's worth of Stubborn. See the [module](self) for how to drive it.
pub struct Node {}

#[allow(unused_variables, missing_docs)]
impl Node {
    /// A node; with `server` it also accepts connections. `seed` is all the randomness it ever gets.
    pub fn new(config: NodeConfig, server: Option<ServerConfig>, seed: [u8; 32]) -> Self {
        todo!()
    }

    /// Takes in a datagram.
    pub fn handle(&mut self, now: Instant, datagram: Received) {
        todo!()
    }

    /// Lets every timer that is due at `now` fire.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        todo!()
    }

    /// Appends the next datagrams to `buf` and says where they go.
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        todo!()
    }

    /// The next thing to tell the driver.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        todo!()
    }

    /// Opens a channel: connects to the first target that answers and keeps a session there.
    pub fn open_channel(&mut self, now: Instant, config: ChannelConfig) -> ChannelKey {
        todo!()
    }

    /// New addresses from a resolver. Calls in flight at an address that is gone stay there until
    /// they are settled.
    pub fn set_targets(&mut self, now: Instant, channel: ChannelKey, targets: Vec<SocketAddr>) {
        todo!()
    }

    /// Gives a channel up: calls in flight end as pending or not executed, the session is closed
    /// once they are settled or at once if `abrupt`.
    pub fn close_channel(&mut self, now: Instant, channel: ChannelKey) {
        todo!()
    }

    /// Begins a call; ends with [`Event::Resolved`]. Deadlines in `call` count from `now`.
    pub fn call(&mut self, now: Instant, channel: ChannelKey, call: OutgoingCall) -> CallKey {
        todo!()
    }

    /// Reserves a number for a call of `method`; ends with [`Event::Reserved`].
    pub fn reserve(&mut self, now: Instant, channel: ChannelKey, method: &Method) -> CallKey {
        todo!()
    }

    /// Nobody waits for this call, reservation or question any more: no event will come of it. A
    /// read is cancelled; a call is fenced in the background if it has not started.
    pub fn abandon(&mut self, now: Instant, call: CallKey) {
        todo!()
    }

    /// A reserved number will not be used: it is fenced.
    pub fn abandon_reserved(&mut self, now: Instant, channel: ChannelKey, id: CallId) {
        todo!()
    }

    /// Asks what became of a call; ends with [`Event::Outcome`]. `ticket` proves the right to ask
    /// about a session that is not this channel's own.
    pub fn outcome(
        &mut self,
        now: Instant,
        channel: ChannelKey,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> CallKey {
        todo!()
    }

    /// The session that a channel uses now.
    pub fn session(&self, channel: ChannelKey) -> Option<SessionTicket> {
        todo!()
    }

    /// Counters and estimates of the connection that a channel uses now, and its server's address.
    pub fn channel_stats(&self, channel: ChannelKey) -> Option<(SocketAddr, Stats)> {
        todo!()
    }

    /// Answers a request. An answer to a request that is cancelled or unknown is ignored.
    pub fn answer(&mut self, now: Instant, request: RequestKey, answer: Answer) {
        todo!()
    }

    /// Refuses new sessions and tells clients to go elsewhere; ends with [`Event::Drained`].
    pub fn drain(&mut self, now: Instant) {
        todo!()
    }

    /// Closes every connection at once, telling the peers.
    pub fn close(&mut self, now: Instant) {
        todo!()
    }

    /// Sessions that the server half remembers.
    pub fn sessions(&self) -> usize {
        todo!()
    }
}
