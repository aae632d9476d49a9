//! Servers of the explorer that have room for a few calls at once, and calls that matter more or less.

use stubborn_core::limits::{Concurrency, Limits};
use stubborn_core::random::Random;
use stubborn_core::service::{Metadata, PRIORITY, Priority};

use crate::oracle::calls::Token;

/// Drawn apart from everything else, so that what a seed does otherwise stays as it was. Half of all
/// worlds have the limits of before.
pub(super) fn draw(seed: u64, limits: &mut Limits) {
    let mut bytes = [0x0d; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = &mut Random::from_seed(bytes);
    if random.chance(0.5) {
        return;
    }
    let few = 1 + random.below(4) as u32;
    limits.concurrency = match random.below(4) {
        0 => Concurrency::Unlimited,
        1 => Concurrency::Adaptive { least: 1, most: 1 + random.below(16) as u32, start: few },
        _ => Concurrency::Fixed(few),
    };
    limits.queued_calls = random.below(12) as usize;
    if random.chance(0.3) {
        limits.queued_bytes = random.below(20_000);
    }
}

/// What a call says of how much it matters.
pub(super) fn metadata(token: Token) -> Metadata {
    let mut metadata = Metadata::new();
    let said = match token.0 % 5 {
        0 => Priority::High.as_str(),
        1 => Priority::Low.as_str(),
        2 => "whatever",
        _ => return metadata,
    };
    metadata.insert(PRIORITY, said).expect("a short pair");
    metadata
}
