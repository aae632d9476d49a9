//! What a path has done.

use std::time::Duration;

use crate::queue::Usage;

/// What has happened to packets in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came in.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_drops: u64,
    /// Held back while others passed.
    pub reordered: u64,
    /// Arrived twice.
    pub duplicated: u64,
    /// Arrived with a bit turned over.
    pub corrupted: u64,
    /// Arrived with two words exchanged.
    pub garbled: u64,
}

/// What one direction of a path has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DirectionStats {
    /// Packets.
    pub counters: Counters,
    /// Bytes in the queue before the link, on the average over time.
    pub queue_mean: f64,
    /// The most bytes that it has held.
    pub queue_max: f64,
    /// Share of the time that it was more than nine tenths full.
    pub queue_nearly_full: f64,
    /// Share of the time that it was empty.
    pub queue_empty: f64,
}

impl DirectionStats {
    pub(crate) fn new(counters: Counters, queue: Option<(Usage, u64)>) -> Self {
        let plain = Self { counters, ..Self::default() };
        let Some((usage, watched)) = queue.filter(|(_, watched)| *watched > 0) else {
            return plain;
        };
        let watched = watched as f64;
        Self {
            queue_mean: usage.area / watched,
            queue_max: usage.max,
            queue_nearly_full: usage.nearly_full / watched,
            queue_empty: usage.empty / watched,
            ..plain
        }
    }
}

/// What a path has done since its faults were last set.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathStats {
    /// From the client's namespace to the server's.
    pub forth: DirectionStats,
    /// From the server's namespace to the client's.
    pub back: DirectionStats,
    /// How much later than decided packets were handed over: half of them at most this much.
    pub late_p50: Duration,
    /// 99 of 100 packets.
    pub late_p99: Duration,
    /// The latest.
    pub late_max: Duration,
    /// Packets that the path could not hand over: the receiving kernel refused them, or too many
    /// were on the way at once.
    pub refused: u64,
    /// Packets that a kernel dropped before the path saw them.
    pub unseen: u64,
}
