//! The tables in `docs/performance.md`.

use std::fmt::Write;
use std::path::Path;

use super::{provenance, shown, verdict};
use crate::measure::{Measure, short};
use crate::results::{Entry, Results, Row};
use crate::rows;

/// A part of the file that is ours to write, and the rows that it is about.
struct Part {
    name: &'static str,
    bad: bool,
}

const PARTS: [Part; 2] = [Part { name: "good", bad: false }, Part { name: "bad", bad: true }];

impl Part {
    /// The lines around it.
    fn lines(&self) -> [String; 2] {
        let name = self.name;
        ["begin", "end"]
            .map(|word| format!("<!-- cargo xtask bench --write-docs: {name}, {word} -->"))
    }

    fn rows<'a>(&self, results: &'a Results) -> Vec<&'a Row> {
        let is_bad = |id: &str| rows::all().iter().any(|row| row.id == id && row.is_bad());
        results.rows.iter().filter(|row| is_bad(&row.id) == self.bad).collect()
    }

    fn replace(&self, text: &str, table: &str) -> Option<String> {
        let [begin, end] = self.lines();
        let (before, rest) = text.split_once(&begin)?;
        let (_, after) = rest.split_once(&end)?;
        Some(format!("{before}{begin}\n\n{table}\n{end}{after}"))
    }
}

/// Writes the tables of the rows that there are into the file, each into its part.
///
/// # Errors
/// If the file cannot be read or written, or has no place for them.
pub(crate) fn write(file: &Path, results: &Results) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let mut text = std::fs::read_to_string(file).map_err(failed)?;
    for part in PARTS {
        let rows = part.rows(results);
        if rows.is_empty() {
            continue;
        }
        text = part
            .replace(&text, &markdown(results, &rows))
            .ok_or_else(|| format!("{} has no lines {:?}", file.display(), part.lines()))?;
    }
    std::fs::write(file, text).map_err(failed)
}

fn markdown(results: &Results, rows: &[&Row]) -> String {
    let mut text = String::new();
    for line in provenance(results) {
        let _ = writeln!(text, "- {line}");
    }
    let _ = writeln!(text, "\n\\* is encrypted.");
    for row in rows {
        let _ = write!(text, "\n{}", section(row, results));
    }
    if !results.not_run.is_empty() {
        let _ = writeln!(text, "\nNot run:\n");
        for reason in &results.not_run {
            let _ = writeln!(text, "- {reason}");
        }
    }
    text
}

fn section(row: &Row, results: &Results) -> String {
    let idle = row.main == Measure::KibPerConnection;
    let columns: &[Measure] = match idle {
        true => &[Measure::ServerPeakMib],
        false => &[
            Measure::P50Us,
            Measure::P99Us,
            Measure::CpuUsPerCall,
            Measure::ClientPeakMib,
            Measure::ServerPeakMib,
        ],
    };
    let main = shown(row);
    let mut text = format!("#### {} (`{}`)\n\n| system | {} |", row.title, row.id, main.unit());
    for column in columns {
        let _ = write!(text, " {}, {} |", column.label(), column.unit());
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(columns.len() + 1));
    for entry in &row.entries {
        let _ = writeln!(text, "{}", line(entry, main, columns, results));
    }
    if !row.goals.is_empty() {
        let _ = writeln!(text);
    }
    for goal in &row.goals {
        let _ = writeln!(text, "- Goal, {}", verdict(goal));
    }
    text
}

fn line(entry: &Entry, main: Measure, columns: &[Measure], results: &Results) -> String {
    let encrypted = results.systems.iter().any(|s| s.id == entry.system && s.encrypted);
    let mut text = format!("| {}{} |", entry.system, if encrypted { " \\*" } else { "" });
    if let Some(failure) = &entry.failure {
        let _ = write!(text, " failed: {} |", failure.replace('|', "/"));
        return text + &" |".repeat(columns.len());
    }
    match entry.figures.get(&main) {
        Some(spread) => {
            let (median, min, max) = (short(spread.median), short(spread.min), short(spread.max));
            let _ = write!(text, " {median} ({min} - {max}) |");
        }
        None => text.push_str(" |"),
    }
    for column in columns {
        let value = entry.median(*column).map(short).unwrap_or_default();
        let _ = write!(text, " {value} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_lines_is_written() {
        let part = &PARTS[0];
        let [begin, end] = part.lines();
        let text = format!("before\n{begin}\nold\n{end}\nafter\n");
        let written = part.replace(&text, "new\n").unwrap();
        assert_eq!(written, format!("before\n{begin}\n\nnew\n\n{end}\nafter\n"));
        assert_eq!(part.replace(&written, "new\n").as_deref(), Some(written.as_str()));
        assert_eq!(PARTS[1].replace(&text, "new"), None);
    }

    #[test]
    fn the_page_of_this_repository_has_a_place_for_the_tables() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
        let text = std::fs::read_to_string(file).unwrap();
        for part in PARTS {
            assert!(part.replace(&text, "").is_some(), "{}", part.name);
        }
    }

    #[test]
    fn every_row_is_in_the_table_of_its_part() {
        let results = crate::report::page::tests::results();
        let texts = PARTS.map(|part| markdown(&results, &part.rows(&results)));
        for row in rows::all() {
            let has = texts.each_ref().map(|text| text.contains(&format!("(`{}`)", row.id)));
            assert_eq!(has, [!row.is_bad(), row.is_bad()], "{}", row.id);
        }
        assert!(texts[0].contains("| ours \\* |") && texts[0].contains("failed: it broke"));
    }
}
