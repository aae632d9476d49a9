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
        Self { cluster, caller, id, next: 0 }
    }

    /// Works until nothing goes wrong any more.
    pub(super) async fn run(mut self, reads: f64, pause: u64, impatient: f64) {
        while !self.cluster.lock().healed {
            if self.cluster.chance(reads) {
                self.read().await;
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
            match self.call(&GET, Command { client: 0, number: 0 }, None).await {
                Ok(reply) => {
                    let verdict =
                        self.cluster.lock().judge.history.on_read(&operation, count(&reply.reply));
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

    /// Has the group count, once.
    async fn add(&mut self, impatient: f64) {
        self.next += 1;
        let command = Command { client: self.id, number: self.next };
        let operation = self.cluster.lock().judge.history.begin();
        let deadline = self.cluster.chance(impatient).then(|| millis(1 + self.cluster.below(800)));
        let ended = match self.call(&ADD, command, deadline).await {
            Ok(reply) => Some(reply),
            Err(error) => match error.outcome() {
                Outcome::NotExecuted(_) => None,
                Outcome::Pending(id) => self.ask(*id).await,
                _ => return self.broken("a command ended without a proof", &error),
            },
        };
        let mut shared = self.cluster.lock();
        let verdict = match ended {
            None => {
                shared.counts.not_executed += 1;
                shared.judge.not_executed(command)
            }
            Some(reply) => {
                let count = count(&reply.reply);
                shared.counts.counted += 1;
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
        let call = OutgoingCall {
            method: method.clone(),
            request: command.encode(),
            metadata: Metadata::new(),
            deadline,
            wait_for_ready: Some(true),
            reserved: None,
        };
        self.caller.call(call).await
    }

    fn broken(&self, what: &str, error: &CallError) {
        self.cluster.judge(Err(("nothing is lost", format!("{what}: {error}"))));
    }
}
