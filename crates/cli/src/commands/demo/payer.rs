//! The client in a process of its own, with a journal: killed, the next one goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use stubborn::journal::{Journal, Unfinished};
use stubborn::{ChannelBuilder, MethodId};
use tokio::sync::watch;

use super::answers::{self, Answer, Answers};
use super::client::{self, Memory, Task, Transfers};
use super::report::connection_to_json;
use crate::child::{self, Process};
use crate::cluster::{Folder, NAME};
use crate::error::{Error, Exit};
use crate::stubs::bank::v1::{BankClient, TransferRequest};

/// How long the first connection may take over the bad network.
const CONNECT: Duration = Duration::from_secs(60);

/// How often its parent looks how far it has come.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The replicas.
    #[arg(long)]
    to: String,
    /// The folder of the group, with the client's certificate.
    #[arg(long)]
    folder: PathBuf,
    /// Where it keeps its journal, and the answers.
    #[arg(long)]
    notes: PathBuf,
    #[arg(long)]
    calls: u64,
    #[arg(long)]
    concurrency: u64,
    #[arg(long)]
    seed: u64,
}

/// Makes the transfers that were not made yet; then says what it saw.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    tokio::select! {
        paid = pay(&args) => child::say(&paid?.to_string()),
        () = child::parent_gone() => {}
    }
    Ok(())
}

async fn pay(args: &Args) -> Result<Value, Error> {
    let credentials = Folder::at(&args.folder).credentials()?;
    let opening = ChannelBuilder::new(&args.to)
        .trust(credentials.trust)
        .identity(credentials.identity)
        .server_name(NAME)
        .key_log(crate::key_log::from_env()?)
        .wait_for_ready(true)
        .journal(journal_of(&args.notes))
        .settled_by_hand()
        .open();
    let connection = tokio::time::timeout(CONNECT, opening)
        .await
        .map_err(|_| Error::new(Exit::Connect, "no connection within a minute: is all lost?"))?
        .map_err(|error| Error::new(Exit::Connect, error.to_string()))?;
    let bank = BankClient::new(connection.channel());
    let journal = connection.journal().ok_or_else(|| Error::internal("there is no journal"))?;

    let path = answers_of(&args.notes);
    let failed = |error| Error::io("use", &path, &error);
    let answered = answers::read(&path).map_err(failed)?;
    let answered: BTreeSet<u64> = answered.iter().map(|answer| answer.reference).collect();
    let left = left_of(&journal, &answered)?;
    let known: BTreeSet<u64> = left.iter().map(|(reference, _)| *reference).collect();
    let resumed = left.len();
    let settle = left.into_iter().map(|(reference, call)| Task::Settle(reference, call));
    let transfers = Transfers::new(args.seed, args.calls);
    let made = move |reference| answered.contains(&reference) || known.contains(&reference);
    let make = transfers.filter(move |transfer| !made(transfer.reference)).map(Task::Make);
    let answers = Answers::open(&path).map_err(failed)?;
    let memory = Some(Memory { journal: journal.clone(), answers });
    let nobody = watch::Sender::new(0);
    client::run(bank.clone(), settle.chain(make), memory, args.concurrency, nobody).await?;

    let balances = client::balances(&bank).await?;
    let stats = connection.stats().map(|(_, stats)| connection_to_json(&stats));
    journal.close().await;
    Ok(json!({ "balances": balances, "connection": stats, "resumed": resumed }))
}

/// What an earlier process has left, with the caller's own numbers. What that process wrote down
/// before it was killed is settled.
fn left_of(journal: &Journal, answered: &BTreeSet<u64>) -> Result<Vec<(u64, Unfinished)>, Error> {
    let mut left = Vec::new();
    for call in journal.unfinished() {
        let method = MethodId::of(call.method());
        let request = call.request().map(|request| request.decode(method));
        let request: Option<TransferRequest> = request.and_then(Result::ok);
        let lacking = || Error::internal(format!("the journal lacks the request of {}", call.id()));
        let reference = request.ok_or_else(lacking)?.reference;
        match answered.contains(&reference) {
            true => journal.settle(call.id()),
            false => left.push((reference, call)),
        }
    }
    Ok(left)
}

fn journal_of(notes: &Path) -> PathBuf {
    notes.join("journal")
}

fn answers_of(notes: &Path) -> PathBuf {
    notes.join("answers")
}

/// What came of the client's processes.
#[derive(Debug, Default)]
pub(super) struct Paid {
    pub(super) answers: Vec<Answer>,
    pub(super) balances: BTreeMap<String, i64>,
    /// The last connection, for the report.
    pub(super) connection: Value,
    /// How often the client was killed and started again.
    pub(super) restarts: usize,
    /// Calls that a killed one had under way, and the next one settled.
    pub(super) resumed: u64,
}

/// Runs the client to its end, and kills it once in the midst. `done` counts the transfers whose
/// outcomes it wrote down.
pub(super) async fn supervise(args: Args, done: watch::Sender<u64>) -> Result<Paid, Error> {
    std::fs::create_dir_all(&args.notes).map_err(|e| Error::io("make", &args.notes, &e))?;
    let path = answers_of(&args.notes);
    // One that has ended already is started again, too.
    follow(start(&args)?, &path, &done, args.calls / 2).await;
    let last = follow(start(&args)?, &path, &done, u64::MAX).await;
    let answers = answers::read(&path).map_err(|e| Error::io("read", &path, &e))?;
    let told: Option<Value> = last.and_then(|line| serde_json::from_str(&line).ok());
    let told = told.ok_or_else(|| Error::internal("the client has ended before its time"))?;
    let balances = serde_json::from_value(told["balances"].clone()).unwrap_or_default();
    let resumed = told["resumed"].as_u64().unwrap_or(0);
    let connection = told["connection"].clone();
    Ok(Paid { answers, balances, connection, restarts: 1, resumed })
}

/// Looks how far it comes, until it has ended, and returns what it says last; kills it when it has
/// `enough` answers.
async fn follow(
    mut process: Process,
    answers: &Path,
    done: &watch::Sender<u64>,
    enough: u64,
) -> Option<String> {
    loop {
        tokio::select! {
            line = process.line() => return line,
            () = tokio::time::sleep(LOOK) => {}
        }
        let count = answers::count(answers);
        done.send_replace(count);
        if count >= enough {
            process.kill().await;
            return None;
        }
    }
}

fn start(args: &Args) -> Result<Process, Error> {
    let Args { to, folder, notes, calls, concurrency, seed } = args;
    let [calls, concurrency, seed] = [calls, concurrency, seed].map(u64::to_string);
    let args: [&std::ffi::OsStr; 14] = [
        "demo".as_ref(),
        "payer".as_ref(),
        "--to".as_ref(),
        to.as_ref(),
        "--folder".as_ref(),
        folder.as_ref(),
        "--notes".as_ref(),
        notes.as_ref(),
        "--calls".as_ref(),
        calls.as_ref(),
        "--concurrency".as_ref(),
        concurrency.as_ref(),
        "--seed".as_ref(),
        seed.as_ref(),
    ];
    Process::start("client", args.map(std::ffi::OsString::from))
}

impl Args {
    pub(super) fn new(to: String, folder: &Path, notes: PathBuf, args: &super::Args) -> Self {
        let super::Args { calls, concurrency, faults, .. } = args;
        let folder = folder.to_owned();
        Self { to, folder, notes, calls: *calls, concurrency: *concurrency, seed: faults.seed }
    }
}
