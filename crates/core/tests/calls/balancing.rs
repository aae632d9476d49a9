//! Several servers that share a channel's calls: how they are spread, and who is left out.

use bytes::Bytes;
use stubborn_core::node::{
    Balancing, CallKey, CircuitBreaker, EndpointState, OutlierDetection, ServiceConfig,
};
use stubborn_core::service::{Metadata, Outcome, OutgoingCall};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Duration;

use crate::world::{
    ECHO, FAULT, HANG, READ, Rules, SERVER, SERVERS, SLOW_READ, SPARE, THIRD, World, address,
    outgoing,
};

fn balanced(seed: u8, balancing: Balancing) -> World {
    World::of_three(seed, ServiceConfig { balancing, ..ServiceConfig::default() })
}

fn states(world: &mut World) -> Vec<EndpointState> {
    let (now, channel) = (world.now, world.channel);
    world.client().endpoints(now, channel).iter().map(|endpoint| endpoint.state).collect()
}

fn runs_at(world: &World, host: usize) -> usize {
    world.ran_at.iter().filter(|at| **at == host).count()
}

/// Calls one after the other, each answered before the next.
fn call_in_turn(world: &mut World, calls: usize) {
    for _ in 0..calls {
        let call = world.call(&ECHO, b"x", Some(10_000));
        world.result(call).unwrap();
    }
}

fn call_with_key(world: &mut World, key: &str) -> CallKey {
    let mut metadata = Metadata::new();
    metadata.insert("ring-key", key).unwrap();
    let (now, channel) = (world.now, world.channel);
    let call = OutgoingCall { metadata, ..outgoing(&ECHO, Bytes::from_static(b"x")) };
    world.client().call(now, channel, call)
}

#[test]
fn round_robin_gives_each_server_the_same_share_of_calls_and_of_reads() {
    let mut world = balanced(1, Balancing::RoundRobin);
    for _ in 0..30 {
        let (call, read) = (world.call(&ECHO, b"x", None), world.call(&READ, b"x", None));
        world.result(call).unwrap();
        world.result(read).unwrap();
    }
    for host in SERVERS {
        assert_eq!(runs_at(&world, host), 20, "at {host}");
    }
}

#[test]
fn the_power_of_two_choices_avoids_a_server_whose_calls_pile_up() {
    let mut world = balanced(2, Balancing::least_outstanding());
    // Slow calls wait where they are; quick ones go on.
    let slow: Vec<_> = (0..9).map(|_| world.call(&HANG, b"hang", None)).collect();
    world.run(100);
    let piled: Vec<_> = SERVERS.iter().map(|host| runs_at(&world, *host)).collect();
    assert!(piled.iter().all(|count| (1..=5).contains(count)), "{piled:?}");
    for _ in 0..20 {
        world.answer_hanging(SPARE);
        world.run(1);
    }
    world.ran_at.clear();
    call_in_turn(&mut world, 60);
    assert!(runs_at(&world, SPARE) >= 30, "{:?}", world.ran_at);
    drop(slow);
}

#[test]
fn calls_with_one_key_go_to_one_server_and_come_back_to_it_after_its_restart() {
    let mut world = balanced(3, Balancing::ring_hash());
    for key in ["anna", "berta", "cora", "dora", "emma", "fritz", "gustav", "heinrich"] {
        world.ran_at.clear();
        for _ in 0..5 {
            let call = call_with_key(&mut world, key);
            world.result(call).unwrap();
        }
        let owner = world.ran_at[0];
        assert!(world.ran_at.iter().all(|host| *host == owner), "{key}: {:?}", world.ran_at);
        world.kill(owner);
        world.run(3_000);
        let call = call_with_key(&mut world, key);
        world.result(call).unwrap();
        assert_ne!(*world.ran_at.last().unwrap(), owner);
        world.start(owner);
        world.run(5_000);
        let call = call_with_key(&mut world, key);
        world.result(call).unwrap();
        assert_eq!(*world.ran_at.last().unwrap(), owner, "{key}");
    }
}

#[test]
fn a_dead_server_gets_no_new_call_after_a_round_trip_from_its_sign_of_death() {
    for seed in 10..20 {
        for balancing in [Balancing::RoundRobin, Balancing::least_outstanding()] {
            let mut world = balanced(seed, balancing);
            call_in_turn(&mut world, 9);
            world.kill(SPARE);
            let mut sign = None;
            for _ in 0..400 {
                let before = world.attempts_at(SPARE);
                world.call(&READ, b"x", None);
                world.run(1);
                if states(&mut world)[1] != EndpointState::Ready {
                    sign.get_or_insert(world.now);
                }
                let late = sign.is_some_and(|sign| world.now.since(sign) > world.delay * 2);
                assert!(!late || world.attempts_at(SPARE) == before, "seed {seed}");
            }
            let sign = sign.expect("its death shows");
            assert!(world.now.since(sign) > Duration::from_millis(250), "it shows soon");
            assert!(world.run_until(10_000, |w| w.client().calls() == 0), "reads went elsewhere");
            assert!(world.results.values().all(Result::is_ok), "no read failed");
        }
    }
}

#[test]
fn a_server_that_was_dead_comes_back_by_itself_and_gets_its_share() {
    let mut world = balanced(4, Balancing::RoundRobin);
    world.kill(SPARE);
    for _ in 0..100 {
        world.call(&READ, b"x", None);
        world.run(20);
    }
    world.start(SPARE);
    // Connections are attempted once a second at least.
    world.run(4_000);
    world.ran_at.clear();
    call_in_turn(&mut world, 30);
    assert_eq!(runs_at(&world, SPARE), 10);
}

#[test]
fn when_no_server_answers_calls_fail_at_once_and_one_that_waits_is_served_by_the_first_that_returns()
 {
    let mut world = balanced(5, Balancing::RoundRobin);
    SERVERS.iter().for_each(|host| world.kill(*host));
    world.run(40_000);
    let call = world.call(&ECHO, b"x", None);
    let error = world.result_within(call, 20_000).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    let patient = world.patient_call(&ECHO, b"y");
    world.run(10_000);
    world.start(THIRD);
    world.result_within(patient, 10_000).unwrap();
    assert_eq!(world.ran_at.last(), Some(&THIRD));
}

#[test]
fn a_server_that_drains_sends_its_calls_to_the_others() {
    let mut world = balanced(6, Balancing::RoundRobin);
    let now = world.now;
    world.node(SPARE).drain(now);
    call_in_turn(&mut world, 20);
    assert_eq!(runs_at(&world, SPARE), 0);
}

#[test]
fn other_targets_take_part_at_once_and_what_is_under_way_at_those_that_left_ends_there() {
    let mut world = balanced(7, Balancing::RoundRobin);
    let slow: Vec<_> = (0..3).map(|_| world.call(&HANG, b"hang", None)).collect();
    world.run(50);
    world.set_targets(&[SPARE, THIRD]);
    world.ran_at.clear();
    call_in_turn(&mut world, 10);
    assert_eq!((runs_at(&world, SERVER), runs_at(&world, SPARE)), (0, 5));
    for host in SERVERS {
        world.answer_hanging(host);
    }
    for call in slow {
        world.result(call).unwrap();
    }
    world.run(2_000);
    assert_eq!(world.server().sessions(), 1, "only the one of the world's first channel is left");
    world.set_targets(&SERVERS);
    world.run(500);
    world.ran_at.clear();
    call_in_turn(&mut world, 9);
    assert_eq!(runs_at(&world, SERVER), 3);
}

#[test]
fn a_server_that_fails_what_it_is_asked_is_left_out_and_comes_back_by_one_probe() {
    let outliers = OutlierDetection {
        base_ejection_time: Duration::from_secs(2),
        ..OutlierDetection::default()
    };
    let service = ServiceConfig {
        balancing: Balancing::RoundRobin,
        outliers: Some(outliers),
        ..ServiceConfig::default()
    };
    let mut world = World::of_three(8, service);
    world.lying = vec![SPARE];
    for _ in 0..60 {
        let call = world.call(&FAULT, b"x", None);
        let _ = world.result(call);
    }
    assert_eq!(runs_at(&world, SPARE), 5, "five failures in a row");
    assert_eq!(states(&mut world)[1], EndpointState::Ejected);
    world.run(2_000);
    for _ in 0..60 {
        let call = world.call(&FAULT, b"x", None);
        let _ = world.result(call);
    }
    assert_eq!(runs_at(&world, SPARE), 6, "one probe");
    world.lying.clear();
    world.run(4_000);
    world.ran_at.clear();
    for _ in 0..31 {
        let call = world.call(&FAULT, b"x", None);
        world.result(call).unwrap();
    }
    assert!(runs_at(&world, SPARE) >= 10);
}

#[test]
fn where_all_servers_fail_one_is_left_out_at_most_and_the_others_are_still_asked() {
    let service = ServiceConfig {
        balancing: Balancing::RoundRobin,
        outliers: Some(OutlierDetection::default()),
        ..ServiceConfig::default()
    };
    let mut world = World::of_three(9, service);
    world.lying = SERVERS.to_vec();
    for _ in 0..60 {
        let call = world.call(&FAULT, b"x", None);
        world.result(call).unwrap_err();
    }
    let out = states(&mut world).iter().filter(|s| **s == EndpointState::Ejected).count();
    assert_eq!((out, world.ran_at.len()), (1, 60));
}

#[test]
fn a_server_that_hangs_is_asked_no_more_than_the_circuit_breaker_lets_pass() {
    let service = ServiceConfig {
        balancing: Balancing::RoundRobin,
        breaker: Some(CircuitBreaker { max_outstanding: 2, max_pending: 1 }),
        ..ServiceConfig::default()
    };
    let mut world = World::of_three(21, service);
    let calls: Vec<_> = (0..12).map(|_| world.call(&HANG, b"hang", None)).collect();
    world.run(100);
    assert_eq!(world.ran_at.len(), 6, "two at each of three");
    let refused: Vec<_> = calls.iter().filter_map(|call| world.results.remove(call)).collect();
    assert_eq!(refused.len(), 3, "three wait, the others are refused");
    for error in refused {
        let error = error.unwrap_err();
        let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
        assert_eq!(why.reason, NotExecutedReason::Overloaded);
        assert!(error.to_string().contains("circuit breaker"), "{error}");
    }
    let channel = world.channel;
    assert_eq!(world.client().channel_counters(channel).refused, 3);
    for _ in 0..3 {
        SERVERS.iter().for_each(|host| world.answer_hanging(*host));
        world.run(100);
    }
    assert_eq!(world.ran_at.len(), 9, "what waited was sent as soon as there was room");
}

#[test]
fn what_waits_for_the_circuit_breaker_is_sent_when_a_read_before_it_has_ended_by_its_deadline() {
    let service = ServiceConfig {
        breaker: Some(CircuitBreaker { max_outstanding: 1, max_pending: 8 }),
        ..ServiceConfig::default()
    };
    for given_up in [false, true] {
        let mut world = World::new(22);
        world.open_channel_to(&[SERVER], service.clone());
        world.run(500);
        let read = world.call(&SLOW_READ, b"x", Some(100));
        let waits = world.call(&ECHO, b"waits", None);
        world.run(50);
        assert!(!world.results.contains_key(&waits));
        if given_up {
            let now = world.now;
            world.client().abandon(now, read);
        }
        assert!(world.run_until(300, |world| world.results.contains_key(&waits)), "{given_up}");
        world.result(waits).unwrap();
    }
}

#[test]
fn no_call_runs_twice_while_servers_die_and_come_back_and_packets_are_lost() {
    for seed in 30..40 {
        let mut world = balanced(seed, Balancing::least_outstanding());
        world.rules = Rules { loss: 0.1, duplicate: 0.1, ..Rules::default() };
        let mut calls = Vec::new();
        for n in 0..300_u32 {
            let body = Bytes::copy_from_slice(&n.to_be_bytes());
            calls.push(world.call_with(&ECHO, body, Some(5_000), None));
            world.run(5);
            if n % 60 == 20 {
                world.kill(SERVERS[n as usize / 60 % 3]);
            } else if n % 60 == 50 {
                world.start(SERVERS[n as usize / 60 % 3]);
            }
        }
        assert!(world.run_until(20_000, |w| w.results.len() == calls.len()), "all calls end");
        let mut bodies: Vec<_> = world.ran.iter().map(|(_, body)| body.clone()).collect();
        bodies.sort_unstable();
        assert!(bodies.windows(2).all(|pair| pair[0] != pair[1]), "a call ran twice, seed {seed}");
        for (n, call) in calls.iter().enumerate() {
            let ran = bodies.binary_search(&Bytes::copy_from_slice(&(n as u32).to_be_bytes()));
            match world.results[call].as_ref().map_err(|error| error.outcome()) {
                Ok(_) => assert!(ran.is_ok()),
                Err(Outcome::NotExecuted(_)) => assert!(ran.is_err(), "seed {seed}: {n} ran"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn the_counters_name_each_server_and_add_up() {
    let mut world = balanced(22, Balancing::RoundRobin);
    call_in_turn(&mut world, 30);
    let (now, channel) = (world.now, world.channel);
    let endpoints = world.client().endpoints(now, channel);
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(addresses, SERVERS.map(address));
    assert!(endpoints.iter().all(|e| e.attempts == 10 && e.failures == 0 && e.outstanding == 0));
}
