//! Whether to stay awake a little for the next datagram instead of sleeping.
//!
//! To sleep and be woken costs a thread more than most calls take, and its peer waits meanwhile. So a
//! driver that finds nothing to do looks again for a short while, and lets the other tasks of its
//! thread run in between, as adaptive mutexes do ("Empirical Studies of Competitive Spinning for a
//! Shared-Memory Multiprocessor", Karlin et al., SOSP 1991). Where that does not pay it soon only
//! tries it at every 64th sleep, which costs less than a microsecond each.

use stubborn_core::time::{Duration, Instant};

/// How long a driver stays awake at most.
const LONGEST: Duration = Duration::from_micros(50);

/// How long that of a group's node does: about as long as a commit takes on a good disk.
#[cfg(feature = "replica")]
pub(crate) const LONGEST_FOR_COMMITS: Duration = Duration::from_micros(300);

/// How long a client's does for calls that a group is to commit: longer than nearly all of them take.
/// Were it about as long, those that take longer would teach it to sleep, and to be woken makes a call
/// longer still.
const LONGEST_FOR_REPLIES: Duration = Duration::from_millis(1);

/// For how long it looks for datagrams at a stretch before it lets other tasks run: about as long as
/// the runtime takes to come back to it.
pub(crate) const GLANCE: Duration = Duration::from_micros(3);

/// Sleeps between two times that it stays awake, at most.
const RARELY: u8 = 63;

/// What a driver has learnt of how soon datagrams follow one another.
#[derive(Debug)]
pub(crate) struct Patience {
    longest: Duration,
    /// Sleeps until it stays awake again.
    sleeps: u8,
    /// What `sleeps` begins with: halved by each time that paid, doubled by each that did not.
    interval: u8,
    awake_until: Option<Instant>,
    /// This time it stays awake as long as a commit takes.
    prolonged: bool,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(LONGEST)
    }
}

impl Patience {
    /// That of a driver which stays awake for so long at most.
    pub(crate) const fn of(longest: Duration) -> Self {
        Self { longest, sleeps: 0, interval: 0, awake_until: None, prolonged: false }
    }

    /// There is nothing to do: whether to look again soon, instead of sleeping.
    #[cfg(any(test, feature = "replica"))]
    pub(crate) fn stays_awake(&mut self, now: Instant) -> bool {
        self.stays_awake_for(now, || false)
    }

    /// There is nothing to do: whether to look again soon, instead of sleeping; for as long as calls to a
    /// group take if there is a commit to wait for.
    pub(crate) fn stays_awake_for(&mut self, now: Instant, commit: impl FnOnce() -> bool) -> bool {
        match self.awake_until {
            Some(until) if now < until => return true,
            Some(_) if !self.prolonged && self.longest < LONGEST_FOR_REPLIES && commit() => {
                self.prolonged = true;
                self.awake_until = Some(now + (LONGEST_FOR_REPLIES - self.longest));
            }
            Some(_) => {
                self.awake_until = None;
                self.prolonged = false;
                self.interval = (2 * self.interval + 1).min(RARELY);
                self.sleeps = self.interval;
            }
            None if self.sleeps == 0 => self.awake_until = Some(now + self.longest),
            None => self.sleeps -= 1,
        }
        self.awake_until.is_some()
    }

    /// Whether it is awake for as long as a commit takes.
    pub(crate) fn is_prolonged(&self) -> bool {
        self.prolonged
    }

    /// Datagrams have come.
    pub(crate) fn received(&mut self) {
        if self.awake_until.take().is_some() {
            self.prolonged = false;
            self.interval /= 2;
            self.sleeps = self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    /// Microseconds awake over so many datagrams, `gap` apart.
    fn awake(patience: &mut Patience, datagrams: u64, gap: u64) -> u64 {
        let mut awake = 0;
        for datagram in 0..datagrams {
            let came = datagram * gap;
            let mut now = came;
            while now < came + gap && patience.stays_awake(at(now)) {
                now += 1;
            }
            awake += now - came;
            patience.received();
        }
        awake
    }

    #[test]
    fn where_datagrams_follow_closely_it_is_awake() {
        let mut patience = Patience::default();
        awake(&mut patience, 1_000, 10);
        assert_eq!(awake(&mut patience, 1_000, 10), 10_000);
    }

    #[test]
    fn where_they_come_late_it_sleeps_nearly_all_the_time() {
        let mut patience = Patience::default();
        awake(&mut patience, 1_000, 10);
        let wasted = awake(&mut patience, 1_000, 1_000);
        assert!(wasted < 1_000_000 / 200, "{wasted} of a million microseconds");
    }

    #[test]
    fn for_a_commit_it_stays_awake_for_longer() {
        let mut patience = Patience::default();
        let mut awake_for = |commit: bool| {
            let from = at(1_000);
            (0..).find(|m| !patience.stays_awake_for(from + Duration::from_micros(*m), || commit))
        };
        assert_eq!(awake_for(false), Some(50));
        assert_eq!(awake_for(true), Some(0)); // the time before did not pay
        assert_eq!(awake_for(true), Some(1_000));
    }

    #[test]
    fn it_learns_again_when_they_come_closer() {
        let mut patience = Patience::default();
        awake(&mut patience, 1_000, 1_000);
        awake(&mut patience, 1_000, 10);
        assert_eq!(awake(&mut patience, 100, 10), 1_000);
    }
}
