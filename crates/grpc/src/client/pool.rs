//! The connections of a channel over gRPC, and the calls that wait for one.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use stubborn_core::random::Random;
use stubborn_core::rpc::balance::is_fault;
use stubborn_core::rpc::{Policies, Tokens};
use stubborn_core::service::Outcome;
use stubborn_core::session::NotExecutedReason as Reason;
use stubborn_core::time::Instant;
use tokio::sync::{Notify, watch};
use tonic::body::Body;

use super::ClientConfig;
use super::balancer::{self, Balancer, Pick};
use super::connect::connect;
use super::outcome::Attempt;

type Sender = SendRequest<Body>;

/// A channel's connections.
pub(super) struct Pool {
    pub(super) config: Arc<ClientConfig>,
    pub(super) policies: Policies,
    balancer: Mutex<Balancer<Sender>>,
    tokens: Mutex<Tokens>,
    /// Something may go on now that waited.
    changed: Notify,
    /// How often a call found that no server could be reached.
    unanswered: watch::Sender<u64>,
    /// Calls that wait for room.
    waiting: AtomicU64,
    epoch: tokio::time::Instant,
}

/// Why a call got no connection.
#[derive(Debug)]
pub(super) struct NoPlace {
    pub(super) reason: Reason,
    pub(super) why: String,
}

impl Pool {
    pub(super) fn new(config: ClientConfig) -> Arc<Self> {
        let random = Random::from_seed(config.seed);
        let mut balancer = Balancer::new(config.service.clone(), config.backoff, random);
        balancer.set_targets(&config.targets);
        Arc::new(Self {
            policies: Policies::new(&config.service),
            tokens: Mutex::new(Tokens::new(config.service.throttling.as_ref())),
            balancer: Mutex::new(balancer),
            changed: Notify::new(),
            unanswered: watch::Sender::new(0),
            waiting: AtomicU64::new(0),
            epoch: tokio::time::Instant::now(),
            config: Arc::new(config),
        })
    }

    fn balancer(&self) -> MutexGuard<'_, Balancer<Sender>> {
        self.balancer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.epoch.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut Balancer<Sender>, Instant)) {
        change(&mut self.balancer(), self.now());
        self.changed.notify_waiters();
    }

    pub(super) fn set_targets(&self, targets: &[SocketAddr]) {
        self.change(|balancer, _| balancer.set_targets(targets));
    }

    /// Tells how often a call found that no server could be reached.
    pub(super) fn unanswered(&self) -> watch::Receiver<u64> {
        self.unanswered.subscribe()
    }

    // --- places --------------------------------------------------------------------------------

    /// Waits for a connection for a call.
    ///
    /// # Errors
    /// If none of the servers can be reached, unless the call `waits`; if too many calls wait for room.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        waits: bool,
    ) -> Result<Place, NoPlace> {
        let mut room = None;
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let next = match self.pick(wanted) {
                Pick::Send(place) if place.connection.is_closed() => {
                    self.change(|balancer, now| {
                        balancer.done(place.key);
                        balancer.ended(now, place.key, place.serial);
                    });
                    continue;
                }
                Pick::Send(place) => return Ok(Place { pool: self.clone(), place }),
                Pick::Wait => None,
                Pick::Full => {
                    room.get_or_insert_with(|| Waits::new(self));
                    let most = self.balancer().most_waiting();
                    if self.waiting.load(Ordering::Relaxed) > most {
                        let why = format!(
                            "circuit breaker: every server has as many calls as it may have, and \
                             {most} wait"
                        );
                        return Err(NoPlace { reason: Reason::Overloaded, why });
                    }
                    None
                }
                Pick::Unreachable if waits && matches!(wanted, Wanted::Any(_)) => {
                    self.balancer().next_attempt()
                }
                Pick::Unreachable => {
                    // Who tries again at once lets others have their turn.
                    tokio::task::yield_now().await;
                    let why = self.balancer().why().to_owned();
                    return Err(NoPlace { reason: Reason::NeverSent, why });
                }
            };
            match next {
                Some(at) => {
                    let pause = at.since(self.now());
                    let _ = tokio::time::timeout(pause, changed).await;
                }
                None => changed.await,
            }
        }
    }

    fn pick(self: &Arc<Self>, wanted: Wanted<'_>) -> Pick<Sender> {
        let now = self.now();
        let (attempts, pick) = {
            let mut balancer = self.balancer();
            let attempts = balancer.wanted(now);
            let pick = match wanted {
                Wanted::Any(key) => balancer.pick(now, key),
                Wanted::This(server) => balancer.pick_this(server),
            };
            (attempts, pick)
        };
        for (key, address) in attempts {
            tokio::spawn(attempt(Arc::downgrade(self), self.config.clone(), key, address));
        }
        if matches!(pick, Pick::Unreachable) {
            self.unanswered.send_modify(|times| *times += 1);
        }
        pick
    }

    /// Whether there is only one server.
    pub(super) fn is_alone(&self) -> bool {
        self.balancer().is_alone()
    }

    // --- calls that are made again -------------------------------------------------------------

    pub(super) fn succeeded(&self) {
        self.tokens().succeeded(1);
    }

    /// A call failed by what a policy names. Returns whether it may be made again.
    pub(super) fn take_token(&self) -> bool {
        let mut tokens = self.tokens();
        tokens.failed();
        tokens.allow()
    }

    /// Within 20 percent of a pause (gRFC A6).
    pub(super) fn drawn(&self, pause: Duration) -> Duration {
        pause.mul_f64(0.8 + 0.4 * self.balancer().random().unit())
    }
}

/// Where a call is to go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Wherever the policy says; with its key for a ring.
    Any(Option<&'a [u8]>),
    /// To this server or nowhere.
    This(u64),
}

/// Connects, and stays with the connection until its end.
async fn attempt(pool: Weak<Pool>, config: Arc<ClientConfig>, key: u64, address: SocketAddr) {
    let made = connect(&config, address).await;
    drop(config);
    let Some(there) = pool.upgrade() else { return };
    let connection = match made {
        Ok(connection) => connection,
        Err(why) => return there.change(|balancer, now| balancer.unreached(now, key, why)),
    };
    let mut serial = None;
    there.change(|balancer, _| serial = balancer.connected(key, connection.sender));
    drop(there);
    connection.end.await;
    if let (Some(serial), Some(there)) = (serial, pool.upgrade()) {
        there.change(|balancer, now| balancer.ended(now, key, serial));
    }
}

/// Counts a call that waits for room.
struct Waits<'a>(&'a Pool);

impl<'a> Waits<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.fetch_add(1, Ordering::Relaxed);
        Self(pool)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call's place at a server, where it is in flight until this is dropped.
pub(super) struct Place {
    pool: Arc<Pool>,
    place: balancer::Place<Sender>,
}

impl Place {
    pub(super) fn server(&self) -> u64 {
        self.place.key
    }

    pub(super) fn sender(&self) -> Sender {
        self.place.connection.clone()
    }

    /// An attempt that went here failed so: leaves the connection if it takes no more calls.
    pub(super) fn note(&self, attempt: Attempt) {
        match attempt {
            Attempt::Unsent | Attempt::Unseen { leaving: true } => self
                .pool
                .change(|balancer, now| balancer.ended(now, self.place.key, self.place.serial)),
            Attempt::Unseen { leaving: false } => self.answered(true),
            Attempt::Seen => {}
        }
    }

    /// The server has answered; `at_fault`: by saying that it is at fault.
    pub(super) fn answered(&self, at_fault: bool) {
        let mut balancer = self.pool.balancer();
        balancer.answered(self.place.key);
        if at_fault {
            balancer.at_fault(self.pool.now(), self.place.key, true);
        }
    }

    /// A call ended here so, as its server says or as nobody knows.
    pub(super) fn said(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Lost | Outcome::Unanswered => self.unanswered(),
            outcome => self.answered(is_fault(outcome)),
        }
    }

    /// The server has not answered.
    pub(super) fn unanswered(&self) {
        self.pool.balancer().at_fault(self.pool.now(), self.place.key, false);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.balancer().done(self.place.key);
        if self.pool.waiting.load(Ordering::Relaxed) > 0 {
            self.pool.changed.notify_waiters();
        }
    }
}
