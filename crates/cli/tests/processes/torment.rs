//! Exactly once with real processes: nodes are killed, paused, cut off and started again under load,
//! some at a time and all at once; each call has run once, each caller knows it, and a read never
//! goes back.
//!
//! What happens is drawn from `STUBBORN_SEED`. It goes on for some twenty misfortunes, or for
//! `STUBBORN_SECONDS`:
//! `STUBBORN_SECONDS=180 cargo test --release -p stubborn-cli --test processes torment`. Where the
//! cluster stands still, what its nodes and its network say of themselves is printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stubborn::kv::compare_and_swap_request::Expected;
use stubborn::kv::{CompareAndSwapRequest, GetRequest, KvClient};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cluster::Cluster;

const CALLERS: usize = 8;

/// Calls that have to end between two changes of fortune.
const PROGRESS: u64 = 100;

/// After so long without the end of a call it is told how everything stands.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Misfortunes of a run for which no time was given.
const MISFORTUNES: usize = 12;

/// What a caller knows of its key at the end.
struct Known {
    key: String,
    changes: u64,
    revision: u64,
}

/// Counts a key of its own up, one change after another. A change that ran twice, or not at all,
/// makes a comparison fail: nobody else changes the key. Now and then it reads what it has written.
async fn count_up(
    client: KvClient,
    key: String,
    done: watch::Sender<u64>,
    stop: Arc<AtomicBool>,
) -> Known {
    let mut known = Known { key, changes: 0, revision: 0 };
    while !stop.load(Ordering::Relaxed) {
        let value = (known.changes + 1).to_string().into();
        let expected = Some(Expected::Revision(known.revision));
        let request = CompareAndSwapRequest { key: known.key.clone(), expected, swap: Some(value) };
        let reply = client.compare_and_swap(request).await;
        let reply = reply.unwrap_or_else(|error| panic!("{} is not resolved: {error}", known.key));
        assert!(reply.swapped, "{}, change {}: {reply:?}", known.key, known.changes + 1);
        known.changes += 1;
        known.revision = reply.revision;
        if known.changes.is_multiple_of(8) {
            check(&client, &known).await;
        }
        done.send_modify(|done| *done += 1);
    }
    known
}

/// Reads a key, which is as its only caller knows it. A read that nobody answers says nothing.
async fn check(client: &KvClient, known: &Known) {
    let Ok(reply) = client.get(GetRequest { key: known.key.clone() }).await else { return };
    let pair = reply.pair.unwrap_or_else(|| panic!("{} is gone", known.key));
    assert_eq!(pair.value, known.changes.to_string(), "{}", known.key);
    assert_eq!(pair.revision, known.revision, "{}", known.key);
}

/// A cluster under load.
struct World {
    cluster: Cluster,
    client: KvClient,
    callers: Vec<JoinHandle<Known>>,
    done: watch::Receiver<u64>,
    stop: Arc<AtomicBool>,
    runtime: Runtime,
}

impl World {
    fn new(nodes: usize) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let cluster = Cluster::start(nodes, runtime.handle());
        let client = runtime.block_on(cluster.client());
        let (sender, done) = watch::channel(0);
        let stop = Arc::<AtomicBool>::default();
        let callers = (0..CALLERS).map(|caller| {
            let key = format!("caller-{caller}");
            runtime.spawn(count_up(client.clone(), key, sender.clone(), Arc::clone(&stop)))
        });
        let callers = callers.collect();
        // Only the callers hold it now: if all of them panic, nobody waits for them.
        drop(sender);
        Self { cluster, client, callers, done, stop, runtime }
    }

    /// Waits until the callers have got on.
    fn progress(&mut self) {
        let enough = *self.done.borrow() + PROGRESS;
        let since = Instant::now();
        loop {
            let before = *self.done.borrow();
            let done = self.done.wait_for(|done| *done >= enough);
            let ended = self.runtime.block_on(async { timeout(STANDSTILL, done).await });
            match ended.map(|ended| ended.map(drop)) {
                Ok(Ok(())) => return,
                // Not a reason to fail: the callers say whether it was too long.
                Err(_) if *self.done.borrow() > before => {}
                ended => {
                    let (waited, evidence) = (since.elapsed(), self.cluster.evidence());
                    eprintln!("{waited:?} for {PROGRESS} changes:\n{evidence}");
                    assert!(ended.is_err(), "all callers have ended");
                }
            }
        }
    }

    /// Does something to these nodes, undoes it when the callers have got on without them, and waits
    /// until they have again.
    fn suffer(&mut self, misfortune: Misfortune, nodes: &[usize]) {
        match misfortune {
            Misfortune::Kill => nodes.iter().for_each(|node| self.cluster.kill(*node)),
            Misfortune::Pause => nodes.iter().for_each(|node| self.cluster.signal(*node, "-STOP")),
            Misfortune::CutOff => nodes.iter().for_each(|node| self.cluster.network.cut_off(*node)),
        }
        let begun = Instant::now();
        self.progress();
        let without = begun.elapsed();
        match misfortune {
            Misfortune::Kill => nodes.iter().for_each(|node| self.cluster.restart(*node)),
            Misfortune::Pause => nodes.iter().for_each(|node| self.cluster.signal(*node, "-CONT")),
            Misfortune::CutOff => self.cluster.network.heal(),
        }
        self.progress();
        // Shown if the test fails.
        eprintln!(
            "  {PROGRESS} changes took {without:?} without them, {PROGRESS} more came after {:?}",
            begun.elapsed()
        );
    }

    /// Lets the callers end, and holds what they know against what the group has.
    fn judge(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut changes = 0;
        for caller in self.callers {
            let known = self.runtime.block_on(caller).unwrap();
            let get = self.client.get(GetRequest { key: known.key.clone() }).into_future();
            let pair = self.runtime.block_on(get).unwrap().pair.unwrap();
            assert_eq!(pair.value, known.changes.to_string());
            assert_eq!(pair.revision, known.revision);
            changes += known.changes;
        }
        let get = self.client.get(GetRequest { key: "none".into() }).into_future();
        // A revision is a change: there are as many as callers know of.
        assert_eq!(self.runtime.block_on(get).unwrap().revision, changes);
    }
}

#[derive(Clone, Copy, Debug)]
enum Misfortune {
    Kill,
    Pause,
    CutOff,
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Random misfortunes to less than half of the nodes, the leader among them half of the time, and
/// now and then the death of all at once.
fn torment(nodes: usize, seed: u64) {
    let mut world = World::new(nodes);
    let mut dice = Dice(setting("STUBBORN_SEED").unwrap_or(seed));
    let until = setting("STUBBORN_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    world.progress();
    for round in 0.. {
        if until.map_or(round >= MISFORTUNES, |until| Instant::now() >= until) {
            break;
        }
        let kinds = [Misfortune::Kill, Misfortune::Pause, Misfortune::CutOff];
        let (kind, count) = (kinds[dice.below(3)], 1 + dice.below(nodes.div_ceil(2) - 1));
        let first = if dice.below(2) == 0 { world.cluster.leader() } else { dice.below(nodes) };
        let all: Vec<usize> = (0..count).map(|next| (first + next) % world.cluster.len()).collect();
        eprintln!("round {round}: {kind:?} of {all:?}, after {} changes", *world.done.borrow());
        world.suffer(kind, &all);
        if round % 5 == 4 {
            world.cluster.kill_all();
            world.progress();
        }
    }
    world.judge();
}

#[test]
fn each_call_runs_once_though_nodes_are_killed_and_paused_one_by_one_and_all_at_once() {
    let mut world = World::new(3);
    world.progress();
    for victim in 0..5 {
        // Each node in turn, and the leader twice.
        let node = if victim < 3 { victim } else { world.cluster.leader() };
        world.suffer(Misfortune::Kill, &[node]);
    }
    for misfortune in [Misfortune::Pause, Misfortune::CutOff] {
        let leader = world.cluster.leader();
        world.suffer(misfortune, &[leader]);
    }
    world.cluster.kill_all();
    world.progress();
    world.judge();
}

#[test]
fn each_call_runs_once_though_three_nodes_are_tormented_at_random() {
    torment(3, 1);
}

#[test]
fn each_call_runs_once_though_five_nodes_are_tormented_at_random_two_at_a_time() {
    torment(5, 2);
}
