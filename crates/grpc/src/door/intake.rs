//! Bodies of requests on their way in: what all calls together hold is bounded, and a body that breaks
//! off is told from one that ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Bytes that all calls of a door may hold of messages that are not complete.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicU64,
    limit: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), limit })
    }
}

/// What is known of the body of one request.
#[derive(Debug)]
pub(super) struct Intake {
    budget: Arc<Budget>,
    held: AtomicU64,
    broken: AtomicBool,
}

impl Intake {
    pub(super) fn new(budget: &Arc<Budget>) -> Arc<Self> {
        let (held, broken) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { budget: budget.clone(), held, broken })
    }

    /// Whether the body broke off before its end: the caller has cancelled, or is gone. The end of its
    /// messages is none then.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// A message was handed on. Of the next one no more than a frame has come.
    pub(super) fn release(&self) {
        let held = self.held.swap(0, Ordering::Relaxed);
        self.budget.held.fetch_sub(held, Ordering::Relaxed);
    }

    /// # Errors
    /// If there is no room for so many bytes.
    fn hold(&self, bytes: u64) -> Result<(), tonic::Status> {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.budget.limit {
            return Ok(());
        }
        Err(tonic::Status::resource_exhausted("the server has no room for the message now"))
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.release();
    }
}

/// The body of a request, watched.
pub(super) struct Watched<B> {
    body: B,
    intake: Arc<Intake>,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, intake: Arc<Intake>) -> Self {
        Self { body, intake }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => {
                self.intake.broken.store(true, Ordering::Release);
                Some(Err(error.into()))
            }
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Buf::remaining) as u64;
                Some(self.intake.hold(bytes).map(|()| frame).map_err(Into::into))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_together_hold_no_more_than_the_budget_and_give_it_back() {
        let budget = Budget::new(100);
        let (one, two) = (Intake::new(&budget), Intake::new(&budget));
        one.hold(60).unwrap();
        two.hold(40).unwrap();
        assert_eq!(two.hold(1).unwrap_err().code(), tonic::Code::ResourceExhausted);
        one.release();
        two.hold(50).unwrap();
        drop((one, two));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
