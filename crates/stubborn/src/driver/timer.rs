//! One timer that is moved as rarely as possible.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use stubborn_core::time::{Instant, earliest};
use tokio::time::Sleep;

use super::clock::NodeClock;

/// The node's timer. Moving a timer costs more than a wake-up too many now and then, so one that
/// fires early is left to fire.
pub(crate) struct Timer {
    clock: NodeClock,
    sleep: Pin<Box<Sleep>>,
    armed: Option<Instant>,
}

impl Timer {
    pub(crate) fn new(clock: NodeClock) -> Self {
        let sleep = Box::pin(tokio::time::sleep(std::time::Duration::ZERO));
        Self { clock, sleep, armed: None }
    }

    /// When it fires if [`poll_due`](Self::poll_due) is asked for `at`.
    pub(super) fn fires(&self, at: Option<Instant>) -> Option<Instant> {
        earliest(self.armed, at)
    }

    /// Ready when the node's timers are due. Else the task is woken by then, perhaps earlier.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else { return Poll::Pending };
        loop {
            if self.armed.is_none_or(|armed| armed > at) {
                // Too far ahead to be an instant is as good as never.
                let Some(instant) = self.clock.to_std(at) else { return Poll::Pending };
                self.sleep.as_mut().reset(instant.into());
                self.armed = Some(at);
            }
            match self.sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if self.armed == Some(at) => {
                    self.armed = None;
                    return Poll::Ready(());
                }
                Poll::Ready(()) => self.armed = None,
            }
        }
    }
}
