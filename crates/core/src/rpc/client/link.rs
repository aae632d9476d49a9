//! A channel's way to one server: the connection attempts, the live connection, the session.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::balance::Share;
use super::replicas::{CHECK_REPLICA_EVERY, Progress};
use super::resume::Sought;
use super::stream::Cancel;
use crate::rpc::SessionTicket;
use crate::rpc::context::Outgoing;
use crate::rpc::event::{CallKey, ChannelKey};
use crate::session::{CallId, ClientSession, SlotChange, Succession};
use crate::time::{Duration, Instant, earliest};
use crate::transport::connection::MessageId;
use crate::transport::endpoint::ConnectionHandle;

/// How often a connection on which something is unsettled is looked at for silence.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// A channel's way to one address.
///
/// It keeps a session there across connections, and goes on trying as long as a call of the session
/// is not settled, even when the channel uses another server meanwhile.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) channel: ChannelKey,
    pub(super) address: SocketAddr,
    pub(super) live: Option<Live>,
    pub(super) attempt: Option<Attempt>,
    pub(super) session: Option<Session>,
    /// The group of the replica that answered here last.
    pub(super) group: Option<u64>,
    /// Whether that replica knows ids of calls.
    pub(super) ids: bool,
    /// A connection to a replica that nothing is attached to.
    pub(super) standby: Option<Live>,
    /// The number of the last read or query on any of its connections.
    numbered: u64,
    /// The channel keeps no session.
    pub(super) sessionless: bool,
    /// The nonce of an opening that was not answered yet: sent again, it opens no second session.
    pub(super) nonce: Option<[u8; 16]>,
    /// Changes of slots that overtook the answer to the opening.
    pub(super) early_changes: Vec<SlotChange>,
    pub(super) backoff: Duration,
    /// When the next attempt begins.
    pub(super) retry_at: Option<Instant>,
    /// When the connection is looked at for silence.
    pub(super) check_at: Option<Instant>,
    /// When the server last confirmed, or was asked, that the session is this connection's.
    pub(super) confirmed_at: Instant,
    /// When an opening or attach that was pushed back is made again.
    pub(super) greet_at: Option<Instant>,
    /// When numbers that were pushed back are sent again.
    pub(super) again_at: Option<Instant>,
    pub(super) progress: Progress,
    /// When outcomes that the server need not keep are released.
    pub(super) release_at: Option<Instant>,
    /// Whether the next server has been given its chance beside this one's attempt.
    pub(super) yielded: bool,
    /// When a connection that says goodbye is closed at the latest.
    pub(super) linger_until: Option<Instant>,
    /// The first byte of the id by which the server is first spoken to: chooses among its workers.
    pub(super) steer: Option<u8>,
    /// Since when no server has answered here.
    pub(super) silent_since: Option<Instant>,
    /// The least round-trip time of the last connection, which seeds the next one's estimate.
    pub(super) rtt: Option<Duration>,
    /// On this connection the server has asked for new calls to go elsewhere.
    pub(super) drains: Option<ConnectionHandle>,
    pub(super) drains_since: Instant,
    /// The live connection has gone silent: new calls prefer another server.
    pub(super) suspect: bool,
    /// Idempotent calls that may have run here, and run again here or nowhere; some may have ended.
    pub(super) held: VecDeque<CallKey>,
    /// When it is looked at whether the server is still of use for copies of reads.
    pub(super) leave_at: Option<Instant>,
    /// The resolver does not name the address any more, or the channel is closed.
    pub(super) retired: bool,
    pub(super) last_error: Cow<'static, str>,
    pub(super) timer: Option<Instant>,
    pub(super) share: Share,
}

/// A session and who waits for its slots.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) slots: ClientSession,
    pub(super) ticket: SessionTicket,
    pub(super) occupants: Vec<Occupant>,
    /// After whom this process has it, if it keeps a journal.
    pub(super) succession: Option<Succession>,
    /// Any replica of one group has it.
    pub(super) group: bool,
    /// Numbers that were pushed back and are to be sent again.
    pub(super) again: Vec<CallId>,
    /// Set for a session whose server has to be found: of an earlier channel, or of a group that is
    /// not where it was.
    pub(super) sought: Option<Sought>,
    /// Streams that their callers have left.
    pub(super) cancels: Vec<Cancel>,
}

/// Who waits for what becomes of the number in a slot.
#[derive(Debug, Default)]
pub(super) struct Occupant {
    pub(super) call: Option<CallKey>,
    pub(super) questions: Vec<CallKey>,
}

/// A connection that carries calls; a standby carries reads.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) handle: ConnectionHandle,
    pub(super) outgoing: Outgoing,
    pub(super) reads: BTreeMap<u64, CallKey>,
    pub(super) queries: BTreeMap<u64, CallKey>,
    /// The server, which drains, was told that nothing is unsettled and nothing more comes.
    pub(super) left: bool,
    /// The goodbye, once it is sent.
    pub(super) goodbye: Option<MessageId>,
}

/// A connection that is to become the live one.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) handle: ConnectionHandle,
    pub(super) gives_up_at: Instant,
    /// When the channel's next server gets its chance beside this attempt.
    pub(super) yields_at: Option<Instant>,
    /// When an opening or attach was sent to a replica.
    pub(super) greeted: Option<Instant>,
}

impl Link {
    pub(super) fn new(channel: ChannelKey, address: SocketAddr, backoff: Duration) -> Self {
        Self {
            channel,
            address,
            live: None,
            yielded: false,
            attempt: None,
            session: None,
            group: None,
            ids: false,
            standby: None,
            numbered: 0,
            sessionless: false,
            nonce: None,
            early_changes: Vec::new(),
            backoff,
            retry_at: None,
            check_at: None,
            confirmed_at: Instant::ZERO,
            greet_at: None,
            again_at: None,
            progress: Progress::default(),
            release_at: None,
            linger_until: None,
            steer: None,
            silent_since: None,
            rtt: None,
            drains: None,
            drains_since: Instant::ZERO,
            suspect: false,
            held: VecDeque::new(),
            leave_at: None,
            retired: false,
            last_error: Cow::Borrowed(""),
            timer: None,
            share: Share::default(),
        }
    }

    /// A number for a read or query.
    pub(super) fn next_number(&mut self) -> u64 {
        self.numbered += 1;
        self.numbered
    }

    /// Whether calls can be sent now.
    pub(super) fn is_ready(&self) -> bool {
        let attached = self.session.as_ref().is_some_and(|s| s.slots.is_attached());
        self.live.is_some() && (attached || self.sessionless)
    }

    /// Whether a connection is the live one, or to become it.
    pub(super) fn uses(&self, handle: ConnectionHandle) -> bool {
        self.live.as_ref().is_some_and(|live| live.handle == handle)
            || self.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle)
    }

    /// Whether nothing is under way to its server.
    pub(super) fn is_idle(&self) -> bool {
        self.live.is_none() && self.attempt.is_none() && self.retry_at.is_none()
    }

    /// Whether new calls had better use another server.
    pub(super) fn is_shunned(&self) -> bool {
        self.is_draining() || self.suspect
    }

    /// How often it is looked at while something is unsettled.
    pub(super) fn check_every(&self) -> Duration {
        let soon = self.group.is_some() || self.share.spread;
        if soon { CHECK_REPLICA_EVERY } else { CHECK_EVERY }
    }

    /// Whether something hangs on the server's answer.
    pub(super) fn has_unsettled(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.slots.in_flight() > 0)
            || self.live.as_ref().is_some_and(|l| !l.reads.is_empty() || !l.queries.is_empty())
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(|attempt| {
            attempt.yields_at.map_or(attempt.gives_up_at, |at| at.min(attempt.gives_up_at))
        });
        let times = [self.retry_at, self.check_at, self.release_at, self.linger_until];
        [self.greet_at, self.again_at, self.leave_at]
            .into_iter()
            .chain(times)
            .fold(attempt, earliest)
    }

    /// The call that waits for `slot`, which is then nobody's.
    pub(super) fn take_occupant(&mut self, slot: u32) -> Occupant {
        self.session
            .as_mut()
            .and_then(|session| session.occupants.get_mut(slot as usize))
            .map(core::mem::take)
            .unwrap_or_default()
    }

    pub(super) fn occupant(&mut self, slot: u32) -> Option<&mut Occupant> {
        let session = self.session.as_mut()?;
        let index = slot as usize;
        if session.occupants.len() <= index {
            session.occupants.resize_with(index + 1, Occupant::default);
        }
        session.occupants.get_mut(index)
    }
}

impl Live {
    pub(super) fn new(handle: ConnectionHandle) -> Self {
        Self {
            handle,
            outgoing: Outgoing::default(),
            reads: BTreeMap::new(),
            queries: BTreeMap::new(),
            left: false,
            goodbye: None,
        }
    }
}

impl Session {
    pub(super) fn new(slots: ClientSession, ticket: SessionTicket) -> Self {
        Self {
            slots,
            ticket,
            occupants: Vec::new(),
            succession: None,
            group: false,
            again: Vec::new(),
            sought: None,
            cancels: Vec::new(),
        }
    }
}
