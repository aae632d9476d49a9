//! How many handlers may run at once, learnt from how long they take.
//!
//! A resource that is full makes whoever comes wait, so that latency grows with the number of calls at
//! work while throughput does not (Little's law). The limit grows while latency stays near what it is
//! without waiting, and falls when it does not: the gradient of Netflix's concurrency-limits and of
//! Envoy's adaptive concurrency, which take it from TCP Vegas. What latency is without waiting is
//! measured anew now and then by halving the limit for a moment. If latency falls with it, there was a
//! queue within the handlers, and the lower limit stays; if it does not, it is the handlers' own. Latencies are
//! averaged as logarithms, so that a few calls that take a thousand times as long do not decide.

use crate::limits::Concurrency;
use crate::time::{Duration, Instant};

/// Calls that a window has to have seen, and how long it lasts at least.
const SAMPLES: u32 = 32;
const WINDOW: Duration = Duration::from_millis(50);

/// A mean latency up to here is never a sign of overload: one thread that runs short handlers one after
/// the other has them wait for each other this long.
const HARMLESS: u64 = 2_000_000;

/// So many calls that end after their deadlines, of most of those that end, are a sign of overload.
const OVERDUE: u32 = 8;

/// How often the latency without waiting is measured anew while the limit is reached.
const EXPERIMENT_EVERY: Duration = Duration::from_secs(10);

/// Windows from one such experiment to the next, at least: each costs throughput.
const WINDOWS_BETWEEN: u32 = 64;

/// Sixteenths of an octave. A latency this much above that without waiting is too high (1.5 times); where
/// calls end after their deadlines, this much (1.1 times) is.
const TOO_SLOW: i64 = 9;
const TOO_SLOW_WHEN_LATE: i64 = 2;

/// By so much latency has to fall (1.25 times) to have fallen with the limit.
const FALLEN: i64 = 5;

#[derive(Debug)]
pub(super) struct Limit {
    least: u32,
    most: u32,
    adapts: bool,
    now: u32,
    window: Window,
    /// Whether calls had to wait in the window before.
    was_full: bool,
    /// Typical latency without waiting.
    base: Option<i64>,
    trial: Trial,
    /// The limit never had to fall: it may be far from where it belongs.
    starting: bool,
    next_experiment: Instant,
    /// Mean time between the ends of two calls while as many as may were at work, in nanoseconds.
    interval: u64,
    /// Mean latency of the last window, in nanoseconds.
    mean: u64,
}

/// What the limit was lowered from, to see whether latency falls with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    None,
    /// It was halved to see.
    Experiment(Before),
    /// It was lowered, as latency is too high.
    Decline(Before),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    limit: u32,
    latency: i64,
}

#[derive(Debug, Default)]
struct Window {
    began: Instant,
    /// Calls that were handed out before count for nothing: another limit was in force.
    since: Instant,
    samples: u32,
    late: u32,
    /// Of latencies, in nanoseconds.
    sum: u64,
    /// Of their logarithms.
    logs: i64,
    /// Calls that ended.
    ended: u64,
    /// Of those that were timed, whenever they were handed out: how many, how many of them ended after
    /// their deadlines, and the time in nanoseconds that these had when they were handed out.
    timed: u32,
    overdue: u32,
    left: u64,
    /// Calls had to wait.
    full: bool,
}

impl Limit {
    pub(super) fn new(setting: Concurrency) -> Self {
        let (least, most, start) = match setting {
            Concurrency::Adaptive { least, most, start } => {
                let least = least.max(1);
                (least, most.max(least), start)
            }
            Concurrency::Fixed(limit) => (limit.max(1), limit.max(1), limit),
            Concurrency::Unlimited => (u32::MAX, u32::MAX, u32::MAX),
        };
        Self {
            least,
            most,
            adapts: least != most,
            now: start.clamp(least, most),
            window: Window::default(),
            was_full: false,
            base: None,
            trial: Trial::None,
            starting: true,
            next_experiment: Instant::ZERO,
            interval: 0,
            mean: 0,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// Mean latency of late.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean)
    }

    /// Mean time between the ends of two calls while the server is busy.
    pub(super) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// A call has to wait: the limit is reached.
    pub(super) fn reached(&mut self, now: Instant) {
        if !self.window.full && !self.was_full {
            // What was measured while there was room says nothing of how it is without.
            self.window = Window { began: now, since: now, ..Window::default() };
        }
        self.window.full = true;
    }

    /// A call ended that nobody measures.
    #[inline]
    pub(super) fn ended(&mut self) {
        self.window.ended += 1;
    }

    /// A call ended that was handed out `since`.
    pub(super) fn measured(&mut self, now: Instant, since: Instant, deadline: Option<Instant>) {
        let late = deadline.is_some_and(|deadline| deadline < now);
        let window = &mut self.window;
        window.ended += 1;
        window.timed += 1;
        if late && self.adapts {
            let left = deadline.map_or(0, |at| at.as_nanos().saturating_sub(since.as_nanos()));
            window.overdue += 1;
            window.left = window.left.saturating_add(left);
            if window.overdue >= OVERDUE && window.overdue > window.timed / 2 {
                return self.fall_back(now);
            }
        }
        if since < window.since {
            return;
        }
        let nanos = now.as_nanos().saturating_sub(since.as_nanos());
        window.samples += 1;
        window.late += u32::from(late);
        window.sum = window.sum.saturating_add(nanos);
        window.logs += logarithm(nanos);
        if window.samples < SAMPLES {
            return;
        }
        // The first calls under another limit do not feel all of it yet.
        let mean = Duration::from_nanos(window.sum / u64::from(window.samples));
        if now.since(window.began) >= WINDOW.max(mean.saturating_mul(2)) {
            self.judge(now);
        }
    }

    /// Calls wait and none has ended for long: those at work may wait for what those that wait would do.
    pub(super) fn stalled(&mut self, now: Instant) {
        if self.adapts {
            self.now = (self.now + self.now / 4 + 1).min(self.most);
            self.restart(now, true);
        }
    }

    /// Most calls end too late, so that the work is for nothing: no more are let in than end within half
    /// of the time that they have, at the rate at which they end (Little's law). What is learnt from
    /// latency comes too late here: it is that of calls that were let in long ago.
    fn fall_back(&mut self, now: Instant) {
        let window = &self.window;
        let half = window.left / u64::from(window.overdue) / 2;
        let elapsed = now.as_nanos().saturating_sub(window.began.as_nanos()).max(1);
        let many = u128::from(window.ended) * u128::from(half) / u128::from(elapsed);
        let many = u32::try_from(many).unwrap_or(u32::MAX).max(self.least);
        let lower = many < self.now;
        if lower {
            self.now = many;
            self.starting = false;
            self.trial = Trial::None;
        }
        self.restart(now, lower);
        self.was_full = true;
    }

    /// Draws the conclusion from a window, and begins the next one.
    fn judge(&mut self, now: Instant) {
        let window = &self.window;
        let samples = u64::from(window.samples);
        let latency = window.logs / samples as i64;
        self.mean = window.sum / samples;
        let late = u64::from(window.late) * 8 > samples;
        let (full, before) = (window.full, self.now);
        if full {
            let elapsed = now.as_nanos().saturating_sub(window.began.as_nanos());
            self.interval = elapsed / window.ended.max(1);
        }
        if self.adapts {
            if full {
                self.adapt(now, latency, late);
            } else {
                self.learn(latency);
            }
        }
        let changed = before != self.now;
        self.restart(now, changed);
    }

    /// There was room all the time: this is what calls take.
    fn learn(&mut self, latency: i64) {
        let base = self.base.unwrap_or(latency);
        self.base = Some(latency.min(base + (latency - base + 7) / 8));
        if let Trial::Experiment(before) = self.trial {
            self.now = before.limit;
        }
        self.trial = Trial::None;
    }

    fn adapt(&mut self, now: Instant, latency: i64, late: bool) {
        let harmless = self.mean <= HARMLESS;
        match self.trial {
            Trial::Experiment(before) => {
                self.base = Some(latency);
                if latency + FALLEN <= before.latency {
                    self.starting = false;
                    return self.experiment(now, latency, harmless);
                }
                self.now = before.limit;
                self.trial = Trial::None;
                return;
            }
            Trial::Decline(before) if self.now <= before.limit / 8 * 5 => {
                if latency + FALLEN > before.latency {
                    // They take as long with fewer of them: it is their own.
                    self.base = Some(latency);
                    self.now = before.limit;
                    self.trial = Trial::None;
                    return;
                }
                self.trial = Trial::None;
            }
            Trial::Decline(_) | Trial::None => {}
        }
        let due = self.base.is_none() || now >= self.next_experiment;
        if due && !harmless && self.trial == Trial::None {
            return self.experiment(now, latency, false);
        }
        let tolerated = if late { TOO_SLOW_WHEN_LATE } else { TOO_SLOW };
        let above = self.base.map_or(0, |base| latency - base) - tolerated;
        if above > 0 && !harmless {
            if self.trial == Trial::None {
                self.trial = Trial::Decline(Before { limit: self.now, latency });
            }
            // An octave too much: half of it.
            let cut = (i64::from(self.now) * above.min(16) / 32).max(1);
            self.now = (self.now - cut as u32).max(self.least);
            self.starting = false;
        } else {
            self.trial = Trial::None;
            let step = match above {
                _ if harmless => self.now / 2,
                ..-5 if self.starting => self.now,
                ..-5 => self.now / 4,
                _ => self.now / 16,
            };
            self.now = self.now.saturating_add(step.saturating_add(1)).min(self.most);
        }
    }

    /// Halves the limit, unless it is as low as it may be.
    fn experiment(&mut self, now: Instant, latency: i64, enough: bool) {
        self.trial = Trial::None;
        let window = now.since(self.window.began);
        self.next_experiment = now + EXPERIMENT_EVERY.max(window.saturating_mul(WINDOWS_BETWEEN));
        let half = (self.now / 2).max(self.least);
        if half < self.now && !enough {
            self.trial = Trial::Experiment(Before { limit: self.now, latency });
            self.now = half;
        } else if self.base.is_none() {
            self.base = Some(latency);
        }
    }

    fn restart(&mut self, now: Instant, changed: bool) {
        let since = if changed { now } else { self.window.since };
        self.was_full = self.window.full;
        self.window = Window { began: now, since, ..Window::default() };
    }
}

/// The binary logarithm, in sixteenths.
fn logarithm(nanos: u64) -> i64 {
    let nanos = nanos.max(16);
    let whole = nanos.ilog2();
    let fraction = (nanos >> (whole - 4)) & 15;
    i64::from(whole) * 16 + fraction as i64
}
