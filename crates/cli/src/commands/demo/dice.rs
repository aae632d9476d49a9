//! Random choices from a seed (SplitMix64: small, fast, and good enough for dice).

/// A source of random choices; the same seed gives the same ones.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// True with this probability, in percent.
    pub(super) fn percent(&mut self, percent: f64) -> bool {
        // 53 bits are what an f64 holds.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 100.0 < percent
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_about_a_fifth_and_never_is_never() {
        let mut dice = Dice::new(1);
        let hits = (0..10_000).filter(|_| dice.percent(20.0)).count();
        assert!((1_900..2_100).contains(&hits), "{hits}");
        assert!((0..10_000).all(|_| !dice.percent(0.0)));
        assert!((0..10_000).all(|_| dice.below(3) < 3));
    }
}
