//! How a client half reaches its servers.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use super::policy::ServiceConfig;
use crate::session::{JournalSlot, SessionId, SessionSecret, Succession};
use crate::time::Duration;
use crate::transport::crypto::ClientTls;

/// How a channel reaches its service.
#[derive(Clone)]
pub struct ChannelConfig {
    /// Addresses of servers, tried in turn; may be empty until a resolver fills them.
    pub targets: Vec<SocketAddr>,
    /// The name that the server's certificate must bear.
    pub server_name: String,
    /// Roots to trust, and the client's own certificate if it has one.
    pub tls: Arc<dyn ClientTls>,
    /// Slots to ask for: calls in flight at once.
    pub slots: u32,
    /// The deadline of calls that state none; `None`: such calls wait as long as the server can be
    /// reached.
    pub deadline: Option<Duration>,
    /// Whether calls wait for a server by default, instead of failing once every target was tried.
    pub wait_for_ready: bool,
    /// How long after its deadline a call still waits for the fence that settles it. Past it the
    /// call ends as pending.
    pub settle_grace: Duration,
    /// How long no server has to answer before a call without a deadline ends as pending.
    pub unreachable_after: Duration,
    /// The first pause between connection attempts; it doubles, with jitter, up to `backoff_max`.
    pub backoff_min: Duration,
    /// The longest pause between connection attempts.
    pub backoff_max: Duration,
    /// How long one connection attempt may take before the next begins.
    pub attempt_timeout: Duration,
    /// What a round trip is expected to take before one was measured: handshake packets that are
    /// lost are sent again after about three of it. `None`: 100 ms.
    pub expected_rtt: Option<Duration>,
    /// Whether the channel keeps a session at its server, as calls that take a slot need one. Without
    /// one it carries reads and `maybe` calls only, and is ready once its connection stands.
    pub session: bool,
    /// How calls are spread over several servers, and what is done about those that fail.
    pub service: ServiceConfig,
    /// A session of an earlier channel to attach to, instead of opening a new one. Its server is
    /// looked for at each target in turn.
    pub resume: Option<SessionTicket>,
    /// A journal is kept: calls and outcomes wait for it ([`Event::Journal`](crate::node::Event)). It
    /// holds what an earlier process wrote down of the session in `resume`, if there was one.
    pub journal: Option<JournalStart>,
    /// Whether a session is opened where there is none. Without, the channel is of use only as long as
    /// a server has the session in `resume`.
    pub opens: bool,
    /// Whether the channel goes where the members of its group are, as they change. Without, its targets
    /// stay those that it is given.
    pub follows_members: bool,
}

impl ChannelConfig {
    /// A channel with the defaults: 1,024 slots, no default deadline, half a second of grace, a
    /// minute until an unreachable server makes calls pending, back-off from 50 ms to 1 s, attempts
    /// of 3 s.
    pub fn new(server_name: impl Into<String>, tls: Arc<dyn ClientTls>) -> Self {
        Self {
            targets: Vec::new(),
            server_name: server_name.into(),
            tls,
            slots: 1_024,
            deadline: None,
            wait_for_ready: false,
            settle_grace: Duration::from_millis(500),
            unreachable_after: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(3),
            expected_rtt: None,
            session: true,
            service: ServiceConfig::default(),
            resume: None,
            journal: None,
            opens: true,
            follows_members: true,
        }
    }
}

impl fmt::Debug for ChannelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelConfig")
            .field("server_name", &self.server_name)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

/// What a channel has to know of its journal when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalStart {
    /// The process that has the journal now: a random number that no other process has.
    pub holder: u64,
    /// Processes that had it since one of them attached to the session, as in
    /// [`Succession::after`].
    pub after: Vec<u64>,
    /// The last number of each slot of the session.
    pub slots: Vec<JournalSlot>,
}

impl JournalStart {
    /// Nothing is known of a session yet.
    pub fn new(holder: u64) -> Self {
        Self { holder, ..Self::default() }
    }

    /// With whom a session begins that this process opens.
    pub(crate) fn succession(&self) -> Succession {
        Succession { holder: self.holder, after: [self.holder].into(), known: None }
    }

    /// After whom the session is resumed.
    pub(crate) fn resumed(&self) -> Succession {
        // More than are told: whoever has it.
        let bounded = self.after.len() <= Succession::MAX_HOLDERS;
        let after = if bounded { self.after.clone() } else { Vec::new() };
        Succession { holder: self.holder, after, known: Some(self.slots.clone()) }
    }
}

/// What it takes to attach to a session, or to ask for its outcomes, from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTicket {
    /// The session.
    pub session: SessionId,
    /// Proves the right to it; all zero where a certificate does.
    pub secret: SessionSecret,
}
