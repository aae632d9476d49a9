//! The demo with a group of replicas: three processes, a bad network between all of them and the
//! client, and the leader killed again and again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::answers::Answer;
use super::client::{Notes, Transfers};
use super::relay::Counters;
use super::report::{Latency, Report, grouped};
use super::{Args, check, client, ledger, payer, print_run, show_progress, start_relay};
use crate::child::Child;
use crate::cluster::{Clients, Folder, NodeConfig, Place};
use crate::commands::{node, status, up};
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::Access;

/// Replicas of the bank.
const REPLICAS: u16 = 3;

/// The leader is killed each time that this part of all calls was made.
const SHARE: u64 = 5;

/// It is killed after this time in any case.
const PEACE: Duration = Duration::from_secs(3);

/// How long a killed replica stays dead.
const DEATH: Duration = Duration::from_millis(100);

/// How long the group may take to find a leader, or to bring every replica up to date.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a replica has to say how it stands.
const ANSWER: Duration = Duration::from_millis(500);

/// What came of a run beside what a run with a single server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failovers {
    /// How often another replica took over.
    pub(super) count: usize,
    /// The longest time in which no call ended; that of the client's own death counts.
    pub(super) longest_gap: Duration,
    /// Whether all replicas had the same ledger at the end.
    pub(super) agree: bool,
    /// How often the client was killed and started again.
    pub(super) client_restarts: usize,
    /// Calls that it had under way then.
    pub(super) resumed: u64,
}

pub(super) async fn perform_in(args: &Args, folder: &Path, out: &Output) -> Result<Report, Error> {
    let mut group = Group::start(args, folder).await?;
    let leader = group.leader().await?;
    group.introduce(args, leader, out);
    let (sender, done) = watch::channel(0);
    let payer =
        payer::Args::new(group.way(leader), group.folder.path(), folder.join("client"), args);
    let (started, began) = (Instant::now(), SystemTime::now());
    let running = payer::supervise(payer, sender);
    let mut tally = Tally::default();
    // What torments the group ends with the client, but not in the midst of starting a replica.
    let torment = group.torment(args, done.clone(), &mut tally);
    let both =
        async { tokio::try_join!(async { Ok((running.await?, started.elapsed())) }, torment) };
    let ((paid, took), ()) = tokio::select! {
        both = both => both?,
        never = show_progress(args, done, out) => match never {},
    };
    let records = client::records(Transfers::new(args.faults.seed, args.calls), &paid.answers);
    let notes = Notes { records, took };
    print_run(args, &notes, out);
    group.catch_up().await?;
    let (wire, ledgers) = group.finish().await?;
    let agree = ledgers.windows(2).all(|pair| pair[0] == pair[1]);
    let verdict = check::compare(&notes.records, &ledgers[0], &paid.balances);
    let failovers = Failovers {
        count: tally.failovers,
        longest_gap: longest_gap(began, &paid.answers),
        agree,
        client_restarts: paid.restarts,
        resumed: paid.resumed,
    };
    let report = Report {
        verdict,
        latency: Latency::of(&notes.records),
        took: notes.took,
        wire,
        connection: paid.connection,
        kills: tally.kills,
        killing: false,
        failovers: Some(failovers),
    };
    report.print(out);
    Ok(report)
}

fn longest_gap(began: SystemTime, answers: &[Answer]) -> Duration {
    let mut last = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut longest = Duration::ZERO;
    // A file of answers that is appended to is in order.
    for answer in answers {
        longest = longest.max(answer.at.saturating_sub(last));
        last = answer.at;
    }
    longest
}

#[derive(Default)]
struct Tally {
    kills: usize,
    failovers: usize,
}

/// The replicas, each behind a bad network of its own.
struct Group {
    folder: Folder,
    configs: Vec<NodeConfig>,
    relays: Vec<Child>,
    /// None while a replica is dead.
    nodes: Vec<Option<Child>>,
}

impl Group {
    async fn start(args: &Args, path: &Path) -> Result<Self, Error> {
        let folder = Folder::at(&path.join("group"));
        let (mut places, mut relays) = (Vec::new(), Vec::new());
        let mut ports = up::Ports::from(([127, 0, 0, 1], 0).into(), REPLICAS)?;
        for (index, listen) in ports.addresses.iter().cloned().enumerate() {
            let to = listen.parse().map_err(|_| Error::internal("a free port has no address"))?;
            let mut faults = args.faults;
            faults.seed = faults.seed.wrapping_add(index as u64);
            let relay = start_relay(to, &faults).await?;
            places.push(Place { address: relay.address().to_string(), listen });
            relays.push(relay);
        }
        folder.make(&places, Clients::Certificate)?;
        let configs = folder.nodes()?;
        let mut group = Self { folder, configs, relays, nodes: Vec::new() };
        for index in 0..group.configs.len() {
            node::builder(&group.configs[index])?.make_folder()?;
            ports.release_next();
            let node = group.start_node(index).await?;
            group.nodes.push(Some(node));
        }
        Ok(group)
    }

    fn ledger(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("ledger-{}", index + 1))
    }

    async fn start_node(&self, index: usize) -> Result<Child, Error> {
        let config = self.folder.config(self.configs[index].node);
        let args: [OsString; 6] = [
            "demo".into(),
            "replica".into(),
            "--config".into(),
            config.into(),
            "--ledger".into(),
            self.ledger(index).into(),
        ];
        Child::start("replica", args).await
    }

    fn introduce(&self, args: &Args, leader: usize, out: &Output) {
        let super::Faults { loss, duplicate, reorder, corrupt, seed } = args.faults;
        let pids: Vec<_> = self.nodes.iter().flatten().map(|n| n.pid().to_string()).collect();
        out.line(format_args!(
            "bank on {REPLICAS} replicas (pids {}), replica {} leads; link of each: {loss} lost, \
             {duplicate} doubled, {reorder} reordered, {corrupt} corrupted, each way (seed {seed})",
            pids.join(", "),
            leader + 1,
        ));
        out.line(format_args!(
            "the leader is killed (SIGKILL) after every {} calls, at least every {} s, and started \
             again {} s later; the client once, and the next one goes on from its journal",
            grouped(args.calls.div_ceil(SHARE)),
            PEACE.as_secs(),
            DEATH.as_secs_f64()
        ));
    }

    /// The client's way, to the replica that leads first: it loses its connection with the first kill.
    fn way(&self, leader: usize) -> String {
        let mut relays: Vec<_> =
            self.relays.iter().map(|relay| relay.address().to_string()).collect();
        relays.rotate_left(leader);
        relays.join(",")
    }

    /// How the replicas stand, asked past the bad network.
    async fn ask(&self) -> Vec<status::Asked> {
        let nodes = self.configs.iter().map(|c| (Some(c.node), c.listen.clone())).collect();
        status::ask(nodes, &Access::of_folder(self.folder.path()), ANSWER).await
    }

    /// The place of the replica that leads, once one does.
    async fn leader(&self) -> Result<usize, Error> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(leader) = status::leader(&self.ask().await) {
                let place = self.configs.iter().position(|config| config.node == leader);
                return place.ok_or_else(|| Error::internal("a stranger leads the group"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::new(Exit::Failed, "the replicas agreed on no leader within a minute"))
    }

    /// Kills the leader again and again, until the client has ended.
    async fn torment(
        &mut self,
        args: &Args,
        mut done: watch::Receiver<u64>,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let mut enough = 0;
        loop {
            enough += args.calls.div_ceil(SHARE);
            let _ = tokio::time::timeout(PEACE, done.wait_for(|done| *done >= enough)).await;
            // The client holds the other end.
            if done.has_changed().is_err() {
                return Ok(());
            }
            self.kill_leader(tally).await?;
        }
    }

    async fn kill_leader(&mut self, tally: &mut Tally) -> Result<(), Error> {
        let leader = self.leader().await?;
        if let Some(mut node) = self.nodes[leader].take() {
            node.kill().await;
            tally.kills += 1;
        }
        tokio::time::sleep(DEATH).await;
        self.restore().await?;
        if self.leader().await? != leader {
            tally.failovers += 1;
        }
        Ok(())
    }

    /// Starts those that are dead.
    async fn restore(&mut self) -> Result<(), Error> {
        for index in 0..self.nodes.len() {
            if self.nodes[index].is_none() {
                self.nodes[index] = Some(self.start_node(index).await?);
            }
        }
        Ok(())
    }

    /// Waits until every replica has applied the same.
    async fn catch_up(&self) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if status::are_level(&self.ask().await) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::new(Exit::Failed, "a replica did not catch up within a minute"))
    }

    /// Ends all processes. Returns what the networks did, and each replica's ledger.
    async fn finish(self) -> Result<(Counters, Vec<Vec<ledger::Transfer>>), Error> {
        let paths: Vec<_> = (0..self.nodes.len()).map(|index| self.ledger(index)).collect();
        for node in self.nodes.into_iter().flatten() {
            node.finish().await;
        }
        let mut wire = Counters::default();
        for relay in self.relays {
            let line = relay.finish().await;
            wire.add(&line.and_then(|line| Counters::from_json(&line)).unwrap_or_default());
        }
        let ledgers = paths
            .iter()
            .map(|path| ledger::read(path).map_err(|e| Error::io("read", path, &e)))
            .collect::<Result<_, _>>()?;
        Ok((wire, ledgers))
    }
}
