//! What a caller learns when the path or the server fails.

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::node::{Balancing, ChannelEvent, ServiceConfig};
use stubborn_core::service::{CallState, Outcome};
use stubborn_core::time::Duration;

use crate::world::{AGAIN, ECHO, READ, Rules, SERVER, SLOW, SLOW_READ, SPARE, World};

#[test]
fn every_call_runs_once_over_a_path_that_loses_and_doubles() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.rules = Rules {
            loss: 0.2,
            duplicate: 0.1,
            jitter: Duration::from_millis(20),
            ..Rules::default()
        };
        let calls: Vec<_> = (0..200u32)
            .map(|n| (n, world.call_with(&ECHO, Bytes::from(n.to_string()), None, None)))
            .collect();
        for (n, call) in calls {
            assert_eq!(world.result(call).unwrap(), n.to_string(), "seed {seed}");
        }
        assert_eq!(world.ran.len(), 200, "seed {seed}");
    }
}

#[test]
fn a_call_in_flight_when_the_path_breaks_for_30_s_is_settled_within_2_s_of_its_return() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let first = world.call(&ECHO, b"first", None);
        world.result(first).unwrap();
        world.rules.cut = true;
        let call = world.call(&ECHO, b"x", None);
        world.run(30_000 + u64::from(seed) * 137);
        assert!(world.results.is_empty());
        world.rules.cut = false;
        assert_eq!(world.result_within(call, 2_000).unwrap(), "x", "seed {seed}");
        assert_eq!(world.ran.len(), 2);
    }
}

#[test]
fn a_reply_lost_with_its_connection_is_answered_from_memory() {
    let mut world = World::new(30);
    let call = world.call(&SLOW, b"x", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.rules.cut = true;
    world.answer_slow();
    world.run(40_000);
    world.rules.cut = false;
    assert_eq!(world.result_within(call, 2_000).unwrap(), "x");
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn after_a_restart_calls_in_flight_are_lost_at_once_and_the_next_call_works() {
    let mut world = World::new(31);
    let call = world.call(&SLOW, b"x", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.kill_server();
    world.run(500);
    world.start_server();
    let error = world.result_within(call, 500).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    let next = world.call(&ECHO, b"next", None);
    assert_eq!(world.result_within(next, 500).unwrap(), "next");
    assert_eq!(world.ran.len(), 2);
}

#[test]
fn who_waits_for_a_slot_notices_that_the_server_has_restarted() {
    let servers =
        [(&[SERVER][..], Balancing::default()), (&[SERVER, SPARE], Balancing::RoundRobin)];
    for (hosts, balancing) in servers {
        // A server grants at least one slot, which this client has no place for.
        let limits = Limits { slots: 0, ..Limits::default() };
        let mut world = World::with_limits(33, limits);
        world.start(SPARE);
        world.open_channel_to(hosts, ServiceConfig { balancing, ..ServiceConfig::default() });
        world.run(500);
        world.call(&ECHO, b"x", None);
        world.run(2_000);
        world.kill_server();
        world.run(500);
        world.start_server();
        world.channel_events.clear();
        let ready = |event: &_| matches!(event, ChannelEvent::Ready { .. });
        assert!(world.run_until(2_000, |world| world.channel_events.iter().any(ready)));
    }
}

#[test]
fn after_a_restart_a_call_that_was_never_wholly_sent_is_not_executed() {
    let mut world = World::new(32);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.delay = Duration::from_millis(50);
    let call = world.call_with(&ECHO, Bytes::from(vec![1; 8_000_000]), None, None);
    world.run(200);
    world.kill_server();
    world.run(200);
    world.start_server();
    let error = world.result_within(call, 5_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn after_a_restart_an_idempotent_call_runs_again_by_itself() {
    let mut world = World::new(33);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.kill_server();
    let call = world.call(&AGAIN, b"again", None);
    let read = world.call(&READ, b"read", None);
    world.run(500);
    world.start_server();
    assert_eq!(world.result_within(call, 2_500).unwrap(), "again");
    assert_eq!(world.result_within(read, 2_500).unwrap(), "read");
}

#[test]
fn an_idempotent_call_that_may_have_run_is_lost_when_its_next_copy_is_not_sent_whole() {
    let mut world = World::new(37);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    let call = world.call_with(&AGAIN, vec![1; 2 << 20].into(), Some(3_000), None);
    assert!(world.run_until(2_000, |w| w.ran.len() == 2));
    world.kill_server();
    world.start_server();
    assert!(world.run_until(2_500, |w| w.server().footprint().assembling > 0));
    world.rules.cut = true;
    let error = world.result_within(call, 6_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost), "{error}");
}

#[test]
fn an_unreachable_server_makes_a_sent_call_pending_at_its_deadline_and_settles_it_later() {
    let mut world = World::new(34);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.rules.cut = true;
    let call = world.call(&ECHO, b"x", Some(100));
    let error = world.result_within(call, 700).unwrap_err();
    let Outcome::Pending(id) = *error.outcome() else { panic!("{error}") };
    world.rules.cut = false;
    world.run(3_000);
    // The request itself was retransmitted and ran, or the fence came first: either is an answer.
    match world.outcome(id) {
        CallState::Replied(_) => assert_eq!(world.ran.len(), 2),
        CallState::NotExecuted(_) => assert_eq!(world.ran.len(), 1),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_never_was_there_fails_the_call_as_not_executed() {
    let mut world = World::new(35);
    world.kill_server();
    let call = world.call(&ECHO, b"x", None);
    let error = world.result_within(call, 10_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    world.start_server();
    world.run(20_000);
    assert!(world.ran.is_empty());
}

#[test]
fn a_read_that_was_sent_twice_is_not_said_to_be_not_executed_when_one_copy_is_refused() {
    let mut world = World::new(36);
    let read = world.patient_call(&SLOW_READ, b"x");
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.rules.cut = true;
    // Past the idle timeout, so that only another connection can go on.
    world.run(40_000);
    world.refusing = vec![SERVER];
    world.rules.cut = false;
    let error = world.result_within(read, 5_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Unanswered, "{error}");
}
