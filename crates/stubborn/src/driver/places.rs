//! Places among a server's handlers, for calls that do not come over its socket.

use std::collections::HashMap;
use std::sync::Arc;

use stubborn_core::node::{PlaceEnd, PlaceRequest, RequestKey};
use stubborn_core::service::{NotExecuted, Priority};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Instant;
use tokio::sync::oneshot;

use super::shared::{Shared, State};

/// Who waits for a place, until the node says whether there is one.
pub(crate) type Places = HashMap<RequestKey, Told>;

/// Tells who waits.
pub(crate) type Told = oneshot::Sender<Result<(), NotExecuted>>;

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
            state.places.remove(&key);
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
        let stopping =
            || NotExecuted::because(NotExecutedReason::Draining, "the server is stopping");
        let (told, waits) = oneshot::channel();
        let asked = self.change_quietly(|state, now| {
            let (key, at_once) = state.node.ask_place(now, request(now))?;
            if !at_once {
                state.places.insert(key, told);
            }
            Some((key, at_once))
        });
        let (key, at_once) = asked.flatten().ok_or_else(stopping)?;
        let place = Place { shared: Arc::clone(self), key, end: PlaceEnd::Withdrawn };
        if !at_once {
            waits.await.map_err(|_| stopping())??;
        }
        Ok(place)
    }

    /// Whether a stream may begin.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn may_begin_stream(&self, priority: Priority) -> Result<(), NotExecuted> {
        let may = self.change_quietly(|state, now| state.node.may_begin_stream(now, priority));
        may.unwrap_or(Ok(()))
    }

    /// As [`change`](Self::change), for what concerns the driver only if others wait: they may be told
    /// something now, or refused later.
    fn change_quietly<R>(&self, change: impl FnOnce(&mut State, Instant) -> R) -> Option<R> {
        let mut state = self.lock();
        if state.ended {
            return None;
        }
        let waited = state.node.has_waiting();
        let result = change(&mut state, self.clock.now());
        let concerns = waited || state.node.has_waiting();
        let driver = if concerns { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        Some(result)
    }
}
