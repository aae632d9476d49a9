//! A server of several workers: a session is found again on the one that keeps it.

use stubborn_core::service::{CallState, Outcome};

use crate::world::{ECHO, SERVER, SLOW, SPARE, World};

/// Longer than the idle timeout, shorter than a client's patience with an unreachable server.
const OUTAGE: u64 = 40_000;

/// Makes a call and returns the worker that it ran on.
fn echo(world: &mut World) -> usize {
    let call = world.call(&ECHO, b"x", None);
    world.result(call).unwrap();
    *world.ran_at.last().unwrap()
}

#[test]
fn channels_to_one_server_spread_evenly_over_its_workers() {
    for seed in 60..64 {
        let mut world = World::with_workers(seed);
        echo(&mut world);
        for _ in 1..6 {
            world.open_channel();
            echo(&mut world);
        }
        let first = world.ran_at.iter().filter(|host| **host == SERVER).count();
        assert_eq!(first, 3, "seed {seed}: {:?}", world.ran_at);
    }
}

#[test]
fn a_new_connection_attaches_to_the_session_on_the_worker_that_keeps_it() {
    for seed in 64..68 {
        let mut world = World::with_workers(seed);
        let worker = echo(&mut world);
        for _ in 0..3 {
            let call = world.call(&ECHO, b"during the outage", None);
            world.rules.cut = true;
            world.run(OUTAGE);
            world.rules.cut = false;
            assert_eq!(world.result_within(call, 3_000).unwrap(), "during the outage");
        }
        assert_eq!(world.ran_at, [worker; 4], "seed {seed}");
    }
}

#[test]
fn a_client_that_misses_the_worker_of_its_session_has_lost_nothing_and_finds_it() {
    for seed in 68..72 {
        let mut world = World::with_workers(seed);
        let worker = echo(&mut world);
        let call = world.call(&ECHO, b"x", None);
        world.rules.cut = true;
        world.run(OUTAGE);
        world.rules.cut = false;
        world.rules.astray = true;
        assert_eq!(world.result_within(call, 5_000).unwrap(), "x", "seed {seed}");
        assert_eq!(world.ran_at, [worker; 2], "seed {seed}");
    }
}

#[test]
fn a_session_is_taken_over_by_another_channel_on_the_worker_that_keeps_it() {
    let mut world = World::with_workers(75);
    let worker = echo(&mut world);
    let ticket = world.tickets[0].clone();
    for _ in 0..4 {
        world.open_channel_with(Some(ticket.clone()));
        assert_eq!(echo(&mut world), worker);
        assert_eq!(world.tickets.last().unwrap().session, ticket.session);
    }
}

#[test]
fn after_a_restart_of_all_workers_calls_in_flight_are_lost_at_once() {
    let mut world = World::with_workers(72);
    echo(&mut world);
    let call = world.call(&SLOW, b"x", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.restart_workers();
    let error = world.result_within(call, 3_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    echo(&mut world);
}

#[test]
fn an_outcome_can_be_asked_for_on_a_connection_to_another_worker() {
    let mut world = World::with_workers(73);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let call = world.call_with(&ECHO, "kept".into(), None, Some(id));
    world.result(call).unwrap();
    let ticket = world.tickets[0].clone();
    for _ in 0..2 {
        world.open_channel();
        echo(&mut world);
        let found = world.outcome_with(id, Some(ticket.clone()));
        assert!(
            matches!(found, CallState::Replied(reply) if reply.reply.body.clone().into_bytes() == "kept")
        );
    }
    let asked: Vec<_> = world.ran_at.iter().skip(1).copied().collect();
    assert!(asked.contains(&SERVER) && asked.contains(&SPARE), "both workers were asked");
}

#[test]
fn another_worker_does_not_answer_whoever_has_no_right_to_the_session() {
    let mut world = World::with_workers(74);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let call = world.call_with(&ECHO, "kept".into(), None, Some(id));
    world.result(call).unwrap();
    world.open_channel();
    echo(&mut world);
    let mut ticket = world.tickets[0].clone();
    ticket.secret = world.tickets[1].secret.clone();
    let (now, channel) = (world.now, world.channel);
    let question = world.client().outcome(now, channel, id, Some(ticket));
    assert!(world.run_until(5_000, |w| w.outcomes.contains_key(&question)));
    let error = world.outcomes.remove(&question).unwrap().unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Pending(id), "{error}");
}
