//! Streams of reads at a group of replicas.

use bytes::Bytes;
use stubborn_core::node::{Batch, CallKey, RequestKey, Watch};
use stubborn_core::service::{Encoded, Method, Semantics, Shape};

use crate::group::REPLICAS;
use crate::handlers::{message, number};
use crate::world::World;

/// Message n + 1 follows message n, without end.
const WATCH: Method = Method::new("test.Echo/Watch", Semantics::Read, Shape::ServerStreaming);

impl World {
    /// A replica is asked for what follows a position.
    pub(crate) fn watched(&mut self, host: usize, key: RequestKey, watch: &Watch) {
        let now = self.now;
        if self.the_group().too_stale.contains(&host) {
            return self.node(host).too_stale(now, key);
        }
        let position = watch.position + 1;
        let mut messages = Batch::new();
        messages.push(Encoded::from_body(WATCH.id(), message(position, 8)));
        self.node(host).answer_watch(now, key, position, messages);
    }
}

/// Takes the next so many messages, each of which follows the one before.
fn take(world: &mut World, stream: CallKey, last: &mut u64, count: u64, context: &str) {
    let until = *last + count;
    let came = world.run_until(5_000, |world| {
        while let Some(message) = world.next(stream, &WATCH) {
            assert_eq!(number(&message), *last + 1, "{context}");
            *last += 1;
        }
        *last >= until
    });
    assert!(came, "nothing came after message {last}: {context}");
}

#[test]
fn who_watches_asks_each_replica_in_turn_when_the_nearest_cannot_answer() {
    for far in REPLICAS {
        let (mut world, mut last) = (World::with_group(130), 0);
        world.rules.far = Some(far);
        let stream = world.open(&WATCH, Bytes::new());
        world.run(1_000);
        take(&mut world, stream, &mut last, 5, "all can answer");
        let near: Vec<usize> = REPLICAS.into_iter().filter(|host| *host != far).collect();
        world.the_group().too_stale = near.clone();
        world.run(500);
        take(&mut world, stream, &mut last, 20, &format!("{near:?} cannot answer"));
    }
}
