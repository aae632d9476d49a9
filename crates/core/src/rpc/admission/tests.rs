use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;
use crate::limits::Concurrency;
use crate::rpc::event::IncomingRequest;
use crate::service::{Call, CallContext, Encoded, RequestKind};

const METHOD: MethodId = MethodId(7);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server whose handlers wait for one of so many places, first come first served, and then take so
/// long.
struct Server {
    now: Instant,
    admission: Admission,
    random: Random,
    places: usize,
    takes: Duration,
    calls: BTreeMap<u64, Waits>,
    next_key: u64,
    /// Handlers that wait for a place, and those that have one, by their end.
    inside: VecDeque<u64>,
    at_work: BTreeMap<(Instant, u64), ()>,
    good: Vec<Duration>,
    late: usize,
    shed: usize,
    good_by: [usize; 3],
}

struct Waits {
    came: Instant,
    deadline: Option<Instant>,
    priority: Priority,
    ticket: Ticket,
}

impl Server {
    fn new(places: usize, takes: Duration, limits: &Limits) -> Self {
        Self {
            now: Instant::ZERO + ms(1),
            admission: Admission::new(limits),
            random: Random::from_seed([1; 32]),
            places,
            takes,
            calls: BTreeMap::new(),
            next_key: 0,
            inside: VecDeque::new(),
            at_work: BTreeMap::new(),
            good: Vec::new(),
            late: 0,
            shed: 0,
            good_by: [0; 3],
        }
    }

    fn arrive(&mut self, deadline: Option<Duration>, priority: Priority) {
        let key = self.next_key;
        self.next_key += 1;
        let deadline = deadline.map(|left| self.now + left);
        let ticket = self.admission.begin(self.now);
        let room = ticket != Ticket::WAITING;
        self.calls.insert(key, Waits { came: self.now, deadline, priority, ticket });
        if room {
            self.inside.push_back(key);
        } else {
            let applicant =
                Applicant { entry: entry(key), method: METHOD, priority, deadline, bytes: 100 };
            let refused = self.admission.enqueue(self.now, applicant);
            self.refuse(refused);
        }
        self.work();
    }

    fn refuse(&mut self, refused: Vec<(RequestKey, Why)>) {
        for (key, _) in refused {
            self.shed += 1;
            self.calls.remove(&key.0).expect("nobody is refused twice, or after its start");
        }
    }

    fn start_waiting(&mut self) {
        while let Some(next) = self.admission.next(self.now) {
            match next {
                Ok(entry) => {
                    let ticket = self.admission.resume(self.now);
                    self.calls.get_mut(&entry.key().0).expect("it waits").ticket = ticket;
                    self.inside.push_back(entry.key().0);
                }
                Err(refused) => self.refuse(Vec::from([refused])),
            }
        }
    }

    fn work(&mut self) {
        while self.at_work.len() < self.places
            && let Some(key) = self.inside.pop_front()
        {
            self.at_work.insert((self.now + self.takes, key), ());
        }
    }

    /// Goes on for so long.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.at_work.first_key_value().map(|((at, _), ())| *at);
            let next = earliest(next, self.admission.next_timeout());
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            while let Some(entry) = self.at_work.first_entry()
                && entry.key().0 <= self.now
            {
                let key = entry.key().1;
                entry.remove();
                let call = self.calls.remove(&key).expect("it runs");
                let Waits { ticket, deadline, .. } = call;
                self.admission.end(self.now, Ended { ticket, method: METHOD, deadline });
                if call.deadline.is_none_or(|deadline| self.now <= deadline) {
                    self.good.push(self.now.since(call.came));
                    self.good_by[call.priority as usize] += 1;
                } else {
                    self.late += 1;
                }
            }
            let refused = self.admission.sweep(self.now, |_| false);
            self.refuse(refused);
            let _ = self.admission.share_slots(self.now, || 1);
            self.start_waiting();
            self.work();
        }
        self.now = end;
    }

    /// So many calls a second for so long; then counts are as if from there on.
    fn offer(&mut self, per_second: u64, time: Duration, deadline: Option<Duration>) {
        let pause = Duration::from_nanos(1_000_000_000 / per_second);
        let end = self.now + time;
        while self.now < end {
            self.arrive(deadline, Priority::Normal);
            self.run(pause);
        }
    }

    fn forget(&mut self) {
        self.good.clear();
        (self.late, self.shed, self.good_by) = (0, 0, [0; 3]);
    }
}

fn entry(key: u64) -> Entry {
    Entry::Request(Box::new(IncomingRequest {
        key: RequestKey(key),
        method: METHOD,
        kind: RequestKind::Read,
        stale: None,
        watch: None,
        call: Call::new(Encoded::from_body(METHOD, Bytes::new()), CallContext::default()),
    }))
}

#[test]
fn at_ten_times_its_capacity_a_server_does_nine_tenths_of_its_work_within_the_deadlines() {
    for (places, takes, deadline) in [(16, 10, 100), (16, 10, 30), (1, 10, 100), (64, 20, 100)] {
        let capacity = places as u64 * 1_000 / takes;
        let mut server = Server::new(places, ms(takes), &Limits::default());
        server.offer(capacity * 10, ms(3_000), Some(ms(deadline)));
        server.forget();
        // An experiment is in these.
        server.offer(capacity * 10, ms(9_000), Some(ms(deadline)));
        let (good, began) = (server.good.len() as u64, server.good.len() + server.late);
        assert!(good >= capacity * 9 * 9 / 10, "{places} x {takes}: {good} of {}", capacity * 9);
        assert!(server.late * 100 <= began, "{places} x {takes}: {} late", server.late);
    }
}

#[test]
fn a_server_that_starts_under_ten_times_its_load_recovers_within_two_seconds() {
    for (places, takes, deadline) in [(16, 10, 100), (1, 10, 100), (200, 100, 500)] {
        let capacity = places as u64 * 1_000 / takes;
        let mut server = Server::new(places, ms(takes), &Limits::default());
        server.offer(capacity * 10, ms(2_000), Some(ms(deadline)));
        server.forget();
        server.offer(capacity * 10, ms(1_000), Some(ms(deadline)));
        let good = server.good.len() as u64;
        assert!(good >= capacity * 8 / 10, "{places} x {takes}: {good} of {capacity}");
    }
}

#[test]
fn handlers_that_do_not_hinder_each_other_are_not_limited() {
    let mut server = Server::new(usize::MAX, ms(50), &Limits::default());
    server.offer(20_000, ms(2_000), None);
    assert!(server.admission.load().limit >= 1_000, "{:?}", server.admission.load());
    server.forget();
    server.offer(20_000, ms(1_000), None);
    assert!(server.good.iter().all(|took| *took == ms(50)));
    assert_eq!(server.shed, 0);
}

#[test]
fn the_limit_follows_a_capacity_that_grows_and_handlers_that_become_slower() {
    let mut server = Server::new(4, ms(10), &Limits::default());
    server.offer(4_000, ms(3_000), Some(ms(100)));
    server.places = 40;
    server.offer(40_000, ms(3_000), Some(ms(100)));
    server.forget();
    server.offer(40_000, ms(1_000), Some(ms(100)));
    assert!(server.good.len() >= 3_600, "{}", server.good.len());
    server.takes = ms(30);
    server.offer(13_000, ms(3_000), Some(ms(100)));
    server.forget();
    server.offer(13_000, ms(1_000), Some(ms(100)));
    assert!(server.good.len() >= 1_200, "{}", server.good.len());
}

#[test]
fn what_matters_more_is_served_first_and_what_matters_less_is_refused_first() {
    let mut server = Server::new(16, ms(10), &Limits::default());
    let mut offered = [0; 3];
    for round in 0..40_000_u32 {
        if round == 16_000 {
            server.forget();
            offered = [0; 3];
        }
        let priority = match round % 20 {
            0 => Priority::High,
            1..=10 => Priority::Normal,
            _ => Priority::Low,
        };
        offered[priority as usize] += 1;
        server.arrive(Some(ms(100)), priority);
        server.run(Duration::from_micros(62)); // Ten times its capacity.
    }
    let [low, normal, high] = server.good_by;
    assert!(high * 100 >= offered[2] * 95, "{high} of {offered:?}");
    assert!(normal > low * 20, "{low} {normal}");
    let shed = server.admission.load().shed;
    assert!(shed.low > shed.normal && shed.high < shed.normal / 20, "{shed:?}");
}

#[test]
fn calls_without_a_deadline_wait_in_order_and_are_refused_only_for_want_of_room() {
    let limits = Limits { concurrency: Concurrency::Fixed(1), ..Limits::default() };
    let mut server = Server::new(1, ms(10), &limits);
    for _ in 0..200 {
        server.arrive(None, Priority::Normal);
    }
    server.run(ms(3_000));
    assert_eq!((server.good.len(), server.shed), (200, 0));
    assert!(server.good.is_sorted(), "the first one first");

    let limits = Limits { queued_calls: 10, ..limits };
    let mut server = Server::new(1, ms(10), &limits);
    for _ in 0..20 {
        server.arrive(None, Priority::Normal);
    }
    assert_eq!((server.shed, server.admission.load().shed.full), (9, 9));
    // One that matters more takes the place of one that matters less.
    server.arrive(None, Priority::High);
    assert_eq!((server.shed, server.admission.load().waiting), (10, 10));
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    let limits =
        Limits { concurrency: Concurrency::Fixed(1), queued_bytes: 450, ..Limits::default() };
    let mut server = Server::new(1, ms(10), &limits);
    for _ in 0..20 {
        server.arrive(None, Priority::Normal);
    }
    assert_eq!((server.admission.load().waiting, server.shed), (4, 15));
}

#[test]
fn a_call_that_cannot_end_in_time_is_refused_at_once() {
    let limits = Limits { concurrency: Concurrency::Fixed(4), ..Limits::default() };
    let mut server = Server::new(4, ms(10), &limits);
    server.offer(800, ms(1_000), Some(ms(1_000)));
    server.forget();
    server.arrive(Some(ms(8)), Priority::Normal);
    assert_eq!(server.shed, 1, "{:?}", server.admission.load());
    server.arrive(Some(ms(1_000)), Priority::Normal);
    assert_eq!(server.shed, 1);
}

#[test]
fn a_server_without_a_limit_starts_everything() {
    let limits = Limits { concurrency: Concurrency::Unlimited, ..Limits::default() };
    let mut server = Server::new(1, ms(10), &limits);
    for _ in 0..100_000 {
        server.arrive(Some(ms(20)), Priority::Low);
    }
    assert_eq!((server.shed, server.admission.load().running), (0, 100_000));
}

#[test]
fn handlers_that_wait_for_a_call_in_the_queue_get_it_in_the_end() {
    // None of them ends before all have begun.
    let mut server = Server::new(0, ms(1), &Limits::default());
    for _ in 0..500 {
        server.arrive(None, Priority::Normal);
    }
    assert_eq!(server.inside.len(), 128);
    server.run(ms(10_000));
    assert_eq!(server.inside.len(), 500);
}

#[test]
fn who_is_refused_is_told_to_come_back_the_later_the_more_are_refused() {
    let mut hints = Vec::new();
    for times in [2, 10] {
        let mut server = Server::new(16, ms(10), &Limits::default());
        server.offer(1_600 * times, ms(3_000), Some(ms(100)));
        let refusal = server.admission.refusal(Why::Standing, &mut server.random);
        assert_eq!(refusal.reason, NotExecutedReason::Overloaded);
        hints.push(refusal.retry_after().expect("a hint"));
    }
    assert!(hints[0] >= ms(10) && hints[1] > hints[0] * 2 && hints[1] < ms(1_000), "{hints:?}");
}

#[test]
fn slots_are_taken_back_while_the_queue_stands_and_given_again_after() {
    let mut server = Server::new(16, ms(10), &Limits::default());
    server.offer(16_000, ms(2_000), Some(ms(100)));
    let taken = server.admission.load().slots;
    assert!((16..=256).contains(&taken), "{taken}");
    server.run(ms(20_000));
    assert_eq!(server.admission.load().slots, Limits::default().slots);
    assert_eq!(server.admission.next_timeout(), None, "a server at rest sleeps");
}
