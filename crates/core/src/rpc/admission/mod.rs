//! Which calls a server begins, which wait, and which it refuses so that the others make it.
//!
//! While there is room, a call passes by two comparisons. Where there is none it waits in a bounded
//! queue, ordered by what matters, and leaves it for a handler, or refused with a hint when to come
//! back. `docs/decisions/0027-overload.md` says where the ideas are from.

mod limit;
mod queue;
mod slots;
#[cfg(test)]
mod tests;
mod times;

use alloc::vec::Vec;

use self::limit::Limit;
pub(crate) use self::queue::Entry;
use self::queue::{Queue, Waiting};
use self::slots::SlotPressure;
use self::times::Times;
use super::event::RequestKey;
use crate::limits::Limits;
use crate::random::Random;
use crate::service::{MethodId, NotExecuted, Priority};
use crate::session::NotExecutedReason;
use crate::time::{Duration, Instant, earliest};

/// How often the queue is looked through for what has waited too long.
const SWEEP: Duration = Duration::from_millis(5);

/// Calls wait, and none has ended for so long: the limit itself may be what holds them up.
const STALL: Duration = Duration::from_secs(1);

/// While nothing waits, one in so many calls is timed, and each of the first ones.
const TIMED: u32 = 16;
const FIRST: u32 = 256;

/// What a call that has waited has to have left beside its own time, for its way back and what of its way
/// here nobody has seen; a quarter of what it has if that is less.
const MARGIN: Duration = Duration::from_millis(2);

/// Bounds of the hint when to come back, and over how long the load is counted that it is made of.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_secs(5);
const COUNTED: Duration = Duration::from_millis(200);

/// Who may be started at a server, and who waits.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: Limit,
    running: u32,
    queue: Queue,
    most_calls: usize,
    most_bytes: u64,
    times: Times,
    /// Calls until one is timed, and how many are timed to begin with.
    untimed: u32,
    first: u32,
    sweep_at: Option<Instant>,
    last_end: Instant,
    slots: SlotPressure,
    recent: Recent,
    shed: Shed,
}

/// Calls that ended and were refused in the last moments.
#[derive(Debug, Default)]
struct Recent {
    began: Instant,
    ended: u32,
    shed: u32,
    /// How many were refused for each that ended, before.
    ratio: u32,
}

/// What became of a request so far, in one word, as every call carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// Its handler runs, and nobody counts it.
    pub(crate) const UNCOUNTED: Self = Self(0);
    /// It waits.
    pub(crate) const WAITING: Self = Self(1);
    /// Its handler runs.
    const RUNNING: Self = Self(2);

    /// Its handler runs since then, and is timed.
    fn timed(now: Instant) -> Self {
        Self(now.as_nanos().saturating_add(3))
    }

    fn since(self) -> Option<Instant> {
        self.0.checked_sub(3).map(Instant::from_nanos)
    }
}

/// What a server does about its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// Handlers that may run at once now.
    pub limit: u32,
    /// Handlers that run, but for those of streams.
    pub running: u32,
    /// Calls that wait for a handler.
    pub waiting: usize,
    /// Slots that a session may have now, at most.
    pub slots: u32,
    /// Calls that were refused since the start.
    pub shed: Shed,
}

/// Calls that were refused as overloaded, none of which ran: why, and how much they mattered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shed {
    /// The queue was full of what matters as much or more.
    pub full: u64,
    /// They could not have ended within their deadlines.
    pub hopeless: u64,
    /// More calls came for a while than could be run, and they were the ones that waited longest.
    pub standing: u64,
    /// Those of low priority, of all of them.
    pub low: u64,
    /// Those of normal priority.
    pub normal: u64,
    /// Those of high priority.
    pub high: u64,
}

impl Shed {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.hopeless + self.standing
    }
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Full,
    Hopeless,
    Standing,
}

/// A request that has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) ticket: Ticket,
    pub(crate) method: MethodId,
    pub(crate) deadline: Option<Instant>,
}

/// A call for the queue.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) entry: Entry,
    pub(crate) method: MethodId,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    pub(crate) bytes: u64,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limit: Limit::new(limits.concurrency),
            running: 0,
            queue: Queue::default(),
            most_calls: limits.queued_calls,
            most_bytes: limits.queued_bytes,
            times: Times::default(),
            untimed: 1,
            first: FIRST,
            sweep_at: None,
            last_end: Instant::ZERO,
            slots: SlotPressure::new(limits.slots.max(1)),
            recent: Recent::default(),
            shed: Shed::default(),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            limit: self.limit.now(),
            running: self.running,
            waiting: self.queue.len(),
            slots: self.slots.limit(),
            shed: self.shed,
        }
    }

    /// Whether so much more comes than can be run that no stream is to begin.
    pub(crate) fn is_overloaded(&self, now: Instant) -> bool {
        self.queue.stands(now)
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A call comes: its handler is started, or it is to wait.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant) -> Ticket {
        if !self.queue.is_empty() || self.running >= self.limit.now() {
            return Ticket::WAITING;
        }
        self.running += 1;
        self.untimed -= 1;
        if self.untimed == 0 { self.begin_timed(now) } else { Ticket::RUNNING }
    }

    #[cold]
    fn begin_timed(&mut self, now: Instant) -> Ticket {
        self.first = self.first.saturating_sub(1);
        self.untimed = if self.first > 0 { 1 } else { TIMED };
        Ticket::timed(now)
    }

    /// What has waited is started.
    pub(crate) fn resume(&mut self, now: Instant) -> Ticket {
        self.running += 1;
        Ticket::timed(now)
    }

    /// A request has left, whatever became of it.
    #[inline]
    pub(crate) fn end(&mut self, now: Instant, ended: Ended) {
        if ended.ticket == Ticket::RUNNING {
            self.running -= 1;
            self.limit.ended();
        } else if let Some(since) = ended.ticket.since() {
            self.timed(now, ended.method, since, ended.deadline);
        }
    }

    /// A request that was handed out left without its handler: its time says nothing.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) {
        if ticket == Ticket::RUNNING || ticket.since().is_some() {
            self.running -= 1;
        }
    }

    #[cold]
    fn timed(&mut self, now: Instant, method: MethodId, since: Instant, deadline: Option<Instant>) {
        self.running -= 1;
        self.limit.measured(now, since, deadline);
        self.recent.ended = self.recent.ended.saturating_add(1);
        self.times.measured(now, method, now.since(since));
    }

    /// There is no room: a call waits. Returns those that are refused for it, itself maybe.
    pub(crate) fn enqueue(&mut self, now: Instant, applicant: Applicant) -> Vec<(RequestKey, Why)> {
        let Applicant { entry, method, priority, deadline, bytes } = applicant;
        self.limit.reached(now);
        let ahead = u32::try_from(self.queue.ahead(now, priority)).unwrap_or(u32::MAX);
        let wait = self.limit.interval().saturating_mul(ahead);
        if self.is_hopeless(now, wait + self.times.mean(method), method, deadline) {
            self.count(now, priority, Why::Hopeless);
            return Vec::from([(entry.key(), Why::Hopeless)]);
        }
        let mut refused = Vec::new();
        while self.queue.len() >= self.most_calls
            || self.queue.bytes().saturating_add(bytes) > self.most_bytes && !self.queue.is_empty()
        {
            let Some(other) = self.queue.give_way(now, priority) else {
                self.count(now, priority, Why::Full);
                refused.push((entry.key(), Why::Full));
                return refused;
            };
            self.count(now, other.priority, Why::Full);
            refused.push((other.entry.key(), Why::Full));
        }
        self.queue.push(now, Waiting { entry, since: now, method, deadline, priority, bytes });
        if self.sweep_at.is_none() {
            self.sweep_at = Some(now + SWEEP);
            self.last_end = now;
        }
        refused
    }

    /// The next that may be started, or is refused as its turn comes too late. Nothing if nobody waits
    /// or there is no room.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Result<Entry, (RequestKey, Why)>> {
        if self.queue.is_empty() || self.running >= self.limit.now() {
            return None;
        }
        self.limit.reached(now);
        self.last_end = now;
        let waiting = self.queue.pop(now)?;
        // Where there is much room, what is believed of times is put to the test instead.
        let busy = self.running >= self.limit.now() / 2;
        // What is begun has to make it, and its reply has to be there in time, too.
        let left = waiting.deadline.map_or(Duration::ZERO, |at| at.since(now));
        let takes = self.times.at_most(waiting.method) + MARGIN.min(left / 4);
        if busy && self.is_hopeless(now, takes, waiting.method, waiting.deadline) {
            self.count(now, waiting.priority, Why::Hopeless);
            return Some(Err((waiting.entry.key(), Why::Hopeless)));
        }
        Some(Ok(waiting.entry))
    }

    /// Whether what is to take so long from now on ends after its deadline.
    fn is_hopeless(
        &mut self,
        now: Instant,
        takes: Duration,
        method: MethodId,
        deadline: Option<Instant>,
    ) -> bool {
        let hopeless = deadline.is_some_and(|deadline| now + takes >= deadline);
        if hopeless {
            self.times.doubt(now, method);
        }
        hopeless
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        earliest(self.sweep_at, self.slots.next_timeout())
    }

    /// Looks through the queue if it is time. `gone` says whether nobody waits for a request any more.
    /// Returns whom to refuse.
    pub(crate) fn sweep(
        &mut self,
        now: Instant,
        mut gone: impl FnMut(RequestKey) -> bool,
    ) -> Vec<(RequestKey, Why)> {
        if self.sweep_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        if now.since(self.last_end) >= STALL {
            self.limit.stalled(now);
            self.last_end = now;
        }
        let times = &self.times;
        let mut refused = Vec::new();
        let over = |waiting: &Waiting| {
            let ends = now + times.mean(waiting.method);
            gone(waiting.entry.key()) || waiting.deadline.is_some_and(|at| ends > at)
        };
        let out = self.queue.sweep(now, over);
        for waiting in out {
            let ends = waiting.patience_ends();
            let tired = ends.is_some_and(|at| at <= now);
            let why = if tired { Why::Standing } else { Why::Hopeless };
            refused.push((waiting.entry.key(), waiting.priority, why));
        }
        self.sweep_at = (!self.queue.is_empty()).then(|| now + SWEEP);
        // What is gone is counted by nobody.
        let told = refused.into_iter().filter(|(key, ..)| !gone(*key)).collect::<Vec<_>>();
        for (_, priority, why) in &told {
            self.count(now, *priority, *why);
        }
        told.into_iter().map(|(key, _, why)| (key, why)).collect()
    }

    /// How many slots a session may have from now on, if that changes. `sessions` are those with a
    /// connection, which are asked for only if it may matter.
    pub(crate) fn share_slots(
        &mut self,
        now: Instant,
        sessions: impl FnOnce() -> usize,
    ) -> Option<u32> {
        let stands = self.queue.stands(now);
        self.slots.share(now, stands, self.limit.now(), sessions)
    }

    /// What a call is told that is refused.
    pub(crate) fn refusal(&mut self, why: Why, random: &mut Random) -> NotExecuted {
        let said = match why {
            Why::Full => "the server has no room for a further call",
            Why::Hopeless => "the server is too busy to run it within its deadline",
            Why::Standing => "the server has more calls than it can run",
        };
        let refusal = NotExecuted::because(NotExecutedReason::Overloaded, said);
        refusal.with_retry_after(self.hint(random))
    }

    /// A stream is not to begin now.
    pub(crate) fn refuse_stream(
        &mut self,
        now: Instant,
        priority: Priority,
        random: &mut Random,
    ) -> NotExecuted {
        self.count(now, priority, Why::Standing);
        self.refusal(Why::Standing, random)
    }

    /// When to come back: the more are refused for each call that is run, the later; not all at once.
    fn hint(&mut self, random: &mut Random) -> Duration {
        let calls = self.recent.ratio.saturating_add(1);
        let pause = self.limit.mean().max(SOONEST).saturating_mul(calls).min(LATEST);
        let half = u64::try_from(pause.as_nanos() / 2).unwrap_or(u64::MAX);
        pause + Duration::from_nanos(random.below(half.max(1)))
    }

    fn count(&mut self, now: Instant, priority: Priority, why: Why) {
        match why {
            Why::Full => self.shed.full += 1,
            Why::Hopeless => self.shed.hopeless += 1,
            Why::Standing => self.shed.standing += 1,
        }
        match priority {
            Priority::Low => self.shed.low += 1,
            Priority::Normal => self.shed.normal += 1,
            Priority::High => self.shed.high += 1,
        }
        let recent = &mut self.recent;
        recent.shed = recent.shed.saturating_add(1);
        if now.since(recent.began) >= COUNTED {
            let ratio = recent.shed / recent.ended.max(1);
            *recent = Recent { began: now, ratio, ..Recent::default() };
        }
    }
}
