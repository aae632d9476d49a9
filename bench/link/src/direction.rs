//! What becomes of each packet in one direction: decisions only, no I/O and no clock.

use crate::damage::Damage;
use crate::faults::Faults;
use crate::queue::Queue;
use crate::random::Random;
use crate::stats::{Counters, DirectionStats};

/// One direction of a path. Times are nanoseconds on any clock that does not go back.
///
/// Each packet draws the same count of random numbers, whatever becomes of it: which packets are
/// lost depends on the seed and their place in the sequence alone, not on when they come.
#[derive(Clone, Debug)]
pub struct Direction {
    faults: Faults,
    random: Random,
    queue: Option<Queue>,
    counters: Counters,
    /// When the last packet that kept its place is due.
    last_due: u64,
}

/// What becomes of a packet: how often it arrives, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The packet; `None` if it is lost.
    pub first: Option<Delivery>,
    /// Its duplicate.
    pub second: Option<Delivery>,
}

/// One arrival of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When, in nanoseconds.
    pub due: u64,
    /// What is done to it on the way.
    pub damage: Option<Damage>,
}

impl Direction {
    /// A direction that begins now.
    pub fn new(faults: Faults, seed: u64, now: u64) -> Self {
        Self {
            queue: (faults.rate > 0).then(|| Queue::new(faults.rate, faults.queue, now)),
            random: Random::new(seed),
            counters: Counters::default(),
            last_due: now,
            faults,
        }
    }

    /// Decides what becomes of a packet of this many bytes. The queue comes first, as in a router
    /// before a long wire: what is lost has used the link.
    pub fn offer(&mut self, now: u64, len: usize) -> Verdict {
        let Faults { loss, delay, jitter, reorder, reorder_by, duplicate, .. } = self.faults;
        let lost = self.random.chance(loss);
        let late = nanos(jitter) as f64 * self.random.fraction();
        let held_back = self.random.chance(reorder);
        let twice = self.random.chance(duplicate);
        let damage = self.damage();

        self.counters.packets += 1;
        self.counters.bytes += len as u64;
        let sent = match &mut self.queue {
            None => now,
            Some(queue) => match queue.offer(now, len) {
                Some(sent) => sent,
                None => {
                    self.counters.queue_drops += 1;
                    return Verdict::default();
                }
            },
        };
        if lost {
            self.counters.lost += 1;
            return Verdict::default();
        }
        let mut due = sent + nanos(delay) + late as u64;
        if held_back {
            self.counters.reordered += 1;
            due += nanos(reorder_by);
        } else {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        match damage {
            Some(Damage::Flip(_)) => self.counters.corrupted += 1,
            Some(Damage::Swap(_)) => self.counters.garbled += 1,
            None => {}
        }
        self.counters.duplicated += u64::from(twice);
        // The copy is whole: it was made before the damage.
        let second = twice.then_some(Delivery { due, damage: None });
        Verdict { first: Some(Delivery { due, damage }), second }
    }

    /// Begins the statistics anew.
    pub fn watch(&mut self, now: u64) {
        self.counters = Counters::default();
        if let Some(queue) = &mut self.queue {
            queue.watch(now);
        }
    }

    /// What has happened since the beginning, or since [`watch`](Self::watch).
    pub fn stats(&mut self, now: u64) -> DirectionStats {
        let queue = self.queue.as_mut().map(|queue| queue.usage(now));
        DirectionStats::new(self.counters, queue)
    }

    fn damage(&mut self) -> Option<Damage> {
        let flip = self.random.chance(self.faults.corrupt);
        let swap = self.random.chance(self.faults.garble);
        let at = self.random.next();
        match (flip, swap) {
            (true, _) => Some(Damage::Flip(at)),
            (false, true) => Some(Damage::Swap(at)),
            (false, false) => None,
        }
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MS: u64 = 1_000_000;

    fn faults(text: &str) -> Faults {
        text.parse().unwrap()
    }

    fn verdicts(faults: Faults, seed: u64, count: u64) -> Vec<Verdict> {
        let mut direction = Direction::new(faults, seed, 0);
        (0..count).map(|i| direction.offer(i * MS, 1_000)).collect()
    }

    const ALL: &str = "loss=10%,delay=3ms,jitter=2ms,reorder=5%,reorder-by=4ms,duplicate=5%,\
                       corrupt=5%,garble=5%,rate=10mbit,queue=5kB";

    #[test]
    fn the_same_seed_decides_the_same_and_another_one_does_not() {
        assert_eq!(verdicts(faults(ALL), 1, 500), verdicts(faults(ALL), 1, 500));
        assert_ne!(verdicts(faults(ALL), 1, 500), verdicts(faults(ALL), 2, 500));
    }

    #[test]
    fn which_packets_are_lost_does_not_depend_on_when_or_how_large_they_are() {
        let mut slow = Direction::new(faults("loss=20%,jitter=1ms"), 3, 0);
        let mut fast = Direction::new(faults("loss=20%"), 3, 0);
        for i in 0..500 {
            let (a, b) = (slow.offer(i * MS, 1_500), fast.offer(i, 40));
            assert_eq!(a.first.is_some(), b.first.is_some());
        }
    }

    #[test]
    fn each_fault_happens_as_often_as_it_is_asked_for() {
        let mut direction = Direction::new(faults(ALL), 5, 0);
        for i in 0..20_000 {
            direction.offer(i * MS, 100);
        }
        let counters = direction.stats(20_000 * MS).counters;
        assert_eq!((counters.packets, counters.queue_drops), (20_000, 0));
        let near = |count: u64, expected: f64| {
            assert!((count as f64 / expected - 1.0).abs() < 0.1, "{count}, not {expected}");
        };
        near(counters.lost, 2_000.0);
        for count in [counters.reordered, counters.duplicated, counters.corrupted] {
            near(count, 900.0);
        }
        near(counters.garbled, 855.0);
    }

    #[test]
    fn jitter_keeps_packets_in_order_and_reordering_does_not() {
        let due = |text| {
            let all = verdicts(faults(text), 9, 1_000);
            all.into_iter().map(|v| v.first.unwrap().due).collect::<Vec<_>>()
        };
        assert!(due("delay=1ms,jitter=10ms").is_sorted());
        assert!(!due("delay=1ms,reorder=10%,reorder-by=5ms").is_sorted());
    }

    #[test]
    fn a_packet_takes_its_delay_and_no_more_than_its_jitter_more() {
        let mut direction = Direction::new(faults("delay=10ms,jitter=2ms"), 4, 0);
        for i in 0..1_000 {
            // So far apart that none waits for the one before.
            let due = direction.offer(i * 100 * MS, 100).first.unwrap().due - i * 100 * MS;
            assert!((10 * MS..=12 * MS).contains(&due));
        }
    }

    #[test]
    fn a_full_queue_drops_and_says_how_full_it_was() {
        let mut direction = Direction::new(faults("rate=8mbit,queue=3kB,delay=1ms"), 1, 0);
        let arrived: Vec<_> = (0..5).map(|_| direction.offer(0, 1_000).first).collect();
        let due = |ms: u64| Some(Delivery { due: ms * MS, damage: None });
        assert_eq!(arrived, [due(2), due(3), due(4), None, None]);
        let stats = direction.stats(3 * MS);
        assert_eq!((stats.counters.queue_drops, stats.counters.lost), (2, 0));
        assert_eq!(stats.queue_max, 3_000.0);
        assert!((stats.queue_mean - 1_500.0).abs() < 1.0);
    }

    #[test]
    fn without_faults_everything_arrives_at_once_and_whole() {
        let mut direction = Direction::new(Faults::default(), 0, 7);
        let delivery = Delivery { due: 9, damage: None };
        assert_eq!(direction.offer(9, 100), Verdict { first: Some(delivery), second: None });
        let plain = Faults::loss_and_delay(0.5, Duration::from_millis(1));
        assert_eq!(plain, faults("loss=50%,delay=1ms"));
    }
}
