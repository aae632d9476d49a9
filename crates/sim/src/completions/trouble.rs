//! How the database fares, and the ways to it: drawn from the world's seed.

use std::collections::BTreeMap;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::time::Instant;

use super::database::End;
use super::store::Fate;
use crate::world::millis;

/// How often what goes wrong with statements and commits, in this run.
pub(super) struct Trouble {
    /// The part of the ways to the database and back that take long, and how long at most.
    slow: f64,
    slowest: Duration,
    /// The part of commits that fail, and the part of which the server does not learn.
    fails: f64,
    unknown: f64,
    /// The part of rollbacks that the database hears of late.
    late: f64,
    /// After what time it has noticed that a server is gone.
    notices: Duration,
    /// Until when whom cannot reach it; under no name, all.
    away: BTreeMap<String, Instant>,
    healed: bool,
}

impl Trouble {
    pub(super) fn draw(random: &mut Random, idle: Duration) -> Self {
        let mut often = |most: f64| if random.chance(0.3) { 0.0 } else { random.unit() * most };
        let (slow, fails, unknown, late) = (often(0.1), often(0.1), often(0.2), often(0.5));
        Self {
            slow,
            slowest: millis(1 + random.below(1_500)),
            fails,
            unknown,
            late,
            notices: idle.mul_f64(random.unit()),
            away: BTreeMap::new(),
            healed: false,
        }
    }

    /// Nothing goes wrong from now on.
    pub(super) fn heal(&mut self) {
        self.away.clear();
        self.healed = true;
    }

    /// `whom` cannot reach the database until then; `None` for all servers.
    pub(super) fn cut(&mut self, whom: Option<&str>, until: Instant) {
        let known = self.away.entry(whom.unwrap_or_default().to_owned()).or_insert(until);
        *known = until.max(*known);
    }

    pub(super) fn is_away(&self, server: &str, now: Instant) -> bool {
        ["", server].iter().any(|name| self.away.get(*name).is_some_and(|until| now < *until))
    }

    /// How long the way to the database or back takes.
    pub(super) fn takes(&self, random: &mut Random) -> Duration {
        let longest = match !self.healed && random.chance(self.slow) {
            true => self.slowest,
            false => Duration::from_micros(400),
        };
        Duration::from_nanos(random.below(longest.as_nanos() as u64 + 1))
    }

    /// What becomes of a commit that comes to the database.
    pub(super) fn commit(&self, random: &mut Random) -> Fate {
        let share = random.unit();
        match share {
            _ if self.healed => Fate::Happens,
            share if share < self.fails => Fate::Fails,
            share if share < self.fails + self.unknown => self.cut_commit(random),
            _ => Fate::Happens,
        }
    }

    /// What becomes of a commit whose connection is lost.
    pub(super) fn cut_commit(&self, random: &mut Random) -> Fate {
        let (end, later) = self.left_commit(random);
        Fate::Unknown(end, later)
    }

    /// What becomes of a commit that its server did not wait for.
    pub(super) fn left_commit(&self, random: &mut Random) -> (End, Duration) {
        let end = if random.chance(0.5) { End::Commit } else { End::Rollback };
        let later = match random.chance(0.4) {
            true => self.notices.mul_f64(random.unit()),
            false => Duration::ZERO,
        };
        (end, later)
    }

    /// After what time the database notices that a server which cannot reach it has gone.
    pub(super) fn notices(&self, random: &mut Random) -> Duration {
        self.notices.mul_f64(random.unit())
    }

    /// After what time a transaction is rolled back that its server has dropped.
    pub(super) fn rolls_back(&self, random: &mut Random) -> Duration {
        match !self.healed && random.chance(self.late) {
            true => self.notices(random),
            false => Duration::ZERO,
        }
    }
}
