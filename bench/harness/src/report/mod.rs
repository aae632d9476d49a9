//! How results are shown.

mod docs;
mod page;
mod plot;
mod table;

pub(crate) use docs::write as write_docs;
pub(crate) use page::page;
pub(crate) use table::row as table;

use crate::goal::Judgement;
use crate::measure::{Measure, short};
use crate::results::{Results, Row};

/// The figure that bars and tables show for a row: what its goals speak of is beside it.
fn shown(row: &Row) -> Measure {
    match row.main {
        Measure::P50Us => Measure::CallsPerSecond,
        other => other,
    }
}

/// How a goal stands, in words.
fn verdict(goal: &Judgement) -> String {
    let value = goal.value.map_or_else(|| "not measured".to_owned(), |v| format!("{v:.2}"));
    let met = match goal.met {
        Some(true) => ", met",
        Some(false) => ", not met",
        None => "",
    };
    let against = goal.against.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let what = format!("{} of {}", goal.measure.label(), goal.system);
    format!("{what}: {}{against}: {value}{met}", goal.goal)
}

/// What stands above everything: machine, versions, command.
fn provenance(results: &Results) -> Vec<String> {
    let machine = &results.machine;
    let commit = machine.commit.as_deref().unwrap_or("unknown");
    let versions: Vec<_> = results
        .systems
        .iter()
        .filter_map(|system| Some(format!("{} {}", system.id, system.version.as_ref()?)))
        .collect();
    vec![
        format!("Command: `{}`", results.command),
        format!("Commit: {commit}"),
        format!(
            "Machine: {} processors ({}), {} GiB, Linux {}, {}",
            machine.processors,
            machine.processor,
            short(machine.memory_gib),
            machine.kernel,
            machine.rustc
        ),
        format!("Versions: {}", versions.join(", ")),
        format!(
            "{} repetitions of {} s, interleaved; medians, ranges in brackets",
            results.repetitions, results.seconds
        ),
    ]
}
