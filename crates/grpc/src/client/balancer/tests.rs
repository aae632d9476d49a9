use stubborn_core::rpc::{CircuitBreaker, OutlierDetection};

use super::*;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 7400))
}

/// Connections are named by their servers.
fn balancer(service: ServiceConfig, servers: u8) -> Balancer<SocketAddr> {
    let mut balancer = Balancer::new(service, (FIRST, LONGEST), Random::from_seed([1; 32]));
    balancer.set_targets(&(0..servers).map(address).collect::<Vec<_>>());
    balancer
}

fn with(balancing: Balancing) -> ServiceConfig {
    ServiceConfig { balancing, ..ServiceConfig::default() }
}

/// Connects to all that it wants.
fn connect(balancer: &mut Balancer<SocketAddr>, now: Instant) -> usize {
    let wanted = balancer.wanted(now);
    for (key, address) in &wanted {
        balancer.connected(*key, *address);
    }
    wanted.len()
}

fn send(balancer: &mut Balancer<SocketAddr>, now: Instant) -> Place<SocketAddr> {
    match balancer.pick(now, None) {
        Pick::Send(place) => place,
        other => panic!("it goes nowhere: {other:?}"),
    }
}

/// The servers that so many calls go to, which end at once.
fn spread(balancer: &mut Balancer<SocketAddr>, calls: usize, now: Instant) -> Vec<SocketAddr> {
    let mut found: Vec<_> = (0..calls)
        .map(|_| {
            let place = send(balancer, now);
            balancer.answered(place.key);
            balancer.done(place.key);
            place.connection
        })
        .collect();
    found.sort();
    found
}

#[test]
fn one_server_is_used_until_its_connection_ends_and_then_the_next() {
    let mut balancer = balancer(with(Balancing::PickFirst), 3);
    assert_eq!(balancer.pick(at(0), None), Pick::Wait);
    assert_eq!(connect(&mut balancer, at(0)), 1);
    assert_eq!(connect(&mut balancer, at(0)), 0, "one is enough");
    assert_eq!(spread(&mut balancer, 3, at(0)), [address(0); 3]);
    let place = send(&mut balancer, at(0));
    balancer.ended(at(1), place.key, place.serial);
    assert_eq!(balancer.pick(at(1), None), Pick::Wait);
    connect(&mut balancer, at(1));
    assert_eq!(spread(&mut balancer, 3, at(1)), [address(1); 3]);
}

#[test]
fn where_none_can_be_reached_calls_fail_until_it_is_time_to_try_again() {
    let mut balancer = balancer(with(Balancing::PickFirst), 2);
    for _ in 0..2 {
        let wanted = balancer.wanted(at(0));
        assert_eq!(balancer.pick(at(0), None), Pick::Wait);
        balancer.unreached(at(0), wanted[0].0, "refused".into());
    }
    assert!(balancer.wanted(at(0)).is_empty());
    assert_eq!(balancer.pick(at(0), None), Pick::Unreachable);
    assert_eq!(balancer.why(), "refused");
    let next = balancer.next_attempt().unwrap();
    assert!((at(25)..=at(50)).contains(&next), "{next:?}");
    assert_eq!(balancer.wanted(at(50))[0].1, address(0));
    assert_eq!(balancer.pick(at(50), None), Pick::Wait);
}

#[test]
fn calls_take_turns_among_the_connected_and_a_dead_one_comes_back_by_attempts() {
    let mut balancer = balancer(with(Balancing::RoundRobin), 3);
    assert_eq!(connect(&mut balancer, at(0)), 3);
    assert_eq!(spread(&mut balancer, 3, at(0)), [address(0), address(1), address(2)]);
    let dead = send(&mut balancer, at(0));
    balancer.done(dead.key);
    balancer.ended(at(0), dead.key, dead.serial);
    let others = spread(&mut balancer, 4, at(0));
    assert!(!others.contains(&dead.connection), "{others:?}");
    let wanted = balancer.wanted(at(0));
    assert_eq!(wanted, [(dead.key, dead.connection)], "it has answered before: at once");
    balancer.unreached(at(0), dead.key, "refused".into());
    assert!(balancer.wanted(at(1)).is_empty());
    assert_eq!(connect(&mut balancer, at(50)), 1);
    assert!(spread(&mut balancer, 3, at(50)).contains(&dead.connection));
}

#[test]
fn a_server_that_never_answers_is_tried_again_once_and_then_after_longer_and_longer_pauses() {
    let mut balancer = balancer(with(Balancing::PickFirst), 1);
    let mut now = at(0);
    for round in 0..10 {
        assert_eq!(connect(&mut balancer, now), 1);
        let place = send(&mut balancer, now);
        balancer.done(place.key);
        balancer.ended(now, place.key, place.serial);
        if round > 0 {
            assert_eq!(balancer.pick(now, None), Pick::Unreachable);
            now = balancer.next_attempt().unwrap();
        }
    }
    assert!(now > at(2_000), "{now:?}");
    connect(&mut balancer, now);
    spread(&mut balancer, 1, now);
    let place = send(&mut balancer, now);
    balancer.ended(now, place.key, place.serial);
    assert_eq!(connect(&mut balancer, now), 1, "an answer makes up for it");
}

#[test]
fn the_end_of_an_old_connection_does_not_end_the_new_one() {
    let mut balancer = balancer(with(Balancing::PickFirst), 1);
    connect(&mut balancer, at(0));
    spread(&mut balancer, 1, at(0));
    let old = send(&mut balancer, at(0));
    balancer.ended(at(0), old.key, old.serial);
    connect(&mut balancer, at(0));
    balancer.ended(at(0), old.key, old.serial);
    assert_eq!(send(&mut balancer, at(0)).key, old.key);
}

#[test]
fn of_two_servers_the_one_with_fewer_calls_in_flight_is_chosen() {
    let mut balancer = balancer(with(Balancing::least_outstanding()), 2);
    connect(&mut balancer, at(0));
    let first = send(&mut balancer, at(0));
    for _ in 0..20 {
        let second = send(&mut balancer, at(0));
        assert_ne!(second.key, first.key);
        balancer.done(second.key);
    }
}

#[test]
fn a_key_stays_with_its_server() {
    let mut balancer = balancer(with(Balancing::ring_hash()), 5);
    connect(&mut balancer, at(0));
    let mut owner = |key: &[u8]| match balancer.pick(at(0), Some(key)) {
        Pick::Send(place) => place.key,
        other => panic!("{other:?}"),
    };
    let owners: Vec<u64> = (0..50_u8).map(|key| owner(&[key])).collect();
    assert!((0..50_u8).all(|key| owner(&[key]) == owners[usize::from(key)]));
    assert!(owners.iter().any(|owner| *owner != owners[0]));
}

#[test]
fn a_list_that_changes_keeps_the_connections_of_those_that_stay() {
    let mut balancer = balancer(with(Balancing::RoundRobin), 2);
    connect(&mut balancer, at(0));
    balancer.set_targets(&[]);
    balancer.set_targets(&[address(1), address(2), address(1)]);
    assert_eq!(spread(&mut balancer, 2, at(0)), [address(1); 2]);
    assert_eq!(connect(&mut balancer, at(0)), 1);
    assert_eq!(spread(&mut balancer, 2, at(0)), [address(1), address(2)]);
    // What comes of one that is gone is nothing.
    balancer.done(1);
    balancer.answered(1);
    balancer.at_fault(at(0), 1, true);
    assert_eq!(balancer.connected(1, address(0)), None);
}

#[test]
fn a_server_that_fails_call_after_call_is_left_out_and_comes_back_by_a_probe() {
    let service = ServiceConfig {
        outliers: Some(OutlierDetection::default()),
        ..with(Balancing::RoundRobin)
    };
    let mut balancer = balancer(service, 2);
    connect(&mut balancer, at(0));
    let bad = send(&mut balancer, at(0));
    for _ in 0..5 {
        balancer.answered(bad.key);
        balancer.at_fault(at(0), bad.key, true);
    }
    assert!(!spread(&mut balancer, 10, at(1)).contains(&bad.connection));
    let base = OutlierDetection::default().base_ejection_time;
    let later = Instant::ZERO + base;
    assert_eq!(send(&mut balancer, later).key, bad.key, "the probe");
    assert!(!spread(&mut balancer, 10, later).contains(&bad.connection), "one probe");
    balancer.answered(bad.key);
    assert!(spread(&mut balancer, 10, later).contains(&bad.connection));
}

#[test]
fn a_server_gets_no_more_calls_than_it_may_have() {
    let breaker = CircuitBreaker { max_outstanding: 2, max_pending: 3 };
    let service = ServiceConfig { breaker: Some(breaker), ..with(Balancing::RoundRobin) };
    let mut balancer = balancer(service, 2);
    connect(&mut balancer, at(0));
    let places: Vec<_> = (0..4).map(|_| send(&mut balancer, at(0))).collect();
    assert_eq!(balancer.pick(at(0), None), Pick::Full);
    assert_eq!(balancer.most_waiting(), 6);
    balancer.done(places[2].key);
    assert_eq!(send(&mut balancer, at(0)).key, places[2].key);
}
