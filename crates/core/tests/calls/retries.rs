//! Calls that are made again after they failed: which, where, when, how often; and hedged reads.

use bytes::Bytes;
use stubborn_core::node::{
    Again, Balancing, CallKey, ChannelCounters, Codes, HedgingPolicy, MethodConfig, MethodName,
    RetryPolicy, RetryThrottling, ServiceConfig,
};
use stubborn_core::service::{Answer, CallError, CallState, Code, Method, NotExecuted, Outcome};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Duration;

use crate::world::{AGAIN, ECHO, FAULT, HANG, READ, Rules, SERVER, SERVERS, SPARE, THIRD, World};

fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts: attempts, ..RetryPolicy::default() }
}

fn service(again: Again) -> ServiceConfig {
    let method = MethodConfig {
        names: vec![MethodName::Service("test.Echo".into())],
        timeout: None,
        wait_for_ready: None,
        again,
        idempotent_elsewhere: false,
    };
    ServiceConfig {
        balancing: Balancing::RoundRobin,
        throttling: None,
        methods: vec![method],
        ..ServiceConfig::default()
    }
}

fn retrying(seed: u8, attempts: u32) -> World {
    World::of_three(seed, service(Again::Retry(policy(attempts))))
}

fn counters(world: &mut World) -> ChannelCounters {
    let channel = world.channel;
    world.client().channel_counters(channel)
}

fn ends(world: &mut World, method: &Method, deadline: u64) -> Result<Bytes, CallError> {
    let call = world.call(method, b"x", Some(deadline));
    world.result(call)
}

#[test]
fn a_read_that_a_server_cannot_answer_goes_to_another_one() {
    let mut world = retrying(1, 4);
    world.lying = vec![SERVER, SPARE];
    for _ in 0..6 {
        ends(&mut world, &READ, 5_000).unwrap();
    }
    assert!(counters(&mut world).retries >= 4);
}

#[test]
fn attempts_are_bounded_and_the_last_status_is_the_result() {
    let mut world = retrying(2, 4);
    world.lying = SERVERS.to_vec();
    let error = ends(&mut world, &READ, 5_000).unwrap_err();
    assert_eq!(error.status().map(|status| status.code()), Some(Code::Unavailable), "{error}");
    assert_eq!(world.ran.len(), 4);
    let told: Vec<_> = world.previous_attempts.iter().map(Option::as_deref).collect();
    assert_eq!(told, [None, Some("1"), Some("2"), Some("3")]);
}

#[test]
fn an_idempotent_call_runs_again_at_the_server_that_executed_it_and_nowhere_else() {
    let mut world = retrying(3, 4);
    world.lying = SERVERS.to_vec();
    ends(&mut world, &AGAIN, 5_000).unwrap_err();
    assert_eq!(world.ran_at.len(), 4);
    assert!(world.ran_at.iter().all(|host| *host == world.ran_at[0]), "{:?}", world.ran_at);
}

#[test]
fn a_retry_that_never_arrives_leaves_the_outcome_of_the_attempt_before_it() {
    let mut world = retrying(23, 4);
    world.lying = SERVERS.to_vec();
    let call = world.call(&AGAIN, b"x", Some(5_000));
    // The answer arrives, and what follows it does not.
    assert!(world.run_until(1_000, |world| counters(world).retries == 1));
    world.rules.cut = true;
    world.run(8_000);
    let error = world.result(call).unwrap_err();
    let Outcome::Pending(id) = *error.outcome() else { panic!("{error}") };
    world.rules.cut = false;
    world.run(5_000);
    let state = world.outcome(id);
    assert!(matches!(&state, CallState::Executed(status) if status.code() == Code::Unavailable));
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn an_idempotent_call_runs_elsewhere_where_the_settings_say_so() {
    let mut config = service(Again::Retry(policy(4)));
    config.methods[0].idempotent_elsewhere = true;
    let mut world = World::of_three(4, config);
    world.lying = vec![SERVER, SPARE];
    for _ in 0..3 {
        ends(&mut world, &AGAIN, 5_000).unwrap();
    }
    assert_eq!(world.ran_at.last(), Some(&THIRD));
}

#[test]
fn a_call_with_side_effects_that_was_executed_is_never_made_again() {
    let mut world = retrying(5, 4);
    world.lying = SERVERS.to_vec();
    let error = ends(&mut world, &FAULT, 5_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Executed(_)), "{error}");
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_call_that_no_server_has_room_for_is_not_executed_by_the_word_of_each_that_was_tried() {
    let mut world = retrying(6, 3);
    world.refusing = SERVERS.to_vec();
    let error = ends(&mut world, &ECHO, 5_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    let mut tried = world.ran_at.clone();
    tried.sort_unstable();
    assert_eq!(tried, SERVERS);
    world.refusing = vec![SERVER, SPARE];
    world.ran_at.clear();
    ends(&mut world, &ECHO, 5_000).unwrap();
    assert_eq!(world.ran_at.last(), Some(&THIRD));
}

#[test]
fn a_call_that_was_refused_and_then_hangs_elsewhere_is_pending_and_not_not_executed() {
    let mut world = retrying(7, 3);
    world.refusing = vec![SERVER];
    let mut pending = 0;
    for _ in 0..6 {
        let error = ends(&mut world, &HANG, 1_000).unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Pending(_)), "{error}");
        pending += 1;
    }
    assert_eq!(pending, 6);
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed_and_one_that_says_never_too() {
    let mut world = retrying(8, 2);
    world.lying = SERVERS.to_vec();
    world.push_back = Some("700");
    let began = world.now;
    ends(&mut world, &READ, 5_000).unwrap_err();
    let took = world.now.since(began);
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(760), "{took:?}");
    assert_eq!(world.ran.len(), 2);
    for never in ["-1", "soon", ""] {
        world.push_back = Some(never);
        world.ran.clear();
        ends(&mut world, &READ, 5_000).unwrap_err();
        assert_eq!(world.ran.len(), 1, "{never:?}");
    }
}

#[test]
fn no_attempt_is_made_whose_pause_would_outlast_the_deadline() {
    let mut world = retrying(9, 5);
    world.lying = SERVERS.to_vec();
    let began = world.now;
    let error = ends(&mut world, &READ, 100).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Executed(_)), "{error}");
    assert!(world.now.since(began) < Duration::from_millis(100), "it ends when that is clear");
    assert_eq!(world.ran.len(), 2);
}

#[test]
fn retries_stop_when_the_budget_is_spent_and_go_on_after_enough_successes() {
    let mut config = service(Again::Retry(policy(5)));
    config.throttling = Some(RetryThrottling { max_tokens: 10, token_ratio: 500 });
    let mut world = World::of_three(10, config);
    world.lying = SERVERS.to_vec();
    for _ in 0..30 {
        ends(&mut world, &READ, 5_000).unwrap_err();
    }
    let spent = counters(&mut world);
    assert_eq!(spent.retries, 4, "six tokens are more than half of ten, five are not");
    assert_eq!(world.ran.len(), 34);
    assert!(spent.throttled >= 28);
    world.lying.clear();
    for _ in 0..20 {
        ends(&mut world, &READ, 5_000).unwrap();
    }
    world.lying = SERVERS.to_vec();
    ends(&mut world, &READ, 5_000).unwrap_err();
    assert!(counters(&mut world).retries > spent.retries);
}

#[test]
fn a_caller_that_leaves_during_a_pause_leaves_nothing_behind() {
    let mut world = retrying(11, 4);
    world.lying = SERVERS.to_vec();
    let call = world.call(&READ, b"x", None);
    assert!(world.run_until(1_000, |w| w.ran.len() == 1));
    world.run(15);
    let now = world.now;
    world.client().abandon(now, call);
    world.run(5_000);
    assert_eq!((world.ran.len(), world.client().calls()), (1, 0));
}

#[test]
fn nothing_is_made_again_where_retries_are_switched_off() {
    let mut world = World::of_three(12, ServiceConfig { retry: None, ..ServiceConfig::default() });
    world.lying = SERVERS.to_vec();
    ends(&mut world, &READ, 5_000).unwrap_err();
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_method_has_the_deadline_of_its_settings_unless_its_caller_has_a_shorter_one() {
    let mut config = service(Again::AsUsual);
    config.methods[0].timeout = Some(Duration::from_millis(300));
    let mut world = World::of_three(13, config);
    for (own, least, most) in [(None, 300, 400), (Some(5_000), 300, 400), (Some(100), 100, 200)] {
        let began = world.now;
        let call = world.call(&HANG, b"x", own);
        world.result(call).unwrap_err();
        let took = world.now.since(began).as_millis();
        assert!((least..most).contains(&took), "{own:?} took {took} ms");
    }
}

fn hedging(seed: u8, attempts: u32, delay: u64) -> World {
    let hedge = HedgingPolicy {
        max_attempts: attempts,
        delay: Duration::from_millis(delay),
        non_fatal: Codes::of(&[Code::Unavailable]),
    };
    World::of_three(seed, service(Again::Hedge(hedge)))
}

fn reads(world: &mut World, count: usize) -> Vec<CallKey> {
    (0..count).map(|_| world.call(&READ, b"x", Some(5_000))).collect()
}

#[test]
fn a_read_at_a_slow_server_is_answered_by_another_one_and_the_loser_is_cancelled() {
    let mut world = hedging(20, 3, 50);
    world.slow_at = vec![SERVER];
    for _ in 0..9 {
        let began = world.now;
        ends(&mut world, &READ, 5_000).unwrap();
        assert!(world.now.since(began) < Duration::from_millis(100));
    }
    world.run(200);
    let hedges = counters(&mut world).hedges;
    assert!(hedges >= 3, "a third of the reads began at the slow one");
    assert_eq!((world.cancelled as u64, world.hanging.len()), (hedges, 0));
}

/// A channel that uses one server after the other, and hedges reads after 50 ms.
fn hedging_at_one(seed: u8) -> World {
    let mut config = service(Again::Hedge(HedgingPolicy {
        max_attempts: 2,
        delay: Duration::from_millis(50),
        non_fatal: Codes::default(),
    }));
    config.balancing = Balancing::PickFirst;
    World::of_three(seed, config)
}

/// Sessions at the servers that are not the first.
fn others(world: &mut World) -> [usize; 2] {
    [SPARE, THIRD].map(|host| world.node(host).sessions())
}

#[test]
fn a_hedged_read_of_a_channel_that_uses_one_server_after_the_other_goes_to_a_second_one() {
    let mut world = hedging_at_one(27);
    assert_eq!(others(&mut world), [0, 0], "nothing was hedged yet");
    world.slow_at = vec![SERVER];
    for _ in 0..3 {
        let began = world.now;
        ends(&mut world, &READ, 5_000).unwrap();
        assert!(world.now.since(began) < Duration::from_millis(100));
    }
    assert_eq!(world.ran_at, [SERVER, SPARE].repeat(3));
    let call = world.call(&ECHO, b"x", Some(1_000));
    world.result(call).unwrap();
    assert_eq!(world.ran_at.last(), Some(&SERVER), "other calls stay where they were");
    assert_eq!(others(&mut world), [1, 0]);
}

#[test]
fn the_second_server_is_left_when_nothing_was_hedged_for_a_while_and_found_again() {
    let mut world = hedging_at_one(28);
    for _ in 0..4 {
        ends(&mut world, &READ, 5_000).unwrap();
        world.run(5_000);
    }
    assert_eq!(others(&mut world), [1, 0], "reads that may be hedged go on");
    world.run(15_000);
    assert_eq!(others(&mut world), [0, 0]);
    world.slow_at = vec![SERVER];
    ends(&mut world, &READ, 5_000).unwrap();
    assert_eq!(others(&mut world), [1, 0]);
    world.kill(SERVER);
    world.slow_at.clear();
    ends(&mut world, &READ, 5_000).unwrap();
    assert_eq!(world.ran_at.last(), Some(&SPARE));
}

#[test]
fn a_quick_read_is_sent_once() {
    let mut world = hedging(21, 3, 50);
    for _ in 0..9 {
        ends(&mut world, &READ, 5_000).unwrap();
    }
    world.run(1_000);
    assert_eq!((world.ran.len(), counters(&mut world).hedges), (9, 0));
}

#[test]
fn copies_of_a_read_are_bounded_by_attempts_and_by_servers() {
    for (attempts, copies) in [(2, 2), (3, 3), (5, 3)] {
        let mut world = hedging(22, attempts, 20);
        world.slow_at = SERVERS.to_vec();
        let call = world.call(&READ, b"x", Some(1_000));
        world.result(call).unwrap_err();
        assert_eq!(world.ran.len(), copies);
        let mut at = world.ran_at.clone();
        at.dedup();
        assert_eq!(at.len(), copies, "no server has two");
        world.run(100);
        assert_eq!(world.hanging.len(), 0, "all are cancelled");
    }
}

#[test]
fn a_status_that_is_not_fatal_brings_the_next_copy_at_once_and_a_fatal_one_ends_the_read() {
    let mut world = hedging(23, 3, 1_000);
    world.lying = vec![SERVER, SPARE];
    for _ in 0..3 {
        let began = world.now;
        ends(&mut world, &READ, 5_000).unwrap();
        assert!(world.now.since(began) < Duration::from_millis(100));
    }
    let hedge = HedgingPolicy {
        max_attempts: 3,
        delay: Duration::from_millis(1_000),
        non_fatal: Codes::default(),
    };
    let mut world = World::of_three(24, service(Again::Hedge(hedge)));
    world.lying = SERVERS.to_vec();
    ends(&mut world, &READ, 5_000).unwrap_err();
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn a_hedged_read_that_one_server_executed_is_not_said_to_be_refused_by_the_others() {
    let mut world = hedging(26, 3, 50);
    (world.lying, world.refusing) = (vec![SERVER], vec![SPARE, THIRD]);
    for _ in 0..6 {
        world.ran_at.clear();
        let error = ends(&mut world, &READ, 5_000).unwrap_err();
        assert!(world.ran_at.contains(&SERVER), "all of them were tried");
        let status = error.status().map(|status| status.code());
        assert_eq!(status, Some(Code::Unavailable), "{error}");
    }
}

/// Seed 1706 of `stubborn sim`.
#[test]
fn a_hedged_read_that_one_server_refuses_is_unanswered_while_a_copy_of_it_runs() {
    let mut world = hedging(27, 2, 20);
    world.slow_at = SERVERS.to_vec();
    let call = world.call(&READ, b"x", Some(20_000));
    assert!(world.run_until(1_000, |w| w.hanging.len() == 2));
    let (host, key, _) = world.hanging.remove(1);
    let why = NotExecuted::new(NotExecutedReason::PermissionDenied);
    let now = world.now;
    world.node(host).answer(now, key, Answer::NotExecuted(why));
    let error = world.result(call).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Unanswered, "another copy runs: {error}");
}

#[test]
fn a_hedged_read_outlives_the_connection_of_one_of_its_copies() {
    for killed in SERVERS {
        let mut world = hedging(25, 2, 20);
        world.slow_at = SERVERS.to_vec();
        let call = world.call(&READ, b"x", Some(20_000));
        assert!(world.run_until(1_000, |w| w.hanging.len() == 2));
        world.kill(killed);
        world.run(2_000);
        for host in SERVERS.into_iter().filter(|host| *host != killed) {
            world.answer_hanging(host);
        }
        world.slow_at.clear();
        world.result(call).unwrap();
    }
}

#[test]
fn hedged_reads_among_servers_that_die_hang_and_lie_all_end_and_leave_nothing_behind() {
    for seed in 30..45 {
        let mut world = hedging(seed, 3, 10);
        world.rules = Rules { loss: 0.1, duplicate: 0.1, ..Rules::default() };
        let mut calls = Vec::new();
        for n in 0..100_usize {
            calls.extend(reads(&mut world, 1));
            world.run(10);
            match (n % 30, SERVERS[n / 30 % 3]) {
                (5, host) => world.slow_at = vec![host],
                (10, host) => world.lying = vec![host],
                (15, host) => world.kill(host),
                (25, host) => world.start(host),
                _ => {}
            }
        }
        assert!(world.run_until(20_000, |w| w.results.len() == calls.len()), "all end");
        world.slow_at.clear();
        let good = world.results.values().filter(|result| result.is_ok()).count();
        assert!(good >= 95, "{good} of 100, seed {seed}");
        let hedges = counters(&mut world).hedges;
        assert!(hedges <= 200, "two for each call at most: {hedges}");
        assert_eq!(world.client().calls(), 0);
        world.rules = Rules::default();
        world.run(60_000);
    }
}
