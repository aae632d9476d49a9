//! What a completion record adds to a call at a database: a handler that changes one row, at a server
//! that records the end of its calls in the same transaction, beside the same handler at a server that
//! remembers calls in memory and a transaction of its own. In turns, with 1, 4 and 16 calls in flight (SQLite: 1).
//!
//! `cargo run --release -p stubborn-completion --example record_cost [postgres://...]`: SQLite in a
//! temporary folder if no database is named.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use stubborn::{
    Answer, Call, Channel, ChannelBuilder, Encoded, Handling, Identity, Metadata, Method,
    Semantics, Server, ServerHandle, Service, ServiceDescriptor, Shape, Status,
};
use stubborn_completion::store::CompletionTransaction;
use stubborn_completion::{
    CompletionError, CompletionStore, Completions, Postgres, PostgresCompletions, Sqlite,
    SqliteCompletions,
};

type Any = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(int64, tag = "1")]
    number: i64,
}

const ADD: Method = Method::new("till.v1.Till/Add", Semantics::ExactlyOnce, Shape::Unary);
const PLAIN: Method = Method::new("till.v1.Till/Plain", Semantics::AtMostOnce, Shape::Unary);
static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "till.v1.Till", methods: &[ADD, PLAIN], file_descriptor_set: &[] };

/// Rows that calls change, in turn: rarely one that another call has locked.
const ROWS: i64 = 1_000;
const MAKE: &str = "CREATE TABLE IF NOT EXISTS till (id BIGINT PRIMARY KEY, total BIGINT NOT NULL)";
const FILL: &str = "INSERT INTO till (id, total) VALUES ($1, 0) ON CONFLICT DO NOTHING";
const CHANGE: &str = "UPDATE till SET total = total + 1 WHERE id = $1 RETURNING total";

/// A database with a table of the application's.
trait Till: CompletionStore + Clone {
    /// Changes a row in a transaction.
    fn change(
        native: &mut <Self::Transaction as CompletionTransaction>::Native,
        row: i64,
    ) -> impl Future<Output = Result<i64, CompletionError>> + Send;

    /// Changes a row in a transaction of its own.
    fn change_alone(&self, row: i64) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
}

impl Till for Sqlite {
    async fn change(native: &mut sqlx::SqliteConnection, row: i64) -> Result<i64, CompletionError> {
        Ok(sqlx::query_scalar(CHANGE).bind(row).fetch_one(native).await?)
    }

    async fn change_alone(&self, row: i64) -> Result<i64, sqlx::Error> {
        let mut tx = self.pool().begin_with("BEGIN IMMEDIATE").await?;
        let total = sqlx::query_scalar(CHANGE).bind(row).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(total)
    }
}

impl Till for Postgres {
    async fn change(native: &mut sqlx::PgConnection, row: i64) -> Result<i64, CompletionError> {
        Ok(sqlx::query_scalar(CHANGE).bind(row).fetch_one(native).await?)
    }

    async fn change_alone(&self, row: i64) -> Result<i64, sqlx::Error> {
        let mut tx = self.pool().begin().await?;
        let total = sqlx::query_scalar(CHANGE).bind(row).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(total)
    }
}

struct Counter<S: Till>(Completions<S>);

impl<S: Till> Service for Counter<S> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        let (db, method) = (self.0.clone(), &DESCRIPTOR.methods[method]);
        Box::pin(async move {
            let (encoded, context) = request.into_parts();
            let call = match encoded.decode::<Note>(method.id()) {
                Ok(note) => Call::new(note, context),
                Err(error) => return Answer::unreadable(error),
            };
            match handle(&db, *method == ADD, call).await {
                Ok(note) => Answer::Reply(Encoded::new(method.id(), &note), Metadata::new()),
                Err(status) => Answer::Status(status),
            }
        })
    }
}

async fn handle<S: Till>(
    db: &Completions<S>,
    records: bool,
    call: Call<Note>,
) -> Result<Note, Status> {
    let row = call.number % ROWS;
    if records {
        let mut guard = db.begin(&call).await?;
        let number = S::change(guard.transaction(), row).await?;
        return guard.commit(Note { number }).await;
    }
    let number = db.store().change_alone(row).await;
    number.map(|number| Note { number }).map_err(|error| Status::internal(error.to_string()))
}

#[tokio::main]
async fn main() -> Result<(), Any> {
    match std::env::args().nth(1) {
        Some(url) => {
            let db = PostgresCompletions::connect(&url).await?;
            sqlx::query(MAKE).execute(db.store().pool()).await?;
            for row in 0..ROWS {
                sqlx::query(FILL).bind(row).execute(db.store().pool()).await?;
            }
            compare(db, &[1, 4, 16]).await
        }
        None => {
            let folder = tempfile::tempdir()?;
            let db = SqliteCompletions::open(folder.path().join("till.sqlite")).await?;
            sqlx::query(MAKE).execute(db.store().pool()).await?;
            for row in 0..ROWS {
                sqlx::query(FILL).bind(row).execute(db.store().pool()).await?;
            }
            // It knows one writer at a time.
            compare(db, &[1]).await
        }
    }
}

async fn compare<S: Till>(db: Completions<S>, in_flight: &[usize]) -> Result<(), Any> {
    let identity = Identity::self_signed(["localhost", "127.0.0.1"])?;
    let with = serve(&identity, &db, true).await?;
    let without = serve(&identity, &db, false).await?;
    println!("{:>9} {:>30} {:>30}", "in flight", "without the record", "with it");
    for &in_flight in in_flight {
        let (mut plain, mut recorded) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            plain.push(measure(&identity, &without, false, in_flight).await?);
            recorded.push(measure(&identity, &with, true, in_flight).await?);
        }
        let shown = |runs: &mut Vec<(f64, Duration)>| {
            runs.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (rate, p50) = runs[runs.len() / 2];
            format!("{rate:.0} calls/s, p50 {p50:.0?}")
        };
        println!("{in_flight:>9} {:>30} {:>30}", shown(&mut plain), shown(&mut recorded));
    }
    Ok(())
}

async fn serve<S: Till>(
    identity: &Identity,
    db: &Completions<S>,
    records: bool,
) -> Result<ServerHandle, Any> {
    let server =
        Server::bind("127.0.0.1:0").identity(identity.clone()).service(Counter(db.clone()));
    let server = if records { server.completions(db.clone()) } else { server };
    Ok(server.start().await?)
}

/// Calls a second, and the median of their latencies.
async fn measure(
    identity: &Identity,
    server: &ServerHandle,
    records: bool,
    in_flight: usize,
) -> Result<(f64, Duration), Any> {
    let method = &DESCRIPTOR.methods[usize::from(!records)];
    let channel = ChannelBuilder::new(server.local_addr().to_string())
        .trust(identity.trust()?)
        .open()
        .await?
        .channel();
    let number = Arc::new(AtomicI64::new(0));
    run(&channel, method, in_flight, &number, Duration::from_millis(200)).await?;
    let began = Instant::now();
    let mut took = run(&channel, method, in_flight, &number, Duration::from_secs(1)).await?;
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    Ok((rate, took[took.len() / 2]))
}

async fn run(
    channel: &Channel,
    method: &'static Method,
    in_flight: usize,
    number: &Arc<AtomicI64>,
    lasts: Duration,
) -> Result<Vec<Duration>, Any> {
    let until = Instant::now() + lasts;
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (channel, number) = (channel.clone(), Arc::clone(number));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let note = Note { number: number.fetch_add(1, Ordering::Relaxed) };
                    let began = Instant::now();
                    channel.unary::<Note, Note>(method, &note).await?;
                    took.push(began.elapsed());
                }
                Ok::<_, Any>(took)
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await??);
    }
    Ok(all)
}
