//! Reads that may be answered from an older state, at a group of replicas.

use stubborn_core::service::Outcome;
use stubborn_core::time::Duration;

use crate::group::REPLICAS;
use crate::world::{ECHO, READ, SLOW_READ, SPARE, World};

/// A group whose client has its session at the first replica, and its standbys at the others.
fn ready(seed: u8) -> World {
    let mut world = World::with_group(seed);
    let first = world.call(&ECHO, b"first", None);
    assert_eq!(world.result(first).unwrap(), "first");
    world.run(500);
    world.stale.clear();
    world
}

#[test]
fn many_reads_are_spread_over_the_replicas_and_all_are_answered() {
    let mut world = ready(120);
    let reads: Vec<_> = (0..30).map(|_| world.stale_read(&READ, 1_000)).collect();
    for read in reads {
        assert_eq!(world.result(read).unwrap(), "state");
    }
    for host in REPLICAS {
        let here = world.stale.iter().filter(|(at, _)| *at == host).count();
        assert!(here >= 5, "host {host} got {here} of 30");
    }
}

#[test]
fn a_read_tells_what_its_channel_has_seen_wherever_it_goes() {
    let mut world = ready(121);
    let mut floor = 0;
    for _ in 0..5 {
        let write = world.call(&ECHO, b"write", None);
        world.result(write).unwrap();
        let applied = world.the_group().applied;
        let reads: Vec<_> = (0..6).map(|_| world.stale_read(&READ, 1_000)).collect();
        for read in reads {
            world.result(read).unwrap();
        }
        for (host, stale) in std::mem::take(&mut world.stale) {
            assert_eq!(stale.at_most, Duration::from_secs(1));
            assert!(stale.seen == applied && applied > floor, "host {host}: {stale:?}");
        }
        floor = applied;
    }
}

#[test]
fn a_read_that_a_replica_cannot_answer_goes_to_the_one_with_the_session() {
    let mut world = ready(122);
    for host in REPLICAS {
        world.the_group().too_stale = vec![host];
        let reads: Vec<_> = (0..9).map(|_| world.stale_read(&READ, 1_000)).collect();
        for read in reads {
            assert_eq!(world.result(read).unwrap(), "state");
        }
    }
}

#[test]
fn reads_at_a_standby_that_dies_or_falls_silent_are_answered_by_another_replica() {
    for silent in [false, true] {
        let mut world = ready(123);
        let reads: Vec<_> = (0..9).map(|_| world.stale_read(&SLOW_READ, 1_000)).collect();
        assert!(world.run_until(1_000, |w| w.stale.len() == 9));
        assert!(world.stale.iter().any(|(host, _)| *host == SPARE));
        if silent {
            world.rules.alone = Some(SPARE);
        } else {
            world.kill(SPARE);
        }
        world.slow.clear();
        let fast: Vec<_> = (0..9).map(|_| world.stale_read(&READ, 1_000)).collect();
        for read in fast {
            assert_eq!(world.result_within(read, 5_000).unwrap(), "state", "silent: {silent}");
        }
        drop(reads);
    }
}

#[test]
fn a_read_that_is_given_up_is_cancelled_where_it_is() {
    let mut world = ready(124);
    let reads: Vec<_> = (0..9).map(|_| world.stale_read(&SLOW_READ, 1_000)).collect();
    assert!(world.run_until(1_000, |w| w.stale.len() == 9));
    for read in reads {
        let now = world.now;
        world.client().abandon(now, read);
    }
    assert!(world.run_until(1_000, |w| w.cancelled == 9));
}

#[test]
fn when_the_session_moves_to_a_standby_its_reads_are_answered_all_the_same() {
    let mut world = ready(125);
    for dead in REPLICAS {
        let reads: Vec<_> = (0..12).map(|_| world.stale_read(&READ, 1_000)).collect();
        world.run(3);
        world.kill(dead);
        for read in reads {
            assert_eq!(world.result_within(read, 10_000).unwrap(), "state");
        }
        world.start(dead);
        world.run(5_000);
    }
}

#[test]
fn only_reads_may_be_of_an_older_state() {
    let mut world = ready(126);
    let call = world.stale_read(&ECHO, 1_000);
    let error = world.result(call).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(world.ran.iter().filter(|(_, body)| body == "state").count(), 0);
}

#[test]
fn at_a_server_that_is_no_replica_a_read_is_a_read() {
    let mut world = World::new(127);
    let read = world.stale_read(&READ, 0);
    assert_eq!(world.result(read).unwrap(), "state");
    assert!(world.stale.is_empty());
}
