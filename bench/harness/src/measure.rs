//! What is measured, in which unit, and which way is better.

use serde::{Deserialize, Serialize};

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    CallsPerSecond,
    /// Payload of requests, without any overhead.
    GbitPerSecond,
    /// The same, for slow paths.
    MbitPerSecond,
    P50Us,
    P90Us,
    P99Us,
    P999Us,
    MaxUs,
    /// Both processes, user mode and kernel.
    CpuUsPerCall,
    ClientCpuUsPerCall,
    ServerCpuUsPerCall,
    ClientPeakMib,
    ServerPeakMib,
    /// Of the server, for each idle connection.
    KibPerConnection,
    /// Of the bottleneck's queue: how full it was on the average.
    QueuePercent,
    /// Of the time: how long it was more than nine tenths full.
    QueueFullPercent,
}

impl Measure {
    pub(crate) fn higher_is_better(self) -> bool {
        matches!(self, Self::CallsPerSecond | Self::GbitPerSecond | Self::MbitPerSecond)
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls/s",
            Self::GbitPerSecond => "Gbit/s",
            Self::MbitPerSecond => "Mbit/s",
            Self::P50Us | Self::P90Us | Self::P99Us | Self::P999Us | Self::MaxUs => "µs",
            Self::CpuUsPerCall | Self::ClientCpuUsPerCall | Self::ServerCpuUsPerCall => "µs/call",
            Self::ClientPeakMib | Self::ServerPeakMib => "MiB",
            Self::KibPerConnection => "KiB",
            Self::QueuePercent | Self::QueueFullPercent => "%",
        }
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls per second",
            Self::GbitPerSecond | Self::MbitPerSecond => "payload",
            Self::P50Us => "p50",
            Self::P90Us => "p90",
            Self::P99Us => "p99",
            Self::P999Us => "p99.9",
            Self::MaxUs => "max",
            Self::CpuUsPerCall => "CPU of both sides",
            Self::ClientCpuUsPerCall => "CPU of the client",
            Self::ServerCpuUsPerCall => "CPU of the server",
            Self::ClientPeakMib => "peak memory of the client",
            Self::ServerPeakMib => "peak memory of the server",
            Self::KibPerConnection => "server memory per connection",
            Self::QueuePercent => "queue",
            Self::QueueFullPercent => "time with a full queue",
        }
    }
}

/// A figure in as many digits as it is worth: `812 k`, `24.1`, `6.25`.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 999_500.0 => format!("{:.2} M", value / 1e6),
        v if v >= 99_950.0 => format!("{:.0} k", value / 1e3),
        v if v >= 9_995.0 => format!("{:.1} k", value / 1e3),
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_or_so() {
        let texts = [(0.0, "0.00"), (6.254, "6.25"), (24.13, "24.1"), (812.0, "812")];
        let more = [(18_100.0, "18.1 k"), (302_000.4, "302 k"), (12_400_000.0, "12.40 M")];
        for (value, text) in texts.into_iter().chain(more) {
            assert_eq!(short(value), text);
        }
    }
}
