//! What a link does to the datagrams that pass it, each effect a small value.

use std::time::Duration;

use crate::world::HostId;

/// One effect on datagrams.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Each is lost with this probability.
    Lose(f64),
    /// With probability `chance` a second copy arrives, up to `later` after the first.
    Duplicate {
        /// The probability.
        chance: f64,
        /// How much later at most.
        later: Duration,
    },
    /// With probability `chance` a datagram arrives up to `later` later, overtaken by others.
    Reorder {
        /// The probability.
        chance: f64,
        /// How much later at most.
        later: Duration,
    },
    /// Each takes this long, instead of the 250 µs that it takes without rules.
    Latency(Duration),
    /// Each takes `base` longer, and up to `jitter` more. Their order is kept.
    Delay {
        /// Added to every datagram.
        base: Duration,
        /// Added at most, drawn for each datagram.
        jitter: Duration,
    },
    /// With this probability bits are flipped or the end is cut off.
    Corrupt(f64),
    /// Datagrams leave at this rate; those for which the queue has no room are dropped.
    Limit {
        /// The rate.
        bytes_per_second: u64,
        /// Bytes that may wait.
        queue: u64,
    },
    /// Larger datagrams are dropped, silently.
    Mtu(usize),
    /// ECN-capable datagrams are marked with this probability.
    MarkCongestion(f64),
    /// ECN marks are removed.
    ClearEcn,
    /// Nothing passes.
    Cut,
}

/// Which datagrams a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Everything,
    /// From and to this host.
    Host(HostId),
    /// Between two hosts, both ways.
    Between(HostId, HostId),
    /// From the first to the second.
    OneWay(HostId, HostId),
    /// Between these hosts and all others.
    Across(Vec<HostId>),
}

impl Scope {
    pub(crate) fn covers(&self, from: HostId, to: HostId) -> bool {
        match self {
            Self::Everything => true,
            Self::Host(host) => from == *host || to == *host,
            Self::Between(a, b) => (from, to) == (*a, *b) || (from, to) == (*b, *a),
            Self::OneWay(a, b) => (from, to) == (*a, *b),
            Self::Across(island) => island.contains(&from) != island.contains(&to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_the_links_that_it_names_and_no_others() {
        let [a, b, c] = [0, 1, 2].map(HostId);
        assert!(Scope::Everything.covers(a, b));
        assert!(Scope::Host(a).covers(b, a) && !Scope::Host(a).covers(b, c));
        assert!(Scope::Between(a, b).covers(b, a) && !Scope::Between(a, b).covers(a, c));
        assert!(Scope::OneWay(a, b).covers(a, b) && !Scope::OneWay(a, b).covers(b, a));
        let island = Scope::Across(vec![a, b]);
        assert!(island.covers(a, c) && island.covers(c, b));
        assert!(!island.covers(a, b) && !island.covers(c, c));
    }
}
