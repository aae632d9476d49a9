//! Everything that was measured: what the JSON holds, and what table and page are made of.

use std::collections::{BTreeMap, BTreeSet};

use bench_driver::protocol::{IdleReport, LoadReport};
use link::DirectionStats;
use serde::{Deserialize, Serialize};

use crate::catalogue::Part;
use crate::goal::Judgement;
use crate::measure::Measure;

/// The version of this format.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    /// The command that was run.
    pub(crate) command: String,
    /// When it was started, in seconds since 1970.
    pub(crate) started: u64,
    pub(crate) machine: Machine,
    pub(crate) repetitions: usize,
    pub(crate) seconds: f64,
    pub(crate) systems: Vec<SystemInfo>,
    pub(crate) rows: Vec<Row>,
    /// What was asked for and could not be run, with the reason.
    pub(crate) not_run: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// The commit of this repository, if it is known.
    pub(crate) commit: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SystemInfo {
    pub(crate) id: String,
    pub(crate) part: Part,
    pub(crate) version: Option<String>,
    pub(crate) encrypted: bool,
    pub(crate) how: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) title: String,
    /// The figure that the row is about.
    pub(crate) main: Measure,
    pub(crate) entries: Vec<Entry>,
    pub(crate) goals: Vec<Judgement>,
}

/// One system in one row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) system: String,
    /// Median, least and most of each figure over the repetitions.
    pub(crate) figures: BTreeMap<Measure, Spread>,
    /// The figures of each repetition.
    pub(crate) runs: Vec<BTreeMap<Measure, f64>>,
    /// Latencies of all repetitions: the upper end of a bucket in nanoseconds, and how many.
    pub(crate) latency: Vec<(u64, u64)>,
    /// Why there are no figures.
    pub(crate) failure: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Entry {
    pub(crate) fn new(system: &str) -> Self {
        Self { system: system.to_owned(), ..Self::default() }
    }

    pub(crate) fn median(&self, measure: Measure) -> Option<f64> {
        self.figures.get(&measure).map(|spread| spread.median)
    }

    /// Adds a repetition. A failed call fails the entry.
    pub(crate) fn add_load(&mut self, report: &LoadReport, payload: usize) {
        if report.failed > 0 {
            let first = report.first_failure.as_deref().unwrap_or("no reason given");
            return self.fail(format!("{} calls failed, the first: {first}", report.failed));
        }
        if report.calls == 0 && report.unfinished == 0 {
            return self.fail("no call began and ended within the time".into());
        }
        let mut buckets: BTreeMap<u64, u64> = self.latency.drain(..).collect();
        for (value, count) in &report.latency {
            *buckets.entry(*value).or_default() += count;
        }
        self.latency = buckets.into_iter().collect();
        self.add(load_figures(report, payload));
    }

    /// What the queue of the path did meanwhile, and how many bytes it has room for.
    pub(crate) fn add_queue(&mut self, queue: &DirectionStats, room: u64) {
        let Some(mut run) = self.runs.pop() else { return };
        run.insert(Measure::QueuePercent, queue.queue_mean / room as f64 * 100.0);
        run.insert(Measure::QueueFullPercent, queue.queue_nearly_full * 100.0);
        self.add(run);
    }

    /// The same for idle connections.
    pub(crate) fn add_idle(&mut self, report: &IdleReport) {
        if report.failed > 0 {
            let first = report.first_failure.as_deref().unwrap_or("no reason given");
            let failed = report.failed;
            return self.fail(format!("{failed} connections were dead afterwards: {first}"));
        }
        let grown = report.after.saturating_sub(report.before) as f64;
        self.add(BTreeMap::from([
            (Measure::KibPerConnection, grown / report.connections.max(1) as f64 / 1024.0),
            (Measure::ServerPeakMib, mib(report.peak)),
        ]));
    }

    /// Takes the figures away and says why.
    pub(crate) fn fail(&mut self, why: String) {
        *self = Self { failure: Some(why), ..Self::new(&self.system) };
    }

    fn add(&mut self, run: BTreeMap<Measure, f64>) {
        self.runs.push(run);
        let measures: BTreeSet<_> = self.runs.iter().flat_map(BTreeMap::keys).collect();
        self.figures = measures
            .into_iter()
            .map(|measure| {
                let all = self.runs.iter().filter_map(|run| run.get(measure)).copied().collect();
                (*measure, spread(all))
            })
            .collect();
    }
}

fn load_figures(report: &LoadReport, payload: usize) -> BTreeMap<Measure, f64> {
    let calls = report.calls as f64;
    let rate = calls / report.seconds;
    let megabits = rate * payload as f64 * 8.0 / 1e6;
    if report.calls == 0 {
        // Nothing ended in the time, as happens on bad paths: there is nothing else to say.
        return BTreeMap::from([(Measure::CallsPerSecond, 0.0), (Measure::MbitPerSecond, 0.0)]);
    }
    let per_call = |nanos: u64| nanos as f64 / 1e3 / calls;
    let at = |share| quantile(&report.latency, share) as f64 / 1e3;
    let (client, server) = (per_call(report.client_cpu_ns), per_call(report.server_cpu_ns));
    BTreeMap::from([
        (Measure::CallsPerSecond, rate),
        (Measure::GbitPerSecond, megabits / 1e3),
        (Measure::MbitPerSecond, megabits),
        (Measure::P50Us, at(0.5)),
        (Measure::P90Us, at(0.9)),
        (Measure::P99Us, at(0.99)),
        (Measure::P999Us, at(0.999)),
        (Measure::MaxUs, at(1.0)),
        (Measure::CpuUsPerCall, client + server),
        (Measure::ClientCpuUsPerCall, client),
        (Measure::ServerCpuUsPerCall, server),
        (Measure::ClientPeakMib, mib(report.client_peak)),
        (Measure::ServerPeakMib, mib(report.server_peak)),
    ])
}

/// The value that this share of the counts does not exceed.
pub(crate) fn quantile(buckets: &[(u64, u64)], share: f64) -> u64 {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let wanted = (all as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (value, count) in buckets {
        seen += count;
        if seen >= wanted {
            return *value;
        }
    }
    0
}

fn spread(mut all: Vec<f64>) -> Spread {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    let median = match all.len() % 2 {
        0 => (all[middle - 1] + all[middle]) / 2.0,
        _ => all[middle],
    };
    Spread { median, min: all[0], max: all[all.len() - 1] }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(calls: u64, failed: u64) -> LoadReport {
        let latency = vec![(1_000, calls / 2), (2_000, calls - calls / 2)];
        LoadReport { calls, seconds: 2.0, latency, failed, ..LoadReport::default() }
    }

    #[test]
    fn a_failed_call_fails_the_entry_and_takes_its_figures_away() {
        let mut entry = Entry::new("ours");
        entry.add_load(&report(10, 0), 64);
        assert_eq!(entry.median(Measure::CallsPerSecond), Some(5.0));
        entry.add_load(&report(10, 1), 64);
        assert_eq!(entry.median(Measure::CallsPerSecond), None);
        assert!(entry.failure.is_some_and(|why| why.starts_with("1 calls failed")));
    }

    #[test]
    fn the_median_is_the_middle_one_and_the_range_is_kept() {
        let mut entry = Entry::new("ours");
        for calls in [30, 10, 20] {
            entry.add_load(&report(calls, 0), 1_000_000_000);
        }
        let rates = entry.figures[&Measure::CallsPerSecond];
        assert_eq!(rates, Spread { median: 10.0, min: 5.0, max: 15.0 });
        assert_eq!(entry.median(Measure::GbitPerSecond), Some(80.0));
        assert_eq!(entry.latency, [(1_000, 30), (2_000, 30)]);
        assert_eq!(spread(vec![1.0, 2.0]).median, 1.5);
    }

    #[test]
    fn a_quantile_is_the_first_bucket_that_reaches_it() {
        let buckets = [(1, 50), (2, 49), (9, 1)];
        let at = |share| quantile(&buckets, share);
        assert_eq!((at(0.5), at(0.51), at(0.99), at(1.0)), (1, 2, 2, 9));
        assert_eq!(quantile(&[], 0.5), 0);
    }
}
