//! Plots as SVG: bars with ranges, and latencies. Colours come from the page's style.

use std::fmt::Write;

use super::shown;
use crate::catalogue::Part;
use crate::measure::{Measure, short};
use crate::results::{Entry, Results, Row, quantile};

const WIDTH: f64 = 760.0;

/// Where bars begin, after the names, and where they end, before the figures.
const LEFT: f64 = 130.0;
const RIGHT: f64 = 600.0;

const BAR: f64 = 24.0;

/// The class that gives a system its colour.
pub(super) fn class(results: &Results, system: &str) -> &'static str {
    let part = results.systems.iter().find(|info| info.id == system).map(|info| info.part);
    match part {
        Some(Part::Ours) => "ours",
        Some(Part::Floor) => "floor",
        _ => "peer",
    }
}

/// A bar for each system, the median; a line across it for the range. Where the best is more than
/// twenty times the worst the scale is logarithmic.
pub(super) fn bars(results: &Results, row: &Row) -> String {
    let measure = shown(row);
    let spreads: Vec<_> = row
        .entries
        .iter()
        .filter_map(|entry| Some((entry.system.as_str(), *entry.figures.get(&measure)?)))
        .collect();
    let most = spreads.iter().map(|(_, s)| s.max).fold(f64::MIN_POSITIVE, f64::max);
    let least = spreads.iter().map(|(_, s)| s.min).fold(most, f64::min).max(most / 1e9);
    let logarithmic = most / least > 20.0;
    let x = |value: f64| {
        let share = match logarithmic {
            true => (value.max(least) / least * 2.0).ln() / (most / least * 2.0).ln(),
            false => value / most,
        };
        LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
    };
    let height = BAR * spreads.len() as f64 + 22.0;
    let mut svg = open(height, &format!("{}: {}", row.title, measure.label()));
    for (index, (system, spread)) in spreads.iter().enumerate() {
        let top = BAR * index as f64;
        let (middle, end) = (top + BAR / 2.0, x(spread.median));
        let (class, width) = (class(results, system), end - LEFT);
        let _ = write!(
            svg,
            r#"<text class="name" x="{}" y="{middle:.0}">{system}</text>
<rect class="{class}" x="{LEFT}" y="{:.0}" width="{width:.1}" height="{:.0}" rx="2"><title>{system}: {} {} ({} to {})</title></rect>
<line class="range" x1="{:.1}" x2="{:.1}" y1="{middle:.0}" y2="{middle:.0}"/>
<text class="figure" x="{:.0}" y="{middle:.0}">{} {}</text>
"#,
            LEFT - 8.0,
            top + 3.0,
            BAR - 6.0,
            short(spread.median),
            measure.unit(),
            short(spread.min),
            short(spread.max),
            x(spread.min),
            x(spread.max),
            x(spread.max).max(end) + 8.0,
            short(spread.median),
            measure.unit(),
        );
    }
    let scale = if logarithmic { ", logarithmic scale" } else { "" };
    let _ = write!(
        svg,
        r#"<text class="axis" x="{LEFT}" y="{:.0}">{}, {}; the line is the range{scale}</text>"#,
        height - 8.0,
        measure.label(),
        measure.unit(),
    );
    svg + "</svg>"
}

/// Where the plot of latencies begins and ends.
const TOP: f64 = 10.0;
const BOTTOM: f64 = 210.0;
const CURVES_LEFT: f64 = 70.0;

/// The latency that a share of the calls does not exceed, a curve for each system; both axes
/// logarithmic, so that the slow calls are seen. Empty if there are no latencies.
pub(super) fn latencies(results: &Results, row: &Row) -> String {
    let with_latency = |entry: &&Entry| !entry.latency.is_empty();
    let entries: Vec<&Entry> = row.entries.iter().filter(with_latency).collect();
    if entries.is_empty() {
        return String::new();
    }
    let micros = |entry: &Entry, share| quantile(&entry.latency, share) as f64 / 1e3;
    let least = entries.iter().map(|e| micros(e, 0.5)).fold(f64::MAX, f64::min).max(0.001) / 1.5;
    let most =
        entries.iter().map(|e| micros(e, SHARES[SHARES.len() - 1])).fold(least, f64::max) * 1.2;
    // 0.5 is at the left, 0.9999 at the right.
    let x = |share: f64| {
        CURVES_LEFT + (0.5 / (1.0 - share)).log10() / 5_000_f64.log10() * (RIGHT - CURVES_LEFT)
    };
    let y = |value: f64| BOTTOM - (value / least).ln() / (most / least).ln() * (BOTTOM - TOP);
    let mut svg = open(BOTTOM + 40.0, &format!("{}: latencies", row.title));
    grid(&mut svg, least, most, x, y);
    let mut labels: Vec<(f64, &str)> = Vec::new();
    for entry in &entries {
        let mut points = String::new();
        for share in SHARES {
            let _ = write!(points, "{:.1},{:.1} ", x(share), y(micros(entry, share)));
        }
        let class = class(results, &entry.system);
        let _ = write!(
            svg,
            r#"<polyline class="curve {class}" points="{points}"><title>{}</title></polyline>"#,
            entry.system
        );
        labels.push((y(micros(entry, SHARES[SHARES.len() - 1])), &entry.system));
    }
    apart(&mut labels, 13.0);
    for (at, system) in labels {
        let class = class(results, system);
        let _ = write!(
            svg,
            r#"<text class="end {class}" x="{:.0}" y="{at:.0}">{system}</text>"#,
            RIGHT + 8.0
        );
    }
    svg + "</svg>"
}

/// Where a curve has its points.
const SHARES: [f64; 11] = [0.5, 0.6, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999];

fn grid(svg: &mut String, least: f64, most: f64, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    for (share, label) in
        [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")]
    {
        let at = x(share);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{at:.0}" x2="{at:.0}" y1="{TOP}" y2="{BOTTOM}"/>
<text class="tick" x="{at:.0}" y="{:.0}" text-anchor="middle">{label}</text>"#,
            BOTTOM + 14.0
        );
    }
    let steps = (-3..9).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
    let inside: Vec<f64> = steps.filter(|value| (least..=most).contains(value)).collect();
    let every = inside.len().div_ceil(8).max(1);
    for value in inside.into_iter().step_by(every) {
        let at = y(value);
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{CURVES_LEFT}" x2="{RIGHT}" y1="{at:.0}" y2="{at:.0}"/>
<text class="tick" x="{:.0}" y="{at:.0}" text-anchor="end">{}</text>"#,
            CURVES_LEFT - 6.0,
            time(value)
        );
    }
    let _ = write!(
        svg,
        r#"<text class="axis" x="{CURVES_LEFT}" y="{:.0}">latency that this share of the calls does not exceed</text>"#,
        BOTTOM + 32.0
    );
}

fn time(micros: f64) -> String {
    match micros {
        m if m >= 1e6 => format!("{} s", m / 1e6),
        m if m >= 1e3 => format!("{} ms", m / 1e3),
        m => format!("{m} µs"),
    }
}

/// Moves labels so far apart that they can be read, in the order of their places.
fn apart(labels: &mut [(f64, &str)], distance: f64) {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Upwards from the lowest, so that none leaves the plot at its bottom.
    let mut limit = BOTTOM;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(limit);
        limit = label.0 - distance;
    }
    let mut limit = TOP;
    for label in labels.iter_mut() {
        label.0 = label.0.max(limit);
        limit = label.0 + distance;
    }
}

fn open(height: f64, title: &str) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}">
"#
    )
}

/// What the table under the plots has beside the main figure.
pub(super) const COLUMNS: [Measure; 9] = [
    Measure::P50Us,
    Measure::P90Us,
    Measure::P99Us,
    Measure::P999Us,
    Measure::MaxUs,
    Measure::ClientCpuUsPerCall,
    Measure::ServerCpuUsPerCall,
    Measure::ClientPeakMib,
    Measure::ServerPeakMib,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_lie_on_one_another() {
        let mut labels = [(100.0, "a"), (101.0, "b"), (102.0, "c"), (205.0, "d"), (209.0, "e")];
        apart(&mut labels, 13.0);
        for pair in labels.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= 12.99, "{labels:?}");
        }
    }
}
