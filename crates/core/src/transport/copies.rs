//! When messages are sent a second time before anything says that the first was lost
//! (`docs/decisions/0011-copies.md`).

/// The whole, of which parts are counted.
const ONE: u32 = 1 << 24;

/// The weight of a packet in the average is one in 2 to this power: a loss counts for some hundreds
/// of packets.
const WEIGHT: u32 = 8;

/// A path counts as lossy from this part on: one packet in a thousand.
const LOSSY: u32 = ONE / 1024;

/// As many of the newest packets are copied: one that three later ones follow is found missing by
/// their acknowledgement within a round trip anyway (RFC 9002 §6.1.1).
pub const COPIED_PACKETS: usize = 3;

/// With more packets than this under way a copy waits for the next packet and rides on it; with
/// fewer, it gets a packet of its own at once.
pub const FEW_IN_FLIGHT: usize = 6;

/// How much of what is sent on a path has lately been lost at random.
///
/// Copies are made only while this says that the path is lossy. Losses that congestion control
/// takes for congestion end them: a crowded path is not helped by sending more.
#[derive(Clone, Debug, Default)]
pub struct LossHistory {
    /// The moving average of the lost part, of [`ONE`].
    part: u32,
}

impl LossHistory {
    /// No loss yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packets were acknowledged or declared lost.
    pub fn on_settled(&mut self, acked: u64, lost: u64) {
        for _ in 0..lost {
            self.part += (ONE - self.part) >> WEIGHT;
        }
        for _ in 0..acked {
            if self.part == 0 {
                return;
            }
            self.part -= (self.part >> WEIGHT).max(1);
        }
    }

    /// A packet that had been declared lost has arrived after all.
    pub fn on_spurious(&mut self) {
        self.part = self.part.saturating_sub(ONE >> WEIGHT);
    }

    /// The window was cut: what was lost was congestion.
    pub fn on_congestion(&mut self) {
        self.part = 0;
    }

    /// True if messages are to be sent twice.
    pub fn is_lossy(&self) -> bool {
        self.part >= LOSSY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_makes_a_path_lossy_for_some_hundred_packets() {
        let mut history = LossHistory::new();
        history.on_settled(1_000_000, 0);
        assert!(!history.is_lossy());
        history.on_settled(0, 1);
        assert!(history.is_lossy());
        history.on_settled(300, 0);
        assert!(history.is_lossy(), "one loss in a hundred keeps it so");
        history.on_settled(200, 0);
        assert!(!history.is_lossy());
    }

    #[test]
    fn congestion_and_losses_that_were_none_end_it() {
        let mut history = LossHistory::new();
        history.on_settled(0, 50);
        history.on_congestion();
        assert!(!history.is_lossy());
        history.on_settled(0, 1);
        history.on_spurious();
        assert!(!history.is_lossy());
    }

    #[test]
    fn the_average_stays_a_part_whatever_happens() {
        let mut history = LossHistory::new();
        history.on_settled(0, 100_000);
        assert!(history.part <= ONE);
        history.on_settled(u64::from(u32::MAX), 0);
        assert_eq!(history.part, 0);
    }
}
