//! One session for all replicas of a group: what becomes of calls when replicas come and go.

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::node::{CallKey, JournalStart};
use stubborn_core::service::{CallState, Outcome, OutgoingCall};
use stubborn_core::session::JournalSlot;
use stubborn_core::time::Duration;

use crate::group::REPLICAS;
use crate::world::{AGAIN, ECHO, FAIL, READ, SERVER, SPARE, THIRD, World, outgoing};

/// The replica that the client's session is attached at.
fn home(world: &mut World) -> usize {
    let channel = world.channel;
    let (peer, _) = world.client().channel_stats(channel).expect("a connection");
    REPLICAS.into_iter().find(|host| crate::world::address(*host) == peer).expect("a replica")
}

/// A group whose client has its session and its standbys.
fn ready(seed: u8) -> World {
    let mut world = World::with_group(seed);
    let first = world.call(&ECHO, b"first", None);
    assert_eq!(world.result(first).unwrap(), "first");
    world.run(500);
    world.ran.clear();
    world
}

fn body(number: usize) -> Bytes {
    Bytes::from(format!("call {number}"))
}

fn begin(world: &mut World, count: usize) -> Vec<CallKey> {
    (0..count).map(|number| world.call_with(&ECHO, body(number), None, None)).collect()
}

fn all_answered(world: &mut World, calls: &[CallKey]) {
    assert!(world.run_until(60_000, |w| calls.iter().all(|call| w.results.contains_key(call))));
}

/// Every call has been answered with its own body, and ran once.
fn all_ran_once(world: &mut World, calls: Vec<CallKey>) {
    let count = calls.len();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(world.result_within(call, 120_000).unwrap(), body(number), "call {number}");
    }
    world.run(3_000);
    for number in 0..count {
        let runs = world.ran.iter().filter(|(_, ran)| *ran == body(number)).count();
        assert_eq!(runs, 1, "call {number} ran {runs} times");
    }
}

#[test]
fn calls_at_a_replica_are_answered_from_the_log() {
    let mut world = ready(80);
    let failing = world.call(&FAIL, b"x", None);
    let error = world.result(failing).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Executed(_)), "{error}");
    let read = world.call(&READ, b"read", None);
    assert_eq!(world.result(read).unwrap(), "read");
    let sessions = world.the_group().table.len();
    assert_eq!(sessions, 1, "one session for all targets");
}

#[test]
fn the_client_has_a_validated_connection_to_every_replica_and_one_session() {
    let mut world = ready(81);
    for host in REPLICAS {
        let clients = world.node(host).endpoint().connections().count();
        assert_eq!(clients, 1, "host {host}");
    }
    world.run(120_000);
    for host in REPLICAS {
        assert_eq!(
            world.node(host).endpoint().connections().count(),
            1,
            "host {host} after idling"
        );
    }
    assert_eq!(world.the_group().table.len(), 1);
}

#[test]
fn when_the_replica_in_use_dies_calls_go_on_at_another_one_without_a_handshake() {
    let mut world = ready(82);
    let calls = begin(&mut world, 20);
    world.run(3);
    let dead = home(&mut world);
    world.kill(dead);
    let began = world.now;
    all_ran_once(&mut world, calls);
    assert_ne!(home(&mut world), dead);
    // Silence is noticed after a few probe timeouts; moving takes one exchange.
    let call = world.call(&ECHO, b"next", None);
    assert_eq!(world.result_within(call, 1_000).unwrap(), "next");
    assert!(world.now.since(began) < Duration::from_secs(10));
}

#[test]
fn a_dead_replica_costs_a_call_less_than_half_a_second() {
    for seed in 0..8 {
        let mut world = ready(seed);
        let dead = home(&mut world);
        world.kill(dead);
        let began = world.now;
        let call = world.call(&ECHO, b"gap", None);
        assert_eq!(world.result_within(call, 5_000).unwrap(), "gap");
        let gap = world.now.since(began);
        assert!(gap < Duration::from_millis(500), "seed {seed}: {gap:?}");
    }
}

#[test]
fn a_replica_that_dies_between_any_two_datagrams_makes_no_call_run_twice_or_lost() {
    for boundary in 0..60 {
        let mut world = World::with_group(83);
        world.the_group().copies = 0.5;
        let calls = begin(&mut world, 3);
        // From the very first datagram on: handshake, opening, requests, replies, standbys.
        for _ in 0..boundary {
            world.step();
        }
        let dead = [SERVER, SPARE, THIRD][boundary % 3];
        world.kill(dead);
        all_ran_once(&mut world, calls);
        world.start(dead);
        let calls = begin(&mut world, 2);
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(world.result_within(call, 60_000).unwrap(), body(number));
        }
    }
}

#[test]
fn a_restarted_replica_knows_the_session_and_is_used_again() {
    let mut world = ready(84);
    for _ in 0..6 {
        let calls = begin(&mut world, 5);
        world.run(2);
        let dead = home(&mut world);
        world.kill(dead);
        all_ran_once(&mut world, calls);
        world.start(dead);
        world.run(5_000);
        world.ran.clear();
        assert_eq!(world.node(dead).endpoint().connections().count(), 1, "it stands by again");
    }
    assert_eq!(world.the_group().table.len(), 1);
}

#[test]
fn a_silent_replica_is_left_and_its_late_answers_do_no_harm() {
    let mut world = ready(85);
    let calls = begin(&mut world, 10);
    world.rules.alone = Some(home(&mut world));
    all_ran_once(&mut world, calls);
    world.rules.alone = None;
    world.run(10_000);
    let calls = begin(&mut world, 10);
    world.ran.clear();
    all_ran_once(&mut world, calls);
}

#[test]
fn a_replica_that_is_cut_off_from_its_group_is_left() {
    let mut world = ready(86);
    let useless = home(&mut world);
    world.the_group().cut_off = Some(useless);
    let calls = begin(&mut world, 10);
    all_ran_once(&mut world, calls);
    assert_ne!(home(&mut world), useless);
}

#[test]
fn a_session_is_opened_once_though_the_first_replica_asked_cannot_answer() {
    let mut world = World::with_group(87);
    world.the_group().cut_off = Some(SERVER);
    let calls = begin(&mut world, 4);
    all_ran_once(&mut world, calls);
    assert_eq!(world.the_group().table.len(), 1);
}

#[test]
fn a_group_that_is_busy_pushes_back_and_every_call_runs_in_the_end() {
    let mut world = ready(88);
    let free_again = world.now + Duration::from_millis(400);
    world.the_group().busy_until = free_again;
    let calls = begin(&mut world, 10);
    let overdue = world.call_with(&ECHO, Bytes::from_static(b"overdue"), Some(100), None);
    let error = world.result(overdue).unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert!(world.now > free_again, "only a committed fence proves it");
    all_ran_once(&mut world, calls);
    assert!(world.the_group().pushed_back > 10);
}

#[test]
fn a_group_that_is_busy_when_a_session_is_opened_or_moved_gets_it_later() {
    let mut world = World::with_group(89);
    world.the_group().busy_until = world.now + Duration::from_millis(300);
    let calls = begin(&mut world, 3);
    all_ran_once(&mut world, calls);
    world.run(500);
    world.the_group().busy_until = world.now + Duration::from_millis(700);
    let dead = home(&mut world);
    world.kill(dead);
    world.ran.clear();
    let calls = begin(&mut world, 3);
    all_ran_once(&mut world, calls);
    assert_eq!(world.the_group().table.len(), 1);
}

#[test]
fn a_draining_replica_is_left_without_an_outcome_for_any_call() {
    let mut world = ready(90);
    let calls = begin(&mut world, 10);
    world.run(2);
    let (leaving, now) = (home(&mut world), world.now);
    world.node(leaving).drain(now);
    all_ran_once(&mut world, calls);
    assert_ne!(home(&mut world), leaving);
    assert!(world.run_until(5_000, |w| w.drained), "nobody needs it any more");
}

#[test]
fn a_reply_that_died_with_its_replica_comes_from_another_one() {
    let mut world = ready(91);
    let call = world.call_with(&ECHO, body(0), None, None);
    assert!(world.run_until(1_000, |w| !w.ran.is_empty()));
    let dead = home(&mut world);
    world.kill(dead);
    all_ran_once(&mut world, vec![call]);
}

#[test]
fn calls_of_a_group_that_was_made_anew_are_lost_once_no_target_can_be_of_the_old_one() {
    let mut world = ready(92);
    world.the_group().commit = Duration::from_secs(600);
    let call = world.call(&ECHO, b"stuck", None);
    world.run(20);
    world.make_group();
    let error = world.result_within(call, 30_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    let next = world.call(&ECHO, b"next", None);
    assert_eq!(world.result_within(next, 10_000).unwrap(), "next");
}

#[test]
fn an_idempotent_call_of_a_group_that_is_gone_runs_at_none_of_the_servers_in_its_place() {
    let mut world = ready(98);
    world.the_group().commit = Duration::from_secs(600);
    let call = world.patient_call(&AGAIN, b"again");
    world.run(20);
    world.group = None;
    for host in REPLICAS {
        world.start(host);
    }
    let error = world.result_within(call, 30_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    world.run(10_000);
    assert!(world.ran.is_empty(), "{:?}", world.ran);
}

#[test]
fn a_replica_of_another_group_does_not_make_calls_lost_while_one_of_their_own_may_return() {
    let mut world = ready(93);
    world.the_group().commit = Duration::from_secs(600);
    let call = world.call(&ECHO, b"stuck", None);
    world.run(20);
    let third = world.take(THIRD);
    world.make_group();
    world.kill(THIRD);
    world.run(20_000);
    assert!(world.results.is_empty(), "the third replica may know: {:?}", world.results);
    let next = world.patient_call(&ECHO, b"next");
    assert_eq!(world.result_within(next, 10_000).unwrap(), "next");
    drop(third);
    world.start(THIRD);
    let error = world.result_within(call, 30_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
}

#[test]
fn a_session_that_the_group_has_forgotten_is_lost() {
    let limits = Limits { retention: Duration::from_secs(5), ..Limits::default() };
    let mut world = World::with_limits(94, limits);
    world.make_group();
    world.set_targets(&REPLICAS);
    let first = world.call(&ECHO, b"first", None);
    world.result(first).unwrap();
    world.the_group().commit = Duration::from_secs(3_600);
    let call = world.call(&ECHO, b"x", None);
    world.run(100);
    let later = world.now + Duration::from_secs(6);
    assert_eq!(world.the_group().table.advance(later), 1);
    world.the_group().commit = Duration::from_millis(2);
    let error = world.result_within(call, 30_000).unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
}

#[test]
fn a_client_whose_session_was_forgotten_opens_one_new_session_and_no_second() {
    for seed in 0..40 {
        let limits = Limits { retention: Duration::from_secs(5), slots: 1, ..Limits::default() };
        let mut world = World::with_limits(seed, limits);
        world.make_group();
        world.set_targets(&REPLICAS);
        let first = world.call(&ECHO, b"first", None);
        world.result(first).unwrap();
        world.run(500);
        world.rules.cut = true;
        let lost = world.call(&ECHO, b"lost", None);
        let patient = OutgoingCall { wait_for_ready: Some(true), ..outgoing(&ECHO, body(1)) };
        let (now, channel) = (world.now, world.channel);
        let waits = world.client().call(now, channel, patient);
        world.run(1_500);
        let later = world.now + Duration::from_secs(6);
        assert_eq!(world.the_group().table.advance(later), 1);
        // While one replica finds that out, others get ready.
        world.the_group().commit = Duration::from_millis(400);
        world.rules.cut = false;
        let error = world.result_within(lost, 30_000).unwrap_err();
        assert_eq!(*error.outcome(), Outcome::Lost, "{seed}: {error}");
        assert_eq!(world.result_within(waits, 30_000).unwrap(), body(1));
        world.run(2_000);
        assert_eq!(world.the_group().table.len(), 1, "{seed}");
    }
}

#[test]
fn an_outcome_is_known_at_every_replica() {
    let mut world = ready(95);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let call = world.call_with(&ECHO, body(0), None, Some(id));
    assert!(world.run_until(1_000, |w| !w.ran.is_empty()));
    let ticket = world.tickets[0].clone();
    for host in REPLICAS {
        world.open_channel();
        world.set_targets(&[host]);
        let outcome = world.outcome_with(id, Some(ticket.clone()));
        let known = matches!(outcome, CallState::Replied(_) | CallState::AlreadySettled);
        assert!(known, "host {host}: {outcome:?}");
    }
    world.result(call).unwrap();
}

#[test]
fn a_call_of_a_group_that_was_made_anew_is_known_to_be_lost() {
    let mut world = ready(99);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let ticket = world.tickets[0].clone();
    world.make_group();
    world.open_channel();
    world.set_targets(&REPLICAS);
    let first = world.patient_call(&ECHO, b"first");
    assert_eq!(world.result_within(first, 10_000).unwrap(), "first");
    world.run(5_000);
    let outcome = world.outcome_with(id, Some(ticket));
    assert!(matches!(outcome, CallState::Lost), "{outcome:?}");
}

#[test]
fn a_resumed_session_is_found_at_any_replica() {
    let mut world = ready(96);
    let ticket = world.tickets[0].clone();
    world.kill(SERVER);
    world.open_channel_with(Some(ticket.clone()));
    world.set_targets(&REPLICAS);
    let call = world.patient_call(&ECHO, b"on");
    assert_eq!(world.result_within(call, 20_000).unwrap(), "on");
    assert_eq!(world.tickets.last(), Some(&ticket));
    assert_eq!(world.the_group().table.len(), 1);
}

/// A client that crashed with a number reserved takes its session up again, of which no replica is left.
/// It asks what became of the number, and calls nothing.
fn resumed_with_a_question(seed: u8, hosts: &[usize]) -> (World, CallKey) {
    let mut world = World::with_group(seed);
    let journal = |holder, slots| JournalStart { holder, after: (1..=holder).collect(), slots };
    world.restart_client(None, journal(1, Vec::new()), 2);
    let (now, channel) = (world.now, world.channel);
    let key = world.client().reserve(now, channel, &ECHO);
    assert!(world.run_until(1_000, |w| w.reserved.contains_key(&key)));
    let id = world.reserved.remove(&key).unwrap().unwrap();
    let ticket = world.tickets.last().cloned();
    hosts.iter().for_each(|host| world.kill(*host));
    let slot = JournalSlot { slot: id.slot, sequence: id.sequence, answered: false };
    world.restart_client(ticket, journal(2, vec![slot]), 2);
    world.set_targets(hosts);
    let (now, channel) = (world.now, world.channel);
    let asked = world.client().outcome(now, channel, id, None);
    world.run(20_000);
    assert!(!world.outcomes.contains_key(&asked), "nobody is there");
    (world, asked)
}

/// The number was used by nobody, and never will be.
fn learns_that_nothing_ran(world: &mut World, asked: CallKey) {
    assert!(
        world.run_until(30_000, |w| w.outcomes.contains_key(&asked)),
        "the session is not found"
    );
    let outcome = world.outcomes.remove(&asked).unwrap();
    assert!(matches!(outcome, Ok(CallState::NotExecuted(_))), "{outcome:?}");
}

#[test]
fn a_resumed_session_is_found_though_all_targets_were_replaced_before_one_answered() {
    let (mut world, asked) = resumed_with_a_question(96, &[SERVER]);
    // Nobody calls, and what is asked is of the link of the old target.
    world.set_targets(&REPLICAS[1..]);
    learns_that_nothing_ran(&mut world, asked);
}

#[test]
fn a_resumed_session_is_sought_again_at_every_replica_after_all_of_them_were_silent() {
    for back in REPLICAS {
        let (mut world, asked) = resumed_with_a_question(96, &REPLICAS);
        // The others are gone for good, whichever of them was asked last.
        world.start(back);
        learns_that_nothing_ran(&mut world, asked);
    }
}

#[test]
fn a_resumed_session_waits_only_a_moment_for_a_replica_that_is_dead() {
    let mut world = ready(96);
    let ticket = world.tickets[0].clone();
    world.kill(SERVER);
    world.resume_at(ticket.clone(), &REPLICAS);
    let call = world.patient_call(&ECHO, b"on");
    assert_eq!(world.result_within(call, 150).unwrap(), "on");
    assert_eq!(world.tickets.last(), Some(&ticket));
}

#[test]
fn a_release_that_a_group_has_dropped_is_made_good_when_its_session_attaches_next() {
    let mut world = ready(96);
    let call = world.call(&ECHO, b"kept", None);
    assert_eq!(world.result(call).unwrap(), "kept");
    // There is nothing to push back, since nobody waits for an answer.
    world.the_group().busy_until = world.now + Duration::from_secs(1);
    world.run(5_000);
    assert_eq!(world.the_group().table.footprint().unsettled, 1, "the release was not dropped");
    let (leaving, now) = (home(&mut world), world.now);
    world.node(leaving).drain(now);
    world.run(1_000);
    assert_ne!(home(&mut world), leaving);
    assert_eq!(world.the_group().table.footprint().unsettled, 0);
}

#[test]
fn targets_that_change_take_the_session_along() {
    let mut world = ready(97);
    let calls = begin(&mut world, 5);
    world.run(2);
    let old = home(&mut world);
    let others: Vec<usize> = REPLICAS.into_iter().filter(|host| *host != old).collect();
    world.set_targets(&others);
    all_ran_once(&mut world, calls);
    assert!(others.contains(&home(&mut world)));
    assert_eq!(world.the_group().table.len(), 1);
}

#[test]
fn a_closed_channel_closes_its_session_and_leaves_no_connection() {
    let mut world = ready(98);
    let (now, channel) = (world.now, world.channel);
    world.client().close_channel(now, channel);
    world.run(3_000);
    assert_eq!(world.the_group().table.len(), 0);
    assert_eq!(world.client().links(), 0);
    for host in REPLICAS {
        assert_eq!(world.node(host).endpoint().connections().count(), 0, "host {host}");
    }
}

#[test]
fn under_loss_copies_and_replicas_that_come_and_go_every_call_runs_once() {
    let mut moves = 0;
    for seed in 0..12 {
        let mut world = World::with_group(100 + seed);
        world.rules.loss = 0.1;
        world.rules.duplicate = 0.1;
        world.rules.jitter = Duration::from_millis(10);
        world.the_group().copies = 0.5;
        let mut calls = Vec::new();
        for round in 0..8 {
            for _ in 0..10 {
                let number = calls.len();
                calls.push(world.call_with(&ECHO, body(number), None, None));
            }
            world.run(40 * (u64::from(seed) % 5 + 1));
            let dead = REPLICAS[(round + usize::from(seed)) % 3];
            world.kill(dead);
            world.run(150 * (u64::from(seed) % 7));
            world.start(dead);
        }
        all_ran_once(&mut world, calls);
        assert_eq!(world.the_group().table.len(), 1, "seed {seed}");
        moves += world.tickets.len() - 1;
    }
    assert!(moves > 12, "sessions moved {moves} times");
}

#[test]
fn a_replica_that_dies_with_every_call_delivered_is_noticed_soon() {
    for seed in 0..8 {
        let mut world = ready(seed);
        world.the_group().commit = Duration::from_millis(40);
        let calls = begin(&mut world, 3);
        // The requests are acknowledged, and nothing more is sent.
        world.run(30);
        let dead = home(&mut world);
        world.kill(dead);
        let began = world.now;
        all_answered(&mut world, &calls);
        let gap = world.now.since(began);
        assert!(gap < Duration::from_millis(400), "seed {seed}: {gap:?}");
    }
}

/// Something goes wrong, or right again.
fn disturb(world: &mut World) {
    let host = REPLICAS[world.random.below(3) as usize];
    let now = world.now;
    match world.random.below(9) {
        0 | 1 if world.nodes[host].is_some() => world.kill(host),
        0..=2 if world.nodes[host].is_none() => world.start(host),
        3 => world.rules.alone = Some(host),
        4 => world.rules.alone = None,
        5 => world.the_group().cut_off = Some(host),
        6 => world.the_group().cut_off = None,
        7 => world.the_group().busy_until = now + Duration::from_millis(200),
        8 if world.nodes[host].is_some() => world.node(host).drain(now),
        _ => {}
    }
}

#[test]
fn whatever_happens_to_replicas_every_outcome_is_true() {
    for seed in 0..10 {
        let mut world = World::with_group(seed);
        world.rules.loss = 0.05;
        world.rules.jitter = Duration::from_millis(5);
        world.the_group().copies = 0.3;
        let mut calls = Vec::new();
        for _ in 0..60 {
            let deadline = world.random.chance(0.3).then(|| 20 + world.random.below(400));
            calls.push(world.call_with(&ECHO, body(calls.len()), deadline, None));
            let pause = world.random.below(150);
            world.run(pause);
            disturb(&mut world);
        }
        world.rules = Default::default();
        world.the_group().cut_off = None;
        for host in REPLICAS {
            world.start(host);
        }
        let mut known = Vec::new();
        for (number, call) in calls.into_iter().enumerate() {
            known.push(match world.result_within(call, 60_000) {
                Ok(reply) => {
                    assert_eq!(reply, body(number), "seed {seed}");
                    Some(1)
                }
                Err(error) => match error.outcome() {
                    Outcome::NotExecuted(_) => Some(0),
                    Outcome::Pending(_) => None,
                    other => panic!("seed {seed}, call {number}: {other:?}"),
                },
            });
        }
        world.run(5_000);
        for (number, known) in known.into_iter().enumerate() {
            let runs = world.ran.iter().filter(|(_, ran)| *ran == body(number)).count();
            assert!(runs <= 1, "seed {seed}: call {number} ran {runs} times");
            assert!(known.is_none_or(|known| known == runs), "seed {seed}, call {number}: {runs}");
        }
        assert_eq!(world.the_group().table.len(), 1, "seed {seed}");
        assert_eq!(world.the_group().table.footprint().executing, 0);
    }
}
