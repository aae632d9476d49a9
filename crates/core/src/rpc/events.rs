//! Events on their way to the driver.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::event::{CallKey, Event, IncomingRequest, RequestKey};
use crate::service::{CallError, IncomingReply};

/// Two queues that are filled and then emptied. What is large to move is written where it stays until the
/// driver takes it.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// All but requests; those before `next` were taken.
    queue: Vec<Option<Event>>,
    next: usize,
    /// They come before all else. Apart, so that no other event has their size, and the driver takes all
    /// of them without a copy.
    requests: VecDeque<IncomingRequest>,
}

impl Events {
    #[inline(always)]
    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push(Some(event));
    }

    #[inline(always)]
    pub(crate) fn push_request(&mut self, request: IncomingRequest) {
        self.requests.push_back(request);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next == self.queue.len() && self.requests.is_empty()
    }

    /// Takes the next event out that is no request.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.queue.get_mut(self.next)?.take();
        self.pass();
        event
    }

    pub(crate) fn pop_request(&mut self) -> Option<IncomingRequest> {
        self.requests.pop_front()
    }

    /// Exchanges the requests that wait here for those in `others`.
    pub(crate) fn swap_requests(&mut self, others: &mut VecDeque<IncomingRequest>) {
        core::mem::swap(&mut self.requests, others);
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

    /// Takes a request back that has not been taken out. False if it was.
    pub(crate) fn withdraw(&mut self, request: RequestKey) -> bool {
        let place = self.requests.iter().position(|other| other.key == request);
        place.and_then(|place| self.requests.remove(place)).is_some()
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
    use crate::service::{Call, CallContext, Encoded, MethodId, RequestKind};

    fn request(number: u64) -> IncomingRequest {
        IncomingRequest {
            key: RequestKey(number),
            method: MethodId(0),
            kind: RequestKind::Numbered,
            stale: None,
            watch: None,
            call: Call::new(Encoded::default(), CallContext::default()),
        }
    }

    #[test]
    fn events_and_requests_come_in_their_order_but_those_that_were_withdrawn() {
        let mut events = Events::default();
        assert!(events.is_empty() && events.pop().is_none() && events.pop_request().is_none());
        (0..4).for_each(|n| events.push_request(request(n)));
        (0..2).for_each(|n| events.push(Event::Cancelled(RequestKey(n))));
        assert!(events.withdraw(RequestKey(1)) && !events.withdraw(RequestKey(1)));
        assert_eq!(events.pop_request().map(|request| request.key.0), Some(0));
        assert!(!events.withdraw(RequestKey(0)), "it was taken out");
        let mut taken = VecDeque::new();
        events.swap_requests(&mut taken);
        assert_eq!(taken.iter().map(|request| request.key.0).collect::<Vec<_>>(), [2, 3]);
        for n in 0..2 {
            assert!(!events.is_empty());
            assert!(matches!(events.pop(), Some(Event::Cancelled(RequestKey(key))) if key == n));
        }
        assert!(events.is_empty() && events.pop().is_none());
    }
}
