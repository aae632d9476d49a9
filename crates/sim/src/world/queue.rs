//! What is to happen, in a total order: by time, then in the order in which it was scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use stubborn_core::time::Instant;

pub(crate) struct Queue<T> {
    // Heap entries are small and of one size; what happens lies beside, so that sifting is cheap.
    order: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { order: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    pub(crate) fn push(&mut self, at: Instant, item: T) {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.items.push(None);
                u32::try_from(self.items.len() - 1).expect("fewer than 2^32 things are to happen")
            }
        };
        self.items[index as usize] = Some(item);
        self.order.push(Reverse((at, self.scheduled, index)));
        self.scheduled += 1;
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, _, index)) = self.order.pop()?;
        self.free.push(index);
        let item = self.items[index as usize].take().expect("each entry of the order has an item");
        Some((at, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_scheduled_for_one_time_happens_in_the_order_of_scheduling() {
        let mut queue = Queue::new();
        let at = Instant::from_nanos;
        for (time, name) in [(5, "c"), (1, "a"), (5, "d"), (1, "b")] {
            queue.push(at(time), name);
        }
        assert_eq!(queue.next_at(), Some(at(1)));
        assert_eq!(queue.pop(), Some((at(1), "a")));
        queue.push(at(1), "b2");
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(rest, ["b", "b2", "c", "d"]);
    }
}
