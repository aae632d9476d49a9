//! Streams: in order, each message once, whatever becomes of the path.

use bytes::Bytes;
use stubborn_core::limits::Limits;
use stubborn_core::node::{CallKey, CallName, Passed, StepKind};
use stubborn_core::service::{CallState, Code, Outcome};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Duration;

use crate::handlers::{CHAT, COUNT, HOARD, LIST, THREE, list, message, number};
use crate::world::{ECHO, READ, Rules, World, outgoing};

/// How long a path is gone: so that a connection is begun beside the old one, and so that both sides
/// have forgotten it.
const CUTS: [u64; 3] = [300, 3_000, 45_000];

/// A stream of the client, sent and ended as fast as there is room.
struct Upload {
    key: CallKey,
    sent: u64,
    count: u64,
    size: usize,
    ended: bool,
}

impl Upload {
    fn new(world: &mut World, count: u64, size: usize) -> Self {
        let key = world.open(&COUNT, Bytes::new());
        Self { key, sent: 0, count, size, ended: false }
    }

    fn go_on(&mut self, world: &mut World) {
        while self.sent < self.count && world.send(self.key, &COUNT, message(self.sent, self.size))
        {
            self.sent += 1;
        }
        if self.sent == self.count && !std::mem::replace(&mut self.ended, true) {
            world.end(self.key);
        }
    }

    fn run(&mut self, world: &mut World) {
        let done = world.run_until(600_000, |world| {
            if !world.results.contains_key(&self.key) {
                self.go_on(world);
            }
            world.results.contains_key(&self.key)
        });
        assert!(
            done,
            "{} of {} were sent, {} taken",
            self.sent,
            self.count,
            world.handlers.took.len()
        );
    }
}

fn assert_all_taken(world: &mut World, key: CallKey, count: u64, context: &str) {
    let reply = world.end_of(key).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(number(&reply.reply.body.into_bytes()), count, "{context}");
    assert_eq!(reply.stream.expect("a stream").taken, count, "{context}");
    let numbers: Vec<u64> = world.handlers.took.iter().map(|message| number(message)).collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{context}");
    assert_eq!(world.handlers.started, 1, "{context}");
}

#[test]
fn a_client_streams_and_learns_how_many_messages_were_taken() {
    let mut world = World::new(1);
    let mut upload = Upload::new(&mut world, 1_000, 100);
    upload.run(&mut world);
    assert_all_taken(&mut world, upload.key, 1_000, "");
}

#[test]
fn an_empty_stream_ends_well() {
    let mut world = World::new(2);
    let mut upload = Upload::new(&mut world, 0, 0);
    upload.run(&mut world);
    assert_all_taken(&mut world, upload.key, 0, "");
}

#[test]
fn a_stream_of_the_client_survives_a_cut_at_every_moment() {
    cut_everywhere(12, 100, CUTS);
}

#[test]
fn a_stream_with_large_messages_survives_a_cut_at_every_moment() {
    cut_everywhere(5, 20_000, [45_000]);
}

fn cut_everywhere<const N: usize>(count: u64, size: usize, cuts: [u64; N]) {
    for cut in cuts {
        for moment in 0.. {
            let context = format!("a cut of {cut} ms at moment {moment}");
            let mut world = World::new(3);
            let mut upload = Upload::new(&mut world, count, size);
            let mut over = false;
            for _ in 0..moment {
                // One message at a time, so that the cut falls between any two.
                if upload.sent < upload.count {
                    let next = message(upload.sent, size);
                    upload.sent += u64::from(world.send(upload.key, &COUNT, next));
                } else {
                    upload.go_on(&mut world);
                }
                world.step();
                over = world.results.contains_key(&upload.key);
                if over {
                    break;
                }
            }
            if over {
                assert!(moment > count, "the stream was cut at {moment} moments only");
                break;
            }
            world.cut_for(cut);
            upload.run(&mut world);
            assert_all_taken(&mut world, upload.key, count, &context);
        }
    }
}

/// Takes all replies of a stream; panics if one is missing, doubled or out of order.
fn take_all(world: &mut World, key: CallKey, count: u64, context: &str) {
    let mut next = 0;
    world.run_until(600_000, |world| {
        while let Some(message) = world.next(key, &LIST) {
            assert_eq!(number(&message), next, "{context}");
            next += 1;
        }
        world.results.contains_key(&key) && next == count
    });
    assert_eq!(next, count, "{context}");
}

#[test]
fn a_server_streams_and_its_status_comes_after_the_messages() {
    for count in [0, 1, 2, 777] {
        let mut world = World::new(4);
        let key = world.open(&LIST, list(count, 50));
        take_all(&mut world, key, count, "");
        let end = world.end_of(key);
        match end {
            Ok(reply) => assert_eq!((count % 2, reply.stream.unwrap().sent), (0, count)),
            Err(error) => {
                assert_eq!((count % 2, error.status().unwrap().code()), (1, Code::NotFound));
            }
        }
    }
}

#[test]
fn a_stream_of_the_server_survives_a_cut_at_every_moment() {
    let count = 12;
    // So that the server waits for credit in between.
    let limits = Limits { stream_window: 2_000, ..Limits::default() };
    for cut in CUTS {
        for moment in 0.. {
            let context = format!("a cut of {cut} ms at moment {moment}");
            let mut world = World::with_limits(5, limits.clone());
            let key = world.open(&LIST, list(count, 400));
            let mut taken = 0;
            for _ in 0..moment {
                world.step();
                if let Some(message) = world.next(key, &LIST) {
                    assert_eq!(number(&message), taken, "{context}");
                    taken += 1;
                }
            }
            if world.results.contains_key(&key) && taken == count {
                assert!(moment > 12, "the stream was cut at {moment} moments only");
                break;
            }
            world.cut_for(cut);
            world.run_until(600_000, |world| {
                while let Some(message) = world.next(key, &LIST) {
                    assert_eq!(number(&message), taken, "{context}");
                    taken += 1;
                }
                world.results.contains_key(&key) && taken == count
            });
            assert_eq!(taken, count, "{context}");
            assert_eq!(world.end_of(key).expect("an end").stream.unwrap().sent, count, "{context}");
        }
    }
}

#[test]
fn messages_that_are_lost_doubled_and_reordered_arrive_once_and_in_order() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.rules = Rules {
            loss: 0.2,
            duplicate: 0.1,
            jitter: Duration::from_millis(20),
            ..Rules::default()
        };
        let mut upload = Upload::new(&mut world, 300, 700);
        upload.run(&mut world);
        assert_all_taken(&mut world, upload.key, 300, &format!("seed {seed}"));
        let key = world.open(&LIST, list(300, 700));
        take_all(&mut world, key, 300, &format!("seed {seed}"));
        assert!(world.end_of(key).is_ok());
    }
}

#[test]
fn both_sides_stream_at_once_and_the_client_may_end_first() {
    let mut world = World::new(6);
    let key = world.open(&CHAT, Bytes::new());
    let (mut sent, mut got) = (0, 0);
    let done = world.run_until(60_000, |world| {
        while sent < 500 && world.send(key, &CHAT, message(sent, 300)) {
            sent += 1;
            if sent == 500 {
                world.end(key);
            }
        }
        while let Some(message) = world.next(key, &CHAT) {
            assert_eq!(number(&message), got);
            got += 1;
        }
        world.results.contains_key(&key) && got == 500
    });
    assert!(done, "{sent} sent, {got} came back");
    assert!(world.end_of(key).is_ok());
}

#[test]
fn a_handler_that_takes_nothing_stalls_its_stream_only_and_memory_is_bounded() {
    let limits = Limits { stream_window: 10_000, ..Limits::default() };
    let mut world = World::with_limits(7, limits);
    let key = world.open(&HOARD, Bytes::new());
    let mut sent = 0;
    world.run_until(5_000, |world| {
        while world.send(key, &HOARD, message(sent, 1_000)) {
            sent += 1;
        }
        false
    });
    // Each counts 1,256, and one may be over the window.
    assert_eq!(sent, 8);
    let footprint = world.server().footprint();
    assert!(footprint.stream_bytes <= 10_000 + 1_256, "{footprint:?}");
    let other = world.call(&ECHO, b"hello", None);
    assert_eq!(world.result_within(other, 100).unwrap(), &b"hello"[..]);
    let mut upload = Upload::new(&mut world, 100, 1_000);
    upload.run(&mut world);
    assert!(world.end_of(upload.key).is_ok());
}

#[test]
fn a_client_that_takes_nothing_stalls_the_handler_only() {
    let limits = Limits { stream_window: 10_000, ..Limits::default() };
    let mut world = World::with_limits(8, limits);
    let slow = world.open(&LIST, list(1_000, 1_000));
    world.run(5_000);
    assert_eq!(world.handlers.running(), 1);
    let footprint = world.server().footprint();
    assert!(footprint.stream_bytes <= 10_000 + 1_256, "{footprint:?}");
    let quick = world.open(&LIST, list(1_000, 1_000));
    take_all(&mut world, quick, 1_000, "the quick one");
    take_all(&mut world, slow, 1_000, "the slow one");
}

#[test]
fn a_handler_may_end_before_the_client_has() {
    let mut world = World::new(9);
    let key = world.open(&THREE, Bytes::new());
    for n in 0..5 {
        assert!(world.send(key, &THREE, message(n, 10)));
    }
    let end = world.end_of(key).expect("a reply");
    assert_eq!(end.stream.unwrap().taken, 3);
}

#[test]
fn a_stream_that_is_dropped_stops_its_handler() {
    for method in [&HOARD, &COUNT] {
        let mut world = World::new(10);
        let key = world.open(method, Bytes::new());
        world.run(100);
        assert_eq!(world.handlers.running(), 1);
        let now = world.now;
        world.client().abandon(now, key);
        world.run(100);
        assert_eq!((world.handlers.running(), world.handlers.stopped), (0, 1));
        assert_eq!(world.server().executing(), 0);
        // Its slot is free again.
        let call = world.call(&ECHO, b"next", None);
        assert!(world.result_within(call, 100).is_ok());
    }
}

#[test]
fn a_stream_that_is_dropped_while_the_path_is_gone_is_stopped_when_it_is_back() {
    for cut in CUTS {
        let mut world = World::new(11);
        let key = world.open(&HOARD, Bytes::new());
        world.run(100);
        world.rules.cut = true;
        world.run(50);
        let now = world.now;
        world.client().abandon(now, key);
        world.run(cut);
        world.rules.cut = false;
        world.run(5_000);
        assert_eq!((world.handlers.running(), world.handlers.stopped), (0, 1), "after {cut} ms");
        assert_eq!(world.server().executing(), 0);
    }
}

#[test]
fn a_deadline_stops_the_handler_and_tells_how_many_messages_it_took() {
    let mut world = World::new(12);
    let key = world.open_within(&COUNT, Bytes::new(), Some(500));
    for n in 0..4 {
        assert!(world.send(key, &COUNT, message(n, 10)));
    }
    let error = world.end_of(key).expect_err("a deadline");
    assert_eq!(error.status().map(|status| status.code()), Some(Code::DeadlineExceeded), "{error}");
    assert_eq!(error.taken(), Some(4));
    assert_eq!(world.handlers.stopped, 1);
    assert_eq!(world.now.since(Default::default()).as_millis() / 100, 5);
}

#[test]
fn a_deadline_stops_the_handler_though_its_client_is_gone() {
    let mut world = World::new(13);
    let _key = world.open_within(&HOARD, Bytes::new(), Some(500));
    world.run(100);
    world.rules.cut = true;
    world.run(500);
    assert_eq!((world.handlers.running(), world.handlers.stopped), (0, 1));
}

#[test]
fn a_stream_that_is_stopped_before_its_handler_was_started_is_told_not_executed() {
    let mut world = World::new(15);
    world.run(100);
    // The request and the end of its deadline come in one batch.
    world.delay = Duration::from_millis(600);
    let key = world.open_within(&COUNT, Bytes::new(), Some(500));
    world.settle();
    world.rules.cut = true;
    world.run_until(499, |_| false);
    (world.rules.cut, world.delay) = (false, Duration::from_millis(100));
    let error = world.end_of(key).expect_err("a deadline");
    let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
    assert_eq!(why.reason, NotExecutedReason::Deadline);
    assert_eq!((world.handlers.started, world.handlers.stopped), (0, 0));
    assert_eq!(world.server().executing(), 0);
}

#[test]
fn a_stream_whose_client_does_not_come_back_is_stopped() {
    let mut world = World::new(14);
    let _key = world.open(&HOARD, Bytes::new());
    world.run(100);
    world.rules.cut = true;
    world.run(100_000);
    assert_eq!(world.handlers.running(), 1, "it waits for its client for two minutes");
    world.run(100_000);
    assert_eq!((world.handlers.running(), world.handlers.stopped), (0, 1));
    assert_eq!(world.server().executing(), 0);
}

#[test]
fn replies_that_a_client_comes_too_late_for_are_told_to_be_missing() {
    let limits = Limits { stream_window: 5_000, ..Limits::default() };
    let mut world = World::with_limits(15, limits);
    let key = world.open(&LIST, list(100, 100));
    world.run(1_000);
    world.cut_for(59_000);
    world.rules.cut = true;
    // The client gives up after a minute, the server after two.
    world.run(200_000);
    world.rules.cut = false;
    let error = world.end_of(key).expect_err("an end");
    assert!(matches!(error.outcome(), Outcome::Pending(_)), "{error}");
    let Outcome::Pending(id) = *error.outcome() else { unreachable!() };
    let state = world.outcome(id);
    assert!(
        matches!(&state, CallState::Executed(status) if status.code() == Code::Cancelled),
        "{state:?}"
    );
    assert_eq!(world.server().footprint().streams, 0);
}

#[test]
fn a_server_that_restarts_has_lost_the_stream() {
    let mut world = World::new(16);
    let key = world.open(&COUNT, Bytes::new());
    for n in 0..4 {
        assert!(world.send(key, &COUNT, message(n, 10)));
    }
    world.run(100);
    world.kill_server();
    world.start_server();
    let error = world.end_of(key).expect_err("it is lost");
    assert!(matches!(error.outcome(), Outcome::Lost), "{error}");
    assert_eq!(world.handlers.started, 1);
}

#[test]
fn a_draining_server_lets_streams_end_and_takes_no_new_ones() {
    let mut world = World::new(17);
    let key = world.open(&COUNT, Bytes::new());
    assert!(world.send(key, &COUNT, message(0, 10)));
    world.run(100);
    let now = world.now;
    world.server().drain(now);
    world.run(100);
    let refused = world.call_with(&COUNT, Bytes::new(), None, None);
    let error = world.end_of(refused).expect_err("it drains");
    assert!(
        matches!(error.outcome(), Outcome::NotExecuted(why) if why.reason == NotExecutedReason::Draining)
    );
    assert!(world.send(key, &COUNT, message(1, 10)) && !world.drained);
    world.end(key);
    assert_eq!(world.end_of(key).unwrap().stream.unwrap().taken, 2);
    world.run(2_000);
    assert!(world.drained);
}

#[test]
fn more_streams_than_allowed_are_refused_and_never_run() {
    let limits = Limits { streams: 3, ..Limits::default() };
    let mut world = World::with_limits(18, limits);
    let keys: Vec<_> = (0..4).map(|_| world.open(&HOARD, Bytes::new())).collect();
    world.run(100);
    let error = world.end_of(keys[3]).expect_err("the fourth is refused");
    assert!(
        matches!(error.outcome(), Outcome::NotExecuted(why) if why.reason == NotExecutedReason::Overloaded),
        "{error}"
    );
    assert_eq!((world.handlers.started, world.server().footprint().streams), (3, 3));
}

#[test]
fn a_message_that_is_too_large_for_the_server_ends_the_stream() {
    let mut world = World::new(19);
    world.restart_server_with(Limits { message: 1_000, ..Limits::default() });
    let key = world.open(&COUNT, Bytes::new());
    assert!(world.send(key, &COUNT, message(0, 10)));
    assert!(world.send(key, &COUNT, message(1, 200_000)));
    let error = world.end_of(key).expect_err("it is too large");
    assert_eq!(
        error.status().map(|status| status.code()),
        Some(Code::ResourceExhausted),
        "{error}"
    );
    assert_eq!(error.taken(), Some(1));
}

#[test]
fn a_group_refuses_streams_before_anything_is_sent() {
    let mut world = World::with_group(20);
    let key = world.open(&COUNT, Bytes::new());
    let error = world.end_of(key).expect_err("a group has none");
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    let call = world.call(&ECHO, b"hello", None);
    assert!(world.result(call).is_ok());
}

#[test]
fn an_outcome_can_be_asked_for_while_a_stream_is_open_without_ending_it() {
    let mut world = World::new(21);
    let key = world.open(&COUNT, Bytes::new());
    world.run(100);
    let session = world.tickets[0].session;
    let id = stubborn_core::session::CallId { session, slot: 0, sequence: 1 };
    assert!(matches!(world.outcome(id), CallState::Executing));
    assert!(world.send(key, &COUNT, message(0, 10)));
    world.end(key);
    assert_eq!(world.end_of(key).unwrap().stream.unwrap().taken, 1);
}

fn kinds(world: &mut World, name: impl Into<CallName>) -> Vec<StepKind> {
    let (kept, steps) = world.server().call_steps(name.into());
    assert!(kept && steps.is_sorted_by_key(|step| step.at));
    steps.into_iter().map(|step| step.kind).collect()
}

#[test]
fn a_stream_is_told_with_its_messages_its_lost_path_and_its_end() {
    let mut world = World::new(22);
    let key = world.open(&COUNT, Bytes::new());
    assert!(world.send(key, &COUNT, message(0, 10)));
    world.run(100);
    let session = world.tickets[0].session;
    let id = stubborn_core::session::CallId { session, slot: 0, sequence: 1 };
    let one = Passed { received: 1, sent: 0 };
    assert_eq!(kinds(&mut world, id), [StepKind::Came, StepKind::Streaming(one)]);
    world.cut_for(45_000);
    assert!(world.send(key, &COUNT, message(1, 10)));
    world.end(key);
    assert_eq!(world.end_of(key).unwrap().stream.unwrap().taken, 2);
    let two = Passed { received: 2, sent: 0 };
    let expected = [
        StepKind::Came,
        StepKind::Parted,
        StepKind::Resumed,
        StepKind::HalfClosed(2),
        StepKind::Ended(two),
    ];
    assert_eq!(kinds(&mut world, id), expected);
}

#[test]
fn a_read_and_a_stream_are_told_by_the_trace_that_they_carry() {
    let mut world = World::new(23);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for method in [&READ, &COUNT] {
        let mut call = outgoing(method, Bytes::new());
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        call.metadata.insert("traceparent", parent).unwrap();
        let (now, channel) = (world.now, world.channel);
        let key = world.client().call(now, channel, call);
        if method == &COUNT {
            world.end(key);
        }
        assert!(world.run_until(10_000, |world| world.results.contains_key(&key)));
    }
    let name = CallName::of_trace(trace).unwrap();
    let expected = [
        StepKind::Came,
        StepKind::Answered,
        StepKind::Came,
        StepKind::HalfClosed(0),
        StepKind::Ended(Passed::default()),
    ];
    assert_eq!(kinds(&mut world, name), expected);
    let other = CallName::of_trace("4bf92f3577b34da6a3ce929d0e0e4737").unwrap();
    assert_eq!(kinds(&mut world, other), []);
}
