//! A client of a group: a real client node, which counts and reads, one thing after another.

use std::time::Duration;

use stubborn_core::service::{
    CallError, CallState, Caller, IncomingReply, Metadata, Method, Outcome, OutgoingCall,
};
use stubborn_core::session::CallId;

use super::cluster::Cluster;
use super::ledger::{ADD, Command, GET, count};
use crate::nodes::{Nodes, host};
use crate::world::{SimCaller, millis};

pub(super) struct Client {
    cluster: Cluster,
    caller: SimCaller,
    id: u64,
    next: u64,
    /// The largest count that it was told: it never sees a smaller one again.
    seen: u64,
}

impl Client {
    /// A client that knows the addresses of all nodes.
    pub(super) fn new(cluster: Cluster, id: u64) -> Self {
        let addresses = cluster.addresses();
        let names: Vec<String> = addresses.iter().map(|(id, _)| host(*id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut targets: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
        let first = cluster.below(targets.len() as u64) as usize;
        targets.rotate_left(first);
        let caller = cluster.world.caller(&format!("client-{id}"), &names, |config| {
            config.targets = targets;
        });
        Self { cluster, caller, id, next: 0, seen: 0 }
    }

    /// Works until nothing goes wrong any more.
    pub(super) async fn run(mut self, reads: f64, pause: u64, impatient: f64) {
        while !self.cluster.lock().healed {
            if self.cluster.chance(reads) {
                if self.cluster.chance(0.5) {
                    self.read_stale().await;
                } else {
                    self.read().await;
                }
            } else {
                self.add(impatient).await;
            }
            let pause = Duration::from_micros(self.cluster.below(pause));
            self.cluster.world.sleep(pause).await;
        }
        // What is begun in a world without faults ends at once.
        self.add(0.0).await;
        self.read().await;
        self.cluster.lock().clients_done += 1;
    }

    async fn read(&mut self) {
        let operation = self.cluster.lock().judge.history.begin();
        loop {
            match self.get(None).await {
                Ok(count) => {
                    self.saw(count);
                    let verdict = self.cluster.lock().judge.history.on_read(&operation, count);
                    self.cluster.lock().counts.reads += 1;
                    return self.cluster.judge(verdict);
                }
                Err(error) if matches!(error.outcome(), Outcome::Executed(_) | Outcome::Lost) => {
                    return self.broken("a read was answered strangely", &error);
                }
                Err(_) => self.cluster.world.sleep(millis(20)).await,
            }
        }
    }

    /// Reads a state that may be older, though not older than what it has seen.
    async fn read_stale(&mut self) {
        let at_most = Duration::from_millis(self.cluster.below(4_000));
        let (began, before) = (self.cluster.world.now(), self.seen);
        loop {
            match self.get(Some(at_most)).await {
                Ok(count) => {
                    self.saw(count);
                    let steady = self.cluster.habits.steady;
                    let mut shared = self.cluster.lock();
                    shared.counts.stale_reads += 1;
                    let mut verdict = shared.judge.on_session_read(before, count);
                    if steady {
                        let fresh = shared.judge.on_stale_read(began, at_most, count);
                        verdict = verdict.and(fresh);
                    }
                    drop(shared);
                    return self.cluster.judge(verdict);
                }
                Err(error) if matches!(error.outcome(), Outcome::Executed(_) | Outcome::Lost) => {
                    return self.broken("a read was answered strangely", &error);
                }
                Err(_) => self.cluster.world.sleep(millis(20)).await,
            }
        }
    }

    async fn get(&self, max_staleness: Option<Duration>) -> Result<u64, CallError> {
        let nobody = Command { client: 0, number: 0 };
        let call = OutgoingCall { max_staleness, ..outgoing(&GET, nobody, None) };
        Ok(count(&self.caller.call(call).await?.reply))
    }

    /// The group told this client a count.
    fn saw(&mut self, count: u64) {
        self.seen = self.seen.max(count);
        let now = self.cluster.world.now();
        self.cluster.lock().judge.saw(now, count);
    }

    /// Has the group count, once.
    async fn add(&mut self, impatient: f64) {
        self.next += 1;
        let command = Command { client: self.id, number: self.next };
        let operation = self.cluster.lock().judge.history.begin();
        let begun = self.cluster.world.now();
        let deadline = self.cluster.chance(impatient).then(|| millis(1 + self.cluster.below(800)));
        let ended = match self.call(&ADD, command, deadline).await {
            Ok(reply) => Some(reply),
            Err(error) => match error.outcome() {
                Outcome::NotExecuted(_) => None,
                Outcome::Pending(id) => self.ask(*id).await,
                _ => return self.broken("a command ended without a proof", &error),
            },
        };
        if let Some(reply) = &ended {
            self.saw(count(&reply.reply));
        }
        let ended_at = self.cluster.world.now();
        let mut shared = self.cluster.lock();
        let verdict = match ended {
            None => {
                shared.counts.not_executed += 1;
                shared.judge.not_executed(command)
            }
            Some(reply) => {
                let count = count(&reply.reply);
                shared.counts.counted += 1;
                shared.answered.insert(self.id, (begun, ended_at));
                let judge = &mut shared.judge;
                let counted = judge.history.on_counted(&operation, count);
                counted.and(judge.counted(command, count))
            }
        };
        drop(shared);
        self.cluster.judge(verdict);
    }

    /// Asks what became of a call until it is known.
    async fn ask(&mut self, id: CallId) -> Option<IncomingReply> {
        self.cluster.lock().counts.asked += 1;
        loop {
            match self.caller.outcome(id).await {
                Ok(CallState::Replied(reply)) => return Some(reply),
                Ok(CallState::NotExecuted(_)) => return None,
                Ok(CallState::Executing | CallState::NotArrived) => {}
                Ok(state) => {
                    let what = format!("{id} was asked for and is {state:?}");
                    self.cluster.judge(Err(("nothing is lost", what)));
                    return None;
                }
                Err(error) if matches!(error.outcome(), Outcome::Pending(_)) => {}
                Err(error) => {
                    self.broken("a question was answered strangely", &error);
                    return None;
                }
            }
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    async fn call(
        &self,
        method: &Method,
        command: Command,
        deadline: Option<Duration>,
    ) -> Result<IncomingReply, CallError> {
        self.caller.call(outgoing(method, command, deadline)).await
    }

    fn broken(&self, what: &str, error: &CallError) {
        self.cluster.judge(Err(("nothing is lost", format!("{what}: {error}"))));
    }
}

fn outgoing(method: &Method, command: Command, deadline: Option<Duration>) -> OutgoingCall {
    OutgoingCall {
        method: method.clone(),
        request: command.encode(),
        metadata: Metadata::new(),
        deadline,
        wait_for_ready: Some(true),
        reserved: None,
        max_staleness: None,
    }
}
