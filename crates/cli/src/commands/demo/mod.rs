//! `stubborn demo`: the main job in one command.
//!
//! A bank on three replicas (`replica`), each behind a bad network (`relay`), and a client (`payer`),
//! each a process; the leader is killed again and again, the client once. With `--single` the bank is
//! one server (`bank`), and this process the client. Afterwards what the service wrote is held against
//! what the client was told.

mod answers;
mod bank;
mod check;
mod client;
mod dice;
mod ledger;
mod machine;
mod payer;
mod percent;
mod relay;
mod replica;
mod replicated;
mod report;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use stubborn::client::ConnectionStats;
use stubborn::{ChannelBuilder, Identity};
use tokio::sync::watch;

use crate::child::Child;
use crate::error::{Error, Exit};
use crate::output::{Output, Style};
use crate::stubs::bank::v1::BankClient;
use crate::task::{block_on, interrupted};
use client::{Notes, Task, Transfers};
use relay::{Counters, Faults};
use report::{Latency, Report, connection_to_json, grouped};

/// The interface, as it is committed.
const BANK_PROTO: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/bank/bank.proto"));

/// How often `--kill` kills the server: evenly over the run.
const KILLS: u64 = 4;

/// How long the first connection may take over the bad network.
const CONNECT: Duration = Duration::from_secs(60);

/// Make 10,000 transfers while processes are killed and every fifth datagram is lost, and check each.
///
/// Starts a bank on three replicas, with a network between all of them and the client that loses,
/// doubles, reorders and corrupts datagrams, each in a process of its own. While the client makes
/// transfers, the leader is killed (SIGKILL) and started again every few seconds, and the client
/// itself once. Then the ledgers of the replicas are compared with what the client was told of each
/// call: each has run once, and none is unknown.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(override_usage = "stubborn demo [OPTIONS]")]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Option<Role>,

    /// Transfers to make.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    calls: u64,

    /// Transfers in flight at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    concurrency: u64,

    #[command(flatten)]
    faults: Faults,

    /// Run the bank on one server, which remembers calls in memory: at most once. Nothing is killed.
    #[arg(long)]
    single: bool,

    /// Kill that server four times during the run, and start it again.
    #[arg(long, requires = "single")]
    kill: bool,

    /// Keep the folder with the ledger files and the certificates.
    #[arg(long)]
    keep: bool,
}

/// What a process of the demo is.
#[derive(Debug, clap::Subcommand)]
enum Role {
    #[command(hide = true)]
    Bank(bank::Args),
    #[command(hide = true)]
    Relay(relay::Args),
    #[command(hide = true)]
    Replica(replica::Args),
    #[command(hide = true)]
    Payer(payer::Args),
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    match args.role {
        Some(Role::Bank(args)) => block_on(bank::run(args)),
        Some(Role::Relay(args)) => block_on(relay::run(args)),
        Some(Role::Replica(args)) => block_on(replica::run(args)),
        Some(Role::Payer(args)) => block_on(payer::run(args)),
        None => perform(&args, out),
    }
}

fn perform(args: &Args, out: &Output) -> Result<(), Error> {
    let folder = tempfile::Builder::new()
        .prefix("stubborn-demo-")
        .tempdir()
        .map_err(|e| Error::internal(format!("cannot make a temporary folder: {e}")))?;
    let performed = compile(folder.path(), out).and_then(|()| {
        block_on(async {
            let performing = async {
                match args.single {
                    true => perform_in(args, folder.path(), out).await,
                    false => replicated::perform_in(args, folder.path(), out).await,
                }
            };
            tokio::select! {
                performed = performing => performed,
                () = interrupted() => Err(Error::internal("interrupted")),
            }
        })
    });
    if args.keep {
        let kept = folder.keep();
        out.line(format_args!("  kept in         {}", kept.display()));
    }
    let report = performed?;
    out.json(&report.to_json());
    match report.faults().as_slice() {
        [] => Ok(()),
        faults => Err(Error::new(Exit::Failed, format!("calls: {}", faults.join(", ")))
            .with_hint("run it again with --keep, and hold the ledger file against the report")
            .printed()),
    }
}

/// Compiles bank.proto as a user's build would, and says how long that took. The stubs that this
/// program calls with were made of the same file when it was built.
fn compile(folder: &Path, out: &Output) -> Result<(), Error> {
    let path = folder.join("bank.proto");
    std::fs::write(&path, BANK_PROTO).map_err(|e| Error::io("write", &path, &e))?;
    let started = Instant::now();
    let generated = stubborn_build::Config::new().generate([&path])?;
    let seconds = started.elapsed().as_secs_f64();
    generated.write_to(&folder.join("generated"))?;
    out.line(format_args!("compiling bank.proto ... stubs in {seconds:.2} s"));
    Ok(())
}

async fn perform_in(args: &Args, folder: &Path, out: &Output) -> Result<Report, Error> {
    let site = Site::new(folder)?;
    let mut server = site.start(([127, 0, 0, 1], 0).into()).await?;
    let mut relay = start_relay(server.address(), &args.faults).await?;
    introduce(args, &server, &relay, out);
    let connecting = ChannelBuilder::new(format!(
        "stubborn://{}?pin={}",
        relay.address(),
        site.identity.fingerprint().map_err(|e| Error::internal(e.to_string()))?
    ))
    .key_log(crate::key_log::from_env()?)
    .wait_for_ready(true)
    .open();
    let connection = tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| Error::new(Exit::Connect, "no connection within a minute: is all lost?"))?
        .map_err(|e| Error::new(Exit::Connect, e.to_string()))?;
    let bank = BankClient::new(connection.channel());

    let mut kills = 0;
    let (sender, done) = watch::channel(0);
    let started = Instant::now();
    let transfers = Transfers::new(args.faults.seed, args.calls);
    let tasks = transfers.clone().map(Task::Make);
    let running = client::run(bank.clone(), tasks, None, args.concurrency, sender);
    let answers = tokio::select! {
        answers = running => answers?,
        error = supervise(&site, &mut server, args, done.clone(), &mut kills) => return Err(error),
        error = relay.ended() => return Err(error),
        never = show_progress(args, done, out) => match never {},
    };
    let records = client::records(transfers, &answers);
    let notes = Notes { records, took: started.elapsed() };
    print_run(args, &notes, out);
    let balances = client::balances(&bank).await?;
    let stats = connection.stats().map(|(_, stats)| stats);
    drop((bank, connection));
    let wire = relay.finish().await.and_then(|line| Counters::from_json(&line));
    server.finish().await;
    let effects = ledger::read(&site.ledger).map_err(|e| Error::io("read", &site.ledger, &e))?;
    let verdict = check::compare(&notes.records, &effects, &balances);
    let report = report(args, &notes, verdict, wire.unwrap_or_default(), stats, kills);
    report.print(out);
    Ok(report)
}

fn report(
    args: &Args,
    notes: &Notes,
    verdict: check::Verdict,
    wire: Counters,
    connection: Option<ConnectionStats>,
    kills: usize,
) -> Report {
    let (latency, took) = (Latency::of(&notes.records), notes.took);
    let connection = connection.as_ref().map_or(Value::Null, connection_to_json);
    let killing = args.kill;
    Report { verdict, latency, took, wire, connection, kills, killing, failovers: None }
}

/// The service's files: they outlive its process.
struct Site {
    identity: Identity,
    ledger: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Site {
    fn new(folder: &Path) -> Result<Self, Error> {
        let identity = Identity::self_signed(["localhost"])
            .map_err(|e| Error::internal(format!("cannot make a certificate: {e}")))?;
        let [ledger, certificate, key] =
            ["ledger", "server.crt", "server.key"].map(|name| folder.join(name));
        for (path, text) in [(&certificate, identity.certificate_pem()), (&key, identity.key_pem())]
        {
            std::fs::write(path, text).map_err(|e| Error::io("write", path, &e))?;
        }
        Ok(Self { identity, ledger, certificate, key })
    }

    async fn start(&self, listen: SocketAddr) -> Result<Child, Error> {
        let listen = listen.to_string();
        let args: [&std::ffi::OsStr; 10] = [
            "demo".as_ref(),
            "bank".as_ref(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--ledger".as_ref(),
            self.ledger.as_ref(),
            "--certificate".as_ref(),
            self.certificate.as_ref(),
            "--key".as_ref(),
            self.key.as_ref(),
        ];
        Child::start("bank service", args.map(OsString::from)).await
    }
}

async fn start_relay(to: SocketAddr, faults: &Faults) -> Result<Child, Error> {
    let Faults { loss, duplicate, reorder, corrupt, seed } = faults;
    let [loss, duplicate, reorder, corrupt] =
        [loss, duplicate, reorder, corrupt].map(|percent| percent.get().to_string());
    let (to, seed) = (to.to_string(), seed.to_string());
    let args = [
        "demo",
        "relay",
        "--to",
        &to,
        "--loss",
        &loss,
        "--duplicate",
        &duplicate,
        "--reorder",
        &reorder,
        "--corrupt",
        &corrupt,
        "--seed",
        &seed,
    ];
    Child::start("relay", args.map(OsString::from)).await
}

/// Says in plain words what is done to the network.
fn introduce(args: &Args, server: &Child, relay: &Child, out: &Output) {
    let Faults { loss, duplicate, reorder, corrupt, seed } = args.faults;
    out.line(format_args!(
        "bank service on {} (pid {}), link: {loss} lost, {duplicate} doubled, {reorder} reordered, \
         {corrupt} corrupted, each way (relay on {}, pid {}, seed {seed})",
        server.address(),
        server.pid(),
        relay.address(),
        relay.pid(),
    ));
    if args.kill {
        out.line(format_args!(
            "the bank service is killed {KILLS} times during the run and started again: what it \
             remembers of calls dies with it, its ledger file does not"
        ));
    }
}

/// Kills and restarts the server as asked. Returns when it ends unasked or cannot be restarted.
async fn supervise(
    site: &Site,
    server: &mut Child,
    args: &Args,
    mut done: watch::Receiver<u64>,
    kills: &mut usize,
) -> Error {
    let planned = if args.kill { KILLS } else { 0 };
    for kill in 1..=planned {
        let enough = args.calls * kill / (planned + 1);
        tokio::select! {
            waited = done.wait_for(|done| *done >= enough) => {
                if waited.is_err() {
                    break;
                }
            }
            error = server.ended() => return error,
        }
        let address = server.address();
        server.kill().await;
        match site.start(address).await {
            Ok(started) => *server = started,
            Err(error) => return error,
        }
        *kills += 1;
    }
    server.ended().await
}

/// Moves the progress bar, for ever.
async fn show_progress(
    args: &Args,
    mut done: watch::Receiver<u64>,
    out: &Output,
) -> std::convert::Infallible {
    let bar =
        if out.shows_progress() { ProgressBar::new(args.calls) } else { ProgressBar::hidden() };
    let template = "{msg}  [{bar:30.green}] {human_pos}  {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("##-"));
    }
    bar.set_message(title(args));
    // Cleared when this is dropped: the line that stays is printed by `print_run`.
    let bar = ClearedBar(bar);
    loop {
        let count = *done.borrow_and_update();
        bar.0.set_position(count);
        if done.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct ClearedBar(ProgressBar);

impl Drop for ClearedBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn title(args: &Args) -> String {
    format!("{} transfers, {} in flight", grouped(args.calls), grouped(args.concurrency))
}

fn print_run(args: &Args, notes: &Notes, out: &Output) {
    let bar = out.paint(Style::Good, "#".repeat(30));
    let count = grouped(notes.records.len() as u64);
    let seconds = notes.took.as_secs_f64();
    out.line(format_args!("{}  [{bar}] {count}  {seconds:.1} s", title(args)));
}
