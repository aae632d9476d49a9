//! Real server processes on real databases, killed with SIGKILL between every two steps, or stopped
//! with SIGSTOP in the middle and resumed later.
#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::cluster::fresh_database;
use common::faulty::{Faulty, STEPS, Step};
use common::*;
use rustix::process::{Pid, Signal, getpid, kill_process};
use stubborn::{Channel, ChannelBuilder, Identity, Server};
use stubborn_completion::{Completions, PostgresCompletions, RedbCompletions, SqliteCompletions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

/// After this a transaction of a stopped server is ended by PostgreSQL.
const STALLED: Duration = Duration::from_millis(700);

/// Where a server is to be killed or stopped, and on what it serves.
#[derive(Clone)]
struct Plan {
    database: String,
    listen: String,
    identity: String,
    /// `kill` or `stop`, the step, and at which time that it is reached.
    fault: String,
}

const VARIABLE: &str = "STUBBORN_COMPLETION_SERVER";

/// Is no test: the server process of the others, which is this program again.
#[test]
fn server_process() {
    let Ok(plan) = std::env::var(VARIABLE) else { return };
    let parts: Vec<&str> = plan.split('|').collect();
    let [database, listen, identity, fault] = parts[..] else { panic!("{plan}") };
    let (database, listen) = (database.to_owned(), listen.to_owned());
    let (identity, fault) = (identity.to_owned(), fault.to_owned());
    let plan = Plan { database, listen, identity, fault };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        match plan.database.split_once(':').expect("KIND:WHERE") {
            ("sqlite", file) => {
                let db = SqliteCompletions::open(file).await.unwrap();
                make_till_in_sqlite(db.store()).await;
                serve(&plan, db.store()).await;
            }
            ("redb", file) => {
                let db = RedbCompletions::open(file).await.unwrap();
                serve(&plan, db.store()).await;
            }
            _ => {
                let pool = sqlx::PgPool::connect(&plan.database).await.unwrap();
                let db = PostgresCompletions::with_stalled(pool, STALLED).await.unwrap();
                make_till_in_postgres(db.store()).await;
                serve(&plan, db.store()).await;
            }
        }
    });
}

async fn serve<S: Till + Clone>(plan: &Plan, store: &S) {
    let mut fault = plan.fault.split(' ').map(str::to_owned);
    let (what, at) = (fault.next().unwrap_or_default(), fault.next().unwrap_or_default());
    let nth: u64 = fault.next().map_or(u64::MAX, |times| times.parse().unwrap());
    let reached = Arc::new(AtomicU64::new(0));
    let store = Faulty::new(store.clone(), move |step| {
        if step == Step::Begin {
            say("begins");
        }
        let wanted = format!("{step:?}") == at;
        let now = wanted && reached.fetch_add(1, Ordering::SeqCst) + 1 == nth;
        let kills = what == "kill";
        async move {
            if now {
                end_or_stop(kills).await;
            }
            Ok(())
        }
    });
    let db = Completions::new(store).await.unwrap();
    let counter = Counter::new(db.clone());
    let folder = Path::new(&plan.identity);
    let identity = Identity::from_pem_files(folder.join("crt"), folder.join("key")).unwrap();
    let builder = Server::bind(&plan.listen).identity(identity).service(counter.clone());
    let server = builder.completions(db).start().await.unwrap();
    say(&format!("listening {}", server.local_addr()));
    std::future::pending().await
}

/// Sends this process a signal that ends or stops it. This step ends when the process is resumed: it
/// would go on for a moment otherwise, before the signal takes effect.
async fn end_or_stop(kills: bool) {
    let mut resumed = signal(SignalKind::from_raw(Signal::CONT.as_raw())).expect("a handler");
    let sent = if kills { Signal::KILL } else { Signal::STOP };
    kill_process(getpid(), sent).expect("a signal to this process");
    resumed.recv().await;
}

/// Not `println`, which tests capture.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// A server process.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Process {
    async fn start(plan: &Plan) -> Self {
        let Plan { database, listen, identity, fault } = plan;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["server_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(VARIABLE, [&database[..], listen, identity, fault].join("|"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = soon(lines.next_line()).await.unwrap().expect("the server listens");
            if let Some((_, address)) = line.split_once("listening ") {
                break address.parse().unwrap();
            }
        };
        Self { child, lines, address }
    }

    fn pid(&self) -> Pid {
        let id = self.child.id().expect("it has not ended");
        Pid::from_raw(id.cast_signed()).expect("a process id")
    }

    /// Waits until the process is stopped.
    async fn is_stopped(&self) {
        let file = format!("/proc/{}/stat", self.pid().as_raw_nonzero());
        let stopped = || {
            let stat = std::fs::read_to_string(&file).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        soon(async {
            while !stopped() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Waits until it wants to begin a transaction.
    async fn begins(&mut self) {
        loop {
            let line = soon(self.lines.next_line()).await.unwrap().expect("the server lives");
            if line.ends_with("begins") {
                return;
            }
        }
    }

    fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }
}

/// What the processes of a test have in common.
struct Place {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
        std::fs::write(folder.path().join("crt"), identity.certificate_pem()).unwrap();
        std::fs::write(folder.path().join("key"), identity.key_pem()).unwrap();
        Self { folder, identity }
    }

    fn plan(&self, database: &str, fault: &str) -> Plan {
        Plan {
            database: database.to_owned(),
            listen: "127.0.0.1:0".into(),
            identity: self.folder.path().to_str().unwrap().into(),
            fault: fault.into(),
        }
    }

    /// A new file for a database of this kind.
    fn file(&self, kind: &str) -> String {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        format!("{kind}:{}/{number}.{kind}", self.folder.path().display())
    }

    /// Two servers on a database. The session of the channel is at the first, which has answered one
    /// call; the second was started later.
    async fn two_servers(&self, database: &str, fault: &str) -> (Process, Process, Channel) {
        let first = Process::start(&self.plan(database, fault)).await;
        let reserved = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = reserved.local_addr().unwrap();
        let channel = self.channel(&[first.address, listen]).await;
        assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, 1);
        drop(reserved);
        let plan = Plan { listen: listen.to_string(), ..self.plan(database, "") };
        (first, Process::start(&plan).await, channel)
    }

    async fn channel(&self, servers: &[SocketAddr]) -> Channel {
        let addresses: Vec<_> = servers.iter().map(ToString::to_string).collect();
        let builder = ChannelBuilder::new(addresses.join(","));
        let backoff = Duration::from_millis(20);
        let builder = builder.trust(self.identity.trust().unwrap()).backoff(backoff, backoff * 10);
        // A server may be killed in the middle of the first opening.
        soon(builder.wait_for_ready(true).open_now()).await.unwrap().channel()
    }
}

/// Adds 1 until there are twelve; each answer is the total, so that it tells a call that ran twice or
/// not.
async fn count_to_twelve(channel: &Channel, from: i64, what: &str) {
    for total in from..=12 {
        let reply = call(channel, &ADD, 1).await;
        assert_eq!(reply.map(|note| note.amount).map_err(|it| it.to_string()), Ok(total), "{what}");
    }
}

/// A server is killed at each of its steps, and another process takes its place: first on the same
/// port afterwards, then beside it from the beginning, where the database can be shared.
async fn killed_between_every_two_steps(shared: bool, database: impl Fn(&Place) -> Option<String>) {
    let place = Place::new();
    let steps = STEPS.into_iter().chain([Step::SessionCommit, Step::SessionCommitted]);
    for step in steps {
        // Sessions are opened once, and looked at before the first call of a slot only.
        let once = [Step::SessionCommit, Step::SessionCommitted, Step::Look];
        let nth = if once.contains(&step) { 1 } else { 4 };
        let fault = format!("kill {step:?} {nth}");
        let Some(url) = database(&place) else { return };
        let mut first = Process::start(&place.plan(&url, &fault)).await;
        let address = first.address;
        let next = Plan { listen: address.to_string(), ..place.plan(&url, "") };
        let restarted = tokio::spawn(async move {
            let status = first.child.wait().await.unwrap();
            assert!(!status.success());
            Process::start(&next).await
        });
        let channel = place.channel(&[address]).await;
        count_to_twelve(&channel, 1, &format!("{fault}, restarted")).await;
        soon(restarted).await.unwrap();
    }
    if !shared {
        return;
    }
    for step in STEPS.into_iter().filter(|step| *step != Step::Look) {
        let fault = format!("kill {step:?} 4");
        let Some(url) = database(&place) else { return };
        let (mut first, second, channel) = place.two_servers(&url, &fault).await;
        count_to_twelve(&channel, 2, &format!("{fault}, taken over")).await;
        assert!(!soon(first.child.wait()).await.unwrap().success(), "{fault}: it was killed");
        drop(second);
    }
}

fn test_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_server_on_sqlite_may_be_killed_between_every_two_steps() {
    test_runtime()
        .block_on(killed_between_every_two_steps(true, |place: &Place| Some(place.file("sqlite"))));
}

#[test]
fn a_server_on_redb_may_be_killed_between_every_two_steps() {
    test_runtime()
        .block_on(killed_between_every_two_steps(false, |place: &Place| Some(place.file("redb"))));
}

#[test]
fn a_server_on_postgres_may_be_killed_between_every_two_steps() {
    test_runtime().block_on(killed_between_every_two_steps(true, |_: &Place| fresh_database()));
}

/// One of two servers on a database is stopped in the middle of a call, and resumed when the other one
/// has ended it.
#[test]
fn a_call_of_a_server_that_is_stopped_runs_once_though_another_one_takes_it() {
    test_runtime().block_on(async {
        let place = Place::new();
        let steps = STEPS.into_iter().skip_while(|step| *step != Step::SlotLocked);
        for step in steps.chain([Step::LockSlot]) {
            let Some(url) = fresh_database() else { return };
            let fault = format!("stop {step:?} 4");
            let (first, mut second, channel) = place.two_servers(&url, &fault).await;
            for total in 2..=3 {
                assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, total, "{fault}");
            }
            let fourth = begin(&channel, &ADD, 1);
            first.is_stopped().await;
            let amount = soon(fourth).await.unwrap().unwrap().amount;
            assert_eq!(amount, 4, "{fault}: the second server's answer");
            first.resume();
            // The second one goes, so that the first one has to answer, which has what it had begun
            // then to end first.
            for total in 5..=8 {
                if total == 6 {
                    soon(second.child.kill()).await.unwrap();
                }
                assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, total, "{fault}");
            }
        }
    });
}

/// The same where the one that is stopped has the only lock: nothing can be done until it goes on, and
/// then it is done once.
#[test]
fn a_call_of_a_stopped_server_on_sqlite_waits_for_it_at_the_other_one() {
    test_runtime().block_on(async {
        let place = Place::new();
        for step in [Step::SlotLocked, Step::SlotSaved, Step::Committed] {
            let url = place.file("sqlite");
            let fault = format!("stop {step:?} 4");
            let (first, mut second, channel) = place.two_servers(&url, &fault).await;
            for total in 2..=3 {
                assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, total, "{step:?}");
            }
            let fourth = begin(&channel, &ADD, 1);
            first.is_stopped().await;
            if step != Step::Committed {
                // It waits for the lock, already to take the session over.
                second.begins().await;
                assert!(!fourth.is_finished());
            }
            first.resume();
            assert_eq!(soon(fourth).await.unwrap().unwrap().amount, 4, "{step:?}");
            for total in 5..=8 {
                assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, total, "{step:?}");
            }
        }
    });
}
