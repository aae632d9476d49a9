//! A stream that cannot begin yet: something has to be waited for first.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::service::{CallError, Encoded, IncomingReply, Method, NotTaken, Outcome, Port};
use tokio::task::AbortHandle;

/// A stream that begins when its port is there.
pub(super) struct LatePort {
    method: Method,
    state: Arc<Mutex<State>>,
    opening: AbortHandle,
}

#[derive(Default)]
struct State {
    opened: Option<Result<Arc<dyn Port>, CallError>>,
    /// Who waits for that: one for each kind of waiting.
    taker: Option<Waker>,
    sender: Option<Waker>,
    waiter: Option<Waker>,
    /// No further message is sent.
    ended: bool,
    cancelled: bool,
    /// The error was told.
    told: bool,
}

impl LatePort {
    /// Opens the port on a task of its own.
    pub(super) fn begin(
        method: Method,
        opening: impl Future<Output = Result<Arc<dyn Port>, CallError>> + Send + 'static,
    ) -> Arc<dyn Port> {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let opened = opening.await;
            let mut state = lock(&shared);
            if let Ok(port) = &opened {
                // What was said before it was there.
                if state.ended {
                    port.end();
                }
                if state.cancelled {
                    port.cancel();
                }
            }
            state.opened = Some(opened);
            let woken = [state.taker.take(), state.sender.take(), state.waiter.take()];
            drop(state);
            woken.into_iter().flatten().for_each(Waker::wake);
        });
        Arc::new(Self { method, state, opening: task.abort_handle() })
    }

    /// The port, if it is there; none if it never will be.
    fn poll_port(
        &self,
        cx: &Context<'_>,
        place: impl FnOnce(&mut State) -> &mut Option<Waker>,
    ) -> Poll<Option<Arc<dyn Port>>> {
        let mut state = lock(&self.state);
        match &state.opened {
            Some(Ok(port)) => Poll::Ready(Some(Arc::clone(port))),
            Some(Err(_)) => Poll::Ready(None),
            None if state.cancelled => Poll::Ready(None),
            None => {
                *place(&mut state) = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn opened(&self) -> Option<Arc<dyn Port>> {
        lock(&self.state).opened.as_ref().and_then(|opened| opened.as_ref().ok().cloned())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port for LatePort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        match self.poll_port(cx, |state| &mut state.taker) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(port)) => port.poll_take(cx),
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        match self.poll_port(cx, |state| &mut state.sender) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(NotTaken::Over)),
            Poll::Ready(Some(port)) => port.poll_send(cx, message),
        }
    }

    fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        if let Some(Ok(port)) = state.opened.as_ref() {
            let port = Arc::clone(port);
            drop(state);
            port.end();
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        match self.poll_port(cx, |state| &mut state.waiter) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(port)) => port.poll_end(cx),
            Poll::Ready(None) => {
                let mut state = lock(&self.state);
                if std::mem::replace(&mut state.told, true) {
                    return Poll::Pending;
                }
                Poll::Ready(Err(match &state.opened {
                    Some(Err(error)) => error.clone(),
                    _ => CallError::new(self.method.name().to_owned(), Outcome::Lost)
                        .because("this client has cancelled the stream"),
                }))
            }
        }
    }

    fn cancel(&self) {
        lock(&self.state).cancelled = true;
        self.opening.abort();
        if let Some(port) = self.opened() {
            port.cancel();
        }
    }
}

impl Drop for LatePort {
    fn drop(&mut self) {
        self.opening.abort();
    }
}
