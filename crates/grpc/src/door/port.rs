//! A stream as its handler has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use stubborn_core::service::{Answer, CallError, Encoded, IncomingReply, MethodId, NotTaken, Port};
use tokio_stream::Stream;
use tonic::Streaming;

use super::Handlers;
use super::call::Ended;
use super::intake::Intake;
use crate::outlet::Outlet;
use crate::words;

/// The messages of a stream at its handler.
pub(super) struct DoorPort {
    pub(super) handlers: Arc<dyn Handlers>,
    pub(super) method: MethodId,
    /// `None` if the client streams none.
    pub(super) requests: Option<Mutex<Streaming<Bytes>>>,
    pub(super) intake: Arc<Intake>,
    pub(super) outlet: Arc<Outlet>,
}

impl Port for DoorPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let Some(requests) = &self.requests else { return Poll::Ready(None) };
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        let Poll::Ready(message) = std::pin::Pin::new(&mut *requests).poll_next(cx) else {
            return Poll::Pending;
        };
        match message {
            Some(Ok(body)) => {
                self.intake.release();
                Poll::Ready(Some(Encoded::from_body(self.method, body)))
            }
            // Whoever has gone has not said that this was all: the handler is about to be dropped.
            None if self.intake.is_broken() => Poll::Pending,
            None => Poll::Ready(None),
            Some(Err(status)) => {
                let status = words::status_from(&status);
                self.outlet.end(Ended::of(Answer::Status(status)));
                Poll::Pending
            }
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        let mut body = message.take().map(|message| message.body);
        let sent = self.outlet.poll_send(cx, &mut body, || self.handlers.early());
        if let (Poll::Pending, Some(body)) = (&sent, body) {
            *message = Some(Encoded { body, digest: 0 });
        }
        sent
    }

    fn end(&self) {}

    /// A handler makes the end itself.
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        Poll::Pending
    }

    fn cancel(&self) {}
}
