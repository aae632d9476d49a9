//! What a caller learns on a good path.

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::service::{CallState, Code, Outcome};
use stubborn_core::session::{CallId, NotExecutedReason};

use crate::world::{AGAIN, BEAT, ECHO, FAIL, READ, Rules, SLOW, World};

#[test]
fn a_call_runs_once_and_its_reply_comes_back() {
    let mut world = World::new(1);
    let call = world.call(&ECHO, b"hello", None);
    assert_eq!(world.result(call).unwrap(), "hello");
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn what_the_handler_refuses_is_executed_with_its_status() {
    let mut world = World::new(2);
    let call = world.call(&FAIL, b"", None);
    let error = world.result(call).unwrap_err();
    assert_eq!(error.status().map(|status| status.code()), Some(Code::NotFound));
    assert_eq!(error.to_string(), "test.Echo/Fail at 10.0.0.2:7400: not found: no such thing");
}

#[test]
fn reads_idempotent_and_maybe_calls_work_beside_numbered_ones() {
    let mut world = World::new(3);
    let first = world.call(&ECHO, b"1", None);
    world.result(first).unwrap();
    let calls = [&READ, &AGAIN, &BEAT].map(|method| world.call(method, b"x", None));
    for call in calls {
        world.result(call).unwrap();
    }
    world.run(100);
    assert_eq!(world.ran.len(), 4);
}

#[test]
fn a_channel_without_a_session_carries_reads_across_a_restart_and_refuses_what_takes_a_slot() {
    let mut world = World::new(12);
    world.run(1_000);
    let sessions = world.server().sessions();
    world.open_channel_without_session();
    let read = world.call(&READ, b"x", None);
    world.result(read).unwrap();
    let beat = world.call(&BEAT, b"x", None);
    world.result(beat).unwrap();
    let numbered = world.call(&ECHO, b"x", None);
    let error = world.result(numbered).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(world.server().sessions(), sessions);
    world.kill(1);
    world.start_server();
    let read = world.call(&READ, b"y", None);
    world.result(read).unwrap();
    let (now, channel) = (world.now, world.channel);
    world.client().close_channel(now, channel);
    world.run(1_000);
    assert_eq!(world.client().links(), 1, "only the first channel's is left");
}

#[test]
fn a_thousand_calls_at_once_all_return_their_own_reply() {
    let mut world = World::new(4);
    let calls: Vec<_> = (0..3_000u32)
        .map(|n| (n, world.call_with(&ECHO, Bytes::from(n.to_string()), None, None)))
        .collect();
    for (n, call) in calls {
        assert_eq!(world.result(call).unwrap(), n.to_string());
    }
    assert_eq!(world.ran.len(), 3_000);
}

#[test]
fn the_id_is_known_before_anything_is_sent_and_asks_for_the_outcome_later() {
    let mut world = World::new(5);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    assert!(world.ran.is_empty());
    let call = world.call_with(&ECHO, Bytes::from_static(b"x"), None, Some(id));
    world.result(call).unwrap();
    assert!(
        matches!(world.outcome(id), CallState::Replied(reply) if reply.reply.body.clone().into_bytes() == "x")
    );
}

#[test]
fn a_reserved_number_that_is_not_used_is_fenced_and_never_given_to_another_call() {
    let mut world = World::new(6);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let now = world.now;
    world.client().abandon_reserved(now, channel, id);
    world.run(100);
    assert!(matches!(world.outcome(id), CallState::NotExecuted(_)));
    let call = world.call(&ECHO, b"x", None);
    world.result(call).unwrap();
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_deadline_that_passes_while_the_handler_runs_leaves_the_call_pending_and_its_outcome_available()
{
    let mut world = World::new(7);
    let call = world.call(&SLOW, b"x", Some(200));
    let error = world.result(call).unwrap_err();
    let Outcome::Pending(id) = *error.outcome() else { panic!("{error}") };
    assert!(matches!(world.outcome(id), CallState::Executing));
    world.answer_slow();
    world.run(100);
    assert!(matches!(world.outcome(id), CallState::Replied(_)));
}

#[test]
fn a_deadline_that_passes_before_a_server_is_reached_means_not_executed() {
    let mut world = World::new(8);
    world.rules.cut = true;
    let call = world.call(&ECHO, b"x", Some(200));
    let error = world.result(call).unwrap_err();
    assert!(
        matches!(error.outcome(), Outcome::NotExecuted(why) if why.reason == NotExecutedReason::Deadline),
        "{error}"
    );
    world.rules.cut = false;
    world.run(20_000);
    assert!(world.ran.is_empty());
}

#[test]
fn dropping_a_call_that_runs_lets_it_run_to_its_end() {
    let mut world = World::new(9);
    let call = world.call(&SLOW, b"x", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    let now = world.now;
    world.client().abandon(now, call);
    world.run(100);
    assert_eq!((world.cancelled, world.slow.len()), (0, 1));
    world.answer_slow();
    world.run(100);
    assert!(world.results.is_empty());
}

#[test]
fn slots_bound_the_calls_in_flight_and_the_rest_waits() {
    let mut world = World::with_limits(10, Limits { slots: 2, ..Limits::default() });
    let calls: Vec<_> = (0..5).map(|_| world.call(&SLOW, b"x", None)).collect();
    world.run(500);
    assert_eq!(world.slow.len(), 2);
    for _ in 0..5 {
        assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
        world.answer_slow();
    }
    for call in calls {
        world.result(call).unwrap();
    }
}

#[test]
fn slots_taken_back_under_load_still_settle_and_lifted_again_serve_more() {
    let mut world = World::with_limits(11, Limits { slots: 64, ..Limits::default() });
    let calls: Vec<_> = (0..64).map(|_| world.call(&SLOW, b"x", None)).collect();
    assert!(world.run_until(1_000, |w| w.slow.len() == 64));
    let now = world.now;
    world.server().limit_slots(now, 4);
    while !world.slow.is_empty() {
        world.answer_slow();
    }
    for call in calls {
        world.result(call).unwrap();
    }
    world.run(500);
    let calls: Vec<_> = (0..8).map(|_| world.call(&SLOW, b"x", None)).collect();
    world.run(500);
    assert_eq!(world.slow.len(), 4);
    for _ in 0..8 {
        assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
        world.answer_slow();
    }
    for call in calls {
        world.result(call).unwrap();
    }
}

#[test]
fn a_request_above_the_servers_limit_is_not_executed_and_says_so() {
    let mut world = World::with_limits(12, Limits { message: 100_000, ..Limits::default() });
    let call = world.call_with(&ECHO, Bytes::from(vec![7; 100_001]), None, None);
    let error = world.result(call).unwrap_err();
    assert!(
        matches!(error.outcome(), Outcome::NotExecuted(why) if why.reason == NotExecutedReason::TooLarge),
        "{error}"
    );
}

#[test]
fn a_large_message_passes_both_ways_unaltered() {
    let mut world = World::new(13);
    let body: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let call = world.call_with(&ECHO, Bytes::from(body.clone()), None, None);
    assert_eq!(world.result(call).unwrap(), body);
}

#[test]
fn the_outcome_of_a_call_of_an_unknown_session_is_lost() {
    let mut world = World::new(14);
    let call = world.call(&ECHO, b"x", None);
    world.result(call).unwrap();
    let id: CallId = "abc.1-0-1".parse().unwrap();
    assert!(matches!(world.outcome(id), CallState::Lost));
}

#[test]
fn a_draining_server_executes_no_new_call_and_leaves_when_replies_are_released() {
    let mut world = World::new(15);
    let slow = world.call(&SLOW, b"x", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    let now = world.now;
    world.server().drain(now);
    world.run(50);
    let late = world.call(&ECHO, b"late", Some(1_000));
    let error = world.result(late).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert!(!world.drained);
    world.answer_slow();
    world.result(slow).unwrap();
    assert!(world.run_until(2_000, |w| w.drained));
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn more_large_messages_at_once_than_may_be_assembled_all_end_also_with_loss() {
    for (seed, assembly, receive_window, size) in
        [(31, 1 << 20, 512 << 10, 100 << 10), (32, 64 << 10, 256 << 10, 300 << 10)]
    {
        let limits = Limits { assembly, receive_window, ..Limits::default() };
        let mut world = World::with_limits(seed, limits);
        world.rules = Rules { loss: 0.05, ..Rules::default() };
        let size = |n: u8| if n.is_multiple_of(3) { 3000 } else { size };
        let bodies: Vec<_> = (0..60u8).map(|n| Bytes::from(vec![n; size(n)])).collect();
        let calls: Vec<_> =
            bodies.iter().map(|body| world.call_with(&ECHO, body.clone(), None, None)).collect();
        for (body, call) in bodies.iter().zip(calls) {
            assert_eq!(&world.result(call).unwrap(), body);
        }
    }
}
