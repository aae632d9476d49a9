//! What happened to calls lately: a ring that costs a store for each call, for people who ask why one
//! took so long or where it went.
//!
//! Under load the ring holds some milliseconds. So what is most asked about has rings of its own, within
//! the same bound: calls that took long, calls that failed, and those that were repeated or fenced.

use alloc::vec::Vec;

use crate::service::{Metadata, MethodId};
use crate::session::{CallId, SessionId};
use crate::time::Instant;

/// The metadata key of the trace that a call belongs to (<https://www.w3.org/TR/trace-context/>, 3.2).
const TRACEPARENT: &str = "traceparent";

/// Steps of this part of the bound, each, are kept for calls that took long, that failed, and that were
/// repeated.
const PART: usize = 8;

/// Calls that came again while they execute, and whose end is to be kept with that.
const MOST_AGAIN: usize = 32;

/// A call is taken for slow if about this part of all, as a power of two, take as long: what the
/// threshold goes up by for one that is slower, and down by for one that is not, balance there.
const UP: u32 = 1;
const DOWN: u32 = 13;

/// What a call is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallName {
    /// Its id.
    Id(CallId),
    /// The trace that it belongs to, as W3C Trace Context has it: of a call that has no id, as a read.
    Trace([u64; 2]),
    /// The id that its caller has given it over gRPC, as a digest.
    Key(u64),
}

/// Slots of names that are no ids: no session has as many.
const TRACE_SLOT: u32 = u32::MAX;
const KEY_SLOT: u32 = u32::MAX - 1;

impl CallName {
    /// The trace that a call with this metadata belongs to; none if it says none.
    pub fn trace_of(metadata: &Metadata) -> Option<Self> {
        if metadata.is_empty() {
            return None;
        }
        let parent = metadata.get_str(TRACEPARENT)?;
        Self::of_trace(parent.split('-').nth(1)?)
    }

    /// That of a trace's id: 32 hexadecimal digits in lower case, not all of them 0.
    pub fn of_trace(id: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if id.len() != 32 || !id.bytes().all(is_digit) {
            return None;
        }
        let (high, low) = id.split_at(16);
        let part = |digits| u64::from_str_radix(digits, 16).ok();
        let id = [part(high)?, part(low)?];
        (id != [0, 0]).then_some(Self::Trace(id))
    }

    /// That of an id which a gRPC caller has given its call.
    pub fn of_key(key: &str) -> Self {
        Self::Key(MethodId::of(key).0)
    }

    /// As an id, so that all names are kept alike.
    fn as_id(self) -> CallId {
        let session = |incarnation, number| SessionId { incarnation, number };
        match self {
            Self::Id(id) => id,
            Self::Trace([high, low]) => {
                CallId { session: session(high, low), slot: TRACE_SLOT, sequence: 0 }
            }
            Self::Key(key) => CallId { session: session(0, key), slot: KEY_SLOT, sequence: 0 },
        }
    }
}

impl From<CallId> for CallName {
    fn from(id: CallId) -> Self {
        Self::Id(id)
    }
}

/// A step of a call at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallStep {
    /// When, by the node's clock.
    pub at: Instant,
    /// What.
    pub kind: StepKind,
}

/// What happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Its request was here, whole, for the first time.
    Came,
    /// The request came again, and was answered from what is known.
    CameAgain,
    /// The client fenced it.
    FenceCame,
    /// Its handler runs since it came.
    Executing,
    /// Its handler runs, and of a stream so many messages have passed.
    Streaming(Passed),
    /// The client has sent its last message of a stream, of so many.
    HalfClosed(u64),
    /// The path to the client was lost, or its session moved: the stream waits for its client.
    Parted,
    /// The client came back, on another path or the same, and the stream goes on.
    Resumed,
    /// The handler was done, and the answer was sent.
    Answered,
    /// The same of a stream.
    Ended(Passed),
    /// This replica leads, and took it from another one for the log.
    Taken,
    /// This replica applied the entry of the log that it is in.
    Applied {
        /// The entry.
        entry: u64,
        /// It was a fence.
        fence: bool,
    },
}

/// How many messages of a stream have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// From the client to the handler.
    pub received: u64,
    /// From the handler to the client.
    pub sent: u64,
}

impl Passed {
    /// In one number: streams of 2^32 messages and more are told as that many.
    fn pack(self) -> u64 {
        let short = |count: u64| count.min(u64::from(u32::MAX));
        short(self.received) << 32 | short(self.sent)
    }

    fn unpack(number: u64) -> Self {
        Self { received: number >> 32, sent: number & u64::from(u32::MAX) }
    }
}

/// The latest steps of all calls of a node, up to a bound; each new one takes the place of the oldest.
/// Slow, failed and repeated calls are kept longer.
#[derive(Debug)]
pub struct CallLog {
    latest: Ring,
    slow: Ring,
    failed: Ring,
    repeated: Ring,
    /// Calls that take this long, in nanoseconds, are slow.
    threshold: u64,
    /// Calls that came again and execute still.
    again: Vec<CallId>,
}

/// Why a step is kept longer than others.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Slow,
    Failed,
    Repeated,
}

/// As small as it can be: one is written for each call.
#[derive(Clone, Copy, Debug)]
struct Logged {
    session: SessionId,
    sequence: u64,
    at: Instant,
    /// Of [`What::Done`] when it came, in nanoseconds; of an applied one its entry; of a stream what
    /// has passed.
    number: u64,
    slot: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Came,
    CameAgain,
    FenceCame,
    Executing,
    Streaming,
    HalfClosed,
    Parted,
    Resumed,
    Answered,
    Ended,
    Taken,
    Applied,
    FenceApplied,
    /// It came, and was answered: as one, since nearly all calls do just that.
    Done,
}

impl Logged {
    fn new(at: Instant, call: CallId, kind: StepKind) -> Self {
        let (what, number) = match kind {
            StepKind::Came => (What::Came, 0),
            StepKind::CameAgain => (What::CameAgain, 0),
            StepKind::FenceCame => (What::FenceCame, 0),
            StepKind::Executing => (What::Executing, 0),
            StepKind::Streaming(passed) => (What::Streaming, passed.pack()),
            StepKind::HalfClosed(messages) => (What::HalfClosed, messages),
            StepKind::Parted => (What::Parted, 0),
            StepKind::Resumed => (What::Resumed, 0),
            StepKind::Answered => (What::Answered, 0),
            StepKind::Ended(passed) => (What::Ended, passed.pack()),
            StepKind::Taken => (What::Taken, 0),
            StepKind::Applied { entry, fence: false } => (What::Applied, entry),
            StepKind::Applied { entry, fence: true } => (What::FenceApplied, entry),
        };
        Self::with(at, call, what, number)
    }

    #[inline]
    fn with(at: Instant, call: CallId, what: What, number: u64) -> Self {
        let CallId { session, slot, sequence } = call;
        Self { session, sequence, at, number, slot, what }
    }

    fn is_of(&self, call: CallId) -> bool {
        self.session == call.session && self.slot == call.slot && self.sequence == call.sequence
    }

    fn tell(&self, steps: &mut Vec<CallStep>) {
        let (mut at, number) = (self.at, self.number);
        let kind = match self.what {
            What::Came => StepKind::Came,
            What::CameAgain => StepKind::CameAgain,
            What::FenceCame => StepKind::FenceCame,
            What::Executing => StepKind::Executing,
            What::Streaming => StepKind::Streaming(Passed::unpack(number)),
            What::HalfClosed => StepKind::HalfClosed(number),
            What::Parted => StepKind::Parted,
            What::Resumed => StepKind::Resumed,
            What::Answered => StepKind::Answered,
            What::Ended => StepKind::Ended(Passed::unpack(number)),
            What::Taken => StepKind::Taken,
            What::Applied => StepKind::Applied { entry: number, fence: false },
            What::FenceApplied => StepKind::Applied { entry: number, fence: true },
            What::Done => {
                steps.push(CallStep { at, kind: StepKind::Answered });
                at = Instant::from_nanos(number);
                StepKind::Came
            }
        };
        steps.push(CallStep { at, kind });
    }
}

impl CallLog {
    /// Room for so many steps; with 0 nothing is kept. The memory is taken with the first ones.
    pub fn new(most: usize) -> Self {
        let part = most / PART;
        let ring = Ring::new;
        Self {
            latest: ring(most - 3 * part),
            slow: ring(part),
            failed: ring(part),
            repeated: ring(part),
            threshold: 0,
            again: Vec::new(),
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.latest.most > 0
    }

    /// A call came at `came` and was answered now.
    #[inline(always)]
    pub fn done(&mut self, now: Instant, call: CallId, came: Instant) {
        // Put together where it is wanted, and nowhere before: it is slow to move.
        let logged = || Logged::with(now, call, What::Done, came.as_nanos());
        let took = now.as_nanos().saturating_sub(came.as_nanos());
        if took >= self.threshold || !self.again.is_empty() {
            return self.done_strangely(logged(), took);
        }
        self.threshold -= self.threshold >> DOWN;
        self.latest.put(logged());
    }

    /// The same of one that its handler has failed, or that it did not run.
    #[cold]
    pub fn failed(&mut self, now: Instant, name: impl Into<CallName>, came: Instant) {
        let call = name.into().as_id();
        let logged = Logged::with(now, call, What::Done, came.as_nanos());
        let repeated = self.end_of_repeated(call);
        self.keep(if repeated { Kept::Repeated } else { Kept::Failed }, logged);
    }

    /// The same of one with any name that went well.
    pub fn done_as(&mut self, now: Instant, name: impl Into<CallName>, came: Instant) {
        self.done(now, name.into().as_id(), came);
    }

    #[cold]
    fn done_strangely(&mut self, logged: Logged, took: u64) {
        let Logged { session, slot, sequence, .. } = logged;
        if self.end_of_repeated(CallId { session, slot, sequence }) {
            self.keep(Kept::Repeated, logged);
        } else if took >= self.threshold {
            self.threshold += (self.threshold >> UP) + 1;
            self.keep(Kept::Slow, logged);
        } else {
            self.latest.put(logged);
        }
    }

    /// Something happened to a call.
    pub fn push(&mut self, now: Instant, name: impl Into<CallName>, kind: StepKind) {
        let logged = Logged::new(now, name.into().as_id(), kind);
        match kind {
            StepKind::CameAgain | StepKind::FenceCame | StepKind::Parted | StepKind::Resumed => {
                self.keep(Kept::Repeated, logged);
            }
            _ => self.latest.put(logged),
        }
    }

    /// A call that executes came again: its end will be kept with that.
    pub(crate) fn executes_again(&mut self, now: Instant, call: CallId) {
        self.push(now, call, StepKind::CameAgain);
        if self.again.contains(&call) || !self.is_on() {
            return;
        }
        if self.again.len() == MOST_AGAIN {
            self.again.remove(0);
        }
        self.again.push(call);
    }

    /// A stream came at `came`, and its end was sent now.
    pub fn stream_ended(
        &mut self,
        now: Instant,
        name: impl Into<CallName>,
        came: Instant,
        passed: Passed,
        failed: bool,
    ) {
        let call = name.into().as_id();
        for (at, kind) in [(came, StepKind::Came), (now, StepKind::Ended(passed))] {
            let logged = Logged::new(at, call, kind);
            if failed { self.keep(Kept::Failed, logged) } else { self.latest.put(logged) }
        }
    }

    /// What is known of a call, in the order of time.
    pub fn steps(&self, name: impl Into<CallName>) -> Vec<CallStep> {
        let call = name.into().as_id();
        let mut steps = Vec::new();
        for ring in [&self.latest, &self.slow, &self.failed, &self.repeated] {
            let of_call = ring.iter().filter(|logged| logged.is_of(call));
            of_call.for_each(|logged| logged.tell(&mut steps));
        }
        in_order(&mut steps);
        steps
    }

    /// Keeps it longer than others, if the bound is not too small to be divided.
    fn keep(&mut self, why: Kept, logged: Logged) {
        let ring = match why {
            Kept::Slow => &mut self.slow,
            Kept::Failed => &mut self.failed,
            Kept::Repeated => &mut self.repeated,
        };
        let ring = if ring.most == 0 { &mut self.latest } else { ring };
        ring.put(logged);
    }

    fn end_of_repeated(&mut self, call: CallId) -> bool {
        let found = self.again.iter().position(|own| *own == call);
        if let Some(at) = found {
            self.again.swap_remove(at);
        }
        found.is_some()
    }
}

/// Puts steps in the order of time: what comes at once was answered last.
pub fn in_order(steps: &mut [CallStep]) {
    let ends = |kind| matches!(kind, StepKind::Answered | StepKind::Ended(_));
    steps.sort_by_key(|step| (step.at, step.kind != StepKind::Came, ends(step.kind)));
}

/// The latest ones, up to a bound.
#[derive(Debug)]
struct Ring {
    steps: Vec<Logged>,
    next: usize,
    most: usize,
}

impl Ring {
    fn new(most: usize) -> Self {
        Self { steps: Vec::new(), next: 0, most }
    }

    /// From the oldest on.
    fn iter(&self) -> impl Iterator<Item = &Logged> {
        let (newer, older) = self.steps.split_at(self.next.min(self.steps.len()));
        older.iter().chain(newer)
    }

    #[inline(always)]
    fn put(&mut self, logged: Logged) {
        let next = self.next + 1;
        match self.steps.get_mut(self.next) {
            Some(oldest) => *oldest = logged,
            None => return self.grow(logged),
        }
        self.next = if next == self.most { 0 } else { next };
    }

    #[cold]
    fn grow(&mut self, logged: Logged) {
        if self.most == 0 {
            return;
        }
        self.steps.reserve_exact(self.most - self.steps.len());
        self.steps.push(logged);
        self.next = self.steps.len() % self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn call(sequence: u64) -> CallId {
        CallId { session: SessionId { incarnation: 1, number: 2 }, slot: 3, sequence }
    }

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    fn kinds(log: &CallLog, name: impl Into<CallName>) -> Vec<StepKind> {
        log.steps(name).iter().map(|step| step.kind).collect()
    }

    /// One to which a call of 10 ms is nothing new.
    fn used_to_slow_calls(most: usize) -> CallLog {
        let mut log = CallLog::new(most);
        (0..100).for_each(|n| log.done(at(10_000), call(1_000 + n), at(0)));
        log
    }

    #[test]
    fn the_latest_steps_are_kept_and_told_in_the_order_of_time() {
        let mut log = used_to_slow_calls(7);
        assert_eq!(log.latest.most, 7, "too few to be divided");
        log.push(at(1), call(1), StepKind::Taken);
        log.done(at(9), call(2), at(4));
        log.push(at(6), call(2), StepKind::Executing);
        let steps = log.steps(call(2));
        let told: Vec<_> = steps.iter().map(|step| (step.at, step.kind)).collect();
        let expected =
            [(at(4), StepKind::Came), (at(6), StepKind::Executing), (at(9), StepKind::Answered)];
        assert_eq!(told, expected);
        for n in 10..17 {
            log.done(at(n), call(n), at(n));
        }
        assert_eq!(log.steps(call(1)), []);
        assert_eq!(log.steps(call(2)), []);
        assert_eq!(log.steps(call(10)).len(), 2);
        assert_eq!(log.latest.steps.capacity(), 7);
    }

    #[test]
    fn slow_failed_and_repeated_calls_are_kept_longer_than_others_within_the_bound() {
        let mut log = CallLog::new(800);
        let quick = |log: &mut CallLog, from: u64| {
            (from..from + 5_000).for_each(|n| log.done(at(n + 20), call(n), at(n)));
        };
        quick(&mut log, 10_000);
        log.done(at(900), call(1), at(100));
        log.failed(at(30), call(2), at(10));
        log.executes_again(at(40), call(3));
        log.done(at(50), call(3), at(30));
        log.push(at(60), call(4), StepKind::FenceCame);
        log.done(at(50), call(5), at(30));
        quick(&mut log, 20_000);
        let answered = [StepKind::Came, StepKind::Answered];
        assert_eq!(kinds(&log, call(1)), answered, "slow");
        assert_eq!(kinds(&log, call(2)), answered, "failed");
        let again = [StepKind::Came, StepKind::CameAgain, StepKind::Answered];
        assert_eq!(kinds(&log, call(3)), again, "repeated");
        assert_eq!(kinds(&log, call(4)), [StepKind::FenceCame]);
        assert_eq!(kinds(&log, call(5)), [], "as all others");
        let rings = [&log.latest, &log.slow, &log.failed, &log.repeated];
        let held: usize = rings.iter().map(|ring| ring.steps.capacity()).sum();
        assert!(held <= 800, "{held}");
    }

    #[test]
    fn what_is_slow_follows_the_calls_that_there_are() {
        let mut log = CallLog::new(8_000);
        (0..100_000).for_each(|n| log.done(at(500), call(n), at(0)));
        let slow = log.slow.steps.len();
        assert!(slow < 100, "{slow} of 100,000 calls that all took the same");
        // An hour of quicker ones later, those are slow again.
        (0..200_000).for_each(|n| log.done(at(20), call(n), at(0)));
        log.done(at(500), call(300_000), at(0));
        assert_eq!(log.slow.iter().last().map(|logged| logged.sequence), Some(300_000));
    }

    #[test]
    fn a_stream_is_told_with_what_has_passed_and_names_that_are_no_ids_are_kept_apart() {
        let mut log = CallLog::new(80);
        let passed = Passed { received: 3, sent: u64::MAX };
        log.push(at(3), call(1), StepKind::HalfClosed(3));
        log.push(at(1), call(1), StepKind::Parted);
        log.push(at(2), call(1), StepKind::Resumed);
        log.stream_ended(at(9), call(1), at(0), passed, false);
        let most = Passed { received: 3, sent: u32::MAX.into() };
        let expected = [
            StepKind::Came,
            StepKind::Parted,
            StepKind::Resumed,
            StepKind::HalfClosed(3),
            StepKind::Ended(most),
        ];
        assert_eq!(kinds(&log, call(1)), expected);

        let trace = CallName::of_trace("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        log.done_as(at(5), trace, at(4));
        log.failed(at(7), trace, at(6));
        log.failed(at(9), CallName::of_key("order-1"), at(8));
        assert_eq!(kinds(&log, trace).len(), 4);
        assert_eq!(kinds(&log, CallName::of_key("order-1")).len(), 2);
        assert_eq!(kinds(&log, CallName::of_key("order-2")), []);
    }

    #[test]
    fn a_trace_is_read_from_metadata_and_nothing_else_is() {
        let named = |parent: &str| {
            let mut metadata = Metadata::new();
            metadata.insert("traceparent", parent).unwrap();
            CallName::trace_of(&metadata)
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace = Some(CallName::Trace([0x4bf9_2f35_77b3_4da6, 0xa3ce_929d_0e0e_4736]));
        assert_eq!(named("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), trace);
        assert_eq!(CallName::of_trace(id), trace);
        for wrong in ["", "00", "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
            assert_eq!(named(wrong), None, "{wrong}");
        }
        assert_eq!(CallName::of_trace(&"0".repeat(32)), None);
        assert_eq!(CallName::trace_of(&Metadata::new()), None);
    }

    #[test]
    fn one_that_is_off_takes_no_memory() {
        let mut log = CallLog::new(0);
        log.done(at(1), call(1), at(1));
        log.failed(at(1), call(1), at(1));
        log.executes_again(at(1), call(1));
        assert_eq!((log.is_on(), log.steps(call(1)).len()), (false, 0));
        assert_eq!(log.latest.steps.capacity() + log.again.capacity(), 0);
    }
}
