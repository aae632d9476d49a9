//! Finding the largest datagram that a path carries (RFC 8899), and noticing when it no longer
//! does.

use crate::limits::{MAX_DATAGRAM, MIN_DATAGRAM};
use crate::time::{Duration, Instant};

/// Sizes that paths commonly end at, tried first, upwards: a tunnel over IPv6, Ethernet with IPv6
/// and with IPv4, jumbo Ethernet, the loopback interface.
const WELL_KNOWN: [usize; 7] = [1_372, 1_452, 1_472, 8_952, 8_972, 65_487, 65_507];

/// Probes of one size lost before it counts as too large (RFC 8899 §5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;

/// After a search, when to look for more (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// Large packets lost in a row, without a large one arriving, that make the size suspect.
const SUSPECT_LOSSES: u32 = 6;

/// Expiries of the probe timeout in a row from which on datagrams are small, so that a path that no
/// longer carries large ones gets its probes through (RFC 8899 §4.3).
const SMALL_AFTER_EXPIRIES: u32 = 2;

/// Path MTU discovery for one path.
///
/// Invariant: `MIN_DATAGRAM <= current <= cap`; larger datagrams than `current` are only ever sent
/// as probes, whose loss says nothing about congestion.
#[derive(Clone, Debug)]
pub struct MtuDiscovery {
    current: usize,
    cap: usize,
    search: Search,
    probe: Option<Probe>,
    /// Large packets lost since a large one arrived.
    large_lost: u32,
    /// The number of the newest large packet that arrived.
    large_acked: Option<u64>,
}

/// What to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Not before the handshake is confirmed, or switched off.
    Off,
    /// The size that worked until losses made it suspect, to be confirmed or given up.
    Confirm(usize),
    /// Upwards through the well-known sizes; those from `below` on are known not to work.
    Steps { below: usize },
    /// Halving what is between the current size and `below`, which is known not to work.
    Halving { below: usize },
    /// Nothing more to find until then.
    Done(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    size: usize,
    losses: u8,
    /// The packet that carries it, while one is on its way.
    number: Option<u64>,
}

impl MtuDiscovery {
    /// Discovery that starts at 1,200 bytes and goes up to `configured` at most, once
    /// [`start`](Self::start) is called.
    pub fn new(configured: usize) -> Self {
        Self {
            current: MIN_DATAGRAM,
            cap: configured.clamp(MIN_DATAGRAM, MAX_DATAGRAM),
            search: Search::Off,
            probe: None,
            large_lost: 0,
            large_acked: None,
        }
    }

    /// The handshake is confirmed: the search starts. The peer takes datagrams up to `peer_max`
    /// bytes (its `max_udp_payload_size`, which comes from its socket's buffer).
    pub fn start(&mut self, peer_max: u64) {
        let peer_max = usize::try_from(peer_max).unwrap_or(MAX_DATAGRAM);
        self.cap = self.cap.min(peer_max.max(MIN_DATAGRAM));
        self.current = self.current.min(self.cap);
        self.search = Search::Steps { below: self.cap + 1 };
    }

    /// The largest datagram to send that is not a probe.
    pub fn current(&self) -> usize {
        self.current
    }

    /// The largest datagram to send after `backoff` expiries of the probe timeout in a row: after
    /// the second one the smallest that every path carries.
    pub fn datagram_size(&self, backoff: u32) -> usize {
        if backoff >= SMALL_AFTER_EXPIRIES { MIN_DATAGRAM } else { self.current }
    }

    /// The size of a probe that may be sent now: a datagram of PING and PADDING of exactly this
    /// size. `None` while one is under way or there is nothing to find.
    pub fn probe_wanted(&mut self, now: Instant) -> Option<usize> {
        if let Search::Done(until) = self.search
            && now >= until
        {
            self.search = Search::Steps { below: self.cap + 1 };
        }
        if self.probe.is_some_and(|p| p.number.is_some()) {
            return None;
        }
        if self.probe.is_none() {
            let size = self.next_size(now)?;
            self.probe = Some(Probe { size, losses: 0, number: None });
        }
        self.probe.map(|p| p.size)
    }

    /// The wanted probe left as packet `number`.
    pub fn on_probe_sent(&mut self, number: u64) {
        if let Some(probe) = &mut self.probe {
            probe.number = Some(number);
        }
    }

    /// A packet of the Data space was acknowledged, probe or not. Returns the new datagram size if
    /// it changed.
    pub fn on_acked(&mut self, number: u64, size: usize) -> Option<usize> {
        if let Some(probe) = self.probe.filter(|p| p.number == Some(number)) {
            self.probe = None;
            if let Search::Confirm(_) = self.search {
                self.search = Search::Steps { below: self.cap + 1 };
            }
            self.note_large_arrived(number);
            let before = core::mem::replace(&mut self.current, probe.size.min(self.cap));
            return (before != self.current).then_some(self.current);
        }
        if self.is_large(size) {
            self.note_large_arrived(number);
        }
        None
    }

    /// A packet of the Data space was declared lost, probe or not. Returns the new datagram size if
    /// it changed: 1,200 bytes, when it looks as if the path swallowed the larger ones. Then the
    /// former size is probed first, so that a mistake is soon put right.
    pub fn on_lost(&mut self, now: Instant, number: u64, size: usize) -> Option<usize> {
        if let Some(probe) = self.probe.as_mut().filter(|p| p.number == Some(number)) {
            probe.number = None;
            probe.losses += 1;
            if probe.losses >= MAX_PROBES {
                let size = probe.size;
                self.too_large(now, size);
            }
            return None;
        }
        if !self.is_large(size) || self.large_acked.is_some_and(|acked| number < acked) {
            return None;
        }
        self.large_lost += 1;
        (self.large_lost >= SUSPECT_LOSSES).then(|| {
            let suspect = self.current;
            self.fall_back();
            if self.search != Search::Off {
                self.search = Search::Confirm(suspect);
            }
            self.current
        })
    }

    /// The local interface refused a datagram of `size` bytes as too large (EMSGSIZE); unlike an
    /// ICMP message nobody can forge this. Returns the new datagram size if it changed.
    pub fn on_refused(&mut self, now: Instant, size: usize) -> Option<usize> {
        if size <= MIN_DATAGRAM {
            return None;
        }
        let changed = size <= self.current;
        if changed {
            self.fall_back();
        }
        self.probe = None;
        if self.search != Search::Off {
            self.too_large(now, size);
        }
        changed.then_some(self.current)
    }

    fn next_size(&mut self, now: Instant) -> Option<usize> {
        match self.search {
            Search::Off | Search::Done(_) => None,
            Search::Confirm(size) => Some(size),
            Search::Steps { below } => {
                let step = WELL_KNOWN
                    .into_iter()
                    .chain([self.cap])
                    .filter(|size| *size > self.current && *size < below && *size <= self.cap)
                    .min();
                if step.is_none() {
                    self.narrow(now, below);
                    return if let Search::Halving { .. } = self.search {
                        self.next_size(now)
                    } else {
                        None
                    };
                }
                step
            }
            Search::Halving { below } => {
                let step = resolution(self.current);
                if below - self.current <= step {
                    self.finish(now);
                    return None;
                }
                // First a little more, since most often the well-known size is all there is.
                let far = below > self.current * 2;
                Some(if far {
                    self.current + step
                } else {
                    self.current + (below - self.current) / 2
                })
            }
        }
    }

    /// A size was found not to work.
    fn too_large(&mut self, now: Instant, size: usize) {
        self.probe = None;
        match self.search {
            Search::Off | Search::Done(_) => {}
            Search::Confirm(_) => self.search = Search::Steps { below: size },
            Search::Steps { below } => self.search = Search::Steps { below: below.min(size) },
            Search::Halving { below } => self.narrow(now, below.min(size)),
        }
    }

    fn narrow(&mut self, now: Instant, below: usize) {
        if below > self.cap || below.saturating_sub(self.current) <= resolution(self.current) {
            self.finish(now);
        } else {
            self.search = Search::Halving { below };
        }
    }

    fn finish(&mut self, now: Instant) {
        self.search = Search::Done(now + RAISE_AFTER);
        self.probe = None;
    }

    fn fall_back(&mut self) {
        self.current = MIN_DATAGRAM;
        self.large_lost = 0;
        self.probe = None;
    }

    /// Nearer to the current size than to the smallest: small packets arrive on any path and prove
    /// nothing.
    fn is_large(&self, size: usize) -> bool {
        size > MIN_DATAGRAM + (self.current - MIN_DATAGRAM) / 2
    }

    fn note_large_arrived(&mut self, number: u64) {
        self.large_acked = self.large_acked.max(Some(number));
        self.large_lost = 0;
    }
}

/// Sizes closer than this are not told apart: one sixteenth is not worth more probes.
fn resolution(size: usize) -> usize {
    (size / 16).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(s)
    }

    /// Probes until nothing more is wanted, over a path that carries `path` bytes and loses the
    /// probes that `loses` says, and returns the number of probes.
    fn search(
        mtu: &mut MtuDiscovery,
        number: &mut u64,
        path: usize,
        mut loses: impl FnMut() -> bool,
    ) -> u32 {
        let mut probes = 0;
        while let Some(size) = mtu.probe_wanted(at(0)) {
            assert_eq!(mtu.probe_wanted(at(0)), Some(size), "asking changes nothing");
            mtu.on_probe_sent(*number);
            assert_eq!(mtu.probe_wanted(at(0)), None, "one probe at a time");
            if size <= path && !loses() {
                mtu.on_acked(*number, size);
            } else {
                mtu.on_lost(at(0), *number, size);
            }
            *number += 1;
            probes += 1;
            assert!(probes < 200, "the search does not end");
        }
        probes
    }

    fn found(configured: usize, peer: u64, path: usize) -> (MtuDiscovery, u32) {
        let mut mtu = MtuDiscovery::new(configured);
        mtu.start(peer);
        let probes = search(&mut mtu, &mut 0, path, || false);
        (mtu, probes)
    }

    #[test]
    fn common_paths_are_found_exactly_and_with_few_probes() {
        for path in [1_200, 1_372, 1_452, 1_472, 8_952, 8_972, 65_487, 65_507] {
            let (mtu, probes) = found(65_507, 65_507, path);
            assert_eq!(mtu.current(), path);
            assert!(probes <= 13, "{path}: {probes}");
        }
    }

    #[test]
    fn odd_paths_are_found_to_within_a_sixteenth() {
        for path in [1_201, 1_300, 1_400, 2_000, 4_000, 16_000, 40_000] {
            let (mtu, _) = found(65_507, 65_507, path);
            assert!(mtu.current() <= path);
            assert!(mtu.current() + path / 16 + 16 >= path, "{path}: {}", mtu.current());
        }
    }

    #[test]
    fn nothing_above_what_the_peer_takes_or_the_operator_allows_is_ever_probed() {
        assert_eq!(found(65_507, 9_000, 65_507).0.current(), 9_000);
        assert_eq!(found(1_452, 65_507, 65_507).0.current(), 1_452);
        assert_eq!(found(65_507, 500, 65_507).0.current(), 1_200, "no peer may ask for less");
        assert_eq!(found(65_507, u64::MAX, 65_507).0.current(), 65_507);
    }

    #[test]
    fn the_search_waits_for_the_handshake() {
        let mut mtu = MtuDiscovery::new(65_507);
        assert_eq!(mtu.probe_wanted(at(0)), None);
        assert_eq!(mtu.current(), 1_200);
    }

    #[test]
    fn a_size_is_given_up_only_after_three_lost_probes() {
        let mut mtu = MtuDiscovery::new(1_452);
        mtu.start(1_452);
        let mut lose = [true, true, false, true, false].into_iter();
        search(&mut mtu, &mut 0, 1_500, || lose.next().unwrap_or(false));
        assert_eq!(mtu.current(), 1_452);
    }

    #[test]
    fn ten_minutes_later_more_is_looked_for() {
        let (mut mtu, _) = found(65_507, 65_507, 1_472);
        assert_eq!(mtu.probe_wanted(at(599)), None);
        assert_eq!(mtu.probe_wanted(at(600)), Some(8_952));
    }

    #[test]
    fn a_path_that_starts_swallowing_large_packets_falls_back_to_1200_bytes() {
        let (mut mtu, _) = found(9_000, 9_000, 9_000);
        assert_eq!(mtu.on_acked(100, 9_000), None);
        let mut changed = None;
        for number in 101..120 {
            mtu.on_acked(number + 1_000, 1_000);
            changed = mtu.on_lost(at(1), number, 9_000);
            if changed.is_some() {
                break;
            }
        }
        assert_eq!(changed, Some(1_200));
        assert_eq!(mtu.probe_wanted(at(1)), Some(9_000), "the former size is tried first");
        search(&mut mtu, &mut 5_000, 1_472, || false);
        assert_eq!(mtu.current(), 1_472);
    }

    #[test]
    fn a_mistaken_fall_back_is_put_right_by_one_probe() {
        let (mut mtu, _) = found(9_000, 9_000, 9_000);
        for number in 101..107 {
            mtu.on_lost(at(1), number, 9_000);
        }
        assert_eq!(mtu.current(), 1_200);
        assert_eq!(mtu.probe_wanted(at(1)), Some(9_000));
        mtu.on_probe_sent(200);
        assert_eq!(mtu.on_acked(200, 9_000), Some(9_000));
    }

    #[test]
    fn random_loss_is_not_taken_for_a_black_hole() {
        let (mut mtu, _) = found(9_000, 9_000, 9_000);
        for number in 100..10_000 {
            let changed = if number % 5 == 0 {
                mtu.on_lost(at(1), number, 9_000)
            } else {
                mtu.on_acked(number, 9_000)
            };
            assert_eq!(changed, None);
        }
        // Losses from before a large packet that arrived say nothing.
        for number in 0..100 {
            assert_eq!(mtu.on_lost(at(1), number, 9_000), None);
        }
    }

    #[test]
    fn after_two_expiries_of_the_probe_timeout_datagrams_are_small() {
        let (mtu, _) = found(9_000, 9_000, 9_000);
        assert_eq!(mtu.datagram_size(0), 9_000);
        assert_eq!(mtu.datagram_size(1), 9_000);
        assert_eq!(mtu.datagram_size(2), 1_200);
    }

    #[test]
    fn a_refusal_by_the_local_interface_ends_a_size_at_once() {
        let mut mtu = MtuDiscovery::new(65_507);
        mtu.start(65_507);
        let mut number = 0;
        while let Some(size) = mtu.probe_wanted(at(0)) {
            if size > 1_472 {
                assert_eq!(mtu.on_refused(at(0), size), None);
            } else {
                mtu.on_probe_sent(number);
                mtu.on_acked(number, size);
            }
            number += 1;
            assert!(number < 20);
        }
        assert_eq!(mtu.current(), 1_472);
        assert_eq!(mtu.on_refused(at(1), 1_472), Some(1_200));
        assert_eq!(mtu.on_refused(at(1), 1_200), None);
    }

    proptest! {
        #[test]
        fn whatever_is_lost_the_size_stays_in_bounds_and_the_search_ends(
            configured in 0usize..70_000,
            peer in 0u64..70_000,
            path in 1_200usize..70_000,
            losses in prop::collection::vec(any::<bool>(), 0..60),
            refused in prop::collection::vec(0usize..70_000, 0..4),
        ) {
            let mut mtu = MtuDiscovery::new(configured);
            mtu.start(peer);
            let (mut number, mut losses) = (0, losses.into_iter());
            for size in refused {
                search(&mut mtu, &mut number, path, || losses.next().unwrap_or(false));
                prop_assert!((1_200..=65_507).contains(&mtu.current()));
                prop_assert!(mtu.current() <= path);
                prop_assert!(mtu.current() <= configured.max(1_200));
                prop_assert!(mtu.current() <= usize::try_from(peer).unwrap().max(1_200));
                mtu.on_refused(at(0), size);
            }
        }
    }
}
