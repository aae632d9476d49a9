//! Handlers at work: polled under their deadline, their panics made into answers.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use stubborn_core::node::{IncomingRequest, RequestKey};
use stubborn_core::service::{Answer, Call, Handling, Registry, Status};

use super::clock::NodeClock;
use crate::deadline;

/// A handler that was not ready when it was first polled.
pub(super) struct Handler {
    handling: Option<Handling>,
    deadline: Option<Instant>,
}

/// What became of a request right away.
pub(super) enum Started {
    Answered(RequestKey, Answer),
    Pending(RequestKey, Handler),
}

/// Starts the handler of a request and polls it once: most are ready then, and their answer goes
/// out with the acknowledgement of the request.
pub(super) fn start(registry: &Registry, clock: NodeClock, request: IncomingRequest) -> Started {
    let IncomingRequest { key, method, kind, call } = request;
    let (message, mut context) = call.into_parts();
    context.clock = clock.handle();
    let deadline = context.deadline.and_then(|at| clock.to_std(at));
    let call = Call::new(message, context);
    let dispatched = deadline::enter(deadline, || {
        catch_unwind(AssertUnwindSafe(|| registry.dispatch(method, kind, call)))
    });
    let handling = match dispatched {
        Err(panic) => return Started::Answered(key, panicked(panic)),
        Ok(Err(answer)) => return Started::Answered(key, answer),
        Ok(Ok(handling)) => handling,
    };
    let mut handler = Handler { handling: Some(handling), deadline };
    // Whoever is not ready now is polled again by its own task, so this waker is never needed.
    match Pin::new(&mut handler).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Started::Answered(key, answer),
        Poll::Pending => Started::Pending(key, handler),
    }
}

impl Future for Handler {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let deadline = self.deadline;
        let Some(handling) = &mut self.handling else {
            unreachable!("a handler is not polled after its answer");
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            deadline::enter(deadline, || handling.as_mut().poll(cx))
        }));
        let answer = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(answer)) => answer,
            Err(panic) => panicked(panic),
        };
        // What a handler owns may panic when it is dropped, too; its answer stands.
        let handling = self.handling.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handling)));
        Poll::Ready(answer)
    }
}

/// It ran, and how far is not known: that is an executed call with an internal error. The panic's
/// message stays in the server's own log, where the panic hook has written it.
fn panicked(panic: Box<dyn Any + Send>) -> Answer {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    Answer::Status(Status::internal("the handler panicked"))
}
