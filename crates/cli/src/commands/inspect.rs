//! `stubborn inspect DIR`

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stubborn_store::replication::{Members, NodeId};
use stubborn_store::{Survey, survey};

use crate::error::Error;
use crate::folders::{self, bytes};
use crate::output::{Output, Style};

/// Show what is in a node's data folder: whose it is, members, term, vote, snapshot, log.
///
/// Nothing is changed. Of a folder that a node runs on it is shown how it was a moment ago.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder of a node, or the folder of a cluster.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let mut nodes = Vec::new();
    for path in folders::find(&args.folder)? {
        let folder = folders::open(&path)?;
        let survey = survey(&*folder).map_err(|error| folders::told(&path, &error))?;
        print(&path, &survey, out);
        nodes.push(to_json(&path, &survey));
    }
    out.json(&json!({ "nodes": nodes }));
    Ok(())
}

fn print(path: &Path, survey: &Survey, out: &Output) {
    let Survey { identity, ballot, snapshot, .. } = survey;
    let row = |name: &str, text: String| out.line(format_args!("  {name:<10} {text}"));
    out.line(out.paint(Style::Strong, path.display()));
    let state = if survey.in_use { ", in use" } else { "" };
    row("node", format!("{} of group {:016x}{state}", identity.node.get(), identity.group));
    row("made", time(identity.created));
    row("members", members(&snapshot.members, survey.member_changes));
    let vote = ballot.vote.map_or("nobody".to_owned(), |node| format!("node {}", node.get()));
    row("term", format!("{}, voted for {vote}", ballot.term));
    row(
        "snapshot",
        match snapshot.at.index {
            0 => "none yet".to_owned(),
            index => format!("after entry {index}, {}", bytes(snapshot.length)),
        },
    );
    row("log", log(survey));
    row("committed", format!("entry {}, as far as the node knew", ballot.committed));
    let used: u64 = survey.segments.iter().map(|segment| segment.used).sum();
    let count = survey.segments.len();
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    row("sizes", format!("log {} in {files}, all {}", bytes(used), bytes(survey.bytes)));
    if survey.torn {
        row("note", "the log ends in a write that was cut short; it will be removed".to_owned());
    }
}

fn log(survey: &Survey) -> String {
    let last = survey.last;
    match survey.entries {
        0 => "no entries after the snapshot".to_owned(),
        1 => format!("entry {}, of term {}", last.index, last.term),
        entries => {
            let first = last.index + 1 - entries;
            format!("entries {first} to {}, the last of term {}", last.index, last.term)
        }
    }
}

fn members(members: &Members, changes: u64) -> String {
    let list = |nodes: &mut dyn Iterator<Item = &NodeId>| {
        let numbers: Vec<String> = nodes.map(|node| node.get().to_string()).collect();
        numbers.join(", ")
    };
    let mut text = list(&mut members.voters.iter());
    if !members.learners.is_empty() {
        text += &format!("; learning: {}", list(&mut members.learners.iter()));
    }
    if members.is_changing() {
        text += &format!("; before the change under way: {}", list(&mut members.outgoing.iter()));
    }
    match changes {
        0 => text,
        1 => text + " (as of the snapshot; one entry after it changes them)",
        changes => text + &format!(" (as of the snapshot; {changes} entries after it change them)"),
    }
}

/// Seconds since 1970 as a date and a time (UTC).
pub(super) fn time(seconds: u64) -> String {
    if seconds == 0 {
        return "unknown".to_owned();
    }
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day since 1970, by counting; a year counts from its first of March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

pub(super) fn to_json(path: &Path, survey: &Survey) -> Value {
    let numbers = |nodes: &std::collections::BTreeSet<NodeId>| -> Vec<u64> {
        nodes.iter().map(|node| node.get()).collect()
    };
    let members = &survey.snapshot.members;
    let segments = survey.segments.iter().map(
        |segment| json!({ "file": segment.file, "used": segment.used, "bytes": segment.length }),
    );
    json!({
        "data": path.display().to_string(),
        "group": format!("{:016x}", survey.identity.group),
        "node": survey.identity.node.get(),
        "created": survey.identity.created,
        "in_use": survey.in_use,
        "opened": survey.opened,
        "term": survey.ballot.term,
        "vote": survey.ballot.vote.map(NodeId::get),
        "committed": survey.ballot.committed,
        "voters": numbers(&members.voters),
        "learners": numbers(&members.learners),
        "outgoing": numbers(&members.outgoing),
        "member_changes": survey.member_changes,
        "snapshot": {
            "index": survey.snapshot.at.index,
            "term": survey.snapshot.at.term,
            "bytes": survey.snapshot.length,
        },
        "log": {
            "first": survey.last.index + 1 - survey.entries,
            "last": survey.last.index,
            "last_term": survey.last.term,
            "entries": survey.entries,
            "torn": survey.torn,
            "segments": segments.collect::<Vec<_>>(),
        },
        "bytes": survey.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        assert_eq!(time(1), "1970-01-01 00:00:01 UTC");
        assert_eq!(time(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(time(1_795_239_296), "2026-11-21 05:34:56 UTC");
    }
}
