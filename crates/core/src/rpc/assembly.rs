//! Putting a peer's messages together, within a bound over all connections.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::transport::connection::{Chunk, Connection, MessageId};
use crate::transport::endpoint::ConnectionHandle;

/// Messages that have begun to arrive, of every connection of a node.
///
/// Bound: [`Limits::assembly`](crate::limits::Limits::assembly) plus one message. When it is
/// reached only one message is read on, and what has come whole; the others wait in their senders, held
/// back by flow control. That one is the first message of the connection whose message began first: it
/// is the one for which its sender keeps credit. So large messages cannot block one another, or small
/// ones, for ever.
#[derive(Debug)]
pub(crate) struct Assembly {
    budget: u64,
    largest: u64,
    held: u64,
    partial: BTreeMap<(ConnectionHandle, MessageId), Partial>,
    /// Those of them that were not read on for want of room. The others are blocked: their connection
    /// names them when there is more.
    waiting: BTreeSet<(ConnectionHandle, MessageId)>,
    /// The partial messages in the order in which they began.
    orders: BTreeMap<u64, ConnectionHandle>,
    begun: u64,
}

#[derive(Debug)]
struct Partial {
    order: u64,
    data: Vec<u8>,
}

/// The code with which a message is stopped that is larger than this side takes.
pub(crate) const TOO_LARGE: u64 = 1;

/// What reading on gave.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A whole message.
    Whole(Bytes),
    /// A message that is larger than allowed; it was stopped.
    TooLarge(Bytes),
    /// The sender gave the message up.
    Reset,
}

impl Assembly {
    pub(crate) fn new(budget: u64, largest: u64) -> Self {
        Self {
            budget,
            largest,
            held: 0,
            partial: BTreeMap::new(),
            waiting: BTreeSet::new(),
            orders: BTreeMap::new(),
            begun: 0,
        }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether messages wait since the budget was reached.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= self.budget
    }

    /// Reads what a connection has; `out` gets what is complete, in the order of completion.
    pub(crate) fn read(
        &mut self,
        handle: ConnectionHandle,
        connection: &mut Connection,
        out: &mut Vec<Progress>,
    ) {
        while let Some(id) = connection.accept_message() {
            self.begin(handle, id, connection, out);
        }
        while let Some(id) = connection.readable_message() {
            self.read_on(handle, id, connection, out);
        }
        let all = (handle, MessageId(0))..=(handle, MessageId(u64::MAX));
        let waiting: Vec<_> = self.waiting.range(all).map(|(_, id)| *id).collect();
        for id in waiting {
            self.read_on(handle, id, connection, out);
        }
    }

    /// Forgets what came of a connection that has ended.
    pub(crate) fn forget(&mut self, handle: ConnectionHandle) {
        for id in self.of(handle) {
            self.remove(handle, id);
        }
    }

    /// The connections that have messages waiting for room.
    pub(crate) fn waiting(&self) -> Vec<ConnectionHandle> {
        let mut handles: Vec<_> = self.waiting.iter().map(|(handle, _)| *handle).collect();
        handles.dedup();
        handles
    }

    /// A message that came whole in one piece, as most do, is handed on without a copy.
    fn begin(
        &mut self,
        handle: ConnectionHandle,
        id: MessageId,
        connection: &mut Connection,
        out: &mut Vec<Progress>,
    ) {
        if !self.is_full() || connection.has_end(id) {
            match connection.read(id) {
                Chunk::Data { data, end: true } if data.len() as u64 <= self.largest => {
                    out.push(Progress::Whole(data));
                    return;
                }
                Chunk::Data { data, end } => {
                    let order = self.next_order(handle);
                    self.held += data.len() as u64;
                    self.partial.insert((handle, id), Partial { order, data: data.into() });
                    self.check(handle, id, end, connection, out);
                    return self.read_on(handle, id, connection, out);
                }
                Chunk::Reset(_) => {
                    out.push(Progress::Reset);
                    return;
                }
                Chunk::Ended => return,
                Chunk::Blocked => {}
            }
        }
        let order = self.next_order(handle);
        self.partial.insert((handle, id), Partial { order, data: Vec::new() });
        self.read_on(handle, id, connection, out);
    }

    fn read_on(
        &mut self,
        handle: ConnectionHandle,
        id: MessageId,
        connection: &mut Connection,
        out: &mut Vec<Progress>,
    ) {
        while self.may_read(handle, id, connection) {
            self.waiting.remove(&(handle, id));
            match connection.read(id) {
                Chunk::Data { data, end } => {
                    self.held += data.len() as u64;
                    if let Some(partial) = self.partial.get_mut(&(handle, id)) {
                        partial.data.extend_from_slice(&data);
                    }
                    self.check(handle, id, end, connection, out);
                }
                Chunk::Blocked => return,
                Chunk::Ended => {
                    self.remove(handle, id);
                }
                Chunk::Reset(_) => {
                    self.remove(handle, id);
                    out.push(Progress::Reset);
                }
            }
        }
        if self.partial.contains_key(&(handle, id)) {
            self.waiting.insert((handle, id));
        }
    }

    fn check(
        &mut self,
        handle: ConnectionHandle,
        id: MessageId,
        end: bool,
        connection: &mut Connection,
        out: &mut Vec<Progress>,
    ) {
        let Some(size) = self.partial.get(&(handle, id)).map(|p| p.data.len() as u64) else {
            return;
        };
        if size > self.largest {
            connection.stop(id, TOO_LARGE);
            let data = self.remove(handle, id);
            out.push(Progress::TooLarge(data));
        } else if end {
            let data = self.remove(handle, id);
            out.push(Progress::Whole(data));
        }
    }

    fn may_read(&self, handle: ConnectionHandle, id: MessageId, connection: &Connection) -> bool {
        self.partial.contains_key(&(handle, id))
            && (!self.is_full() || connection.has_end(id) || self.is_first(handle, id))
    }

    /// Whether this is the message that is read on when there is no room.
    fn is_first(&self, handle: ConnectionHandle, id: MessageId) -> bool {
        let oldest = self.orders.first_key_value().map(|(_, connection)| *connection);
        let first = self.partial.range((handle, MessageId(0))..).next().map(|(key, _)| *key);
        oldest == Some(handle) && first == Some((handle, id))
    }

    fn remove(&mut self, handle: ConnectionHandle, id: MessageId) -> Bytes {
        self.waiting.remove(&(handle, id));
        let Some(partial) = self.partial.remove(&(handle, id)) else { return Bytes::new() };
        self.orders.remove(&partial.order);
        self.held -= partial.data.len() as u64;
        partial.data.into()
    }

    fn of(&self, handle: ConnectionHandle) -> Vec<MessageId> {
        if self.partial.is_empty() {
            return Vec::new();
        }
        self.partial
            .range((handle, MessageId(0))..=(handle, MessageId(u64::MAX)))
            .map(|((_, id), _)| *id)
            .collect()
    }

    fn next_order(&mut self, handle: ConnectionHandle) -> u64 {
        self.begun += 1;
        self.orders.insert(self.begun, handle);
        self.begun
    }
}
