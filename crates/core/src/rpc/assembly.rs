//! Putting a peer's messages together, within a bound over all connections.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::spares::Spares;
use crate::time::{Duration, Instant, earliest};
use crate::transport::connection::{Chunk, Connection, MessageId};
use crate::transport::endpoint::ConnectionHandle;

/// How often it is looked whether connections go on with what they hold, while others wait for room.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Bytes that a connection which holds room has to send on between two looks, at least. (Once as much
/// as it holds in about a quarter of an hour, if that is more.)
const PROGRESS: u64 = 16 << 10;
const PROGRESS_OF_HELD: u64 = 512;

/// While this much more would leave room for everybody, so much of a message is read at once.
const AT_ONCE: u64 = 256 << 10;

/// Messages that have begun to arrive, of every connection of a node.
///
/// Bound: [`Limits::assembly`](crate::limits::Limits::assembly) plus two messages. Anybody may fill the
/// first half of it. The second half is for connections that hold little: less than half of what each
/// would get if the second half was divided among all. What has no room waits in its sender, held back
/// by flow control, except what has come whole, and one message, which does not count: the first one
/// of the connection whose message began first. It is the one for which its sender keeps credit. So
/// large messages cannot block one another, or small ones, for ever.
///
/// While messages wait, a connection that does not go on with what it holds is given up: it is dead, or
/// it stalls to keep the room from others. An honest client connects anew and sends again.
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
    /// What each connection that has partial messages has of the room.
    shares: BTreeMap<ConnectionHandle, Share>,
    /// When it is looked next who goes on: only while messages wait.
    check_at: Option<Instant>,
    spares: Spares,
}

#[derive(Debug)]
struct Partial {
    order: u64,
    data: BytesMut,
}

/// What one connection has of the room.
#[derive(Debug, Default)]
struct Share {
    messages: usize,
    held: u64,
    /// Bytes that were read in all.
    read: u64,
    /// The same at the last look, if its first message waited for the peer then and has since.
    read_before: Option<u64>,
}

/// The code with which a message is stopped that is larger than this side takes.
pub(crate) const TOO_LARGE: u64 = 1;

/// Why no more of a message is read now.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    Blocked,
    Ended,
    Reset,
}

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
            shares: BTreeMap::new(),
            check_at: None,
            spares: Spares::default(),
        }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether messages wait for room.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When [`stalled`](Self::stalled) is to be asked next, or memory to be given back.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        earliest(self.check_at, self.spares.next_timeout())
    }

    /// Gives memory back that has not been used for some time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.spares.handle_timeout(now);
    }

    /// The connections that keep room from others and do not go on: to be ended.
    pub(crate) fn stalled(&mut self, now: Instant) -> Vec<ConnectionHandle> {
        let Some(due) = self.check_at.filter(|at| *at <= now) else { return Vec::new() };
        self.check_at = self.has_waiting().then(|| now + CHECK_EVERY);
        // Who looks late was asleep, and what the peers sent meanwhile has not been read yet.
        let late = now.since(due) >= CHECK_EVERY / 2;
        let mut stalled = Vec::new();
        if let Some((handle, _)) = self.first().filter(|_| self.is_overdrawn()) {
            stalled.push(handle);
        }
        for (handle, share) in &mut self.shares {
            let first = self.partial.range((*handle, MessageId(0))..).next();
            let owes = first.is_some_and(|(key, _)| !self.waiting.contains(key));
            let least = PROGRESS.max(share.held / PROGRESS_OF_HELD);
            let idle = share.read_before.is_some_and(|before| share.read - before < least);
            if owes && idle && !late && self.check_at.is_some() {
                stalled.push(*handle);
            }
            share.read_before = owes.then_some(share.read);
        }
        stalled
    }

    /// Reads what a connection has; `out` gets what is complete, in the order of completion.
    pub(crate) fn read(
        &mut self,
        now: Instant,
        handle: ConnectionHandle,
        connection: &mut Connection,
        out: &mut Vec<Progress>,
    ) {
        self.spares.set_time(now);
        while let Some((_, data)) = connection.take_whole_message() {
            let fits = data.len() as u64 <= self.largest;
            out.push(if fits { Progress::Whole(data) } else { Progress::TooLarge(data) });
        }
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
        if self.has_waiting() && self.check_at.is_none() {
            self.check_at = Some(now + CHECK_EVERY);
            for share in self.shares.values_mut() {
                share.read_before = None;
            }
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
        if self.has_room(handle) || connection.has_end(id) {
            match connection.read(id) {
                Chunk::Data { data, end: true } if data.len() as u64 <= self.largest => {
                    out.push(Progress::Whole(data));
                    return;
                }
                Chunk::Data { data, end } => {
                    self.start(handle, id);
                    self.append(handle, id, &data);
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
        self.start(handle, id);
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
            match self.read_pieces(handle, id, connection) {
                Ok(end) => self.check(handle, id, end, connection, out),
                Err(Stopped::Blocked) => return,
                Err(Stopped::Ended) => {
                    self.remove(handle, id);
                }
                Err(Stopped::Reset) => {
                    self.remove(handle, id);
                    out.push(Progress::Reset);
                }
            }
        }
        if self.partial.contains_key(&(handle, id)) {
            self.waiting.insert((handle, id));
            if self.first_of(handle) == Some(id)
                && let Some(share) = self.shares.get_mut(&handle)
            {
                share.read_before = None;
            }
        }
    }

    /// Reads one piece, or several while there is plenty of room. Returns whether the message ended.
    fn read_pieces(
        &mut self,
        handle: ConnectionHandle,
        id: MessageId,
        connection: &mut Connection,
    ) -> Result<bool, Stopped> {
        let Some(partial) = self.partial.get_mut(&(handle, id)) else { return Err(Stopped::Ended) };
        let most = if self.held + AT_ONCE < self.budget / 2 { AT_ONCE } else { 1 };
        let before = partial.data.len() as u64;
        let result = loop {
            match connection.read(id) {
                Chunk::Data { data, end } => {
                    self.spares.append(&mut partial.data, &data);
                    let size = partial.data.len() as u64;
                    if end || size - before >= most || size > self.largest {
                        break Ok(end);
                    }
                }
                Chunk::Blocked => break Err(Stopped::Blocked),
                Chunk::Ended => break Err(Stopped::Ended),
                Chunk::Reset(_) => break Err(Stopped::Reset),
            }
        };
        let read = partial.data.len() as u64 - before;
        self.count(handle, read);
        result
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
            out.push(Progress::TooLarge(self.spares.finish(data)));
        } else if end {
            let data = self.remove(handle, id);
            out.push(Progress::Whole(self.spares.finish(data)));
        }
    }

    fn may_read(&self, handle: ConnectionHandle, id: MessageId, connection: &Connection) -> bool {
        self.partial.contains_key(&(handle, id))
            && (self.has_room(handle)
                || connection.has_end(id)
                || (self.first() == Some((handle, id)) && !self.is_overdrawn()))
    }

    /// Whether a connection may hold more.
    fn has_room(&self, handle: ConnectionHandle) -> bool {
        let first = self.first().and_then(|key| self.partial.get(&key));
        let held = self.held - first.map_or(0, |partial| partial.data.len() as u64);
        let half = self.budget / 2;
        let own = self.shares.get(&handle).map_or(0, |share| share.held);
        let among = self.shares.len().max(1) as u64;
        held < half || (held < self.budget && own < half / 2 / among)
    }

    /// The message that is read on when there is no room.
    fn first(&self) -> Option<(ConnectionHandle, MessageId)> {
        let (_, handle) = self.orders.first_key_value()?;
        Some((*handle, self.first_of(*handle)?))
    }

    /// Whether even that one is not: only a peer that begins its messages from behind, so that
    /// another one is always the first, gets so far.
    fn is_overdrawn(&self) -> bool {
        self.held >= self.budget.saturating_add(2 * self.largest)
    }

    /// The first message of a connection.
    fn first_of(&self, handle: ConnectionHandle) -> Option<MessageId> {
        let ((of, id), _) = self.partial.range((handle, MessageId(0))..).next()?;
        (*of == handle).then_some(*id)
    }

    fn start(&mut self, handle: ConnectionHandle, id: MessageId) {
        self.begun += 1;
        self.orders.insert(self.begun, handle);
        self.partial.insert((handle, id), Partial { order: self.begun, data: BytesMut::new() });
        self.shares.entry(handle).or_default().messages += 1;
    }

    fn append(&mut self, handle: ConnectionHandle, id: MessageId, data: &[u8]) {
        let Some(partial) = self.partial.get_mut(&(handle, id)) else { return };
        self.spares.append(&mut partial.data, data);
        self.count(handle, data.len() as u64);
    }

    fn count(&mut self, handle: ConnectionHandle, size: u64) {
        self.held += size;
        let share = self.shares.entry(handle).or_default();
        share.held += size;
        share.read += size;
    }

    fn remove(&mut self, handle: ConnectionHandle, id: MessageId) -> BytesMut {
        self.waiting.remove(&(handle, id));
        let Some(partial) = self.partial.remove(&(handle, id)) else { return BytesMut::new() };
        self.orders.remove(&partial.order);
        let size = partial.data.len() as u64;
        self.held -= size;
        if let Some(share) = self.shares.get_mut(&handle) {
            share.held -= size;
            share.messages -= 1;
            if share.messages == 0 {
                self.shares.remove(&handle);
            }
        }
        partial.data
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
}
