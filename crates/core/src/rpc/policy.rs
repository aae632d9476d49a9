//! What a channel does where there are several servers, or where one fails: the settings that gRPC calls
//! the service config.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::service::Code;
use crate::time::Duration;

/// The metadata key whose value chooses the server, where nothing else is said.
pub const RING_KEY: &str = "ring-key";

/// How a channel spreads calls, whom it leaves out, how much it asks of one server, and which calls it
/// makes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// How calls are spread over servers that are no group.
    pub balancing: Balancing,
    /// When a server that answers badly is left out for a while; `None`: never.
    pub outliers: Option<OutlierDetection>,
    /// How much is asked of one server at once; `None`: as much as it grants slots.
    pub breaker: Option<CircuitBreaker>,
    /// How calls are made again whose method has no settings of its own; `None`: not at all.
    pub retry: Option<RetryPolicy>,
    /// The share of calls that are made again at most, or hedged; `None`: as many as fail.
    pub throttling: Option<RetryThrottling>,
    /// Settings of methods. Of those that name a method, its service or everything, the first of the
    /// most exact ones holds.
    pub methods: Vec<MethodConfig>,
}

impl Default for ServiceConfig {
    /// One server after the other, nobody left out, safe retries within a tenth of all calls.
    fn default() -> Self {
        Self {
            balancing: Balancing::default(),
            outliers: None,
            breaker: None,
            retry: Some(RetryPolicy::default()),
            throttling: Some(RetryThrottling::default()),
            methods: Vec::new(),
        }
    }
}

/// Settings of some methods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodConfig {
    /// Whose settings these are.
    pub names: Vec<MethodName>,
    /// The longest deadline of a call; a call may have a shorter one.
    pub timeout: Option<Duration>,
    /// Whether calls that do not say so wait for a server.
    pub wait_for_ready: Option<bool>,
    /// What is done about calls that fail, or take long.
    pub again: Again,
    /// An idempotent call may run again at another server than the one at which it may have run. A
    /// late copy of it could then undo a newer write.
    pub idempotent_elsewhere: bool,
}

/// A method, a service or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodName {
    /// Every method.
    Any,
    /// Every method of `package.Service`.
    Service(String),
    /// `package.Service/Method`.
    Method(String),
}

/// What is done about calls that fail, or take long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// What the channel does by default.
    #[default]
    AsUsual,
    /// They are made again.
    Retry(RetryPolicy),
    /// Reads are sent to further servers before the first has answered; other calls are treated as
    /// usual.
    Hedge(HedgingPolicy),
}

/// How often and when a call is made again: gRFC A6.
///
/// Which calls are, depends on what is proved of the attempt before. One that was not executed, for
/// want of room or since its server drains, is made again whatever its semantics. One that was executed
/// with a status in `codes` is made again if it is a read; if it is idempotent, at the same server; else
/// never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// The pause before the second attempt; each is drawn within 20 percent of it.
    pub initial_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
    /// By how much each pause is longer than the one before it; in thousandths.
    pub multiplier: u32,
    /// Statuses after which a call is made again.
    pub codes: Codes,
}

impl Default for RetryPolicy {
    /// Three attempts, after 50 ms and 100 ms, if the service is unavailable.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            multiplier: 2_000,
            codes: Codes::of(&[Code::Unavailable]),
        }
    }
}

impl RetryPolicy {
    /// The pause after so many attempts, without jitter.
    pub fn pause(&self, attempts: u32) -> Duration {
        let mut pause = self.initial_backoff.min(self.max_backoff);
        for _ in 1..attempts {
            if pause >= self.max_backoff || self.multiplier <= 1_000 {
                break;
            }
            pause = (pause.saturating_mul(self.multiplier) / 1_000).min(self.max_backoff);
        }
        pause
    }
}

/// When a read is sent to further servers: gRFC A6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HedgingPolicy {
    /// Copies in all, the first included.
    pub max_attempts: u32,
    /// How long an answer is awaited before the next copy is sent.
    pub delay: Duration,
    /// Statuses after which the other copies, and the next one at once, may still succeed.
    pub non_fatal: Codes,
}

/// The share of calls that are made again at most: gRFC A6. Each failure takes a token, each success
/// brings a part of one; nothing is made again while half or less of them are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryThrottling {
    /// Tokens at first, and at most.
    pub max_tokens: u32,
    /// What a success brings; in thousandths of a token.
    pub token_ratio: u32,
}

impl Default for RetryThrottling {
    /// Ten tokens, and a tenth for a success.
    fn default() -> Self {
        Self { max_tokens: 10, token_ratio: 100 }
    }
}

/// A set of status codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codes(u32);

impl Codes {
    /// These codes.
    pub fn of(codes: &[Code]) -> Self {
        Self(codes.iter().fold(0, |set, code| set | 1 << *code as u32))
    }

    /// Whether this code is among them.
    pub const fn contains(self, code: Code) -> bool {
        self.0 & (1 << code as u32) != 0
    }
}

/// How calls are spread over servers that are no group.
///
/// The replicas of a group are one service with one session, which one of them has: there every policy
/// is as [`PickFirst`](Self::PickFirst).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// All calls go to one server, the next one is used when it fails.
    #[default]
    PickFirst,
    /// Each call goes to the next server.
    RoundRobin,
    /// Of so many servers drawn at random (2 at least, 10 at most), the one with the fewest calls in
    /// flight: the power of two choices.
    LeastOutstanding {
        /// Servers to draw.
        choices: u32,
    },
    /// Calls with the same key go to the same server, as long as the servers are the same; few keys move
    /// when they change. A key whose server is not ready, has no free slot or is left out goes to the
    /// next one on the ring.
    RingHash {
        /// The metadata key that has the key of a call. A call without one goes anywhere.
        header: Cow<'static, str>,
        /// Points on the ring in all, at least: more spread keys more evenly. At most
        /// [`MAX_RING`](Self::MAX_RING) are asked for.
        points: u32,
    },
}

impl Balancing {
    /// The most points of a ring: looking for a server takes a little longer with more.
    pub const MAX_RING: u32 = 8 << 10;

    /// Power of two choices.
    pub const fn least_outstanding() -> Self {
        Self::LeastOutstanding { choices: 2 }
    }

    /// A ring of 1,024 points; the key of a call is its metadata [`RING_KEY`].
    pub const fn ring_hash() -> Self {
        Self::RingHash { header: Cow::Borrowed(RING_KEY), points: 1_024 }
    }
}

/// When a server is left out though it can be reached: gRFC A50, and consecutive failures as in Envoy.
///
/// A call failed if its status says that the server is at fault (`UNKNOWN`, `DEADLINE_EXCEEDED`,
/// `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`), if the server had no room for it, or if
/// it brought no answer before its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// How often ratios are computed.
    pub interval: Duration,
    /// How long a server is left out for the first time; so much longer each time.
    pub base_ejection_time: Duration,
    /// The longest that a server is left out.
    pub max_ejection_time: Duration,
    /// While this share of the servers is left out, no further one is; in percent.
    pub max_ejection_percent: u32,
    /// A server is left out at once after so many failures in a row.
    pub consecutive_failures: Option<u32>,
    /// Servers are compared with each other.
    pub success_rate: Option<SuccessRateEjection>,
    /// Servers are measured by an absolute bound.
    pub failure_percentage: Option<FailurePercentageEjection>,
}

impl Default for OutlierDetection {
    /// The times of gRFC A50: 10 s, 30 s, 300 s; at most 10 percent, but at least one server; five
    /// failures in a row, or 85 percent of 50.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            consecutive_failures: Some(5),
            success_rate: None,
            failure_percentage: Some(FailurePercentageEjection::default()),
        }
    }
}

/// Leaves a server out whose share of successes is far below that of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessRateEjection {
    /// How far below the mean: in thousandths of the standard deviation.
    pub stdev_factor: u32,
    /// How probable it is that such a server is left out; in percent.
    pub enforcement_percentage: u32,
    /// With fewer servers that had enough calls, none is left out.
    pub minimum_hosts: u32,
    /// Calls in an interval that are enough.
    pub request_volume: u32,
}

impl Default for SuccessRateEjection {
    fn default() -> Self {
        Self {
            stdev_factor: 1_900,
            enforcement_percentage: 100,
            minimum_hosts: 5,
            request_volume: 100,
        }
    }
}

/// Leaves a server out whose share of failures is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailurePercentageEjection {
    /// The share that is too large; in percent.
    pub threshold: u32,
    /// How probable it is that such a server is left out; in percent.
    pub enforcement_percentage: u32,
    /// With fewer servers that had enough calls, none is left out.
    pub minimum_hosts: u32,
    /// Calls in an interval that are enough.
    pub request_volume: u32,
}

impl Default for FailurePercentageEjection {
    fn default() -> Self {
        Self { threshold: 85, enforcement_percentage: 100, minimum_hosts: 5, request_volume: 50 }
    }
}

/// How much is asked of one server at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Calls in flight at a server, at most; further ones wait.
    pub max_outstanding: u32,
    /// Calls that wait, for each server of the channel, at most; further ones are refused, not
    /// executed.
    pub max_pending: u32,
}

impl Default for CircuitBreaker {
    /// Envoy's 1,024 and 1,024.
    fn default() -> Self {
        Self { max_outstanding: 1_024, max_pending: 1_024 }
    }
}

/// What a channel knows of one of its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStats {
    /// Its address.
    pub address: core::net::SocketAddr,
    /// How it is.
    pub state: EndpointState,
    /// Calls in flight there now.
    pub outstanding: u32,
    /// Calls that were sent there, each copy with a number or read of its own counted.
    pub attempts: u64,
    /// Calls that failed there by the server's fault; see [`OutlierDetection`].
    pub failures: u64,
    /// Times that it was left out as an outlier.
    pub ejections: u64,
    /// Calls that failed there and were made again, there or elsewhere.
    pub retries: u64,
    /// Copies of reads that were sent there because another server took long.
    pub hedges: u64,
}

/// What a channel did beyond sending each call once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounters {
    /// Calls that were made again after they had failed.
    pub retries: u64,
    /// Copies of reads that were sent because a server took long.
    pub hedges: u64,
    /// Calls that failed and were not made again, or hedged, for want of tokens.
    pub throttled: u64,
    /// Calls that the circuit breaker refused.
    pub refused: u64,
}

/// How one of a channel's servers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It takes calls.
    Ready,
    /// It is left out as an outlier.
    Ejected,
    /// It was left out, and one call finds out how it is now.
    Probed,
    /// What was sent to it is not acknowledged: other servers get new calls.
    Silent,
    /// It asks for new calls to go elsewhere.
    Draining,
    /// It is a replica of the group whose session another one has.
    Standby,
    /// A connection is attempted.
    Connecting,
    /// The last attempt has failed; the next one follows soon.
    Failed,
    /// Nothing is under way.
    Idle,
}
