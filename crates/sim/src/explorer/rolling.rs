//! Rolling restarts: one server after the other drains and is restarted.

use std::time::Duration;

use stubborn_core::random::Random;

use super::faults::{Episode, Fault};
use crate::world::millis;

/// What a run has beside all else. Drawn apart, so that what a seed does otherwise stays as it was.
pub(super) struct Rolling {
    random: Random,
    /// Where there would be two servers there are three.
    pub(super) third: bool,
}

impl Rolling {
    pub(super) fn draw(seed: u64) -> Self {
        let mut bytes = [0x7a; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = Random::from_seed(bytes);
        let third = random.chance(0.5);
        Self { random, third }
    }

    /// A quarter of the runs with several servers have a rolling restart, each server of which may
    /// drain until it is done, or not.
    pub(super) fn episodes(&mut self, servers: &[String], length: Duration) -> Vec<Episode> {
        if servers.len() < 2 || !self.random.chance(0.25) {
            return Vec::new();
        }
        let mut begins = millis(self.random.below(2_000));
        let mut episodes = Vec::new();
        for server in servers {
            let lasts = millis(50 + self.random.below(3_000));
            episodes.push(Episode { begins, lasts, fault: Fault::Drain(server.clone()) });
            begins += lasts + millis(100 + self.random.below(1_500));
        }
        episodes.retain(|episode| episode.begins < length);
        episodes
    }
}
