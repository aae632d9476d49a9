//! A bank over every store, servers and clients for it, and databases that fail where a test wants.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

pub mod cluster;
pub mod faulty;
pub mod replicas;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use stubborn::{
    Answer, Call, CallError, Channel, ChannelBuilder, Connection, Encoded, Handling, Identity,
    Limits, Metadata, Method, Semantics, Server, ServerHandle, Service, ServiceDescriptor, Shape,
    Status,
};
use stubborn_completion::store::CompletionTransaction;
use stubborn_completion::{
    CompletionError, CompletionStore, Completions, Memory, Postgres, Redb, Sqlite,
};
use tokio::sync::{Semaphore, watch};

/// The longest that anything here may take; nothing waits for it unless it fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Request and reply of every method.
#[derive(Clone, PartialEq, Message)]
pub struct Note {
    #[prost(int64, tag = "1")]
    pub amount: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: bytes::Bytes,
}

pub fn note(amount: i64) -> Note {
    Note { amount, data: bytes::Bytes::new() }
}

const fn method(name: &'static str) -> Method {
    Method::new(name, Semantics::ExactlyOnce, Shape::Unary)
}

/// Adds to the total, and answers with what it is then.
pub const ADD: Method = method("till.v1.Till/Add");
/// Waits at the gate before its transaction.
pub const WAIT_THEN_ADD: Method = method("till.v1.Till/WaitThenAdd");
/// Waits at the gate in its transaction.
pub const ADD_AND_WAIT: Method = method("till.v1.Till/AddAndWait");
/// Adds and then refuses.
pub const REFUSE: Method = method("till.v1.Till/Refuse");
/// Refuses, and has that recorded together with what it added: a fee.
pub const CHARGE: Method = method("till.v1.Till/Charge");
/// Begins no transaction.
pub const PLAIN: Method = method("till.v1.Till/Plain");
/// Adds, and answers with as many bytes.
pub const BIG: Method = method("till.v1.Till/Big");
/// Adds and panics.
pub const PANIC: Method = method("till.v1.Till/Panic");
/// Begins two transactions at a time.
pub const TWICE: Method = method("till.v1.Till/Twice");

static DESCRIPTOR: ServiceDescriptor = ServiceDescriptor {
    name: "till.v1.Till",
    methods: &[ADD, WAIT_THEN_ADD, ADD_AND_WAIT, REFUSE, CHARGE, PLAIN, BIG, PANIC, TWICE],
    file_descriptor_set: &[],
};

/// A store with one number of the application's: the total.
pub trait Till: CompletionStore {
    fn add(
        native: &mut <Self::Transaction as CompletionTransaction>::Native,
        amount: i64,
    ) -> impl Future<Output = Result<i64, CompletionError>> + Send;

    /// The total as it was last committed.
    fn total(&self) -> impl Future<Output = i64> + Send;
}

impl Till for Memory<i64> {
    async fn add(total: &mut i64, amount: i64) -> Result<i64, CompletionError> {
        *total += amount;
        Ok(*total)
    }

    async fn total(&self) -> i64 {
        self.state()
    }
}

const ADD_TO: &str = "UPDATE till SET total = total + $1 RETURNING total";

impl Till for Sqlite {
    async fn add(
        connection: &mut sqlx::SqliteConnection,
        amount: i64,
    ) -> Result<i64, CompletionError> {
        let (total,) = sqlx::query_as(ADD_TO).bind(amount).fetch_one(connection).await?;
        Ok(total)
    }

    async fn total(&self) -> i64 {
        sqlx::query_scalar("SELECT total FROM till").fetch_one(self.pool()).await.unwrap()
    }
}

impl Till for Postgres {
    async fn add(connection: &mut sqlx::PgConnection, amount: i64) -> Result<i64, CompletionError> {
        let (total,) = sqlx::query_as(ADD_TO).bind(amount).fetch_one(connection).await?;
        Ok(total)
    }

    async fn total(&self) -> i64 {
        sqlx::query_scalar("SELECT total FROM till").fetch_one(self.pool()).await.unwrap()
    }
}

const TOTAL: redb::TableDefinition<'_, (), i64> = redb::TableDefinition::new("till");

impl Till for Redb {
    async fn add(
        transaction: &mut redb::WriteTransaction,
        amount: i64,
    ) -> Result<i64, CompletionError> {
        use redb::ReadableTable;
        let refused = |error: &dyn std::fmt::Display| CompletionError::Refused(error.to_string());
        let mut table = transaction.open_table(TOTAL).map_err(|error| refused(&error))?;
        let before = table.get(()).map_err(|error| refused(&error))?.map_or(0, |it| it.value());
        table.insert((), before + amount).map_err(|error| refused(&error))?;
        Ok(before + amount)
    }

    async fn total(&self) -> i64 {
        use redb::ReadableDatabase;
        let reader = self.database().begin_read().unwrap();
        match reader.open_table(TOTAL) {
            Ok(table) => table.get(()).unwrap().map_or(0, |total| total.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => 0,
            Err(error) => panic!("{error}"),
        }
    }
}

const MAKE_TILL: &str = "CREATE TABLE IF NOT EXISTS till (total BIGINT NOT NULL)";
const FILL_TILL: &str = "INSERT INTO till SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM till)";

pub async fn make_till_in_sqlite(store: &Sqlite) {
    for statement in [MAKE_TILL, FILL_TILL] {
        sqlx::query(statement).execute(store.pool()).await.unwrap();
    }
}

pub async fn make_till_in_postgres(store: &Postgres) {
    for statement in [MAKE_TILL, FILL_TILL] {
        sqlx::query(statement).execute(store.pool()).await.unwrap();
    }
}

/// The service, and what tests see of it.
pub struct Counter<S: Till>(Arc<State<S>>);

pub struct State<S: Till> {
    pub db: Completions<S>,
    /// Handlers that were started.
    pub began: watch::Sender<u64>,
    /// Handlers that have added, in a transaction that is not committed.
    pub added: watch::Sender<u64>,
    /// Each permit lets one handler go on that waits.
    pub gate: Semaphore,
}

impl<S: Till> Clone for Counter<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Till> std::ops::Deref for Counter<S> {
    type Target = State<S>;

    fn deref(&self) -> &State<S> {
        &self.0
    }
}

impl<S: Till> Counter<S> {
    pub fn new(db: Completions<S>) -> Self {
        Self(Arc::new(State {
            db,
            began: watch::Sender::new(0),
            added: watch::Sender::new(0),
            gate: Semaphore::new(0),
        }))
    }

    async fn handle(self, method: &Method, call: Call<Note>) -> Result<Note, Status> {
        self.began.send_modify(|began| *began += 1);
        let amount = call.amount;
        if *method == PLAIN {
            return Ok(note(amount));
        }
        if *method == WAIT_THEN_ADD {
            self.gate.acquire().await.expect("the gate is never closed").forget();
        }
        let mut guard = self.db.begin(&call).await?;
        if *method == TWICE {
            let _second = self.db.begin(&call).await?;
        }
        let added = S::add(guard.transaction(), amount).await;
        self.added.send_modify(|added| *added += 1);
        if *method == ADD_AND_WAIT {
            self.gate.acquire().await.expect("the gate is never closed").forget();
        }
        match method.name() {
            "till.v1.Till/Refuse" => Err(Status::failed_precondition("no such luck")),
            "till.v1.Till/Charge" => {
                Err(guard.commit_status(Status::failed_precondition("charged")).await)
            }
            "till.v1.Till/Panic" => panic!("this handler panics, as its test wants"),
            "till.v1.Till/Big" => {
                let data = vec![7; usize::try_from(amount).expect("a length")].into();
                guard.commit(Note { amount, data }).await
            }
            _ => guard.end(added.map(note)).await,
        }
    }
}

impl<S: Till> Service for Counter<S> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        let counter = self.clone();
        Box::pin(async move {
            let method = &DESCRIPTOR.methods[method];
            let (encoded, context) = request.into_parts();
            let call = match encoded.decode::<Note>(method.id()) {
                Ok(note) => Call::new(note, context),
                Err(error) => return Answer::unreadable(error),
            };
            match counter.handle(method, call).await {
                Ok(note) => Answer::Reply(Encoded::new(method.id(), &note), Metadata::new()),
                Err(status) => Answer::Status(status),
            }
        })
    }
}

/// What all servers and clients of a test have in common.
#[derive(Clone)]
pub struct Site {
    pub identity: Identity,
    pub limits: Limits,
}

impl Site {
    pub fn new() -> Self {
        let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
        Self { identity, limits: Limits::default() }
    }

    /// A server on this database, as if it was a process of its own: all that it shares with another
    /// one is the store.
    pub async fn serve<S: Till + Clone>(&self, store: &S) -> (Counter<S>, ServerHandle) {
        self.serve_at(store, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn serve_at<S: Till + Clone>(
        &self,
        store: &S,
        address: SocketAddr,
    ) -> (Counter<S>, ServerHandle) {
        self.serve_with(Completions::new(store.clone()).await.unwrap(), address).await
    }

    pub async fn serve_with<S: Till + Clone>(
        &self,
        db: Completions<S>,
        address: SocketAddr,
    ) -> (Counter<S>, ServerHandle) {
        let counter = Counter::new(db.clone());
        let server = Server::bind(address)
            .identity(self.identity.clone())
            .service(counter.clone())
            .limits(self.limits.clone())
            .drain_timeout(LIMIT)
            .completions(db)
            .start()
            .await
            .unwrap();
        (counter, server)
    }

    pub fn to(&self, servers: &[SocketAddr]) -> ChannelBuilder {
        let addresses: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let builder = ChannelBuilder::new(addresses.join(","));
        builder.trust(self.identity.trust().unwrap()).wait_for_ready(true)
    }

    /// Opens a session. On a busy machine a server may seem to be silent: then another attempt is made.
    pub async fn open(&self, servers: &[SocketAddr]) -> Connection {
        soon(async {
            loop {
                match self.to(servers).open().await {
                    Ok(connection) => return connection,
                    Err(error) if error.to_string().contains("silent") => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    pub async fn channel(&self, servers: &[&ServerHandle]) -> Channel {
        let servers: Vec<_> = servers.iter().map(|server| server.local_addr()).collect();
        self.open(&servers).await.channel()
    }
}

pub async fn call(channel: &Channel, method: &Method, amount: i64) -> Result<Note, CallError> {
    soon(channel.unary::<Note, Note>(method, &note(amount)).into_future()).await
}

use std::future::IntoFuture;

/// Begins a call, to be awaited later.
pub fn begin(
    channel: &Channel,
    method: &Method,
    amount: i64,
) -> tokio::task::JoinHandle<Result<Note, CallError>> {
    let calling = channel.unary::<Note, Note>(method, &note(amount)).into_future();
    tokio::spawn(calling)
}

/// Fails the test instead of hanging it.
pub async fn soon<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("nothing happened for {LIMIT:?}"),
    }
}

/// Waits until a counter has reached `n`.
pub async fn reaches(counter: &watch::Sender<u64>, n: u64) {
    soon(counter.subscribe().wait_for(|value| *value >= n)).await.unwrap();
}
