//! Handlers at work: polled under their deadline, their panics made into answers.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use stubborn_core::node::RequestKind;
use stubborn_core::service::{Answer, Call, Clock, Encoded, Handling, MethodId, Registry, Status};

use super::clock::NodeClock;
use super::streams::HandlerPort;
use crate::deadline;

/// A handler that was started.
pub(crate) struct Handler {
    handling: Option<Handling>,
    deadline: Option<Instant>,
}

/// Starts the handler of a request; of a stream with its `port`.
///
/// # Errors
/// The answer, if no handler is started or it panics at once.
pub(crate) fn start(
    registry: &Registry,
    clock: NodeClock,
    handle: &Clock,
    port: Option<HandlerPort>,
    method: MethodId,
    kind: RequestKind,
    mut call: Call<Encoded>,
) -> Result<Handler, Answer> {
    call.set_clock(handle.clone());
    let deadline = call.context().deadline.and_then(|at| clock.to_std(at));
    let dispatched = deadline::enter(deadline, || {
        catch_unwind(AssertUnwindSafe(|| match (kind, port) {
            (RequestKind::Stream(shape), Some(port)) => {
                registry.dispatch_stream(method, shape, call, Arc::new(port))
            }
            (kind, _) => registry.dispatch(method, kind, call),
        }))
    });
    let handling = dispatched.map_err(panicked)??;
    Ok(Handler { handling: Some(handling), deadline })
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
