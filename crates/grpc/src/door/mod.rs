//! The door: services answer gRPC over TCP.
//!
//! What a caller of gRPC is promised:
//!
//! - A unary call with side effects runs to its end once it has begun, also when its caller is gone. With
//!   an id (metadata [`CALL_ID`](crate::CALL_ID)) a copy of it runs no second time; see [`KeyLimits`] for
//!   how long.
//! - A read, and a stream, ends when its caller cancels it, is gone, or its deadline passes.
//! - A call that finds no room waits for it with the calls of the server's other ways in, within its
//!   deadline. One whose caller has gone meanwhile does not begin, unless it has an id. One that is refused
//!   has not begun, and is told when to come back (metadata [`PUSHBACK`](crate::PUSHBACK)).
//! - A status says whether the call did not run (metadata [`NOT_EXECUTED`](crate::NOT_EXECUTED)).

mod call;
mod connection;
mod intake;
mod lingering;
mod port;
mod traffic;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use stubborn_core::limits::Limits;
use stubborn_core::service::{
    Answer, Call, CallContext, Encoded, Metadata, Method, MethodId, NotExecuted, Port, RequestKind,
};
use stubborn_core::session::Keys;
use stubborn_core::time::Instant;
use stubborn_tls::rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

pub use crate::outlet::Early;
pub use call::Ended;
pub use stubborn_core::session::KeyLimits;
pub use traffic::Traffic;

use call::Copies;
use connection::accept;
use intake::Budget;
use traffic::Counts;

/// The application protocol of gRPC (ALPN).
pub const ALPN: &[u8] = b"h2";

/// Calls of all connections at once; a further one is refused.
const CALLS: usize = 16_384;

/// A handler at work.
pub type Handling = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// A call that waits for a place among the handlers. Dropping it gives that up.
pub type Placing = Pin<Box<dyn Future<Output = Result<Box<dyn Place>, NotExecuted>> + Send>>;

/// A place among the handlers. It is left when this is dropped.
pub trait Place: Send {
    /// Leaves it after a handler that has ended: how long that took counts.
    fn answered(self: Box<Self>);
}

/// For a call that nobody counts.
impl Place for () {
    fn answered(self: Box<Self>) {}
}

/// Whoever runs the handlers of a server.
pub trait Handlers: Send + Sync + 'static {
    /// The method with this id.
    fn method(&self, id: MethodId) -> Option<&'static Method>;

    /// The time, on the clock that deadlines of calls are told by.
    fn now(&self) -> Instant;

    /// Looks who calls, before anything is done for the call. The context then says so.
    ///
    /// # Errors
    /// The answer, if they may not.
    fn admit(&self, method: &'static Method, context: &mut CallContext) -> Result<(), Answer>;

    /// Waits until a unary call that was admitted may begin, which holds so many bytes meanwhile.
    fn place(&self, method: &'static Method, context: &CallContext, bytes: usize) -> Placing;

    /// Whether a stream that was admitted may begin now.
    ///
    /// # Errors
    /// If not.
    fn may_begin_stream(
        &self,
        method: &'static Method,
        metadata: &Metadata,
    ) -> Result<(), NotExecuted>;

    /// Starts the handler of a call that may begin; of a stream with its `port`. It answers also when it panics.
    ///
    /// # Errors
    /// The answer, if no handler is started.
    fn start(
        &self,
        kind: RequestKind,
        method: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer>;

    /// Whether copies of calls with ids are known where the handlers run. The door then keeps no ids: it
    /// looks whether they can be any, and hands them on as metadata.
    fn know_ids(&self) -> bool {
        false
    }

    /// A copy of a call with an id came, which is answered without running it.
    fn copied(&self, _: &Metadata) {}

    /// What the handler that is polled on this thread wants to go ahead of its messages; asked for when
    /// it sends the first one.
    fn early(&self) -> Early;
}

/// Which connections are taken.
#[derive(Clone, Debug)]
pub enum Security {
    /// Those over TLS.
    Tls(Arc<ServerConfig>),
    /// Those without.
    Plain,
    /// Both: the first byte tells.
    Either(Arc<ServerConfig>),
}

/// What a door is made of.
pub struct DoorConfig {
    /// Which connections are taken.
    pub security: Security,
    /// The bounds of the server: `connections`, `message`, `assembly` and `stream_window` hold here, too,
    /// each for the door by itself.
    pub limits: Limits,
    /// The bounds of what the door knows of calls with ids.
    pub keys: KeyLimits,
}

/// A door that is open. Dropping it closes it at once.
#[derive(Debug)]
pub struct Door {
    stage: watch::Sender<Stage>,
    local: SocketAddr,
    calls: Arc<Semaphore>,
    counts: Arc<Counts>,
    /// Ends with the last connection.
    connections: watch::Receiver<()>,
}

/// How far a door is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// No new connections and calls; those that are there go on.
    Draining,
    Closed,
}

/// What all connections share.
struct Inner {
    handlers: Arc<dyn Handlers>,
    limits: Limits,
    keys: Mutex<Keys<Copies, Arc<Ended>>>,
    budget: Arc<Budget>,
    calls: Arc<Semaphore>,
    counts: Arc<Counts>,
    stage: watch::Receiver<Stage>,
}

impl Inner {
    /// Runs a handler until its end, or the door's.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut stage = self.stage.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                _ = stage.wait_for(|stage| *stage == Stage::Closed) => {}
            }
        });
        task.abort_handle()
    }
}

impl Door {
    /// Answers on this listener.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(
        listener: TcpListener,
        handlers: Arc<dyn Handlers>,
        config: DoorConfig,
    ) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let (stage, watched) = watch::channel(Stage::Open);
        let calls = Arc::new(Semaphore::new(CALLS));
        let counts = Arc::new(Counts::default());
        let inner = Arc::new(Inner {
            handlers,
            keys: Mutex::new(Keys::new(config.keys)),
            budget: Budget::new(config.limits.assembly),
            limits: config.limits,
            calls: calls.clone(),
            counts: counts.clone(),
            stage: watched,
        });
        let (alive, connections) = watch::channel(());
        tokio::spawn(async move {
            accept(listener, config.security, inner).await;
            drop(alive);
        });
        Ok(Self { stage, local, calls, counts, connections })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Calls that are executing.
    pub fn executing(&self) -> usize {
        CALLS - self.calls.available_permits()
    }

    /// Tells what it has counted of its connections, also when it is closed.
    pub fn traffic(&self) -> impl Fn() -> Traffic + Send + Sync + 'static {
        let counts = self.counts.clone();
        move || counts.tell()
    }

    /// Takes no new connections and calls, and waits until those that are there have ended.
    pub async fn drain(&self) {
        self.stage.send_if_modified(|stage| {
            let open = *stage == Stage::Open;
            if open {
                *stage = Stage::Draining;
            }
            open
        });
        // Nothing is ever sent: it ends with the task that keeps the connections.
        let _ = self.connections.clone().changed().await;
        let all = u32::try_from(CALLS).expect("a small number");
        // It is never closed.
        let _ = self.calls.acquire_many(all).await;
    }

    /// Closes it at once: connections end, handlers are dropped.
    pub fn close(&self) {
        self.stage.send_replace(Stage::Closed);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for DoorConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DoorConfig").field("keys", &self.keys).finish_non_exhaustive()
    }
}
