//! The queue before a link of a limited rate.

/// A queue that drains at a constant rate. Times are nanoseconds on any clock that does not go
/// back.
///
/// Nothing is stored but how much waits: it drains evenly, so its mean and the time that it spends
/// nearly full follow exactly, without an event for each packet that leaves.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    /// Bytes per nanosecond.
    rate: f64,
    /// Bytes; infinite for no bound.
    room: f64,
    /// Bytes that wait now, the one that is being sent included.
    waiting: f64,
    /// When that was so.
    at: u64,
    since: u64,
    usage: Usage,
}

/// How full a queue was. Byte-nanoseconds and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) area: f64,
    pub(crate) nearly_full: f64,
    pub(crate) empty: f64,
    pub(crate) max: f64,
}

/// A queue is nearly full above this share of its room.
const NEARLY: f64 = 0.9;

impl Queue {
    /// Bits per second, bytes (0 for no bound), and now.
    pub(crate) fn new(rate: u64, room: u64, now: u64) -> Self {
        let room = if room == 0 { f64::INFINITY } else { room as f64 };
        let rate = rate as f64 / 8e9;
        Self { rate, room, waiting: 0.0, at: now, since: now, usage: Usage::default() }
    }

    /// Takes a packet in, and says when its last bit has left. `None` if there is no room: it is
    /// dropped.
    pub(crate) fn offer(&mut self, now: u64, len: usize) -> Option<u64> {
        self.drain(now);
        let after = self.waiting + len as f64;
        if after > self.room {
            return None;
        }
        self.waiting = after;
        self.usage.max = self.usage.max.max(after);
        Some(self.at + (after / self.rate) as u64)
    }

    /// How full it was until now, and for how long that was watched, in nanoseconds.
    pub(crate) fn usage(&mut self, now: u64) -> (Usage, u64) {
        self.drain(now);
        (self.usage, self.at - self.since)
    }

    /// Begins the statistics anew; what waits goes on waiting.
    pub(crate) fn watch(&mut self, now: u64) {
        self.drain(now);
        self.since = self.at;
        self.usage = Usage { max: self.waiting, ..Usage::default() };
    }

    /// Lets leave what has left until now.
    fn drain(&mut self, now: u64) {
        let Some(time) = now.checked_sub(self.at) else { return };
        let time = time as f64;
        let busy = time.min(self.waiting / self.rate);
        let above = (self.waiting - NEARLY * self.room).max(0.0) / self.rate;
        self.usage.area += busy * (self.waiting - self.rate * busy / 2.0);
        self.usage.nearly_full += above.min(busy);
        self.usage.empty += time - busy;
        self.waiting = (self.waiting - self.rate * time).max(0.0);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 Mbit/s: a byte in a microsecond.
    const RATE: u64 = 8_000_000;
    const US: u64 = 1_000;

    #[test]
    fn a_packet_that_finds_no_room_is_dropped_and_takes_no_time() {
        let mut queue = Queue::new(RATE, 2_500, 0);
        assert_eq!(queue.offer(0, 1_000), Some(1_000 * US));
        assert_eq!(queue.offer(0, 1_000), Some(2_000 * US));
        assert_eq!(queue.offer(0, 1_000), None);
        assert_eq!(queue.offer(500 * US, 1_000), Some(3_000 * US));
    }

    #[test]
    fn an_idle_link_sends_at_once() {
        let mut queue = Queue::new(RATE, 0, 5 * US);
        assert_eq!(queue.offer(10 * US, 100), Some(110 * US));
        assert_eq!(queue.offer(1_000 * US, 100), Some(1_100 * US));
    }

    #[test]
    fn the_mean_the_greatest_and_the_time_nearly_full_are_exact() {
        let mut queue = Queue::new(RATE, 1_000, 0);
        queue.offer(0, 1_000);
        let (usage, watched) = queue.usage(4_000 * US);
        assert_eq!(watched, 4_000 * US);
        // A triangle of 1,000 bytes over 1,000 us, then nothing for three times as long.
        assert!((usage.area / watched as f64 - 125.0).abs() < 1e-6);
        assert!((usage.nearly_full - 100.0 * US as f64).abs() < 1e-6);
        assert!((usage.empty - 3_000.0 * US as f64).abs() < 1e-6);
        assert_eq!(usage.max, 1_000.0);
    }

    #[test]
    fn statistics_begin_anew_with_what_waits_then() {
        let mut queue = Queue::new(RATE, 0, 0);
        queue.offer(0, 1_000);
        queue.watch(500 * US);
        let (usage, watched) = queue.usage(1_000 * US);
        assert_eq!((usage.max, watched), (500.0, 500 * US));
        assert!((usage.area / watched as f64 - 250.0).abs() < 1e-6);
    }
}
