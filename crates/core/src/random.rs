//! Randomness as an input: one seed per node, from which everything unpredictable is drawn.

use alloc::boxed::Box;
use core::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// A cryptographically strong generator (ChaCha12) that a driver seeds from the operating system's
/// entropy and the simulator seeds from its one seed.
#[derive(Clone, Debug)]
pub struct Random(State);

#[derive(Clone)]
enum State {
    /// The generator with the block that it is at.
    Awake(Box<ChaCha12Rng>),
    /// The seed to go on with: what a connection that is idle keeps.
    Resting([u8; 32]),
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("..")
    }
}

impl Random {
    /// A generator that yields the same values for the same seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(State::Resting(seed))
    }

    /// A generator with a stream of its own, so that one part's draws do not shift another's.
    pub fn fork(&mut self) -> Self {
        Self::from_seed(self.bytes())
    }

    /// Gives back memory until it is used next. Goes on with another seed, drawn from this one.
    pub fn rest(&mut self) {
        if let State::Awake(generator) = &mut self.0 {
            let mut seed = [0; 32];
            generator.fill_bytes(&mut seed);
            self.0 = State::Resting(seed);
        }
    }

    fn generator(&mut self) -> &mut ChaCha12Rng {
        if let State::Resting(seed) = self.0 {
            self.0 = State::Awake(Box::new(ChaCha12Rng::from_seed(seed)));
        }
        match &mut self.0 {
            State::Awake(generator) => generator,
            State::Resting(_) => unreachable!("it was woken"),
        }
    }

    /// Uniform 64 bits.
    pub fn u64(&mut self) -> u64 {
        self.generator().next_u64()
    }

    /// Uniform in `0..bound`.
    ///
    /// # Panics
    /// If `bound` is zero: that is a bug of the caller.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a random number below zero was asked for");
        // Lemire's multiplication; the bias is under 2^-64 * bound, which no protocol decision notices.
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`; never for `p <= 0`, always for `p >= 1`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Uniform in half to the whole of `d`: jitter that keeps clients from acting in step.
    pub fn jitter(&mut self, d: Duration) -> Duration {
        let half = u64::try_from(d.as_nanos() / 2).unwrap_or(u64::MAX);
        Duration::from_nanos(half.saturating_add(self.below(half.saturating_add(1).max(1))))
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.generator().fill_bytes(out);
    }

    /// An array of random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values_and_forks_differ() {
        let mut a = Random::from_seed([7; 32]);
        let mut b = Random::from_seed([7; 32]);
        assert_eq!(a.u64(), b.u64());
        let mut fork = a.fork();
        assert_ne!(fork.u64(), a.u64());
    }

    #[test]
    fn a_generator_that_rested_is_small_and_does_not_repeat_itself() {
        assert!(size_of::<Random>() <= 40);
        let mut random = Random::from_seed([7; 32]);
        let mut seen = alloc::vec![random.u64()];
        for _ in 0..3 {
            random.rest();
            random.rest();
            seen.push(random.u64());
        }
        let mut again = Random::from_seed([7; 32]);
        assert_eq!(again.u64(), seen[0]);
        again.rest();
        assert_eq!(again.u64(), seen[1]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn below_stays_below_and_jitter_stays_in_its_half() {
        let mut r = Random::from_seed([1; 32]);
        for bound in [1, 2, 3, 1 << 40] {
            assert!((0..100).all(|_| r.below(bound) < bound));
        }
        let d = Duration::from_millis(10);
        assert!((0..100).map(|_| r.jitter(d)).all(|j| j >= d / 2 && j <= d));
        assert!(!r.chance(0.0) && r.chance(1.0));
    }
}
