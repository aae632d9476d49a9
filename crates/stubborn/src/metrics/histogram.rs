//! Times in classes: eight for each doubling, so that each is known to an eighth of itself.

use super::{Bucket, Latency};

/// The shortest time that is told from none, as a power of two of nanoseconds.
const UNIT: u32 = 8;

/// Classes for each doubling, as a power of two.
const FINE: u32 = 3;

/// Below this many units each has a class of its own.
const LINEAR: u64 = 2 << FINE;

/// The largest power of two of units that has classes of its own: times of 2^38 ns (275 s) and more are
/// in the last class.
const LAST: u32 = 29;

const CLASSES: usize = LINEAR as usize + (((LAST - FINE) as usize) << FINE);

/// Times of calls. Its size is fixed.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    classes: [u64; CLASSES],
    sum: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { classes: [0; CLASSES], sum: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a time of so many nanoseconds.
    pub(super) fn record(&mut self, nanos: u64) {
        self.classes[class(nanos)] += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    pub(super) fn tell(&self) -> Latency {
        let filled = self.classes.iter().enumerate().filter(|(_, count)| **count > 0);
        Latency {
            count: self.classes.iter().sum(),
            sum_ns: self.sum,
            max_ns: self.max,
            buckets: filled
                .map(|(class, count)| Bucket { below_ns: end(class), count: *count })
                .collect(),
        }
    }
}

fn class(nanos: u64) -> usize {
    let units = nanos >> UNIT;
    if units < LINEAR {
        return units as usize;
    }
    let power = units.ilog2();
    if power > LAST {
        return CLASSES - 1;
    }
    let fine = (units >> (power - FINE)) as usize & ((1 << FINE) - 1);
    LINEAR as usize + (((power - FINE - 1) as usize) << FINE) + fine
}

/// Times of a class are shorter than this.
fn end(class: usize) -> u64 {
    let class = class as u64;
    if class < LINEAR {
        return (class + 1) << UNIT;
    }
    let (power, fine) = ((class - LINEAR) >> FINE, (class - LINEAR) & ((1 << FINE) - 1));
    ((1 << FINE) + fine + 1) << (power + 1) << UNIT
}

impl Latency {
    /// The time that this part of all calls (0.5 for the median) took no longer than, in nanoseconds:
    /// known to an eighth, and 0 if there was no call.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (part.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().find(|bucket| {
            seen += bucket.count;
            seen >= wanted
        });
        found.map_or(0, |bucket| bucket.below_ns.min(self.max_ns))
    }

    /// Adds what another process has measured.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        for bucket in &other.buckets {
            match self.buckets.binary_search_by_key(&bucket.below_ns, |own| own.below_ns) {
                Ok(at) => self.buckets[at].count += bucket.count,
                Err(at) => self.buckets.insert(at, *bucket),
            }
        }
    }

    /// What came since an earlier look at the same process: its longest time is not known, so that of all
    /// stands.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bucket: &Bucket| {
            let same = |other: &&Bucket| other.below_ns == bucket.below_ns;
            earlier.buckets.iter().find(same).map_or(0, |other| other.count)
        };
        let left = |bucket: &Bucket| Bucket {
            count: bucket.count.saturating_sub(before(bucket)),
            ..*bucket
        };
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns),
            max_ns: self.max_ns,
            buckets: self.buckets.iter().map(left).filter(|bucket| bucket.count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_class_that_ends_next_above_it() {
        for power in 0..63 {
            for nanos in [(1u64 << power) - 1, 1 << power, (1 << power) + (1 << power) / 3] {
                let class = class(nanos);
                if nanos >= 1 << (UNIT + LAST + 1) {
                    assert_eq!(class, CLASSES - 1);
                    continue;
                }
                assert!(nanos < end(class), "{nanos} ns are in class {class}");
                assert!(class == 0 || nanos >= end(class - 1), "{nanos} ns are in class {class}");
            }
        }
        assert_eq!(end(CLASSES - 1), 1 << (UNIT + LAST + 1));
    }

    #[test]
    fn quantiles_are_known_to_an_eighth() {
        let mut histogram = Histogram::default();
        for micros in 1..=1_000 {
            histogram.record(1_000 * micros);
        }
        let told = histogram.tell();
        assert_eq!((told.count, told.sum_ns, told.max_ns), (1_000, 500_500_000, 1_000_000));
        for (part, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (1.0, 1_000_000.0)] {
            let got = told.quantile(part) as f64;
            assert!(got >= exact && got <= exact * 1.125, "{part}: {got} for {exact}");
        }
        assert_eq!(Latency::default().quantile(0.5), 0);
    }

    #[test]
    fn what_came_since_an_earlier_look_is_what_is_told() {
        let mut histogram = Histogram::default();
        histogram.record(10_000);
        let earlier = histogram.tell();
        histogram.record(1_000_000);
        let since = histogram.tell().since(&earlier);
        assert_eq!((since.count, since.sum_ns, since.buckets.len()), (1, 1_000_000, 1));
        let mut told = earlier;
        told.merge(&since);
        assert_eq!(told, histogram.tell());
    }
}
