//! Several servers of one service: which one is used, and what is never moved between them.

use bytes::Bytes;
use stubborn_core::node::{CallKey, ServiceConfig, SessionTicket};
use stubborn_core::service::{CallState, Outcome};
use stubborn_core::session::CallId;
use stubborn_core::time::Duration;

use crate::world::{AGAIN, ECHO, READ, SERVER, SLOW, SPARE, THIRD, World, outgoing};

fn two_servers(seed: u8) -> World {
    let mut world = World::new(seed);
    world.start(SPARE);
    world.set_targets(&[SERVER, SPARE]);
    world
}

#[test]
fn a_dead_server_is_left_behind_and_the_next_one_is_used() {
    let mut world = two_servers(40);
    world.kill(SERVER);
    let call = world.call(&ECHO, b"x", None);
    assert_eq!(world.result_within(call, 10_000).unwrap(), "x");
    assert_eq!(world.ran_at, [SPARE]);
}

#[test]
fn a_channel_that_waits_for_a_server_goes_on_trying_though_no_call_asks_for_it() {
    let mut world = World::new(44);
    world.kill(SERVER);
    world.open_channel_that_waits();
    world.run(30_000);
    assert!(world.tickets.is_empty());
    world.start(SERVER);
    world.run(3_000);
    assert_eq!(world.tickets.len(), 1, "it has a session");
}

#[test]
fn a_call_in_flight_at_a_dead_server_is_never_sent_to_another_one() {
    let mut world = two_servers(41);
    let stuck = world.call(&SLOW, b"stuck", Some(20_000));
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.kill(SERVER);
    let read = world.call(&READ, b"read", None);
    world.run(2_000);
    let next = world.patient_call(&ECHO, b"next");
    assert_eq!(world.result_within(read, 15_000).unwrap(), "read");
    assert_eq!(world.result_within(next, 15_000).unwrap(), "next");
    let error = world.result_within(stuck, 25_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Pending(_)), "{error}");
    assert_eq!(world.ran_at, [SERVER, SPARE, SPARE]);
}

#[test]
fn when_the_dead_server_returns_its_calls_in_flight_are_lost_and_not_before() {
    let mut world = two_servers(42);
    let stuck = world.call(&SLOW, b"stuck", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.kill(SERVER);
    world.run(20_000);
    assert!(world.results.is_empty());
    world.start(SERVER);
    let error = world.result_within(stuck, 3_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
}

#[test]
fn a_draining_server_sends_new_calls_elsewhere_and_ends_those_it_has() {
    let mut world = two_servers(43);
    let first = world.call(&ECHO, b"first", None);
    let slow = world.call(&SLOW, b"slow", None);
    world.result(first).unwrap();
    let now = world.now;
    world.server().drain(now);
    world.run(50);
    let next = world.call(&ECHO, b"next", None);
    assert_eq!(world.result_within(next, 5_000).unwrap(), "next");
    world.answer_slow();
    assert_eq!(world.result(slow).unwrap(), "slow");
    assert_eq!(world.ran_at, [SERVER, SERVER, SPARE]);
    assert!(world.run_until(5_000, |w| w.drained));
}

#[test]
fn a_patient_call_outlives_every_server_being_away_for_minutes() {
    let mut world = two_servers(44);
    world.kill(SERVER);
    world.kill(SPARE);
    let call = world.patient_call(&ECHO, b"x");
    world.run(180_000);
    assert!(world.results.is_empty());
    world.start(SPARE);
    assert_eq!(world.result_within(call, 6_000).unwrap(), "x");
}

#[test]
fn a_server_that_is_no_target_any_more_still_settles_its_calls() {
    let mut world = two_servers(45);
    let slow = world.call(&SLOW, b"slow", None);
    assert!(world.run_until(1_000, |w| !w.slow.is_empty()));
    world.set_targets(&[SPARE]);
    let next = world.call(&ECHO, b"next", None);
    assert_eq!(world.result_within(next, 5_000).unwrap(), "next");
    world.answer_slow();
    assert_eq!(world.result(slow).unwrap(), "slow");
    world.run(2_000);
    assert_eq!(world.server().sessions(), 0, "the session was closed");
}

#[test]
fn a_server_that_never_had_a_session_does_not_make_its_calls_lost() {
    let mut world = two_servers(46);
    let first = world.call(&ECHO, b"x", None);
    world.result(first).unwrap();
    let (now, channel) = (world.now, world.channel);
    let key = world.client().outcome(now, channel, "abc.1-0-1".parse().unwrap(), None);
    assert!(world.run_until(5_000, |w| w.outcomes.contains_key(&key)));
    let error = world.outcomes.remove(&key).unwrap().unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Pending(_)), "{error}");
}

#[test]
fn a_question_goes_to_the_server_that_has_the_session_and_its_restart_answers_it() {
    let mut world = two_servers(47);
    let call = world.call(&SLOW, b"x", Some(100));
    let error = world.result_within(call, 5_000).unwrap_err();
    let Outcome::Pending(id) = *error.outcome() else { panic!("{error}") };
    world.set_targets(&[SPARE, SERVER]);
    let now = world.now;
    world.server().drain(now);
    world.run(100);
    let other = world.call(&ECHO, b"y", None);
    world.result(other).unwrap();
    assert!(matches!(world.outcome(id), CallState::Executing));
    world.kill_server();
    world.start(SERVER);
    world.run(3_000);
    assert!(matches!(world.outcome(id), CallState::Lost));
}

/// Two servers, the first of which dies with an idempotent call of so many bytes in flight; the
/// client uses the other one, and the first starts again but takes no session.
fn with_an_idempotent_call_at_a_server_that_drains(seed: u8, bytes: usize) -> (World, CallKey) {
    let mut world = two_servers(seed);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.delay = Duration::from_millis(50);
    let call = world.call_with(&AGAIN, Bytes::from(vec![1; bytes]), None, None);
    world.run(20);
    world.kill_server();
    let read = world.patient_call(&READ, b"read");
    assert_eq!(world.result_within(read, 15_000).unwrap(), "read");
    // Past the idle timeout: nothing but new attempts leads to the dead server.
    world.run(40_000);
    assert!(world.results.is_empty());
    world.start(SERVER);
    let now = world.now;
    world.server().drain(now);
    (world, call)
}

#[test]
fn an_idempotent_call_that_was_never_wholly_sent_goes_to_the_server_that_is_ready() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_drains(48, 8_000_000);
    world.result_within(call, 10_000).unwrap();
    assert_eq!(world.ran_at, [SERVER, SPARE, SPARE]);
}

#[test]
fn an_idempotent_call_that_may_have_run_does_not_cross_to_another_server() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_drains(49, 10);
    let error = world.result_within(call, 10_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    assert_eq!(world.ran_at, [SERVER, SPARE]);
}

/// Three servers, the first of which dies with an idempotent call in flight that it may have run. The
/// channel uses the others meanwhile.
fn with_an_idempotent_call_at_a_server_that_died(seed: u8) -> (World, CallKey) {
    let mut world = World::of_three(seed, ServiceConfig::default());
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.delay = Duration::from_millis(50);
    let call = world.patient_call(&AGAIN, b"again");
    world.run(20);
    world.kill(SERVER);
    let read = world.patient_call(&READ, b"read");
    assert_eq!(world.result_within(read, 15_000).unwrap(), "read");
    (world, call)
}

#[test]
fn an_idempotent_call_that_may_have_run_waits_for_its_server_though_others_are_ready() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_died(71);
    world.run(5_000);
    assert!(world.results.is_empty());
    world.start(SERVER);
    assert_eq!(world.result_within(call, 10_000).unwrap(), "again");
    let again =
        world.ran.iter().zip(&world.ran_at).filter(|((method, _), _)| *method == AGAIN.name());
    assert!(again.map(|(_, host)| *host).eq([SERVER]), "{:?}", world.ran_at);
}

#[test]
fn an_idempotent_call_that_waits_for_its_server_is_lost_when_that_is_no_target_any_more() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_died(72);
    world.start(SERVER);
    let now = world.now;
    world.server().drain(now);
    world.run(3_000);
    assert!(world.results.is_empty());
    world.set_targets(&[SPARE, THIRD]);
    let error = world.result_within(call, 10_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
}

/// Seeds 476 and 563 of `stubborn sim`: a liar in the place of a server.
#[test]
fn an_idempotent_call_that_may_have_run_crosses_to_nobody_when_a_replica_takes_its_servers_place() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_died(74);
    world.run(2_000);
    world.pose_as_replica(SERVER);
    let error = world.result_within(call, 20_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    world.run(10_000);
    assert!(world.ran.iter().all(|(method, _)| *method != AGAIN.name()), "{:?}", world.ran);
}

#[test]
fn an_idempotent_call_that_waits_for_its_server_is_lost_when_a_replica_takes_its_place() {
    let (mut world, call) = with_an_idempotent_call_at_a_server_that_died(75);
    world.start(SERVER);
    let now = world.now;
    world.server().drain(now);
    world.run(3_000);
    assert!(world.results.is_empty());
    world.kill(SERVER);
    world.pose_as_replica(SERVER);
    let error = world.result_within(call, 20_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
}

#[test]
fn an_idempotent_call_that_waits_for_its_server_ends_at_its_deadline() {
    let mut world = two_servers(73);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.delay = Duration::from_millis(50);
    let now = world.now;
    let mut call = outgoing(&AGAIN, Bytes::from_static(b"again"));
    (call.deadline, call.wait_for_ready) = (Some(Duration::from_secs(20)), Some(true));
    let channel = world.channel;
    let call = world.client().call(now, channel, call);
    world.run(20);
    world.kill(SERVER);
    world.start(SERVER);
    let now = world.now;
    world.server().drain(now);
    world.run(10_000);
    assert!(world.results.is_empty());
    let error = world.result_within(call, 15_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    assert_eq!(world.ran_at, [SERVER]);
}

#[test]
fn an_idempotent_call_that_waits_to_run_again_ends_when_its_server_is_replaced() {
    let mut world = World::new(50);
    world.start(SPARE);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.kill_server();
    let call = world.patient_call(&AGAIN, b"again");
    world.run(1_000);
    world.start(SERVER);
    let now = world.now;
    world.server().drain(now);
    world.run(1_000);
    world.set_targets(&[SPARE]);
    let error = world.result_within(call, 10_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    world.run(10_000);
    assert_eq!(world.ran_at, [SERVER]);
}

/// A world with two servers, and the ticket of a session at the second one in which a call ran.
fn with_session_at_spare(seed: u8) -> (World, SessionTicket) {
    let mut world = World::new(seed);
    world.start(SPARE);
    world.set_targets(&[SPARE]);
    let call = world.call(&ECHO, b"before", None);
    world.result(call).unwrap();
    let ticket = world.tickets.last().unwrap().clone();
    (world, ticket)
}

fn resume_at(world: &mut World, ticket: &SessionTicket, hosts: &[usize]) {
    world.open_channel_with(Some(ticket.clone()));
    world.set_targets(hosts);
}

#[test]
fn a_resumed_session_is_looked_for_at_each_address() {
    for first_lives in [true, false] {
        let (mut world, ticket) = with_session_at_spare(60);
        if !first_lives {
            world.kill_server();
        }
        resume_at(&mut world, &ticket, &[SERVER, SPARE]);
        let call = world.call(&ECHO, b"again", None);
        world.result_within(call, 10_000).unwrap();
        assert_eq!(world.ran_at, [SPARE, SPARE]);
        assert_eq!(world.tickets.last().unwrap().session, ticket.session);
    }
}

#[test]
fn a_session_that_no_address_has_is_lost_and_calls_go_on() {
    let (mut world, ticket) = with_session_at_spare(61);
    world.kill(SPARE);
    world.start(SPARE);
    resume_at(&mut world, &ticket, &[SERVER, SPARE]);
    let call = world.call(&ECHO, b"again", None);
    world.result_within(call, 2_000).unwrap();
    assert_eq!(world.ran.len(), 2);
    let id = CallId { session: ticket.session, slot: 0, sequence: 1 };
    assert!(matches!(world.outcome(id), CallState::Lost));
}

#[test]
fn a_session_whose_server_is_away_is_still_there_when_it_comes_back() {
    let (mut world, ticket) = with_session_at_spare(62);
    let spare = world.take(SPARE);
    resume_at(&mut world, &ticket, &[SPARE, SERVER]);
    let call = world.call(&ECHO, b"meanwhile", None);
    world.result_within(call, 10_000).unwrap();
    assert_eq!(world.ran_at, [SPARE, SERVER]);
    world.put_back(SPARE, spare);
    let id = CallId { session: ticket.session, slot: 0, sequence: 1 };
    let outcome = world.outcome(id);
    assert!(matches!(outcome, CallState::Replied(_) | CallState::AlreadySettled), "{outcome:?}");
}
