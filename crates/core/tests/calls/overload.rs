//! More calls than a server can run: what it begins ends in time, what it does not begin never runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use stubborn_core::limits::{Concurrency, Limits};
use stubborn_core::node::{CallKey, ChannelKey, Load, PlaceEnd, PlaceRequest, RequestKey};
use stubborn_core::service::{
    Answer, Encoded, Metadata, Outcome, OutgoingCall, PRIORITY, Priority,
};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::{Duration, Instant};

use crate::world::{ECHO, HANG, READ, Rules, SERVER, World, outgoing};

/// A world whose server's handlers wait for one of so many places, which each of them has for 10 ms.
struct Busy {
    world: World,
    places: usize,
    at_work: VecDeque<(Instant, RequestKey)>,
    inside: VecDeque<RequestKey>,
    began: BTreeMap<CallKey, (Instant, Bytes)>,
    high: BTreeSet<CallKey>,
    high_good: usize,
    high_errors: Vec<String>,
    made: u32,
    good: Vec<Duration>,
    late: usize,
    refused: usize,
}

const TAKES: Duration = Duration::from_millis(10);
const DEADLINE: Duration = Duration::from_millis(150);

impl Busy {
    fn new(places: usize, limits: Limits) -> Self {
        let mut world = World::new(1);
        world.restart_server_with(limits);
        world.delay = Duration::from_millis(1);
        world.run(500);
        Self {
            world,
            places,
            at_work: VecDeque::new(),
            inside: VecDeque::new(),
            began: BTreeMap::new(),
            high: BTreeSet::new(),
            high_good: 0,
            high_errors: Vec::new(),
            made: 0,
            good: Vec::new(),
            late: 0,
            refused: 0,
        }
    }

    fn call(&mut self, deadline: Option<Duration>, priority: Priority) -> CallKey {
        self.made += 1;
        let body = Bytes::copy_from_slice(&self.made.to_be_bytes());
        let mut metadata = Metadata::new();
        if priority != Priority::Normal {
            metadata.insert(PRIORITY, priority.as_str()).unwrap();
        }
        let call = OutgoingCall { deadline, metadata, ..outgoing(&HANG, body.clone()) };
        let (now, channel) = (self.world.now, self.world.channel);
        let key = self.world.client().call(now, channel, call);
        self.began.insert(key, (now, body));
        if priority == Priority::High {
            self.high.insert(key);
        }
        key
    }

    /// A millisecond goes by.
    fn tick(&mut self) {
        self.world.run(1);
        let now = self.world.now;
        self.inside.extend(self.world.hanging.drain(..).map(|(_, key, _)| key));
        while self.at_work.front().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.at_work.pop_front().unwrap();
            let reply = Encoded::from_body(HANG.id(), Bytes::new());
            self.world.node(SERVER).answer(now, key, Answer::Reply(reply, Metadata::new()));
            self.world.settle();
            self.inside.extend(self.world.hanging.drain(..).map(|(_, key, _)| key));
        }
        while self.at_work.len() < self.places
            && let Some(key) = self.inside.pop_front()
        {
            self.at_work.push_back((now + TAKES, key));
        }
        for (key, result) in std::mem::take(&mut self.world.results) {
            let Some((began, body)) = self.began.remove(&key) else { continue };
            let took = now.since(began);
            if self.high.remove(&key) {
                self.high_good += usize::from(result.is_ok() && took <= DEADLINE);
                let error = result.as_ref().err().map(ToString::to_string);
                self.high_errors.extend(error.or((took > DEADLINE).then(|| format!("{took:?}"))));
            }
            match result {
                Ok(_) if took <= DEADLINE => self.good.push(took),
                Ok(_) => self.late += 1,
                Err(error) => {
                    let Outcome::NotExecuted(why) = error.outcome() else { continue };
                    self.refused += usize::from(why.reason == NotExecutedReason::Overloaded);
                    assert!(
                        !self.world.ran.iter().any(|(_, ran)| *ran == body),
                        "it ran, and was said not to have: {error}"
                    );
                }
            }
        }
    }

    fn offer(&mut self, per_ms: usize, ms: usize, priority: impl Fn(u32) -> Priority) {
        for _ in 0..ms {
            for _ in 0..per_ms {
                let priority = priority(self.made);
                self.call(Some(DEADLINE), priority);
            }
            self.tick();
        }
    }

    fn forget(&mut self) {
        self.good.clear();
        self.world.ran.clear();
        (self.late, self.refused) = (0, 0);
    }

    fn load(&mut self) -> Load {
        self.world.node(SERVER).load()
    }
}

fn normal(_: u32) -> Priority {
    Priority::Normal
}

fn fixed(concurrency: u32, queued_calls: usize) -> Limits {
    let concurrency = Concurrency::Fixed(concurrency);
    Limits { concurrency, queued_calls, ..Limits::default() }
}

#[test]
fn ten_times_the_load_leaves_nine_tenths_of_the_work_and_all_that_is_begun_ends_in_time() {
    let mut busy = Busy::new(4, Limits::default());
    busy.offer(4, 1_000, normal); // 4,000 a second; it can do 400.
    busy.forget();
    busy.offer(4, 1_500, normal);
    let (good, late) = (busy.good.len(), busy.late);
    assert!(good >= 400 * 3 / 2 * 9 / 10, "{good} good, {late} late, {:?}", busy.load());
    assert!(late * 100 <= good, "{late} late of {good}");
    assert!(busy.load().slots < Limits::default().slots, "slots were taken back");
    // The load is gone: all of them are given again, and nothing is refused any more.
    busy.offer(0, 10_000, normal);
    assert_eq!(busy.load().slots, Limits::default().slots);
    busy.forget();
    for _ in 0..20 {
        busy.call(Some(DEADLINE), Priority::Normal);
    }
    busy.offer(0, 200, normal);
    assert_eq!((busy.good.len(), busy.refused, busy.began.len()), (20, 0, 0));
}

#[test]
fn calls_that_matter_more_are_run_while_others_are_refused() {
    // All that is offered reaches the server: no slots are taken back in this time.
    let mut busy = Busy::new(4, fixed(5, 64));
    let mut high = Vec::new();
    for round in 0..150 {
        for _ in 0..3 {
            busy.call(Some(DEADLINE), Priority::Low);
        }
        if round % 5 == 0 {
            high.push(busy.call(Some(DEADLINE), Priority::High));
        }
        busy.tick();
    }
    let open = high.iter().filter(|key| busy.began.contains_key(key)).count();
    let shed = busy.load().shed;
    assert!(shed.high == 0 && shed.low > 100, "{shed:?}");
    assert!(open <= 5, "{open} wait");
}

#[test]
fn what_matters_more_does_not_wait_for_slots_behind_what_matters_less() {
    let mut busy = Busy::new(4, Limits::default());
    busy.offer(4, 1_000, normal); // Slots are taken back.
    let mut high = 0;
    busy.forget();
    for round in 0..1_000 {
        for _ in 0..4 {
            busy.call(Some(DEADLINE), Priority::Normal);
        }
        if round % 5 == 0 {
            high += 1;
            busy.call(Some(DEADLINE), Priority::High);
        }
        busy.tick();
    }
    busy.offer(0, 300, normal);
    assert_eq!(busy.high_good, high, "{:?}", busy.high_errors);
}

#[test]
fn a_refused_call_is_told_when_to_come_back_and_is_made_again_then() {
    let mut world = World::new(2);
    world.restart_server_with(fixed(1, 0));
    world.run(100);
    world.call(&HANG, b"at work", None);
    world.run(20);
    let began = world.now;
    let refused = world.call(&HANG, b"refused", Some(5_000));
    let free = world.run_until(100, |world| world.node(SERVER).load().shed.full == 1);
    assert!(free, "no place for it");
    world.answer_hanging(SERVER);
    assert!(world.run_until(1_000, |world| world.ran.len() == 2), "it is made again");
    assert!(world.now.since(began) >= Duration::from_millis(15), "not at once");
    world.answer_hanging(SERVER);
    world.result(refused).unwrap();
}

#[test]
fn a_hint_beyond_the_deadline_ends_the_call_at_once_and_tells_the_hint() {
    let mut world = World::new(3);
    world.restart_server_with(fixed(1, 0));
    world.run(100);
    world.call(&HANG, b"at work", None);
    world.run(20);
    let began = world.now;
    let refused = world.call(&HANG, b"refused", Some(12));
    let error = world.result(refused).unwrap_err();
    let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
    assert_eq!(why.reason, NotExecutedReason::Overloaded);
    assert!(why.retry_after().is_some_and(|pause| pause >= Duration::from_millis(10)));
    assert!(world.now.since(began) < Duration::from_millis(12));
    assert_eq!(world.ran.len(), 1);
}

#[test]
fn what_was_refused_never_runs_though_copies_of_it_come_late() {
    for seed in 0..4 {
        let mut busy = Busy::new(2, fixed(2, 8));
        let jitter = Duration::from_millis(20);
        busy.world.random = stubborn_core::random::Random::from_seed([seed; 32]);
        busy.world.rules = Rules { loss: 0.1, duplicate: 0.2, jitter, ..Rules::default() };
        busy.offer(2, 300, |made| if made % 3 == 0 { Priority::High } else { Priority::Low });
        busy.world.rules = Rules::default();
        // Each that ends now is looked for among those that ran, too.
        busy.offer(0, 700, normal);
        assert!(busy.refused > 50 && !busy.good.is_empty(), "{}", busy.refused);
        assert_eq!(busy.began.len(), 0, "all are resolved");
        let mut ran: Vec<_> = busy.world.ran.iter().map(|(_, body)| body.clone()).collect();
        let all = ran.len();
        ran.sort();
        ran.dedup();
        assert_eq!(ran.len(), all, "twice");
    }
}

#[test]
fn reads_wait_in_the_same_queue_and_one_that_is_given_up_leaves_it() {
    let mut world = World::new(4);
    world.restart_server_with(fixed(1, 8));
    world.run(100);
    world.call(&HANG, b"at work", None);
    world.run(20);
    let waits = world.call(&READ, b"waits", None);
    let given_up = world.call(&READ, b"given up", None);
    world.run(20);
    assert_eq!(world.node(SERVER).load().waiting, 2);
    let now = world.now;
    world.client().abandon(now, given_up);
    world.run(20);
    world.answer_hanging(SERVER);
    world.result(waits).unwrap();
    world.run(20);
    assert_eq!(world.ran.len(), 2);
    assert_eq!(world.node(SERVER).load().waiting, 0);
    assert_eq!(world.node(SERVER).load().running, 0);
}

#[test]
fn a_call_that_is_fenced_while_it_waits_leaves_the_queue_and_never_runs() {
    let mut world = World::new(6);
    world.restart_server_with(fixed(1, 8));
    world.run(100);
    world.call(&HANG, b"at work", None);
    world.run(20);
    let given_up = world.call(&ECHO, b"given up", None);
    world.run(20);
    assert_eq!(world.node(SERVER).load().waiting, 1);
    let now = world.now;
    world.client().abandon(now, given_up);
    world.run(30);
    assert_eq!(world.node(SERVER).load().waiting, 0, "while the other one is still at work");
    assert_eq!(world.node(SERVER).executing(), 1);
    world.answer_hanging(SERVER);
    // The slot is free for another one.
    let next = world.call(&ECHO, b"next", None);
    world.result(next).unwrap();
    assert!(!world.ran.iter().any(|(_, body)| body == "given up"));
}

#[test]
fn a_server_that_drains_runs_what_waits() {
    let mut world = World::new(5);
    world.restart_server_with(fixed(1, 8));
    world.run(100);
    world.call(&HANG, b"at work", None);
    let waits = world.call(&ECHO, b"waits", None);
    world.run(20);
    let now = world.now;
    world.node(SERVER).drain(now);
    world.run(20);
    world.answer_hanging(SERVER);
    world.result(waits).unwrap();
    assert!(world.run_until(5_000, |world| world.drained), "nothing is left");
}

fn place(world: &World, priority: Priority, deadline: Option<u64>) -> PlaceRequest {
    let deadline = deadline.map(|ms| world.now + Duration::from_millis(ms));
    PlaceRequest { method: HANG.id(), priority, deadline, bytes: 10 }
}

#[test]
fn calls_by_another_way_share_the_limit_and_the_queue() {
    let mut world = World::new(7);
    world.restart_server_with(fixed(1, 8));
    world.run(100);
    let (now, ask) = (world.now, place(&world, Priority::Normal, None));
    let (first, at_once) = world.node(SERVER).ask_place(now, ask).unwrap();
    assert!(at_once);
    let call = world.call(&ECHO, b"waits", None);
    world.run(20);
    assert!(world.ran.is_empty(), "a call over the connection waits for it");
    // What matters more comes before it.
    let ask = place(&world, Priority::High, None);
    let now = world.now;
    let (second, at_once) = world.node(SERVER).ask_place(now, ask).unwrap();
    assert!(!at_once);
    world.node(SERVER).leave_place(now, first, PlaceEnd::Answered);
    world.run(20);
    assert_eq!((world.placed.as_slice(), world.ran.len()), ([second].as_slice(), 0));
    let now = world.now;
    world.node(SERVER).leave_place(now, second, PlaceEnd::Answered);
    world.result(call).unwrap();
    let load = world.node(SERVER).load();
    assert_eq!((load.running, load.waiting, world.node(SERVER).executing()), (0, 0, 0));
}

#[test]
fn a_place_is_refused_with_a_hint_and_one_that_nobody_waits_for_is_not_given() {
    let mut world = World::new(8);
    world.restart_server_with(fixed(1, 1));
    world.run(100);
    let call = world.call(&HANG, b"at work", None);
    world.run(20);
    let (now, ask) = (world.now, place(&world, Priority::Normal, None));
    let (waits, _) = world.node(SERVER).ask_place(now, ask).unwrap();
    let (refused, _) = world.node(SERVER).ask_place(now, ask).unwrap();
    world.run(1);
    let [(key, why)] = &world.not_placed[..] else { panic!("{:?}", world.not_placed) };
    assert_eq!((*key, why.reason), (refused, NotExecutedReason::Overloaded));
    assert!(why.retry_after().is_some());
    let now = world.now;
    world.node(SERVER).leave_place(now, waits, PlaceEnd::Withdrawn);
    world.node(SERVER).leave_place(now, refused, PlaceEnd::Withdrawn);
    world.answer_hanging(SERVER);
    world.result(call).unwrap();
    world.run(20);
    assert!(world.placed.is_empty());
    let load = world.node(SERVER).load();
    assert_eq!((load.running, load.waiting, world.node(SERVER).executing()), (0, 0, 0));
}

/// A server whose handlers compute, one after the other in the thread that also has its socket, and four
/// sessions of a client.
struct Computing {
    busy: Busy,
    takes: Duration,
    deadline: Duration,
    channels: Vec<ChannelKey>,
    /// What is run before anything is received or sent again.
    batch: Vec<RequestKey>,
    due: Duration,
    good: usize,
    /// One call in so many is of high priority; none if zero.
    high_of: u32,
    high_good: usize,
}

impl Computing {
    fn new(takes: Duration, deadline: Duration, high_of: u32) -> Self {
        let mut busy = Busy::new(0, Limits::default());
        busy.world.delay = Duration::from_micros(50);
        let mut channels = vec![busy.world.channel];
        for _ in 1..4 {
            busy.world.open_channel();
            channels.push(busy.world.channel);
        }
        busy.world.run(500);
        let (batch, due) = (Vec::new(), Duration::ZERO);
        Self { busy, takes, deadline, channels, batch, due, good: 0, high_of, high_good: 0 }
    }

    /// Offers ten times of what it can do for so long.
    fn offer(&mut self, time: Duration) {
        let (step, pause) = (Duration::from_micros(250), self.takes / 10);
        let end = self.busy.world.now + time;
        while self.busy.world.now < end {
            self.due += step;
            while self.due >= pause {
                self.due -= pause;
                self.call();
            }
            self.step(step);
        }
    }

    fn call(&mut self) {
        self.busy.made += 1;
        let made = self.busy.made;
        let body = Bytes::copy_from_slice(&made.to_be_bytes());
        let high = self.high_of > 0 && made.is_multiple_of(self.high_of);
        let mut metadata = Metadata::new();
        if high {
            metadata.insert(PRIORITY, Priority::High.as_str()).unwrap();
        }
        // Those of high priority come over all connections, too.
        let turn = made + made.checked_div(self.high_of).unwrap_or(0);
        let channel = self.channels[turn as usize % self.channels.len()];
        let deadline = Some(self.deadline);
        let call = OutgoingCall { deadline, metadata, ..outgoing(&HANG, body.clone()) };
        let now = self.busy.world.now;
        let key = self.busy.world.client().call(now, channel, call);
        self.busy.began.insert(key, (now, body));
        if high {
            self.busy.high.insert(key);
        }
    }

    /// Goes on for so long.
    fn step(&mut self, time: Duration) {
        let end = self.busy.world.now + time;
        while self.busy.world.now < end {
            let world = &mut self.busy.world;
            let until = world.computing.map_or(end, |(_, until)| until.min(end));
            world.run_for(until.since(world.now));
            self.end_batch();
            self.begin_batch();
            self.take_results();
        }
    }

    /// The handlers have ended: they are answered, and then all that has come meanwhile is received.
    fn end_batch(&mut self) {
        let world = &mut self.busy.world;
        let now = world.now;
        let Some((since, _)) = world.computing.take_if(|(_, until)| *until <= now) else { return };
        for key in self.batch.drain(..) {
            let reply = Encoded::from_body(HANG.id(), Bytes::new());
            world.node(SERVER).answer(now, key, Answer::Reply(reply, Metadata::new()));
        }
        world.node(SERVER).was_away(now.since(since));
        world.run_for(Duration::from_nanos(1));
        world.node(SERVER).was_away(Duration::ZERO);
    }

    fn begin_batch(&mut self) {
        let world = &mut self.busy.world;
        if world.computing.is_none() && !world.hanging.is_empty() {
            self.batch.extend(world.hanging.drain(..).map(|(_, key, _)| key));
            let all = self.takes * u32::try_from(self.batch.len()).unwrap();
            world.computing = Some((world.now, world.now + all));
        }
    }

    fn take_results(&mut self) {
        let now = self.busy.world.now;
        for (key, result) in std::mem::take(&mut self.busy.world.results) {
            let Some((began, _)) = self.busy.began.remove(&key) else { continue };
            let took = now.since(began);
            let good = result.is_ok() && took <= self.deadline;
            self.good += usize::from(good);
            if self.busy.high.remove(&key) {
                self.high_good += usize::from(good);
                let error = result.err().map(|error| format!("{error} after {took:?}"));
                self.busy.high_errors.extend(error.or((!good).then(|| format!("{took:?}"))));
            }
        }
    }
}

#[test]
fn handlers_that_compute_in_the_thread_of_the_socket_are_not_begun_too_late() {
    let ms = Duration::from_millis;
    let rows = [(ms(5), ms(100), ms(1_500)), (ms(1) / 2, ms(50), ms(600))];
    for (takes, deadline, learns) in rows {
        let mut server = Computing::new(takes, deadline, 0);
        server.offer(learns);
        server.busy.world.ran.clear();
        server.good = 0;
        server.offer(ms(1_000));
        let (begun, good) = (server.busy.world.ran.len(), server.good);
        let peak = ms(1_000).as_nanos() / takes.as_nanos();
        assert!(good as u128 * 10 >= peak * 9, "{good} of {peak}");
        // Those of the batch at the beginning were begun before.
        let late = begun.saturating_sub(good);
        assert!(late * 100 <= begun, "{late} of {begun} late");
    }
}

#[test]
fn of_what_matters_most_nearly_all_is_answered_by_handlers_that_compute() {
    let ms = Duration::from_millis;
    let mut server = Computing::new(ms(5), ms(100), 20);
    server.offer(ms(2_000));
    (server.high_good, server.busy.high_errors) = (0, Vec::new());
    server.offer(ms(2_000));
    let (high, errors) = (server.high_good, &server.busy.high_errors);
    assert!(high >= 190 && errors.len() * 50 <= high, "{high}, and not: {errors:?}");
}
