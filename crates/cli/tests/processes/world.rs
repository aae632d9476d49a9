//! A cluster under load, and what its callers know of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stubborn::kv::compare_and_swap_request::Expected;
use stubborn::kv::{CompareAndSwapReply, CompareAndSwapRequest, GetReply, GetRequest, KvClient};
use stubborn::{CallState, Outcome};
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
    seen: Arc<Seen>,
) -> Known {
    let mut known = Known { key, changes: 0, revision: 0 };
    while !seen.stop.load(Ordering::Relaxed) {
        let value = (known.changes + 1).to_string().into();
        let expected = Some(Expected::Revision(known.revision));
        let request = CompareAndSwapRequest { key: known.key.clone(), expected, swap: Some(value) };
        let begun = Instant::now();
        let Some(reply) = change(&client, request, known.revision).await else { continue };
        assert!(reply.swapped, "{}, change {}: {reply:?}", known.key, known.changes + 1);
        known.changes += 1;
        known.revision = reply.revision;
        seen.calls.lock().unwrap().push((begun, Instant::now()));
        if known.changes.is_multiple_of(8) {
            check(&client, &known).await;
        }
        done.send_modify(|done| *done += 1);
    }
    known
}

/// Makes a change, and asks until it is known what came of it, however long that takes. `None` if it
/// did not run and never will.
async fn change(
    client: &KvClient,
    request: CompareAndSwapRequest,
    before: u64,
) -> Option<CompareAndSwapReply> {
    let key = request.key.clone();
    let id = match client.compare_and_swap(request).await {
        Ok(reply) => return Some(reply),
        Err(error) => match error.outcome() {
            Outcome::Pending(id) => *id,
            Outcome::NotExecuted(_) => return None,
            _ => panic!("{key}: {error}"),
        },
    };
    loop {
        match client.compare_and_swap_outcome(id).await {
            Ok(CallState::Replied(reply)) => return Some(reply),
            Ok(CallState::NotExecuted(_)) => return None,
            // What came of it shows: nobody else changes the key.
            Ok(CallState::AlreadySettled) => {
                let Ok(reply) = client.get(GetRequest { key: key.clone() }).await else { continue };
                let revision = reply.pair.map_or(0, |pair| pair.revision);
                let changed = CompareAndSwapReply { swapped: true, revision };
                return (revision != before).then_some(changed);
            }
            Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
            Ok(other) => panic!("{key}: {other:?}"),
        }
    }
}

/// Reads a key, which is as its only caller knows it. A read that nobody answers says nothing.
async fn check(client: &KvClient, known: &Known) {
    let Ok(reply) = client.get(GetRequest { key: known.key.clone() }).await else { return };
    let pair = reply.pair.unwrap_or_else(|| panic!("{} is gone", known.key));
    assert_eq!(pair.value, known.changes.to_string(), "{}", known.key);
    assert_eq!(pair.revision, known.revision, "{}", known.key);
}

/// What the callers share with the test.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// When each change was begun and when it had ended.
    calls: Mutex<Vec<(Instant, Instant)>>,
}

/// A cluster under load.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) client: KvClient,
    pub(crate) runtime: Runtime,
    callers: Vec<JoinHandle<Known>>,
    done: watch::Receiver<u64>,
    seen: Arc<Seen>,
}

impl World {
    pub(crate) fn new(nodes: usize) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let cluster = Cluster::start(nodes, runtime.handle());
        let client = runtime.block_on(cluster.client());
        let (sender, done) = watch::channel(0);
        let seen = Arc::<Seen>::default();
        let callers = (0..CALLERS).map(|caller| {
            let key = format!("caller-{caller}");
            runtime.spawn(count_up(client.clone(), key, sender.clone(), Arc::clone(&seen)))
        });
        let callers = callers.collect();
        // Only the callers hold it now: if all of them panic, nobody waits for them.
        drop(sender);
        Self { cluster, client, runtime, callers, done, seen }
    }

    /// How many changes have ended.
    pub(crate) fn changes(&self) -> u64 {
        *self.done.borrow()
    }

    /// Waits until the callers have got on, and tells how long it took.
    pub(crate) fn progress(&mut self) -> Duration {
        let begun = Instant::now();
        self.wait_for(self.changes() + PROGRESS);
        begun.elapsed()
    }

    /// How long after `at` the first change ended that was begun after it.
    pub(crate) fn first_change_after(&mut self, at: Instant) -> Duration {
        loop {
            let calls = self.seen.calls.lock().unwrap();
            let ended = calls.iter().filter(|(begun, _)| *begun >= at).map(|call| call.1).min();
            drop(calls);
            if let Some(ended) = ended {
                return ended - at;
            }
            self.wait_for(self.changes() + 1);
        }
    }

    /// Waits until so many changes have ended.
    fn wait_for(&mut self, enough: u64) {
        let begun = Instant::now();
        loop {
            let before = self.changes();
            let done = self.done.wait_for(|done| *done >= enough);
            let ended = self.runtime.block_on(async { timeout(STANDSTILL, done).await });
            match ended.map(|ended| ended.map(drop)) {
                Ok(Ok(())) => return,
                // Not a reason to fail: the machine may be busy with other things.
                Err(_) if self.changes() > before => {}
                ended => {
                    let (waited, evidence) = (begun.elapsed(), self.cluster.evidence());
                    eprintln!(
                        "no change for {STANDSTILL:?}, {waited:?} after it was waited for:\n{evidence}"
                    );
                    assert!(ended.is_err(), "all callers have ended");
                }
            }
        }
    }

    /// Lets the callers end, and holds what they know against what the group has. `others` is how many
    /// changes others than they have made.
    pub(crate) fn judge(&mut self, others: u64) {
        self.seen.stop.store(true, Ordering::Relaxed);
        let mut changes = others;
        for caller in std::mem::take(&mut self.callers) {
            let known = self.runtime.block_on(caller).unwrap();
            let pair = self.read(&known.key).pair.unwrap();
            assert_eq!(pair.value, known.changes.to_string());
            assert_eq!(pair.revision, known.revision);
            changes += known.changes;
        }
        // A revision is a change: there are as many as callers know of.
        assert_eq!(self.read("none").revision, changes);
    }

    /// Asks until it is answered.
    fn read(&self, key: &str) -> GetReply {
        loop {
            let get = self.client.get(GetRequest { key: key.into() }).into_future();
            if let Ok(reply) = self.runtime.block_on(get) {
                return reply;
            }
        }
    }
}
