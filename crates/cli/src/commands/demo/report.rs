//! What the demo prints at its end.

use std::time::Duration;

use serde_json::{Value, json};
use stubborn::client::ConnectionStats;

use super::check::Verdict;
use super::client::Record;
use super::relay::Counters;
use super::replicated::Failovers;
use crate::output::{Output, Style};

/// All that came out of a run.
pub(super) struct Report {
    pub(super) verdict: Verdict,
    pub(super) latency: Latency,
    pub(super) took: Duration,
    pub(super) wire: Counters,
    /// The client's connection at the end, as [`connection_to_json`] has it; null if it had none then.
    pub(super) connection: Value,
    /// How often the server was killed.
    pub(super) kills: usize,
    /// Whether it was asked to be.
    pub(super) killing: bool,
    /// What a group of replicas went through; `None` of a single server.
    pub(super) failovers: Option<Failovers>,
}

/// How long calls took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut sorted: Vec<Duration> = records.iter().map(|record| record.took).collect();
        sorted.sort_unstable();
        // The nearest rank: the smallest one that this share of all does not exceed.
        let at = |share: f64| {
            let rank = (sorted.len() as f64 * share).ceil() as usize;
            let took = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            took.as_nanos() as f64 / 1_000.0
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl Report {
    fn calls_per_s(&self) -> f64 {
        self.verdict.calls as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// What is wrong; empty if all is well.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = self.verdict.faults(self.killing);
        if self.failovers.is_some_and(|failovers| !failovers.agree) {
            faults.push("replicas with different ledgers".into());
        }
        faults
    }

    pub(super) fn to_json(&self) -> Value {
        let v = &self.verdict;
        let mut report = json!({
            "calls": v.calls,
            "executed": v.executed,
            "not_executed": v.not_executed,
            "unknown": v.pending + v.outcome_lost,
            "effects": v.effects,
            "duplicates": v.duplicates,
            "lost": v.lost,
            "p50_us": self.latency.p50,
            "p99_us": self.latency.p99,
            "max_us": self.latency.max,
            "calls_per_s": self.calls_per_s(),
            "refused": v.refused,
            "pending": v.pending,
            "outcome_lost": v.outcome_lost,
            "outcome_lost_with_effect": v.outcome_lost_with_effect,
            "wrong": v.wrong,
            "balances_agree": v.balances_agree,
            "seconds": self.took.as_secs_f64(),
            "kills": self.kills,
            "wire": self.wire.to_json(),
            "resent_by_client": self.connection["packets_resent"],
            "connection": self.connection,
            "ok": self.faults().is_empty(),
        });
        if let Some(Failovers { count, longest_gap, agree, client_restarts, resumed }) =
            self.failovers
        {
            report["failovers"] = count.into();
            report["client_restarts"] = client_restarts.into();
            report["resumed_by_client"] = resumed.into();
            report["longest_gap_ms"] = (longest_gap.as_micros() as f64 / 1_000.0).into();
            report["replicas_agree"] = agree.into();
        }
        report
    }

    /// Prints it for people.
    pub(super) fn print(&self, out: &Output) {
        let v = &self.verdict;
        let row = |name: &str, text: String| out.line(format_args!("  {name:<15} {text}"));
        let resolved = v.calls - v.pending;
        row(
            "resolved",
            format!(
                "{:<8} ({} executed, {} not executed, {} unknown)",
                grouped(resolved),
                grouped(v.executed),
                grouped(v.not_executed),
                grouped(v.pending + v.outcome_lost)
            ),
        );
        let agree = match self.faults().as_slice() {
            [] => out.paint(Style::Good, "ledger and client agree to the cent"),
            faults => out.paint(Style::Error, faults.join(", ")),
        };
        let (effects, duplicates) = (grouped(v.effects), grouped(v.duplicates));
        let lost = grouped(v.lost);
        row("effects", format!("{effects:<8} duplicates {duplicates}   lost {lost}   {agree}"));
        if self.killing {
            self.print_kills(&row);
        }
        if let Some(Failovers { count, longest_gap, agree, client_restarts, resumed }) =
            self.failovers
        {
            let gap = milliseconds(longest_gap.as_micros() as f64);
            let same = if agree { "the same ledger" } else { "different ledgers" };
            let kills = self.kills;
            row(
                "leader killed",
                format!(
                    "{kills} times, {count} failovers, longest gap {gap} ms; replicas have {same}"
                ),
            );
            let times = if client_restarts == 1 { "once" } else { "again and again" };
            row(
                "client killed",
                format!(
                    "{times} in mid-run, {resumed} calls of its journal settled by the next one"
                ),
            );
        }
        let Latency { p50, p99, max } = self.latency;
        let [p50, p99, max] = [p50, p99, max].map(milliseconds);
        let rate = grouped(self.calls_per_s() as u64);
        row("latency", format!("p50 {p50} ms   p99 {p99} ms   max {max} ms   {rate} calls/s"));
        let wire = &self.wire;
        let resent = match self.connection["packets_resent"].as_u64() {
            Some(resent) => format!(", {} resent by the client", grouped(resent)),
            None => String::new(),
        };
        row(
            "on the wire",
            format!(
                "{} datagrams, {} lost, {} doubled, {} held back, {} corrupted{resent}",
                grouped(wire.datagrams),
                grouped(wire.lost),
                grouped(wire.doubled),
                grouped(wire.reordered),
                grouped(wire.corrupted),
            ),
        );
    }

    fn print_kills(&self, row: &impl Fn(&str, String)) {
        let v = &self.verdict;
        row(
            "server killed",
            format!(
                "{} times in mid-run: {} calls reported lost, of which {} had run, none twice",
                self.kills,
                grouped(v.outcome_lost),
                grouped(v.outcome_lost_with_effect),
            ),
        );
    }
}

/// What is told of the client's connection.
pub(super) fn connection_to_json(stats: &ConnectionStats) -> Value {
    json!({
        "rtt_us": stats.rtt.as_micros() as u64,
        "window": stats.window,
        "mtu": stats.mtu,
        "packets_sent": stats.packets_sent,
        "packets_lost": stats.packets_lost,
        "packets_resent": stats.packets_resent,
        "probe_timeouts": stats.probe_timeouts,
    })
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds as milliseconds, with two digits that count.
fn milliseconds(micros: f64) -> String {
    let millis = micros / 1_000.0;
    let decimals = if millis < 1.0 {
        2
    } else if millis < 10.0 {
        1
    } else {
        0
    };
    format!("{millis:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::client::Told;
    use super::super::ledger::Transfer;
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([312.0, 1_940.0, 43_210.0].map(milliseconds), ["0.31", "1.9", "43"]);
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let record = |micros| Record {
            transfer: Transfer { reference: 0, from: String::new(), to: String::new(), cents: 1 },
            told: Told::Executed,
            took: Duration::from_micros(micros),
        };
        let records: Vec<_> = (1..=100).rev().map(record).collect();
        assert_eq!(Latency::of(&records), Latency { p50: 50.0, p99: 99.0, max: 100.0 });
        assert_eq!(Latency::of(&[]), Latency::default());
    }
}
