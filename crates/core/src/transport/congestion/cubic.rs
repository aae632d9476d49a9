//! CUBIC (RFC 9438) that cuts its window only when something confirms that a loss was congestion.
//!
//! Plain CUBIC halves away its window on paths that lose at random (radio links, bad optics): at 5 %
//! loss it is left with a handful of packets whatever the path could carry. Here a loss cuts the
//! window only if a queue stands on the path ([`DelaySignal`]), if the loss rate has risen with the
//! window ([`LossRate`]), or if everything was lost for a while (persistent congestion); a CE mark
//! always cuts. Reasons and figures: `docs/decisions/0003-congestion.md`.

use alloc::boxed::Box;

use super::delay::DelaySignal;
use super::loss_rate::LossRate;
use super::{Controller, initial_window, minimum_window};
use crate::time::{Duration, Instant};
use crate::transport::loss::{Delivered, Missing};
use crate::transport::rtt::RttEstimator;

/// What is left of the window after a cut (RFC 9438 §4.6).
const BETA: f64 = 0.7;

/// How steeply the cubic grows, in datagrams per second cubed (RFC 9438 §5.1).
const C: f64 = 0.4;

/// The growth per round trip, in datagrams, that makes CUBIC as fast as Reno on average (RFC 9438
/// §4.3).
const RENO_GROWTH: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Rounds of slower growth before slow start ends for good (RFC 9406 §4.2, CSS_ROUNDS), and by how
/// much slower (CSS_GROWTH_DIVISOR).
const CAUTIOUS_ROUNDS: u32 = 5;
const CAUTIOUS_DIVISOR: f64 = 4.0;

/// Which losses cut the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cuts {
    Confirmed,
    EveryLoss,
}

/// The default controller. Sizes are in bytes, kept as floating point for their fractions; only
/// the four basic operations are used, which give the same result on every machine.
///
/// Invariant: `window` is at least two datagrams, and is cut at most once per round trip.
#[derive(Clone, Debug)]
pub struct Cubic {
    cuts_on: Cuts,
    datagram: usize,
    window: f64,
    slow_start_threshold: f64,
    start: SlowStart,
    /// The window before the last cut, lowered if the flow is giving way (RFC 9438 §4.7).
    w_max: f64,
    epoch: Option<Epoch>,
    /// Packets sent up to then belong to what the last cut answered (RFC 9002 §7.3.2).
    cut_at: Option<Instant>,
    undo: Option<Box<Undo>>,
    app_limited_since: Option<Instant>,
    /// Idle time up to then has been answered for.
    decayed_until: Instant,
    delay: DelaySignal,
    loss_rate: LossRate,
    loss_rate_rose: bool,
    cuts: u64,
}

/// A stage of congestion avoidance, from the first growth after a cut on.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// The window where the cubic is flat: the former maximum, or this stage's start.
    origin: f64,
    /// Seconds until the cubic is there (RFC 9438 §4.2).
    k: f64,
    /// The window that Reno would have (RFC 9438 §4.3).
    w_est: f64,
}

impl Epoch {
    fn new(start: Instant, window: f64, w_max: f64, datagram: f64) -> Self {
        let origin = w_max.max(window);
        Self { start, origin, k: cube_root((origin - window) / datagram / C), w_est: window }
    }
}

/// The rounds of slow start (RFC 9406, simplified: a queue that shows makes a round cautious).
#[derive(Clone, Copy, Debug)]
struct SlowStart {
    round_started: Instant,
    cautious_rounds: u32,
    cautious: bool,
}

/// What a cut changed, in case all losses that it answered turn out spurious (RFC 9438 §4.9.2).
#[derive(Clone, Copy, Debug)]
struct Undo {
    window: f64,
    slow_start_threshold: f64,
    w_max: f64,
    epoch: Option<Epoch>,
    losses: u64,
}

impl Cubic {
    /// The default: only confirmed losses cut. `datagram` is the size of datagrams on the path.
    pub fn new(datagram: usize) -> Self {
        Self {
            cuts_on: Cuts::Confirmed,
            datagram,
            window: initial_window(datagram) as f64,
            slow_start_threshold: f64::INFINITY,
            start: SlowStart { round_started: Instant::ZERO, cautious_rounds: 0, cautious: false },
            w_max: 0.0,
            epoch: None,
            cut_at: None,
            undo: None,
            app_limited_since: None,
            decayed_until: Instant::ZERO,
            delay: DelaySignal::new(),
            loss_rate: LossRate::new(),
            loss_rate_rose: false,
            cuts: 0,
        }
    }

    /// CUBIC to the letter of RFC 9438: every loss cuts.
    pub fn plain(datagram: usize) -> Self {
        Self { cuts_on: Cuts::EveryLoss, ..Self::new(datagram) }
    }

    fn minimum(&self) -> f64 {
        minimum_window(self.datagram) as f64
    }

    /// True if a packet sent at `sent` belongs to what the last cut has answered.
    fn is_answered(&self, sent: Instant) -> bool {
        self.cut_at.is_some_and(|at| sent <= at)
    }

    /// True if something besides the loss itself says that it was congestion.
    fn is_confirmed(&self, now: Instant, rtt: &RttEstimator) -> bool {
        self.cuts_on == Cuts::EveryLoss || self.loss_rate_rose || self.delay.shows_queue(now, rtt)
    }

    fn cut(&mut self, now: Instant) {
        // A flow that is cut below its former maximum makes room for others (RFC 9438 §4.7).
        let giving_way = self.window < self.w_max;
        self.w_max = if giving_way { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(self.minimum());
        self.slow_start_threshold = self.window;
        self.epoch = None;
        self.cut_at = Some(now);
        self.undo = None;
        self.cuts += 1;
        self.forget_loss_rate();
    }

    /// Persistent congestion: start again from the least window (RFC 9002 §7.6.2).
    fn collapse(&mut self, now: Instant) {
        self.cut(now);
        self.window = self.minimum();
        self.cut_at = None;
        self.delay = DelaySignal::new();
    }

    fn forget_loss_rate(&mut self) {
        self.loss_rate.on_cut();
        self.loss_rate_rose = false;
    }

    /// Doubles per round, or grows by a quarter while a queue shows; after five such rounds slow
    /// start is over.
    fn grow_in_slow_start(&mut self, now: Instant, acked: Delivered, rtt: &RttEstimator) {
        let queue = self.delay.shows_queue(now, rtt);
        if acked.newest_sent >= self.start.round_started {
            self.start.round_started = now;
            self.start.cautious_rounds += u32::from(self.start.cautious);
        }
        self.start.cautious = queue;
        if !queue {
            self.start.cautious_rounds = 0;
        }
        let divisor = if queue { CAUTIOUS_DIVISOR } else { 1.0 };
        self.window += acked.bytes as f64 / divisor;
        if self.start.cautious_rounds >= CAUTIOUS_ROUNDS {
            self.slow_start_threshold = self.window;
            self.w_max = self.window;
        }
    }

    /// Growth along the cubic, or as Reno's where that is faster (RFC 9438 §4.2 to §4.5).
    fn grow_in_avoidance(&mut self, now: Instant, acked: Delivered, rtt: &RttEstimator) {
        let datagram = self.datagram as f64;
        let window = self.window;
        let epoch = self.epoch.get_or_insert_with(|| Epoch::new(now, window, self.w_max, datagram));
        let cubic = |t: f64| {
            let x = (t - epoch.k).clamp(-1e4, 1e4);
            epoch.origin + C * x * x * x * datagram
        };
        let t = now.since(epoch.start).as_secs_f64();
        let share = acked.bytes as f64 / window;
        let target = cubic(t + rtt.smoothed().as_secs_f64()).clamp(window, 1.5 * window);
        let reno = if epoch.w_est < epoch.origin { RENO_GROWTH } else { 1.0 };
        let here = cubic(t);
        epoch.w_est += reno * datagram * share;
        self.window = if here < epoch.w_est {
            window.max(epoch.w_est)
        } else {
            window + (target - window) * share
        };
    }
}

impl Controller for Cubic {
    fn window(&self) -> u64 {
        self.window as u64
    }

    fn on_acked(&mut self, now: Instant, acked: Delivered, app_limited: bool, rtt: &RttEstimator) {
        self.delay.observe(now, rtt);
        if self.is_answered(acked.newest_sent) {
            return;
        }
        self.loss_rate_rose |= self.loss_rate.on_settled(now, acked.packets, 0, rtt.smoothed());
        if app_limited {
            // The cubic's clock stands still meanwhile (RFC 9438 §5.8).
            self.app_limited_since.get_or_insert(now);
            return;
        }
        if let Some(since) = self.app_limited_since.take()
            && let Some(epoch) = &mut self.epoch
        {
            epoch.start += now.since(since);
        }
        if self.in_slow_start() {
            self.grow_in_slow_start(now, acked, rtt);
        } else {
            self.grow_in_avoidance(now, acked, rtt);
        }
    }

    fn on_lost(&mut self, now: Instant, lost: Missing, rtt: &RttEstimator) {
        self.delay.observe(now, rtt);
        if lost.persistent {
            return self.collapse(now);
        }
        if self.is_answered(lost.newest_sent) {
            if let Some(undo) = &mut self.undo {
                undo.losses += lost.packets;
            }
            return;
        }
        self.loss_rate_rose |= self.loss_rate.on_settled(now, 0, lost.packets, rtt.smoothed());
        if self.is_confirmed(now, rtt) {
            let undo = Undo {
                window: self.window,
                slow_start_threshold: self.slow_start_threshold,
                w_max: self.w_max,
                epoch: self.epoch,
                losses: lost.packets,
            };
            self.cut(now);
            self.undo = Some(Box::new(undo));
        }
    }

    fn on_marked(&mut self, now: Instant, newest_sent: Instant, _rtt: &RttEstimator) {
        if !self.is_answered(newest_sent) {
            self.cut(now);
        }
    }

    fn on_spurious(&mut self, _now: Instant, sent: Instant) {
        if !self.is_answered(sent) {
            return self.loss_rate.on_spurious();
        }
        let Some(undo) = &mut self.undo else { return };
        undo.losses = undo.losses.saturating_sub(1);
        if undo.losses == 0 {
            self.window = self.window.max(undo.window);
            self.slow_start_threshold = undo.slow_start_threshold;
            self.w_max = undo.w_max;
            self.epoch = undo.epoch;
            self.undo = None;
        }
    }

    /// Halves the window for each probe timeout spent idle, down to the initial one, and remembers
    /// three quarters of it as the threshold of slow start (RFC 2861 §3.1, RFC 9002 §7.8): what the
    /// path could carry then says less and less about now.
    fn on_idle(&mut self, now: Instant, idle: Duration, rtt: &RttEstimator) {
        let initial = initial_window(self.datagram) as f64;
        let timeout = rtt.probe_timeout_base();
        // Asked again in the same pause, only what has passed since counts.
        let mut since = self.decayed_until.max(now - idle);
        if now.since(since) < timeout || self.window <= initial {
            return;
        }
        if self.slow_start_threshold.is_finite() {
            self.slow_start_threshold = self.slow_start_threshold.max(self.window * 0.75);
        }
        while now.since(since) >= timeout && self.window > initial {
            self.window = (self.window / 2.0).max(initial);
            since += timeout;
        }
        self.decayed_until = since;
        self.epoch = None;
        self.undo = None;
        self.app_limited_since = None;
    }

    fn on_datagram_size(&mut self, datagram: usize) {
        self.datagram = datagram;
        self.window = self.window.max(self.minimum());
    }

    fn fresh(&self, datagram: usize) -> Box<dyn Controller> {
        Box::new(Self { cuts_on: self.cuts_on, ..Self::new(datagram) })
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.slow_start_threshold
    }

    fn cuts(&self) -> u64 {
        self.cuts
    }
}

/// The cube root by Newton's method; `core` has none. Exact to about 1e-9 for what windows need.
fn cube_root(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let mut root = x.max(1.0);
    for _ in 0..100 {
        let next = (2.0 * root + x / (root * root)) / 3.0;
        let settled = (root - next) < 1e-9 * next;
        root = next;
        if settled {
            break;
        }
    }
    root
}

#[cfg(test)]
mod tests;
