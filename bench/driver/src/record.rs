//! Counts calls and their latencies.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::protocol::LoadReport;

/// The longest latency that is told apart, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// Calls that began and ended within the time that is measured, with their latencies to three
/// digits, and calls that failed at any time.
#[derive(Debug)]
pub struct Recorder {
    from: Instant,
    to: Instant,
    latency: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
    unfinished: u64,
}

impl Recorder {
    pub(crate) fn new(from: Instant, to: Instant) -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).expect("these bounds are valid");
        Self { from, to, latency, failed: 0, first_failure: None, unfinished: 0 }
    }

    /// Whether a call that begins now is still of interest.
    pub fn wants(&self, now: Instant) -> bool {
        now < self.to
    }

    /// When the measurement ends.
    pub fn end(&self) -> Instant {
        self.to
    }

    /// A call that was answered as it should be.
    pub fn answered(&mut self, started: Instant, ended: Instant) {
        if ended > self.to {
            self.unfinished += 1;
        } else if started >= self.from {
            self.latency.saturating_record(nanos(ended - started));
        }
    }

    /// A call that failed.
    pub fn failed(&mut self, why: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(why);
    }

    /// A call that was given up after the time.
    pub(crate) fn unfinished(&mut self) {
        self.unfinished += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latency.add(&other.latency).expect("the bounds are the same");
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.unfinished += other.unfinished;
    }

    pub(crate) fn into_report(self) -> LoadReport {
        LoadReport {
            calls: self.latency.len(),
            seconds: (self.to - self.from).as_secs_f64(),
            latency: self
                .latency
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
                .collect(),
            failed: self.failed,
            first_failure: self.first_failure,
            unfinished: self.unfinished,
            ..LoadReport::default()
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_are_not_wholly_within_the_time_do_not_count_and_failures_always_do() {
        let from = Instant::now();
        let after = |ms| from + Duration::from_millis(ms);
        let mut recorder = Recorder::new(after(10), after(20));
        recorder.answered(after(9), after(11));
        recorder.answered(after(12), after(15));
        recorder.answered(after(19), after(21));
        recorder.failed("first".into());
        recorder.failed("second".into());
        let report = recorder.into_report();
        assert_eq!((report.calls, report.failed, report.unfinished), (1, 2, 1));
        assert_eq!(report.first_failure.as_deref(), Some("first"));
        assert_eq!(report.latency.len(), 1);
    }
}
