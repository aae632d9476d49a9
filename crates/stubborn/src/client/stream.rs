//! Streams of a channel.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::node::{CallKey, StreamKey};
use stubborn_core::service::{
    CallError, Encoded, IncomingReply, Method, NotTaken, Outcome, OutgoingCall, Port,
};

use super::caller::Description;
use super::connection::Open;
use crate::driver::{Ended, WaiterKey};

/// A stream as its client has it. Dropping it cancels the call.
pub(super) struct ClientPort {
    open: Arc<Open>,
    method: Method,
    call: CallKey,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy)]
enum Stage {
    Begun(WaiterKey),
    /// The end was told.
    Over,
    Cancelled,
}

impl ClientPort {
    /// Begins the call.
    pub(super) fn begin(open: &Arc<Open>, call: OutgoingCall) -> Result<Self, CallError> {
        let (method, channel) = (call.method.clone(), open.key);
        let begun = open.shared().change(|state, now| {
            let call = state.node.call(now, channel, call);
            (call, state.await_call(now, call, &method, Waker::noop().clone()))
        });
        let Some((call, waiter)) = begun else {
            return Err(Description { method, sent: false }.never_sent());
        };
        let stage = Mutex::new(Stage::Begun(waiter));
        Ok(Self { open: Arc::clone(open), method, call, stage })
    }

    fn key(&self) -> StreamKey {
        StreamKey::Call(self.call)
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        let Stage::Begun(waiter) = std::mem::replace(&mut *self.stage(), Stage::Cancelled) else {
            return;
        };
        let key = self.key();
        self.open.shared().change(|state, now| {
            state.forget_waiter(now, waiter);
            state.leave_stream(now, key, |node, now| node.abandon(now, self.call));
        });
    }
}

impl Port for ClientPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        self.open.shared().poll_take(self.key(), cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        self.open.shared().poll_send(self.key(), cx, message)
    }

    fn end(&self) {
        self.open.shared().change(|state, now| state.node.end_messages(now, self.call));
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        let mut stage = self.stage();
        let waiter = match *stage {
            Stage::Begun(waiter) => waiter,
            Stage::Over => return Poll::Pending,
            Stage::Cancelled => {
                let error = CallError::new(self.method.name().to_owned(), Outcome::Lost);
                return Poll::Ready(Err(error.because("this client has cancelled the stream")));
            }
        };
        let Some(ended) = self.open.shared().poll_waiter(waiter, cx.waker()) else {
            return Poll::Pending;
        };
        *stage = Stage::Over;
        Poll::Ready(match ended {
            Ended::Call(result) => result,
            _ => Err(Description { method: self.method.clone(), sent: true }.gone()),
        })
    }

    fn cancel(&self) {
        self.leave();
    }
}

impl Drop for ClientPort {
    fn drop(&mut self) {
        self.leave();
        let key = self.key();
        // Also what came and was not read.
        self.open.shared().change(|state, now| {
            state.leave_stream(now, key, |node, now| node.abandon(now, self.call));
        });
    }
}
