//! Places among a server's handlers, for calls that do not come over its socket.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

use stubborn_core::node::{PlaceEnd, PlaceRequest, RequestKey};
use stubborn_core::service::{NotExecuted, Priority};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Instant;

use super::shared::{Shared, State};

/// Who waits for a place, until the node says whether there is one.
#[derive(Default)]
pub(crate) struct Places(HashMap<RequestKey, Waiting>);

#[derive(Default)]
struct Waiting {
    waker: Option<Waker>,
    told: Option<Result<(), NotExecuted>>,
}

impl Places {
    /// Notes whether there is a place. Returns whom to wake.
    pub(super) fn tell(&mut self, key: RequestKey, told: Result<(), NotExecuted>) -> Option<Waker> {
        let waiting = self.0.get_mut(&key)?;
        waiting.told = Some(told);
        waiting.waker.take()
    }

    /// Nobody is told anything any more. Returns whom to wake.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Waker> + '_ {
        self.0.drain().filter_map(|(_, waiting)| waiting.waker)
    }

    fn poll(&mut self, key: RequestKey, waker: &Waker) -> Poll<Result<(), NotExecuted>> {
        let Some(waiting) = self.0.get_mut(&key) else { return Poll::Ready(Err(stopping())) };
        match waiting.told.take() {
            Some(told) => Poll::Ready(told),
            None => {
                waiting.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// A place that a call has, or waits for. It is left when this is dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    key: RequestKey,
    end: PlaceEnd,
}

impl Place {
    /// The handler has ended.
    pub(crate) fn answered(mut self) {
        self.end = PlaceEnd::Answered;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (key, end) = (self.key, self.end);
        self.shared.change_quietly(|state, now| {
            state.places.0.remove(&key);
            state.node.leave_place(now, key, end);
        });
    }
}

impl Shared {
    /// Waits for a place among the handlers of this node. `request` is told the node's time.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn place(
        self: &Arc<Self>,
        request: impl FnOnce(Instant) -> PlaceRequest,
    ) -> Result<Place, NotExecuted> {
        let asked = self.change_quietly(|state, now| {
            let (key, at_once) = state.node.ask_place(now, request(now))?;
            if !at_once {
                state.places.0.insert(key, Waiting::default());
            }
            Some((key, at_once))
        });
        let (key, at_once) = asked.flatten().ok_or_else(stopping)?;
        // Left also if nobody waits for it any more.
        let place = Place { shared: Arc::clone(self), key, end: PlaceEnd::Withdrawn };
        if !at_once {
            std::future::poll_fn(|cx| self.lock().places.poll(key, cx.waker())).await?;
        }
        Ok(place)
    }

    /// Whether a stream may begin.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn may_begin_stream(&self, priority: Priority) -> Result<(), NotExecuted> {
        let may = self.change_quietly(|state, now| state.node.may_begin_stream(now, priority));
        may.unwrap_or_else(|| Err(stopping()))
    }

    /// As [`change`](Self::change), for what concerns the driver only if others wait, who may be told
    /// something now or refused later, or if the node drains, which may end now.
    fn change_quietly<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let waited = state.node.has_waiting();
        let result = change(&mut state, self.clock.now());
        let concerns = waited || state.draining || state.node.has_waiting();
        let driver = if concerns { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(result)
    }
}

fn stopping() -> NotExecuted {
    NotExecuted::because(NotExecutedReason::Draining, "the server is stopping")
}
