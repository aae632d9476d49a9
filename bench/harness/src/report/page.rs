//! The page: everything in one file, without anything from elsewhere.

use std::fmt::Write;

use super::{plot, provenance, shown, verdict};
use crate::measure::{Measure, short};
use crate::results::{Entry, Results, Row};

const STYLE: &str = include_str!("page.css");

/// The page as HTML.
pub(crate) fn page(results: &Results) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Stubborn beside its peers</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Stubborn beside its peers</h1>\n<ul>\n"
    );
    for line in provenance(results) {
        let _ = writeln!(html, "<li>{}</li>", escape(&line.replace('`', "")));
    }
    html.push_str("</ul>\n");
    html.push_str(&systems(results));
    html.push_str(&goals(results));
    for row in &results.rows {
        html.push_str(&section(results, row));
    }
    if !results.not_run.is_empty() {
        html.push_str("<h2>Not run</h2>\n<ul>\n");
        for reason in &results.not_run {
            let _ = writeln!(html, "<li>{}</li>", escape(reason));
        }
        html.push_str("</ul>\n");
    }
    html + "</body>\n</html>\n"
}

fn systems(results: &Results) -> String {
    let mut html = "<h2>Systems</h2>\n<div class=\"wide\"><table>\n<tr><th>system</th>\
                    <th>version</th><th>encrypted</th><th>how</th></tr>\n"
        .to_owned();
    for system in &results.systems {
        let _ = writeln!(
            html,
            "<tr><td class=\"{}\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            plot::class(results, &system.id),
            escape(&system.id),
            escape(system.version.as_deref().unwrap_or("")),
            if system.encrypted { "yes" } else { "no" },
            escape(&system.how)
        );
    }
    html + "</table></div>\n"
}

/// All goals, with links to their rows.
fn goals(results: &Results) -> String {
    let mut html = "<h2>Goals</h2>\n<div class=\"wide\"><table>\n<tr><th>row</th><th>goal</th>\
                    <th>compared with</th><th>value</th><th></th></tr>\n"
        .to_owned();
    for row in &results.rows {
        for goal in &row.goals {
            let (class, word) = match goal.met {
                Some(true) => ("met", "met"),
                Some(false) => ("missed", "not met"),
                None => ("", "not measured"),
            };
            let value = goal.value.map(|value| format!("{value:.2}")).unwrap_or_default();
            let _ = writeln!(
                html,
                "<tr><td><a href=\"#{}\">{}</a></td><td>{} of {}: {}</td><td>{}</td>\
                 <td>{value}</td><td class=\"{class}\">{word}</td></tr>",
                row.id,
                escape(&row.title),
                goal.measure.label(),
                escape(&goal.system),
                escape(&goal.goal),
                escape(goal.against.as_deref().unwrap_or("")),
            );
        }
    }
    html + "</table></div>\n"
}

fn section(results: &Results, row: &Row) -> String {
    let mut html = format!("<h2 id=\"{}\">{}</h2>\n", row.id, escape(&row.title));
    for goal in &row.goals {
        let class = match goal.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let _ = writeln!(html, "<p class=\"{class}\">Goal, {}</p>", escape(&verdict(goal)));
    }
    html.push_str(&plot::bars(results, row));
    html.push_str(&plot::latencies(results, row));
    html + &table(results, row)
}

fn table(results: &Results, row: &Row) -> String {
    let main = shown(row);
    let has = |measure: &Measure| {
        row.entries.iter().any(|entry: &Entry| entry.figures.contains_key(measure))
    };
    let columns: Vec<Measure> = plot::COLUMNS.into_iter().filter(has).collect();
    let mut html = format!(
        "<details><summary>all figures</summary><div class=\"wide\"><table>\n\
         <tr><th>system</th><th>{}</th><th>range</th>",
        main.unit()
    );
    for column in &columns {
        let _ = write!(html, "<th>{}, {}</th>", column.label(), column.unit());
    }
    html.push_str("</tr>\n");
    for entry in &row.entries {
        let class = plot::class(results, &entry.system);
        let _ = write!(html, "<tr><td class=\"{class}\">{}</td>", escape(&entry.system));
        match (&entry.failure, entry.figures.get(&main)) {
            (None, Some(spread)) => {
                let (median, min, max) =
                    (short(spread.median), short(spread.min), short(spread.max));
                let _ = write!(html, "<td>{median}</td><td>{min} to {max}</td>");
                for column in &columns {
                    let value = entry.median(*column).map(short).unwrap_or_default();
                    let _ = write!(html, "<td>{value}</td>");
                }
            }
            (failure, _) => {
                let why = escape(failure.as_deref().unwrap_or("no figures"));
                let _ = write!(
                    html,
                    "<td class=\"missed\" colspan=\"{}\">failed: {why}</td>",
                    columns.len() + 2
                );
            }
        }
        html.push_str("</tr>\n");
    }
    html + "</table></div></details>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub(super) mod tests {
    use bench_driver::protocol::LoadReport;

    use super::*;
    use crate::catalogue::SYSTEMS;
    use crate::results::{FORMAT, Machine};
    use crate::rows;

    /// Results of every row and system, one of which failed.
    pub(in crate::report) fn results() -> Results {
        let report = LoadReport {
            calls: 100,
            seconds: 1.0,
            latency: vec![(10_000, 90), (50_000, 9), (900_000, 1)],
            ..LoadReport::default()
        };
        let rows = rows::all().into_iter().map(|row| {
            let mut entries: Vec<_> = SYSTEMS
                .iter()
                .filter(|system| row.includes(system))
                .map(|system| {
                    let mut entry = Entry::new(system.id);
                    entry.add_load(&report, 64);
                    entry
                })
                .collect();
            if let Some(last) = entries.last_mut() {
                last.fail("it broke <again>".into());
            }
            let goals = row.goals.iter().map(|goal| goal.judge(&entries)).collect();
            Row { id: row.id, title: row.title, main: row.main, entries, goals }
        });
        Results {
            format: FORMAT,
            command: "cargo xtask bench".into(),
            started: 0,
            machine: Machine {
                processor: "a processor".into(),
                processors: 4,
                memory_gib: 8.0,
                kernel: "6".into(),
                rustc: "rustc 1".into(),
                commit: None,
            },
            repetitions: 1,
            seconds: 1.0,
            systems: SYSTEMS.iter().map(crate::info).collect(),
            rows: rows.collect(),
            not_run: vec!["idle: no reason".into()],
        }
    }

    #[test]
    fn every_row_has_its_place_and_nothing_comes_from_elsewhere() {
        let html = page(&results());
        for row in rows::all() {
            assert!(html.contains(&format!("<h2 id=\"{}\">", row.id)), "{}", row.id);
        }
        assert!(html.contains("failed: it broke &lt;again&gt;"));
        assert!(html.contains("idle: no reason"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(!html.contains("NaN") && !html.contains("inf"), "a plot has no place for a figure");
    }

    #[test]
    fn results_survive_being_written_and_read() {
        let text = serde_json::to_string(&results()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["format"], FORMAT);
        let row = &value["rows"][0];
        assert_eq!(row["id"], "64B-1");
        assert_eq!(row["main"], "p50_us");
        assert_eq!(row["entries"][0]["system"], "ours");
        assert_eq!(row["entries"][0]["figures"]["calls_per_second"]["median"], 100.0);
        assert_eq!(row["entries"][0]["runs"][0]["p50_us"], 10.0);
        let again: Results = serde_json::from_str(&text).unwrap();
        assert!(serde_json::to_string(&again).unwrap() == text, "something was lost");
    }
}
