//! The table on the terminal.

use std::fmt::Write;

use super::{shown, verdict};
use crate::catalogue;
use crate::measure::{Measure, short};
use crate::results::{Entry, Row};

/// What is shown beside the main figure.
const BESIDE: [Measure; 7] = [
    Measure::P50Us,
    Measure::P99Us,
    Measure::CpuUsPerCall,
    Measure::ClientPeakMib,
    Measure::ServerPeakMib,
    Measure::QueuePercent,
    Measure::QueueFullPercent,
];

/// A row as text, several lines.
pub(crate) fn row(row: &Row) -> String {
    let mut text = format!("{}  [{}]\n", row.title, row.id);
    for entry in &row.entries {
        let _ = writeln!(text, "  {:<16}{}", name(entry), figures(shown(row), entry));
    }
    for goal in &row.goals {
        let _ = writeln!(text, "  goal, {}", verdict(goal));
    }
    text
}

/// The system; `*` marks encryption.
fn name(entry: &Entry) -> String {
    let encrypted = catalogue::find(&entry.system).is_some_and(|system| system.encrypted);
    format!("{}{}", entry.system, if encrypted { " *" } else { "" })
}

fn figures(first: Measure, entry: &Entry) -> String {
    if let Some(failure) = &entry.failure {
        return format!("FAILED: {failure}");
    }
    let mut text = String::new();
    if let Some(spread) = entry.figures.get(&first) {
        let range = format!("({} - {})", short(spread.min), short(spread.max));
        let _ = write!(text, "{:>9} {:<8} {range:<20}", short(spread.median), first.unit());
    }
    for measure in BESIDE {
        let Some(value) = entry.median(measure) else { continue };
        let label = match measure {
            Measure::CpuUsPerCall => "cpu",
            Measure::ClientPeakMib => "client",
            Measure::ServerPeakMib => "server",
            Measure::QueueFullPercent => "full",
            other => other.label(),
        };
        let _ = write!(text, " {label} {:>6} {:<4}", short(value), measure.unit());
    }
    text.trim_end().to_owned()
}
