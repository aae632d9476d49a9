//! What a row is to show.

use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Part};
use crate::measure::Measure;
use crate::results::Entry;

/// A figure of ours, what it is compared with, and what the ratio is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// A variant of ours.
    pub(crate) system: &'static str,
    pub(crate) measure: Measure,
    pub(crate) against: Against,
    pub(crate) bound: Bound,
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// The best of all peers in the same row, plain ones included.
    BestPeer,
    System(&'static str),
    /// The figure itself is the goal.
    Nothing,
}

/// What the ratio, or the figure, is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// How a goal stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    pub(crate) system: String,
    pub(crate) measure: Measure,
    /// What was to be reached, in words.
    pub(crate) goal: String,
    /// The system compared with; nothing if the figure itself is the goal.
    pub(crate) against: Option<String>,
    /// The ratio, or the figure; nothing if it was not measured.
    pub(crate) value: Option<f64>,
    pub(crate) met: Option<bool>,
}

impl Goal {
    /// Our calls per second in proportion to the best peer's.
    pub(crate) const fn faster_than_peers(system: &'static str, times: f64) -> Self {
        let measure = Measure::CallsPerSecond;
        Self { system, measure, against: Against::BestPeer, bound: Bound::AtLeast(times) }
    }

    pub(crate) fn judge(&self, entries: &[Entry]) -> Judgement {
        let median = |system: &str| {
            entries.iter().find(|entry| entry.system == system)?.median(self.measure)
        };
        let reference = match self.against {
            Against::BestPeer => best_peer(entries, self.measure),
            Against::System(system) => median(system).map(|value| (system.to_owned(), value)),
            Against::Nothing => Some((String::new(), 1.0)),
        };
        let value = match (median(self.system), &reference) {
            (Some(ours), Some((_, other))) if *other > 0.0 => Some(ours / other),
            _ => None,
        };
        let met = value.map(|value| match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        });
        Judgement {
            system: self.system.to_owned(),
            measure: self.measure,
            goal: self.words(),
            against: reference.map(|(name, _)| name).filter(|name| !name.is_empty()),
            value,
            met,
        }
    }

    fn words(&self) -> String {
        let (how, bound) = match self.bound {
            Bound::AtLeast(bound) => ("at least", bound),
            Bound::AtMost(bound) => ("at most", bound),
        };
        let what = match self.against {
            Against::BestPeer => "x the best peer".to_owned(),
            Against::System(system) => format!("x {system}"),
            Against::Nothing => format!(" {}", self.measure.unit()),
        };
        let bound = format!("{bound:.2}");
        let bound = bound.trim_end_matches('0').trim_end_matches('.');
        format!("{how} {bound}{what}")
    }
}

/// The peer with the best median, and it.
pub(crate) fn best_peer(entries: &[Entry], measure: Measure) -> Option<(String, f64)> {
    let is_peer = |entry: &&Entry| {
        catalogue::find(&entry.system).is_some_and(|system| system.part == Part::Peer)
    };
    let figures = entries
        .iter()
        .filter(is_peer)
        .filter_map(|entry| Some((entry.system.clone(), entry.median(measure)?)));
    match measure.higher_is_better() {
        true => figures.max_by(|a, b| a.1.total_cmp(&b.1)),
        false => figures.min_by(|a, b| a.1.total_cmp(&b.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Spread;

    fn entry(system: &str, measure: Measure, median: f64) -> Entry {
        let spread = Spread { median, min: median, max: median };
        Entry { figures: [(measure, spread)].into(), ..Entry::new(system) }
    }

    #[test]
    fn the_best_peer_is_what_counts_and_floors_do_not() {
        let measure = Measure::CallsPerSecond;
        let entries = [
            entry("ours", measure, 600.0),
            entry("udp-batched", measure, 10_000.0),
            entry("quinn", measure, 200.0),
            entry("tonic", measure, 300.0),
        ];
        let judgement = Goal::faster_than_peers("ours", 2.3).judge(&entries);
        assert_eq!(judgement.against.as_deref(), Some("tonic"));
        assert_eq!((judgement.value, judgement.met), (Some(2.0), Some(false)));
        assert_eq!(judgement.goal, "at least 2.3x the best peer");
        assert_eq!(Goal::faster_than_peers("ours", 2.0).judge(&entries).met, Some(true));
    }

    #[test]
    fn where_less_is_better_the_best_peer_is_the_least() {
        let measure = Measure::CpuUsPerCall;
        let entries = [
            entry("ours", measure, 1.0),
            entry("quinn", measure, 2.0),
            entry("tonic", measure, 9.0),
        ];
        let goal =
            Goal { system: "ours", measure, against: Against::BestPeer, bound: Bound::AtMost(0.5) };
        let judgement = goal.judge(&entries);
        assert_eq!((judgement.value, judgement.met), (Some(0.5), Some(true)));
    }

    #[test]
    fn a_figure_can_be_the_goal_itself() {
        let measure = Measure::KibPerConnection;
        let bound = Bound::AtMost(6.0);
        let goal = Goal { system: "ours", measure, against: Against::Nothing, bound };
        let judgement = goal.judge(&[entry("ours", measure, 7.0)]);
        assert_eq!((judgement.value, judgement.met), (Some(7.0), Some(false)));
        assert_eq!(judgement.goal, "at most 6 KiB");
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let goal = Goal::faster_than_peers("ours", 1.0);
        assert_eq!(goal.judge(&[]).met, None);
        let alone = [entry("ours", Measure::CallsPerSecond, 1.0)];
        assert_eq!(goal.judge(&alone).met, None);
    }
}
