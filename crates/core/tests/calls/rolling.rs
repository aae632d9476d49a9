//! Three servers that are drained, stopped and started again one after the other, under load: no call
//! fails, whatever its semantics, and each with side effects runs once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stubborn_core::node::{Balancing, CallKey, ServiceConfig};
use stubborn_core::service::{Method, Outcome};
use stubborn_core::session::{CallId, NotExecutedReason};
use stubborn_core::time::Duration;

use crate::handlers::{CHAT, LIST, list, message};
use crate::world::{AGAIN, ECHO, HANG, READ, Rules, SERVER, SERVERS, SPARE, THIRD, World};

/// Calls in flight at any time.
const IN_FLIGHT: usize = 24;

/// Calls of all kinds, as many at a time as there is room for, and who waits for what.
#[derive(Default)]
struct Load {
    under_way: BTreeMap<CallKey, Method>,
    /// Open streams of both sides: messages are still to be sent.
    chats: BTreeSet<CallKey>,
    begun: u64,
    ended: u64,
    failures: Vec<String>,
}

impl Load {
    /// Takes what has ended, and begins as much.
    fn turn(&mut self, world: &mut World, more: bool) {
        for (key, result) in std::mem::take(&mut world.results) {
            let method = self.under_way.remove(&key).expect("a call of ours");
            self.chats.remove(&key);
            self.ended += 1;
            if let Err(error) = result {
                self.failures.push(format!("{}: {error}", method.name()));
            }
        }
        for key in self.chats.clone() {
            if world.random.chance(0.3) {
                world.end(key);
                self.chats.remove(&key);
            } else {
                world.send(key, &CHAT, message(1, 50));
            }
        }
        while more && self.under_way.len() < IN_FLIGHT {
            self.begin(world);
        }
    }

    fn begin(&mut self, world: &mut World) {
        self.begun += 1;
        let body = Bytes::copy_from_slice(&self.begun.to_be_bytes());
        let (key, method) = match self.begun % 12 {
            0..4 => (world.call_with(&ECHO, body, None, None), ECHO),
            4..6 => (world.call_with(&HANG, body, None, None), HANG),
            6..8 => (world.call_with(&READ, body, None, None), READ),
            8..10 => (world.call_with(&AGAIN, body, None, None), AGAIN),
            10 => (world.open(&CHAT, body), CHAT),
            _ => (world.open(&LIST, list(20, 500)), LIST),
        };
        if method == CHAT {
            self.chats.insert(key);
        }
        self.under_way.insert(key, method);
    }

    fn run(&mut self, world: &mut World, millis: u64) {
        let end = world.now + Duration::from_millis(millis);
        while world.now < end {
            self.turn(world, true);
            for host in SERVERS {
                // What takes long is done for some.
                if world.random.chance(0.5) && world.nodes[host].is_some() {
                    world.answer_hanging(host);
                }
            }
            world.run(10);
        }
    }
}

fn roll(seed: u8, balancing: Balancing, rules: Rules) {
    let context = format!("seed {seed}, {balancing:?}, {rules:?}");
    let mut world = World::of_three(seed, ServiceConfig { balancing, ..ServiceConfig::default() });
    world.rules = rules;
    let mut load = Load::default();
    load.run(&mut world, 200);
    for host in SERVERS {
        let now = world.now;
        world.node(host).drain(now);
        let began = world.now;
        while !world.drained_at.contains(&host) {
            load.run(&mut world, 10);
            let took = world.now.since(began);
            assert!(took < Duration::from_secs(20), "{context}: {host} does not drain");
        }
        world.kill(host);
        let away = 20 + world.random.below(400);
        load.run(&mut world, away);
        world.start(host);
        world.drained_at.clear();
        load.run(&mut world, 300);
    }
    let ended = world.run_until(60_000, |world| {
        load.turn(world, false);
        SERVERS.into_iter().for_each(|host| world.answer_hanging(host));
        load.under_way.is_empty()
    });
    assert!(ended, "{context}: {:?} do not end", load.under_way);
    assert!(load.failures.is_empty(), "{context}: {:?}", load.failures);
    assert_eq!(load.begun, load.ended, "{context}");
    let once = |(method, _): &&(String, Bytes)| *method == ECHO.name() || *method == HANG.name();
    let ran: Vec<_> = world.ran.iter().filter(once).collect();
    let different: BTreeSet<_> = ran.iter().collect();
    assert_eq!(ran.len(), different.len(), "{context}: a call ran twice");
    assert_eq!(world.handlers.started - world.handlers.stopped, world.handlers.started);
}

/// More of them: `STUBBORN_ROLLS=100 cargo test --release -p stubborn-core --test calls rolling`.
fn roll_with(balancing: &Balancing) {
    let good = Rules::default();
    let late = Rules { jitter: Duration::from_millis(30), duplicate: 0.1, ..good };
    let bad = Rules { loss: 0.1, ..late };
    let more = std::env::var("STUBBORN_ROLLS").ok().and_then(|rolls| rolls.parse().ok());
    for seed in 1..=more.unwrap_or(1) {
        for rules in [good, late, bad] {
            roll(seed, balancing.clone(), rules);
        }
    }
}

#[test]
fn a_rolling_restart_fails_no_call_of_a_channel_that_uses_one_server_after_the_other() {
    roll_with(&Balancing::PickFirst);
}

#[test]
fn a_rolling_restart_fails_no_call_with_round_robin() {
    roll_with(&Balancing::RoundRobin);
}

#[test]
fn a_rolling_restart_fails_no_call_with_the_power_of_two_choices() {
    roll_with(&Balancing::least_outstanding());
}

#[test]
fn a_rolling_restart_fails_no_call_with_a_ring() {
    roll_with(&Balancing::ring_hash());
}

#[test]
fn a_server_that_drains_waits_for_a_request_that_was_sent_before_its_client_heard() {
    let mut world = World::of_three(9, ServiceConfig::default());
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    // The request is lost; what tells that the server drains arrives.
    world.rules.loss = 1.0;
    let late = world.call(&ECHO, b"late", None);
    world.settle();
    world.rules.loss = 0.0;
    world.run(1_000);
    world.results.clear();
    let now = world.now;
    world.rules.loss = 1.0;
    let later = world.call(&ECHO, b"later", None);
    world.settle();
    world.rules.loss = 0.0;
    world.node(SERVER).drain(now);
    world.settle();
    assert!(world.drained_at.is_empty(), "it cannot know what is on its way");
    assert!(world.run_until(5_000, |w| !w.drained_at.is_empty()));
    world.kill(SERVER);
    assert_eq!(world.result_within(later, 5_000).unwrap(), "later");
    assert_eq!(world.ran_at, [SERVER, SERVER, SERVER], "it was on its way");
    let _ = late;
}

#[test]
fn a_client_that_is_silent_or_gone_holds_a_drain_up_for_seconds_only() {
    for gone in [false, true] {
        let mut world = World::of_three(10, ServiceConfig::default());
        let first = world.call(&ECHO, b"first", None);
        world.result(first).unwrap();
        world.run(1_000);
        world.rules.alone = Some(SERVER);
        if gone {
            world.run(60_000);
        }
        let now = world.now;
        world.node(SERVER).drain(now);
        let drained = world.run_until(if gone { 1_000 } else { 10_000 }, |w| w.drained);
        assert!(drained, "gone: {gone}");
    }
}

fn reserved(world: &mut World) -> CallId {
    let (now, channel) = (world.now, world.channel);
    let reservation = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&reservation)));
    world.reserved.remove(&reservation).unwrap().unwrap()
}

#[test]
fn a_number_that_was_reserved_at_a_server_that_drains_may_be_used_there_for_a_second() {
    let mut world = World::of_three(11, ServiceConfig::default());
    let id = reserved(&mut world);
    let now = world.now;
    world.node(SERVER).drain(now);
    world.run(700);
    assert!(!world.drained, "the number may be used yet");
    let next = world.call(&ECHO, b"other", None);
    world.result(next).unwrap();
    let call = world.call_with(&ECHO, Bytes::from_static(b"x"), None, Some(id));
    assert_eq!(world.result_within(call, 1_000).unwrap(), "x");
    assert!(world.run_until(500, |w| w.drained), "nothing more is waited for");
    assert_eq!(world.ran_at, [SPARE, SERVER]);
}

#[test]
fn a_number_that_was_reserved_at_a_server_that_drains_holds_nobody_up_for_long() {
    let mut world = World::of_three(11, ServiceConfig::default());
    let id = reserved(&mut world);
    let now = world.now;
    world.node(SERVER).drain(now);
    assert!(world.run_until(1_500, |w| w.drained));
    let call = world.call_with(&ECHO, Bytes::from_static(b"x"), None, Some(id));
    let error = world.result_within(call, 1_000).unwrap_err();
    let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
    assert_eq!(why.reason, NotExecutedReason::Draining);
    assert_eq!(error.call_id(), Some(id));
    let next = world.call(&ECHO, b"y", None);
    world.result_within(next, 1_000).unwrap();
    assert!(world.ran_at.iter().all(|at| [SPARE, THIRD].contains(at)));
}

#[test]
fn a_client_that_dies_after_it_heard_that_its_server_drains_is_not_waited_for() {
    let mut world = World::of_three(12, ServiceConfig::default());
    // It does not leave at once, and has acknowledged all that it was told.
    reserved(&mut world);
    let now = world.now;
    world.node(SERVER).drain(now);
    world.run(300);
    world.rules.alone = Some(SERVER);
    assert!(world.run_until(6_000, |w| w.drained), "its client is dead");
}
