//! A host's clock: it runs at its own speed, and jumps.

use std::time::Duration;

use stubborn_core::time::Instant;

/// Maps the world's time to a host's. A host's time never goes back, as a monotonic clock never
/// does: after a jump backwards it stands still until it has caught up.
#[derive(Clone, Debug)]
pub(crate) struct HostClock {
    /// World's and host's time when the speed last changed or the clock jumped.
    world: Instant,
    local: Instant,
    /// Gained per million.
    skew: i32,
    /// The latest time shown.
    shown: Instant,
}

const MILLION: i64 = 1_000_000;

impl HostClock {
    pub(crate) fn new(now: Instant) -> Self {
        // Hosts count from another zero than the world: nothing may rely on a shared one.
        let local = now + Duration::from_secs(1_000);
        Self { world: now, local, skew: 0, shown: local }
    }

    /// The host's time.
    pub(crate) fn now(&mut self, world: Instant) -> Instant {
        self.shown = self.shown.max(self.mapped(world));
        self.shown
    }

    /// The world's time at which the host's clock reaches `local`; not before `world`.
    pub(crate) fn when(&self, local: Instant, world: Instant) -> Instant {
        let ahead = u128::from(local.as_nanos().saturating_sub(self.local.as_nanos()));
        let speed = (MILLION + i64::from(self.skew)) as u128;
        let elapsed = (ahead * MILLION as u128).div_ceil(speed);
        (self.world + Duration::from_nanos(u64::try_from(elapsed).unwrap_or(u64::MAX))).max(world)
    }

    /// Changes the speed: `skew` is what the clock gains per million (negative: loses).
    pub(crate) fn set_skew(&mut self, world: Instant, skew: i32) {
        self.local = self.mapped(world);
        self.world = world;
        self.skew = skew.clamp(-900_000, 10_000_000);
    }

    /// Jumps ahead.
    pub(crate) fn jump(&mut self, world: Instant, ahead: Duration) {
        self.local = self.mapped(world) + ahead;
        self.world = world;
    }

    /// Jumps back: stands still until it has caught up.
    pub(crate) fn jump_back(&mut self, world: Instant, by: Duration) {
        self.now(world);
        self.local = self.mapped(world) - by;
        self.world = world;
    }

    fn mapped(&self, world: Instant) -> Instant {
        let elapsed = i128::from(world.as_nanos()) - i128::from(self.world.as_nanos());
        let elapsed = elapsed.max(0) * i128::from(MILLION + i64::from(self.skew));
        let gained = elapsed / i128::from(MILLION);
        self.local + Duration::from_nanos(u64::try_from(gained).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_fast_clock_reaches_its_alarm_early_and_a_slow_one_late() {
        let start = Instant::ZERO;
        for (skew, expected) in [(1_000_000, 500), (0, 1_000), (-500_000, 2_000)] {
            let mut clock = HostClock::new(start);
            clock.set_skew(start, skew);
            let alarm = clock.now(start) + SECOND;
            let when = clock.when(alarm, start);
            assert_eq!(when.since(start), Duration::from_millis(expected), "skew {skew}");
            assert!(clock.now(when) >= alarm, "an alarm is never early");
        }
    }

    #[test]
    fn an_alarm_is_never_early_whatever_the_skew() {
        let mut clock = HostClock::new(Instant::ZERO);
        let mut world = Instant::ZERO;
        for step in 1..500u64 {
            clock.set_skew(world, (step * 7_919 % 100_000) as i32 - 50_000);
            let alarm = clock.now(world) + Duration::from_nanos(step * 104_729 % 1_000_003);
            world = clock.when(alarm, world);
            assert!(clock.now(world) >= alarm);
        }
    }

    #[test]
    fn a_clock_that_jumps_back_stands_still_until_it_has_caught_up() {
        let mut clock = HostClock::new(Instant::ZERO);
        let at = |secs| Instant::ZERO + SECOND * secs;
        let before = clock.now(at(10));
        clock.jump_back(at(10), SECOND * 5);
        assert_eq!(clock.now(at(12)), before);
        assert_eq!(clock.now(at(16)), before + SECOND);
        clock.jump(at(16), SECOND * 60);
        assert_eq!(clock.now(at(16)), before + SECOND * 61);
    }
}
