//! What the halves act on, and the messages that wait for room in a connection.

use alloc::collections::VecDeque;

use bytes::Bytes;

use super::codec::MessageBuffer;
use super::events::Events;
use super::message::Parts;
use crate::limits::Limits;
use crate::random::Random;
use crate::time::Instant;
use crate::transport::connection::{MessageId, SendError};
use crate::transport::endpoint::{ConnectionHandle, Endpoint};
use crate::wire::fields::Head;

/// What a half of the node may use while it handles one input.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) endpoint: &'a mut Endpoint,
    pub(crate) random: &'a mut Random,
    pub(crate) events: &'a mut Events,
    pub(crate) buffer: &'a mut MessageBuffer,
    pub(crate) limits: &'a Limits,
}

/// The application's codes in CONNECTION_CLOSE.
pub(crate) mod close_code {
    /// Nothing is wrong: this side is done.
    pub(crate) const DONE: u64 = 0;
    /// The peer sent a message, or a number, that no correct peer sends.
    pub(crate) const PROTOCOL: u64 = 1;
    /// Another connection took its place.
    pub(crate) const REPLACED: u64 = 2;
    /// The peer does not go on with a message while others wait for the room that it holds.
    pub(crate) const STALLED: u64 = 3;
}

impl Context<'_> {
    /// Ends a connection and tells the peer why.
    pub(crate) fn close(&mut self, handle: ConnectionHandle, code: u64, reason: &'static str) {
        if let Some(connection) = self.endpoint.connection_mut(handle) {
            connection.close(self.now, code, Bytes::from_static(reason.as_bytes()));
        }
    }
}

/// Messages to one connection, in order, of which some may wait for room.
///
/// Bound: the owner queues at most one message for each slot, read and control exchange.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    waiting: VecDeque<(Parts, u64)>,
}

impl Outgoing {
    /// Sends a message now or when there is room. `tag` is handed back by [`Self::flush`]. Returns
    /// the id if it was taken now.
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        parts: Parts,
        tag: u64,
    ) -> Option<MessageId> {
        if self.waiting.is_empty() {
            let connection = cx.endpoint.connection_mut(handle)?;
            // A copy only for a connection that is full.
            if !connection.is_full() {
                let (written, body) = parts;
                let sent = connection.send_written(&written, body);
                cx.buffer.take_back(written);
                return sent.ok();
            }
            match try_send(cx.endpoint, handle, &parts) {
                Ok(id) => return Some(id),
                Err(SendError::Full) => {}
                // A connection that is over reports it as an event; a message that is too large was
                // refused before it came here.
                Err(_) => return None,
            }
        }
        self.waiting.push_back((parts, tag));
        None
    }

    /// The same of a short message in two parts, of which the caller keeps the second.
    #[inline]
    pub(crate) fn send_short(
        &mut self,
        cx: &mut Context<'_>,
        handle: ConnectionHandle,
        (head, tail): (&impl Head, &[u8]),
        tag: u64,
    ) -> Option<MessageId> {
        if self.waiting.is_empty() {
            let connection = cx.endpoint.connection_mut(handle)?;
            if !connection.is_full() {
                return connection.send_short(head, tail).ok();
            }
        }
        let parts = cx.buffer.joined(head, tail);
        self.send(cx, handle, parts, tag)
    }

    /// Sends what there is room for; `sent` hears of each with its tag.
    pub(crate) fn flush(
        &mut self,
        endpoint: &mut Endpoint,
        handle: ConnectionHandle,
        mut sent: impl FnMut(u64, MessageId),
    ) {
        while let Some((parts, tag)) = self.waiting.front() {
            match try_send(endpoint, handle, parts) {
                Ok(id) => sent(*tag, id),
                Err(SendError::Full) => return,
                Err(_) => {}
            }
            self.waiting.pop_front();
        }
    }

    /// Whether a message would be sent now; else it is told when there is room.
    pub(crate) fn has_room(&self, endpoint: &mut Endpoint, handle: ConnectionHandle) -> bool {
        self.waiting.is_empty()
            && endpoint.connection_mut(handle).is_some_and(|connection| !connection.lacks_room())
    }

    /// Takes a waiting message back.
    pub(crate) fn cancel(&mut self, tag: u64) {
        self.waiting.retain(|(_, other)| *other != tag);
    }
}

fn try_send(
    endpoint: &mut Endpoint,
    handle: ConnectionHandle,
    (written, body): &Parts,
) -> Result<MessageId, SendError> {
    let connection = endpoint.connection_mut(handle).ok_or(SendError::Closed)?;
    connection.send_written(written, body.clone())
}
