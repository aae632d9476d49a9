//! Handlers at work: polled under their deadline, their panics made into answers.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use stubborn_core::node::RequestKind;
use stubborn_core::service::{Answer, Call, Clock, Encoded, Handling, MethodId, Port, Status};
#[cfg(feature = "grpc")]
use stubborn_grpc::door::Early;

use super::clock::NodeClock;
use crate::deadline;
use crate::reply::{self, Beside};
use crate::server::Services;
use crate::trace::Arrived;

/// A handler that was started.
pub(crate) struct Handler {
    handling: Option<Handling>,
    deadline: Option<Instant>,
    arrived: Arrived,
    /// What it sends beside its answer.
    beside: Option<Box<Beside>>,
    /// Whether what is early goes with the answer.
    early: bool,
}

#[cfg(feature = "grpc")]
impl Handler {
    /// Its answer, and what goes ahead of it.
    pub(crate) async fn apart(mut self) -> (Answer, Early) {
        self.early = false;
        let answer = (&mut self).await;
        (answer, self.beside.take().map_or_else(Early::default, |beside| beside.into_early()))
    }
}

/// Starts the handler of a request; of a stream with its `port`.
///
/// # Errors
/// The answer, if no handler is started or it panics at once.
pub(crate) fn start(
    services: &Arc<Services>,
    clock: NodeClock,
    handle: &Clock,
    port: Option<Arc<dyn Port>>,
    method: MethodId,
    kind: RequestKind,
    mut call: Call<Encoded>,
) -> Result<Handler, Answer> {
    call.set_clock(handle.clone());
    let deadline = call.context().deadline.and_then(|at| clock.to_std(at));
    let mut arrived = Arrived::new(|| services.name(method), call.context());
    // Taken from here by the innermost function: it is large to move through all of them.
    let mut parts = Some((call, port));
    let mut dispatch = || {
        let Some((call, port)) = parts.take() else { unreachable!("it is called once") };
        services.start(method, kind, call, port)
    };
    let dispatched = deadline::enter(deadline, || {
        arrived.enter(|| catch_unwind(AssertUnwindSafe(&mut dispatch)))
    });
    let started = dispatched.map_err(panicked).and_then(|started| started);
    let handling = started.inspect_err(|answer| arrived.answered(answer))?;
    Ok(Handler { handling: Some(handling), deadline, arrived, beside: None, early: true })
}

impl Handler {
    /// Polls it. Its answer, which is slow to move, is written where it stays.
    pub(super) fn poll_into(&mut self, cx: &mut Context<'_>, answer: &mut Option<Answer>) {
        let Self { handling, deadline, arrived, beside, early } = self;
        let Some(running) = handling else {
            unreachable!("a handler is not polled after its answer");
        };
        let mut poll = || {
            if let Poll::Ready(ready) = running.as_mut().poll(cx) {
                *answer = Some(ready);
            }
        };
        let polled = catch_unwind(AssertUnwindSafe(|| {
            deadline::enter(*deadline, || arrived.enter(|| reply::enter(beside, &mut poll)))
        }));
        if let Err(panic) = polled {
            *answer = Some(panicked(panic));
        }
        let Some(answer) = answer else { return };
        if let Some(beside) = beside {
            beside.add_to(answer, *early);
        }
        arrived.answered(answer);
        // What a handler owns may panic when it is dropped, too; its answer stands.
        let handling = handling.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handling)));
    }
}

impl Future for Handler {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut answer = None;
        self.poll_into(cx, &mut answer);
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

/// It ran, and how far is not known: that is an executed call with an internal error. The panic's
/// message stays in the server's own log, where the panic hook has written it.
fn panicked(panic: Box<dyn Any + Send>) -> Answer {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
    Answer::Status(Status::internal("the handler panicked"))
}
