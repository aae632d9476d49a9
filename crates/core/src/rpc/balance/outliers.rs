//! Servers that can be reached and answer badly are left out for a while: gRFC A50, with consecutive
//! failures as in Envoy.
//!
//! Nothing is done for a call that succeeds: the session counts answers anyway, so that successes are
//! told from how many have come since the last failure. A server comes back by a probe, one call: if
//! that fails, it is left out again, for longer.

use alloc::vec::Vec;

use crate::random::Random;
use crate::rpc::policy::{FailurePercentageEjection, OutlierDetection, SuccessRateEjection};
use crate::time::{Duration, Instant};

/// What is known of how one server answers.
#[derive(Debug, Default)]
pub struct Health {
    /// Failures since the channel began.
    pub(in crate::rpc) failures: u64,
    in_a_row: u32,
    /// Answers that had come when the last failure was noted.
    at_failure: u64,
    /// Answers that had come when the interval began.
    at_interval: u64,
    /// Failures in this interval, and how many of them were answers.
    failed: u64,
    failed_answers: u64,
    standing: Standing,
    /// Times that it was left out, less one for each interval that went well since.
    multiplier: u32,
    /// Times that it was left out since the channel began.
    pub(in crate::rpc) ejections: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Standing {
    #[default]
    Good,
    Ejected {
        until: Instant,
    },
    /// One call may go to it, and after `next_at` another; any further answer than the first
    /// `answers` brings it back.
    Probed {
        answers: u64,
        next_at: Instant,
    },
}

/// What a server that was left out may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is not left out.
    Good,
    /// The next call: it tells how the server is.
    Probe,
    /// Nothing now.
    Out,
}

impl Health {
    /// Notes a failure. `answers` are those that have come so far; `answered` says whether the failure
    /// is one of them.
    pub fn failed(&mut self, answers: u64, answered: bool) {
        let answered = u64::from(answered);
        let since = answers.saturating_sub(self.at_failure);
        self.in_a_row = if since > answered { 1 } else { self.in_a_row.saturating_add(1) };
        self.at_failure = answers;
        self.failures += 1;
        self.failed += 1;
        self.failed_answers += answered;
    }

    /// Whether it is left out, at this time and with so many answers.
    pub fn turn(&mut self, now: Instant, answers: u64) -> Turn {
        match self.standing {
            Standing::Good => Turn::Good,
            Standing::Ejected { until } if now < until => Turn::Out,
            Standing::Ejected { .. } => {
                self.standing = Standing::Probed { answers, next_at: now };
                Turn::Probe
            }
            Standing::Probed { answers: before, .. } if answers > before => {
                self.standing = Standing::Good;
                self.in_a_row = 0;
                Turn::Good
            }
            Standing::Probed { next_at, .. } if now >= next_at => Turn::Probe,
            Standing::Probed { .. } => Turn::Out,
        }
    }

    /// The probe is on its way: no other before `next_at`.
    pub fn probing(&mut self, next: Instant) {
        if let Standing::Probed { next_at, .. } = &mut self.standing {
            *next_at = next;
        }
    }

    /// Whether it is left out, or on trial.
    pub fn is_out(&self) -> bool {
        self.standing != Standing::Good
    }

    /// What its state is called: whether it is left out entirely.
    pub fn is_ejected(&self, now: Instant) -> bool {
        matches!(self.standing, Standing::Ejected { until } if now < until)
    }

    /// A session was lost: answers are counted from zero.
    pub fn recount(&mut self) {
        (self.at_failure, self.at_interval) = (0, 0);
        if let Standing::Probed { answers, .. } = &mut self.standing {
            *answers = 0;
        }
    }

    fn eject(&mut self, now: Instant, config: &OutlierDetection) {
        self.multiplier = self.multiplier.saturating_add(1);
        self.ejections += 1;
        self.in_a_row = 0;
        let longest = config.max_ejection_time.max(config.base_ejection_time);
        let time = config.base_ejection_time.saturating_mul(self.multiplier).min(longest);
        self.standing = Standing::Ejected { until: now + time };
    }

    /// Successes and failures of this interval.
    fn tally(&self, answers: u64) -> (u64, u64) {
        let answered = answers.saturating_sub(self.at_interval);
        (answered.saturating_sub(self.failed_answers), self.failed)
    }

    fn new_interval(&mut self, answers: u64) {
        self.at_interval = answers;
        (self.failed, self.failed_answers) = (0, 0);
        if !self.is_out() {
            self.multiplier = self.multiplier.saturating_sub(1);
        }
    }
}

/// A failure was noted of the one at `index`: leaves it out if it is time. A probe that failed is left
/// out at once, as it counts among those that are out already.
pub fn after_failure(
    config: &OutlierDetection,
    now: Instant,
    all: &mut [(&mut Health, u64)],
    index: usize,
) {
    let out = all.iter().filter(|(health, _)| health.is_out()).count();
    let count = all.len();
    let Some((health, _)) = all.get_mut(index) else { return };
    match health.standing {
        Standing::Probed { .. } => health.eject(now, config),
        Standing::Ejected { .. } => {}
        Standing::Good => {
            let enough = config.consecutive_failures.is_some_and(|most| health.in_a_row >= most);
            if enough && has_room(config, out, count) {
                health.eject(now, config);
            }
        }
    }
}

/// An interval has passed: leaves those out whose share of failures is too large, and begins another.
pub fn sweep(
    config: &OutlierDetection,
    now: Instant,
    random: &mut Random,
    all: &mut [(&mut Health, u64)],
) {
    if let Some(rule) = &config.success_rate {
        let bad = below_the_others(rule, all);
        enforce(config, now, random, rule.enforcement_percentage, all, &bad);
    }
    if let Some(rule) = &config.failure_percentage {
        let bad = above_the_bound(rule, all);
        enforce(config, now, random, rule.enforcement_percentage, all, &bad);
    }
    for (health, answers) in all {
        health.new_interval(*answers);
    }
}

fn enforce(
    config: &OutlierDetection,
    now: Instant,
    random: &mut Random,
    percentage: u32,
    all: &mut [(&mut Health, u64)],
    bad: &[usize],
) {
    for index in bad {
        let out = all.iter().filter(|(health, _)| health.is_out()).count();
        if !has_room(config, out, all.len()) {
            return;
        }
        let (health, _) = &mut all[*index];
        if !health.is_out() && random.below(100) < u64::from(percentage) {
            health.eject(now, config);
        }
    }
}

/// Whether a further one of `count` may be left out.
fn has_room(config: &OutlierDetection, out: usize, count: usize) -> bool {
    (out as u64) * 100 < (count as u64) * u64::from(config.max_ejection_percent)
}

/// Those with enough calls, if they are enough to be compared: their index, successes and failures.
fn with_volume(all: &[(&mut Health, u64)], volume: u32, hosts: u32) -> Vec<(usize, u64, u64)> {
    let tally = |(index, (health, answers)): (usize, &(&mut Health, u64))| {
        let (good, bad) = health.tally(*answers);
        (good + bad >= u64::from(volume.max(1))).then_some((index, good, bad))
    };
    let enough: Vec<_> = all.iter().enumerate().filter_map(tally).collect();
    if (enough.len() as u64) < u64::from(hosts) { Vec::new() } else { enough }
}

/// Success rates in millionths; the bound is the mean less so many standard deviations.
fn below_the_others(rule: &SuccessRateEjection, all: &[(&mut Health, u64)]) -> Vec<usize> {
    let rates: Vec<(usize, i128)> = with_volume(all, rule.request_volume, rule.minimum_hosts)
        .into_iter()
        .map(|(index, good, bad)| (index, i128::from(good) * 1_000_000 / i128::from(good + bad)))
        .collect();
    let count = rates.len() as i128;
    if count == 0 {
        return Vec::new();
    }
    let mean = rates.iter().map(|(_, rate)| rate).sum::<i128>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).pow(2)).sum::<i128>() / count;
    let factor = i128::from(rule.stdev_factor);
    // rate < mean - factor * deviation, squared, since core has no square root.
    let far =
        |rate: i128| rate < mean && ((mean - rate) * 1_000).pow(2) > factor * factor * variance;
    rates.into_iter().filter(|(_, rate)| far(*rate)).map(|(index, _)| index).collect()
}

fn above_the_bound(rule: &FailurePercentageEjection, all: &[(&mut Health, u64)]) -> Vec<usize> {
    let volume = with_volume(all, rule.request_volume, rule.minimum_hosts);
    let too_many =
        |(_, good, bad): &(usize, u64, u64)| bad * 100 > (good + bad) * u64::from(rule.threshold);
    volume.into_iter().filter(too_many).map(|(index, ..)| index).collect()
}

/// Pauses between probes of one server that answer nothing.
pub fn probe_pause(config: &OutlierDetection) -> Duration {
    config.base_ejection_time.min(config.interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> OutlierDetection {
        OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() }
    }

    fn at(seconds: u32) -> Instant {
        Instant::ZERO + SECOND * seconds
    }

    fn fail(all: &mut [Health], answers: &[u64], index: usize, now: Instant) {
        all[index].failed(answers[index], true);
        let mut with: Vec<_> = all.iter_mut().zip(answers.iter().copied()).collect();
        after_failure(&config(), now, &mut with, index);
    }

    fn healths(count: usize) -> Vec<Health> {
        (0..count).map(|_| Health::default()).collect()
    }

    #[test]
    fn five_failures_in_a_row_leave_a_server_out_and_a_success_between_them_does_not() {
        let (mut all, mut answers) = (healths(3), [0, 0, 0]);
        for n in 1..=5 {
            answers[0] = n;
            answers[1] = 2 * n; // Each failure follows a success.
            fail(&mut all, &answers, 0, at(0));
            fail(&mut all, &answers, 1, at(0));
        }
        assert_eq!(all[0].turn(at(1), 5), Turn::Out);
        assert_eq!(all[1].turn(at(1), 10), Turn::Good);
    }

    #[test]
    fn a_server_comes_back_by_a_probe_that_is_answered_and_stays_out_longer_if_it_fails() {
        let (mut all, mut answers) = (healths(2), [0, 0]);
        for n in 1..=5 {
            answers[0] = n;
            fail(&mut all, &answers, 0, at(0));
        }
        assert_eq!(all[0].turn(at(29), 5), Turn::Out);
        assert_eq!(all[0].turn(at(30), 5), Turn::Probe);
        all[0].probing(at(40));
        assert_eq!(all[0].turn(at(31), 5), Turn::Out, "one probe at a time");
        assert_eq!(all[0].turn(at(40), 5), Turn::Probe, "one that is not answered");
        answers[0] = 6;
        fail(&mut all, &answers, 0, at(41));
        assert_eq!(all[0].turn(at(100), 6), Turn::Out, "twice as long");
        assert_eq!(all[0].turn(at(101), 6), Turn::Probe);
        all[0].probing(at(111));
        assert_eq!(all[0].turn(at(102), 7), Turn::Good);
    }

    #[test]
    fn no_more_than_the_share_is_left_out_but_one_always_may_be() {
        let (mut all, mut answers) = (healths(3), [0, 0, 0]);
        for n in 1..=20 {
            answers = [n; 3];
            (0..3).for_each(|index| fail(&mut all, &answers, index, at(0)));
        }
        let out = all.iter_mut().filter_map(|h| (h.turn(at(1), 20) == Turn::Out).then_some(()));
        assert_eq!(out.count(), 2, "50 percent are passed by the second of three");
        let _ = answers;
    }

    #[test]
    fn the_one_whose_share_of_failures_is_too_large_is_left_out_at_the_sweep() {
        let mut all = healths(5);
        let answers = [100; 5];
        for n in 0..90 {
            // Never five in a row as far as answers tell: each follows successes of others in time.
            all[2].failed(n, true);
        }
        all[2].in_a_row = 0;
        let mut with: Vec<_> = all.iter_mut().zip(answers).collect();
        sweep(&config(), at(10), &mut Random::from_seed([1; 32]), &mut with);
        let out: Vec<_> = (0..5).map(|index| all[index].is_out()).collect();
        assert_eq!(out, [false, false, true, false, false]);
    }

    #[test]
    fn the_one_far_below_the_others_is_left_out_where_success_rates_are_compared() {
        let config = OutlierDetection {
            success_rate: Some(SuccessRateEjection::default()),
            failure_percentage: None,
            ..config()
        };
        let mut all = healths(6);
        (0..40).for_each(|n| all[4].failed(n, true));
        all[4].in_a_row = 0;
        let mut with: Vec<_> = all.iter_mut().zip([200; 6]).collect();
        sweep(&config, at(10), &mut Random::from_seed([1; 32]), &mut with);
        let out: Vec<_> = (0..6).filter(|index| all[*index].is_out()).collect();
        assert_eq!(out, [4]);
    }

    #[test]
    fn too_few_calls_or_servers_leave_nobody_out() {
        for (servers, calls) in [(4, 100), (5, 49)] {
            let mut all = healths(servers);
            (0..calls).for_each(|n| all[0].failed(n, true));
            all[0].in_a_row = 0;
            let mut with: Vec<_> = all.iter_mut().map(|health| (health, calls)).collect();
            sweep(&config(), at(10), &mut Random::from_seed([1; 32]), &mut with);
            assert!(all.iter().all(|health| !health.is_out()));
        }
    }
}
