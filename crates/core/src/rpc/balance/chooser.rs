//! Which of several servers gets the next call.

use core::net::SocketAddr;

use super::ring::{self, Ring};
use crate::random::Random;
use crate::rpc::policy::Balancing;

/// The most servers that one call is drawn from.
const MOST_CHOICES: u32 = 10;

/// What a policy remembers from call to call.
#[derive(Debug, Default)]
pub struct Chooser {
    /// Where round robin stands.
    next: usize,
    ring: Ring,
}

/// The servers that there are for a call.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// All of them, in the order of the targets.
    pub all: &'a [u64],
    /// The index among all of the one that is used where one is used after the other.
    pub current: usize,
    /// Those that can take the call.
    pub fit: &'a [u64],
}

impl Chooser {
    /// There are other servers.
    pub fn set_targets(&mut self, balancing: &Balancing, targets: &[(u64, SocketAddr)]) {
        if let Balancing::RingHash { points, .. } = balancing {
            self.ring = Ring::new(targets, *points);
        }
    }

    /// A call goes out: the next one has the next turn.
    pub fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// The server for a call, whose key (for a ring) is `key`. `outstanding` tells the calls in flight at
    /// a server.
    pub fn choose(
        &self,
        balancing: &Balancing,
        servers: Candidates<'_>,
        random: &mut Random,
        key: Option<&[u8]>,
        outstanding: impl Fn(u64) -> u32,
    ) -> Option<u64> {
        let Candidates { all, current, fit } = servers;
        let count = fit.len() as u64;
        if count < 2 {
            return fit.first().copied();
        }
        match balancing {
            Balancing::PickFirst => {
                let current = all.get(current);
                current.filter(|current| fit.contains(current)).or(fit.first()).copied()
            }
            Balancing::RoundRobin => {
                // By its place among all, so that one which comes or goes does not upset the turn.
                let at = |step: usize| all[self.next.wrapping_add(step) % all.len()];
                (0..all.len()).map(at).find(|server| fit.contains(server))
            }
            Balancing::LeastOutstanding { choices } => {
                // The first two differ.
                let first = random.below(count);
                let second = (first + 1 + random.below(count - 1)) % count;
                let further = (*choices).clamp(2, MOST_CHOICES) - 2;
                let drawn = (0..further).map(|_| random.below(count));
                let draws = [first, second].into_iter().chain(drawn);
                draws.map(|index| fit[index as usize]).min_by_key(|server| outstanding(*server))
            }
            Balancing::RingHash { .. } => {
                let place = key.map_or_else(|| random.u64(), ring::place);
                self.ring.find(place, |server| fit.contains(&server))
            }
        }
    }
}
