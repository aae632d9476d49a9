//! What came of it.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

const BEGIN: &str = "<!-- cargo xtask bench --kv --write-docs: begin -->";
const END: &str = "<!-- cargo xtask bench --kv --write-docs: end -->";

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    system: &'static str,
    concurrency: u32,
    puts_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// One kill of a leader.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    system: &'static str,
    longest_ms: f64,
    /// Puts that ended with an error.
    failed: u64,
}

#[derive(Debug)]
pub(crate) struct Results {
    payload: u32,
    seconds: f64,
    etcd: String,
    pub(crate) cells: Vec<Cell>,
    pub(crate) gaps: Vec<Gap>,
}

impl Cell {
    pub(crate) fn of(system: &'static str, concurrency: u32, told: &Value) -> Result<Self, String> {
        let field = |name: &str| told[name].as_f64().ok_or_else(|| format!("no {name}: {told}"));
        let (puts_per_s, p50_us) = (field("calls_per_s")?, field("p50_us")?);
        Ok(Self { system, concurrency, puts_per_s, p50_us, p99_us: field("p99_us")? })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, puts_per_s, p50_us, p99_us, .. } = self;
        write!(f, "{system:<5} {puts_per_s:>8.0} puts/s   p50 {p50_us:>7.0}   p99 {p99_us:>7.0} µs")
    }
}

impl Gap {
    pub(crate) fn of(system: &'static str, told: &Value) -> Result<Self, String> {
        let longest = told["longest_gap_ms"].as_f64().ok_or_else(|| format!("no gap: {told}"))?;
        let count = |name: &str| told[name].as_u64().unwrap_or(0);
        Ok(Self { system, longest_ms: longest, failed: count("failed") + count("unresolved") })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { system, longest_ms, failed } = self;
        write!(f, "{system:<5} no put ended for {longest_ms:.0} ms; {failed} puts failed")
    }
}

impl Results {
    pub(crate) fn new(payload: u32, seconds: f64, etcd: String) -> Self {
        Self { payload, seconds, etcd, cells: Vec::new(), gaps: Vec::new() }
    }

    /// Medians of each system at each concurrency.
    fn median(&self, system: &str, concurrency: u32) -> Option<Cell> {
        let of = |c: &&Cell| c.system == system && c.concurrency == concurrency;
        let cells: Vec<&Cell> = self.cells.iter().filter(of).collect();
        let middle = |field: fn(&Cell) -> f64| {
            let mut values: Vec<f64> = cells.iter().map(|cell| field(cell)).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        Some(Cell {
            puts_per_s: middle(|c| c.puts_per_s)?,
            p50_us: middle(|c| c.p50_us)?,
            p99_us: middle(|c| c.p99_us)?,
            ..(*cells.first()?).clone()
        })
    }

    pub(crate) fn tables(&self) -> String {
        let mut text = format!(
            "{} B values, {} s each, medians; {}, beside ours in the same run on the same disk.\n\n\
             | in flight | system | puts/s | p50, µs | p99, µs | puts/s, times etcd's | p50, of etcd's | p99, of etcd's |\n\
             |---:|---|---:|---:|---:|---:|---:|---:|\n",
            self.payload, self.seconds, self.etcd
        );
        let mut rows: Vec<u32> = self.cells.iter().map(|cell| cell.concurrency).collect();
        rows.dedup();
        for row in rows {
            let (Some(etcd), Some(ours)) = (self.median("etcd", row), self.median("ours", row))
            else {
                continue;
            };
            for cell in [&ours, &etcd] {
                let Cell { system, puts_per_s, p50_us, p99_us, .. } = cell;
                let ratios = match *system {
                    "ours" => format!(
                        "{:.1} | {:.2} | {:.2}",
                        puts_per_s / etcd.puts_per_s,
                        p50_us / etcd.p50_us,
                        p99_us / etcd.p99_us
                    ),
                    _ => "| |".into(),
                };
                text += &format!(
                    "| {row} | {system} | {puts_per_s:.0} | {p50_us:.0} | {p99_us:.0} | {ratios} |\n"
                );
            }
        }
        text += "\n| leader killed, 16 in flight | longest time without a put, ms: median (each) | puts that failed |\n|---|---|---:|\n";
        for system in ["ours", "etcd"] {
            let gaps: Vec<&Gap> = self.gaps.iter().filter(|gap| gap.system == system).collect();
            let mut sorted: Vec<f64> = gaps.iter().map(|gap| gap.longest_ms).collect();
            sorted.sort_by(f64::total_cmp);
            let Some(median) = sorted.get(sorted.len() / 2) else { continue };
            let each: Vec<_> = sorted.iter().map(|gap| format!("{gap:.0}")).collect();
            let failed: u64 = gaps.iter().map(|gap| gap.failed).sum();
            text += &format!("| {system} | {median:.0} ({}) | {failed} |\n", each.join(", "));
        }
        text
    }

    pub(crate) fn to_json(&self) -> Value {
        let cell = |cell: &Cell| {
            let Cell { system, concurrency, puts_per_s, p50_us, p99_us } = cell;
            json!({
                "system": system, "concurrency": concurrency, "puts_per_s": puts_per_s,
                "p50_us": p50_us, "p99_us": p99_us,
            })
        };
        let gap = |gap: &Gap| {
            let Gap { system, longest_ms, failed } = gap;
            json!({ "system": system, "longest_gap_ms": longest_ms, "failed": failed })
        };
        json!({
            "payload": self.payload,
            "seconds": self.seconds,
            "etcd": self.etcd,
            "puts": self.cells.iter().map(cell).collect::<Vec<_>>(),
            "leader_killed": self.gaps.iter().map(gap).collect::<Vec<_>>(),
        })
    }
}

/// Puts the tables into their place in docs/performance.md.
pub(crate) fn write_docs(results: &Results) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let text = std::fs::read_to_string(&file).map_err(failed)?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| rest.split_once(END).map(|(_, after)| (before, after)));
    let (before, after) =
        parts.ok_or_else(|| format!("{} has no lines {BEGIN:?} and {END:?}", file.display()))?;
    let text = format!("{before}{BEGIN}\n\n{}\n{END}{after}", results.tables());
    std::fs::write(&file, text).map_err(failed)
}
