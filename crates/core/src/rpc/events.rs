//! Events on their way to the driver.

use alloc::vec::Vec;

use super::event::{CallKey, Event};
use crate::service::{CallError, IncomingReply};

/// A queue that is filled and then emptied. An event is large to move: it is written where it stays until
/// the driver takes it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Those before `next` were taken; others may have been withdrawn.
    queue: Vec<Option<Event>>,
    next: usize,
}

impl Events {
    #[inline(always)]
    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push(Some(event));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue[self.next..].iter().all(Option::is_none)
    }

    /// The next event.
    #[inline]
    pub(crate) fn front(&mut self) -> Option<&Event> {
        while self.queue.get(self.next)?.is_none() {
            self.pass();
        }
        self.queue[self.next].as_ref()
    }

    /// Takes the next event out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Event> {
        loop {
            let event = self.queue.get_mut(self.next)?.take();
            self.pass();
            if event.is_some() {
                return event;
            }
        }
    }

    /// Takes the next event out if it is the end of a call, which is smaller than an event.
    #[inline(always)]
    pub(crate) fn pop_resolved(&mut self) -> Option<(CallKey, Result<IncomingReply, CallError>)> {
        let place = self.queue.get_mut(self.next)?;
        let Some(Event::Resolved(key, result)) = place else { return None };
        let ended = (*key, core::mem::replace(result, Ok(IncomingReply::default())));
        *place = None;
        self.pass();
        Some(ended)
    }

    /// Takes an event back that has not been taken out. False if there is none.
    pub(crate) fn withdraw(&mut self, is_it: impl Fn(&Event) -> bool) -> bool {
        let mut left = self.queue[self.next..].iter_mut();
        left.find(|event| event.as_ref().is_some_and(&is_it)).is_some_and(|event| {
            *event = None;
            true
        })
    }

    #[inline]
    fn pass(&mut self) {
        self.next += 1;
        if self.next == self.queue.len() {
            self.queue.clear();
            self.next = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::event::RequestKey;

    fn cancelled(number: u64) -> Event {
        Event::Cancelled(RequestKey(number))
    }

    fn number(event: Option<&Event>) -> Option<u64> {
        match event {
            Some(Event::Cancelled(key)) => Some(key.0),
            _ => None,
        }
    }

    #[test]
    fn events_come_in_their_order_but_those_that_were_withdrawn() {
        let mut events = Events::default();
        assert!(events.is_empty() && events.front().is_none() && events.pop().is_none());
        (0..4).for_each(|n| events.push(cancelled(n)));
        let withdraw = |events: &mut Events, n| events.withdraw(|e| number(Some(e)) == Some(n));
        assert!(withdraw(&mut events, 0) && !withdraw(&mut events, 0));
        assert_eq!(number(events.front()), Some(1));
        assert_eq!(number(events.pop().as_ref()), Some(1));
        assert!(!withdraw(&mut events, 1), "it was taken out");
        assert!(withdraw(&mut events, 3));
        assert_eq!(number(events.pop().as_ref()), Some(2));
        assert!(events.is_empty() && events.pop().is_none());
        events.push(cancelled(9));
        assert_eq!(number(events.pop().as_ref()), Some(9));
    }
}
