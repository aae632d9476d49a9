//! Completions: the sessions of a service, in its database.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use stubborn_core::limits::Limits;
use stubborn_core::node::{Finding, Front, IncomingQuery, SessionCommand, SessionKeeper};
use stubborn_core::service::{BoxFuture, Call};
use stubborn_core::session::{QueryAnswer, Slot};

use crate::error::CompletionError;
use crate::guard::Guard;
use crate::running::Calls;
use crate::store::{CompletionStore, StoreError};

/// Slots of a session, if nothing else is chosen: a database rarely gains from more calls of one
/// client at a time.
const SLOTS: u32 = 128;

/// The sessions of a service, in the database that it keeps its state in.
///
/// Give a clone of it to `ServerBuilder::completions` of the crate `stubborn`, and keep
/// one in the service, whose handlers [`begin`](Self::begin) their transactions with it.
pub struct Completions<S: CompletionStore>(Arc<Inner<S>>);

pub(crate) struct Inner<S> {
    pub(crate) store: S,
    pub(crate) group: u64,
    pub(crate) calls: Arc<Calls>,
    settings: RwLock<Settings>,
    /// How often the database could not be used.
    failures: AtomicU64,
    /// Bytes of replies that the database keeps, as far as this process knows: counted now and then, and
    /// what it has written since.
    pub(crate) kept: AtomicU64,
}

#[derive(Clone)]
struct Settings {
    limits: Arc<Limits>,
    slots: u32,
    on_failure: Option<OnFailure>,
}

/// Whom to tell that the database could not be used.
type OnFailure = Arc<dyn Fn(&StoreError) + Send + Sync>;

impl<S: CompletionStore> Completions<S> {
    /// With this database, whose tables are there.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn new(store: S) -> Result<Self, StoreError> {
        let mut drawn = [0; 8];
        getrandom::fill(&mut drawn).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        // The lowest byte is none of a worker's, and no group is 0.
        let fresh = (u64::from_be_bytes(drawn) | 0x100) & !0xff;
        let group = store.service(fresh).await?.group;
        let kept = store.kept().await?;
        let limits = Arc::new(Limits::default());
        let settings = Settings { limits, slots: SLOTS, on_failure: None };
        Ok(Self(Arc::new(Inner {
            store,
            group,
            calls: Arc::default(),
            settings: RwLock::new(settings),
            failures: AtomicU64::new(0),
            kept: AtomicU64::new(kept),
        })))
    }

    /// How many calls a client may have in flight, at least 1; 128 by default. Sessions that are open
    /// keep what they have.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        self.0.set(|settings| settings.slots = slots.max(1));
        self
    }

    /// Tells this each time that the database keeps something from being done: clients hear nothing of
    /// it, and send their calls again. That another process has a lock is not told. It must not block.
    #[must_use]
    pub fn on_failure(self, tell: impl Fn(&StoreError) + Send + Sync + 'static) -> Self {
        self.0.set(|settings| settings.on_failure = Some(Arc::new(tell)));
        self
    }

    /// How often that was so since the process began.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Begins the transaction of a call: what the handler changes in it is committed together with the
    /// record of the call's end, by [`Guard::commit`], or not at all.
    ///
    /// Waits as long as another server executes the call, or another call keeps the database from
    /// beginning a transaction.
    ///
    /// # Errors
    /// If the call has ended meanwhile, or the database cannot be used. As a [`Status`](stubborn_core::service::Status)
    /// the error ends the handler as it should: `begin(&call).await?`.
    pub fn begin<T>(
        &self,
        call: &Call<T>,
    ) -> impl Future<Output = Result<Guard<S>, CompletionError>> + Send + use<S, T> {
        let (inner, id) = (Arc::clone(&self.0), call.context().id);
        async move { inner.begin(id).await }
    }

    /// The database.
    pub fn store(&self) -> &S {
        &self.0.store
    }

    /// What its sessions are of: the same at every server that shares the database.
    pub fn group(&self) -> u64 {
        self.0.group
    }
}

impl<S: CompletionStore> Inner<S> {
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.settings().limits
    }

    pub(crate) fn session_slots(&self) -> u32 {
        let settings = self.settings();
        settings.slots.min(settings.limits.slots).max(1)
    }

    fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The database could not be used.
    pub(crate) fn failed(&self, error: &StoreError) {
        if *error == StoreError::Locked {
            return;
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(tell) = self.settings().on_failure {
            tell(error);
        }
    }

    /// Whether a reply is kept from now on: within the bound of one, and that of all.
    pub(crate) fn keeps(&self, reply: &[u8]) -> bool {
        let (limits, length) = (self.limits(), reply.len() as u64);
        let within = |kept: u64| Some(kept + length).filter(|all| *all <= limits.kept_replies);
        reply.len() <= limits.kept_reply
            && self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
    }

    /// So many bytes are kept no more, most likely.
    pub(crate) fn keeps_no_more(&self, bytes: u64) {
        let less = |kept: u64| Some(kept.saturating_sub(bytes));
        let _ = self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    async fn find(&self, query: &IncomingQuery) -> Finding {
        let call = query.call();
        if call.session.incarnation != self.group {
            return Finding::NOTHING;
        }
        let mut pause = Pause::new();
        let looked = loop {
            match self.store.look(call.session.number, call.slot).await {
                Ok(looked) => break looked,
                // The question waits, as it would for a server that cannot be reached.
                Err(error) => {
                    self.failed(&error);
                    pause.wait().await;
                }
            }
        };
        let Some((session, record)) = looked.filter(|(session, _)| !session.is_closed()) else {
            return Finding::NOTHING;
        };
        let known = match record.map(Slot::of_record) {
            _ if self.calls.get(call).is_some() => QueryAnswer::Executing,
            Some(Some(slot)) => slot.query(call.sequence),
            Some(None) | None => QueryAnswer::NotArrived,
        };
        query.finding(&session.owner, known)
    }
}

impl<S: CompletionStore> SessionKeeper for Completions<S> {
    fn group(&self) -> u64 {
        self.0.group
    }

    fn set_limits(&self, limits: &Limits) {
        let limits = Arc::new(limits.clone());
        self.0.set(|settings| settings.limits = limits);
    }

    fn command(&self, front: Arc<dyn Front>, command: SessionCommand) -> BoxFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.command(front, command).await })
    }

    fn query(&self, query: IncomingQuery) -> BoxFuture<Finding> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.find(&query).await })
    }

    fn keep(&self, front: Arc<dyn Front>) -> BoxFuture<()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.keep(&*front).await })
    }
}

impl<S: CompletionStore> Clone for Completions<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: CompletionStore> fmt::Debug for Completions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completions({:x})", self.0.group)
    }
}

/// Pauses between looks at something that another process may change: short ones first.
pub(crate) struct Pause(Duration);

impl Pause {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(2))
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_millis(250));
    }
}
