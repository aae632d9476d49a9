//! Calls that name themselves (metadata `stubborn-call-id`): a copy runs once, and gets the first reply.

use std::future::{Future, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use stubborn_core::service::{
    Answer, CALL_ID, Call, CallContext, Clock, Encoded, Handling, Method, NotExecuted, RequestKind,
    Shape, Status,
};
use stubborn_core::session::{
    Begin, KeyLimits, Keys, LONGEST_KEY, NotExecutedReason as Reason, Ticket, key_of,
};
use tokio::sync::watch;

use crate::reply;

type Copies = watch::Receiver<Option<Answer>>;

/// What is known of calls with ids.
pub(super) struct Once(Mutex<Keys<Copies, Answer>>);

/// A call that runs under its id.
struct Keyed {
    once: Arc<Once>,
    clock: Clock,
    /// Until it has ended.
    ticket: Option<Ticket>,
    done: watch::Sender<Option<Answer>>,
}

impl Once {
    pub(super) fn new(limits: KeyLimits) -> Self {
        Self(Mutex::new(Keys::new(limits)))
    }

    /// The id that a call has given itself.
    ///
    /// # Errors
    /// The answer, if it cannot be one, or the method takes none.
    pub(super) fn key<'a>(
        method: &Method,
        kind: RequestKind,
        context: &'a CallContext,
    ) -> Result<Option<&'a str>, Answer> {
        let Some(key) = context.metadata.get(CALL_ID) else { return Ok(None) };
        if !method.takes_slot() {
            return Ok(None);
        }
        if method.shape() != Shape::Unary || kind != RequestKind::Numbered {
            let why = format!("{method}: {CALL_ID} is for unary methods");
            return refuse(Reason::Malformed, why);
        }
        match key_of(key) {
            Some(key) => Ok(Some(key)),
            None => {
                let why = format!("{CALL_ID} is 1 to {LONGEST_KEY} visible ASCII characters");
                refuse(Reason::Malformed, why)
            }
        }
    }

    /// Begins the call with `start`, unless it has begun before.
    ///
    /// # Errors
    /// The answer, if it does not begin.
    pub(super) fn run(
        self: &Arc<Self>,
        key: &str,
        call: Call<Encoded>,
        start: impl FnOnce(Call<Encoded>) -> Result<Handling, Answer>,
    ) -> Result<Handling, Answer> {
        let context = call.context();
        let (account, address) = (context.peer.key_account(), context.peer.address);
        let (clock, digest) = (context.clock.clone(), call.message().digest);
        let address = address.map(|address| address.ip());
        let (done, copies) = watch::channel(None);
        let begun = self.keys().begin(clock.now(), account, address, key, digest, copies);
        match begun {
            Begin::Run(ticket) => {
                let once = Arc::clone(self);
                let keyed = Keyed { once, clock, ticket: Some(ticket), done };
                Ok(Box::pin(keyed.run(call, start)?))
            }
            Begin::Known(answer) => Ok(Box::pin(ready(answer))),
            Begin::Wait(copies) => Ok(Box::pin(end_of(copies))),
            Begin::Other => {
                let why = format!("this {CALL_ID} is taken by another request");
                refuse(Reason::FalseRetry, why)
            }
            Begin::Full => {
                refuse(Reason::Overloaded, "too many calls with ids are remembered".into())
            }
        }
    }

    fn keys(&self) -> MutexGuard<'_, Keys<Copies, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keyed {
    /// The handler, which tells its end to copies. Its panic is an end, too.
    fn run(
        mut self,
        call: Call<Encoded>,
        start: impl FnOnce(Call<Encoded>) -> Result<Handling, Answer>,
    ) -> Result<impl Future<Output = Answer> + Send + 'static, Answer> {
        let started = catch_unwind(AssertUnwindSafe(|| start(call)));
        let mut handling = match started.unwrap_or_else(|_| Err(panicked())) {
            Ok(handling) => handling,
            Err(answer) => {
                self.end(&answer);
                return Err(answer);
            }
        };
        let mut beside = None;
        Ok(async move {
            let mut answer = poll_fn(|cx| {
                let poll = || reply::enter(&mut beside, || handling.as_mut().poll(cx));
                match catch_unwind(AssertUnwindSafe(poll)) {
                    Ok(polled) => polled,
                    Err(_) => Poll::Ready(panicked()),
                }
            })
            .await;
            // Copies get what the handler said beside its reply, too.
            if let Some(beside) = &mut beside {
                beside.add_to(&mut answer, true);
            }
            self.end(&answer);
            answer
        })
    }

    fn end(&mut self, answer: &Answer) {
        let Some(ticket) = self.ticket.take() else { return };
        self.once.keys().finish(self.clock.now(), ticket, answer);
        self.done.send_replace(Some(answer.clone()));
    }
}

impl Drop for Keyed {
    /// The handler was dropped before its end, as at the end of a server's drain: how far it came is not
    /// known.
    fn drop(&mut self) {
        self.end(&Answer::Status(Status::internal("the handler was stopped before its end")));
    }
}

/// The end of a call that another one is a copy of.
async fn end_of(mut copies: Copies) -> Answer {
    let ended = copies.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
    ended.unwrap_or_else(|| Answer::Status(Status::internal("the server stopped meanwhile")))
}

fn panicked() -> Answer {
    Answer::Status(Status::internal("the handler panicked"))
}

fn refuse<T>(reason: Reason, why: String) -> Result<T, Answer> {
    Err(Answer::NotExecuted(NotExecuted::because(reason, why)))
}
