//! A client of a group that watches: a stream of reads that goes on wherever a replica is left.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use stubborn_core::service::{Caller, Encoded, Port};

use super::client::{Client, Manners, nothing, outgoing};
use super::cluster::Cluster;
use super::ledger::{GET, Told, WATCH, count};
use crate::nodes::Nodes;
use crate::world::{SimCaller, millis};

pub(super) struct Watcher {
    cluster: Cluster,
    id: u64,
    caller: SimCaller,
    /// The longest that it takes for a message.
    takes: Duration,
    /// The part of its messages after which it leaves the stream, and begins another one.
    leaves: f64,
}

/// What a stream has.
enum Came {
    Message(Encoded),
    Over,
    NothingYet,
}

impl Watcher {
    /// A client with this number, which no other one has.
    pub(super) fn new(cluster: Cluster, id: u64, takes: Duration, leaves: f64) -> Self {
        let Client { caller, .. } = Client::new(cluster.clone(), id, Manners::plain(1.0, 1));
        Self { cluster, id, caller, takes, leaves }
    }

    /// Watches until nothing goes wrong any more, and it was told all that was counted until then.
    pub(super) async fn run(self) {
        while !self.watch().await {}
        self.cluster.lock().clients_done.insert(self.id);
    }

    /// Watches from the beginning; whether it was told all.
    async fn watch(&self) -> bool {
        let Ok(port) = self.caller.open(outgoing(&WATCH, nothing(), None)) else {
            self.broken("a stream did not begin".into());
            return true;
        };
        let (mut seen, mut all) = (0, None);
        while all.is_none_or(|all| seen < all) {
            match self.next(&port).await {
                Came::Message(message) => {
                    seen += 1;
                    self.on_told(seen, &message);
                    if self.cluster.chance(self.leaves) && !self.cluster.is_healed() {
                        port.cancel();
                        return false;
                    }
                    if !self.cluster.is_healed() {
                        let takes = self.cluster.below(self.takes.as_micros() as u64 + 1);
                        self.cluster.world.sleep(Duration::from_micros(takes)).await;
                    }
                }
                Came::Over => {
                    let end = poll_fn(|cx| port.poll_end(cx)).await;
                    self.broken(format!("a stream ended after {seen} messages: {end:?}"));
                    return true;
                }
                Came::NothingYet if self.cluster.is_healed() && all.is_none() => {
                    let reply = self.caller.call(outgoing(&GET, nothing(), None)).await;
                    all = reply.ok().map(|reply| count(&reply.reply));
                }
                Came::NothingYet => {}
            }
        }
        port.cancel();
        true
    }

    async fn next(&self, port: &Arc<dyn Port>) -> Came {
        let mut patience = pin!(self.cluster.world.sleep(millis(50)));
        poll_fn(|cx| match port.poll_take(cx) {
            Poll::Ready(Some(message)) => Poll::Ready(Came::Message(message)),
            Poll::Ready(None) => Poll::Ready(Came::Over),
            Poll::Pending => patience.as_mut().poll(cx).map(|()| Came::NothingYet),
        })
        .await
    }

    fn on_told(&self, number: u64, message: &Encoded) {
        let verdict = {
            let mut shared = self.cluster.lock();
            shared.counts.watched += 1;
            shared.judge.watched.on_told(number, Told::decode(&message.body.to_vec()))
        };
        self.cluster.judge(verdict);
    }

    fn broken(&self, what: String) {
        self.cluster.judge(Err(("watches go on", what)));
    }
}
