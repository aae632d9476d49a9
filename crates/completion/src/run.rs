//! A call: from its request to its record.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stubborn_core::node::{ClientMessage, record_of};
use stubborn_core::service::{Answer, Call, Encoded, MethodId, NotExecuted};
use stubborn_core::session::{
    Answer as Known, CallId, Decision, Keep, NotExecutedReason, RecordedState, Refusal, Slot,
};

use crate::commands::{Standing, Told, slot_of};
use crate::completions::{Inner, Pause};
use crate::error::CompletionError;
use crate::guard::Guard;
use crate::running::{Running, Start, Teller};
use crate::store::{CompletionStore, CompletionTransaction, StoreError};

/// How often the client hears that its call is executing: it would look for a server that answers
/// otherwise.
const WORKING_EVERY: Duration = Duration::from_millis(400);

/// How long it is tried to read back what became of a commit.
const READ_BACK: Duration = Duration::from_secs(10);

/// A slot whose next call may run.
pub(crate) struct Replacing {
    slot: Slot<Bytes>,
    /// Bytes of the reply that is kept there until then.
    bytes: u64,
}

/// A slot that was locked for a call.
pub(crate) enum Locked<T> {
    /// The call has not run: it may now.
    Free(T, Replacing),
    /// The call has ended, or never will run.
    Ended(Known<Bytes>),
    /// Another request has the number.
    FalseRetry,
    /// The session is gone.
    Gone,
    /// Another connection speaks for the session.
    Superseded,
    /// No correct client sends it.
    Violation(&'static str),
}

impl<S: CompletionStore> Inner<S> {
    pub(crate) async fn run(
        self: &Arc<Self>,
        teller: &Teller,
        id: CallId,
        epoch: u64,
        method: MethodId,
        digest: u64,
        call: Call<Encoded>,
    ) -> Told {
        let under = match self.calls.start((id, epoch), method, digest, teller.clone()) {
            Start::New(under) => under,
            Start::Copy => return Told::Say(ClientMessage::known(id, Known::Working)),
            Start::FalseRetry => return Told::Say(ClientMessage::false_retry(id)),
        };
        let told = self.run_new(teller, &under.call, call).await;
        let call = Arc::clone(&under.call);
        // First, so that a copy that comes from here on finds the record.
        drop(under);
        match told {
            Ok(Some(message)) => {
                call.tell(message);
                Told::Nothing
            }
            Ok(None) => Told::Again(call.teller()),
            Err(error) => {
                self.failed(&error);
                Told::Again(call.teller())
            }
        }
    }

    /// Returns what to tell; nothing if the call is to be run again.
    async fn run_new(
        &self,
        teller: &Teller,
        running: &Running,
        call: Call<Encoded>,
    ) -> Result<Option<ClientMessage>, StoreError> {
        if !self.calls.follows(running.id, running.epoch)
            && let Some(message) = self.look(running).await?
        {
            return Ok(Some(message));
        }
        let front = teller.front.clone();
        if call.context().deadline.is_some_and(|deadline| deadline <= front.now()) {
            let why = "its deadline passed before the server came to it";
            let why = NotExecuted::because(NotExecutedReason::Deadline, why);
            return self.end_unrun(running, &why).await;
        }
        if !running.start_handler() {
            let why = NotExecuted::new(NotExecutedReason::Fenced);
            return self.end_unrun(running, &why).await;
        }
        let mut handler = std::pin::pin!(front.run(running.method, call));
        let answer = loop {
            match tokio::time::timeout(WORKING_EVERY, &mut handler).await {
                Ok(answer) => break answer,
                Err(_) => running.tell_working(),
            }
        };
        self.end(running, answer).await
    }

    /// Looks without a lock whether a call may run: what a copy has ended before is answered without the
    /// handler. Returns what to tell if it may not.
    async fn look(&self, running: &Running) -> Result<Option<ClientMessage>, StoreError> {
        let record = match self.standing(running.id, running.epoch).await? {
            Standing::Good(record) => record,
            Standing::Refused(message) => return Ok(Some(message)),
        };
        running.may_speak(running.epoch);
        Ok(match decide(slot_of(record)?, running) {
            Locked::Free((), _) => None,
            other => Some(said(running.id, other)),
        })
    }

    /// A handler has ended, or was not started.
    async fn end(
        &self,
        running: &Running,
        answer: Answer,
    ) -> Result<Option<ClientMessage>, StoreError> {
        if let Some(ended) = running.ended() {
            return Ok(Some(ClientMessage::known(running.id, ended)));
        }
        let reply = match &answer {
            Answer::Status(status) if CompletionError::is_again(status) => return Ok(None),
            _ => match record_of(answer) {
                Ok(reply) => reply,
                Err(why) => return self.end_unrun(running, &why).await,
            },
        };
        let mut pause = Pause::new();
        loop {
            match self.try_record(running, &reply).await {
                Err(StoreError::Locked | StoreError::Unknown(_)) => pause.wait().await,
                ended => return ended.map(Some),
            }
        }
    }

    /// The call did not run and is not to: its number is fenced.
    async fn end_unrun(
        &self,
        running: &Running,
        why: &NotExecuted,
    ) -> Result<Option<ClientMessage>, StoreError> {
        let mut pause = Pause::new();
        loop {
            match self.try_fence(running.id, why).await {
                Err(StoreError::Locked | StoreError::Unknown(_)) => pause.wait().await,
                ended => return ended.map(Some),
            }
        }
    }

    /// Records the end of a call whose handler has committed nothing.
    async fn try_record(
        &self,
        running: &Running,
        reply: &Bytes,
    ) -> Result<ClientMessage, StoreError> {
        let id = running.id;
        let (mut tx, slot) = match self.lock(running).await? {
            Locked::Free(tx, slot) => (tx, slot),
            other => return Ok(said(id, other)),
        };
        self.write(&mut tx, slot, id, reply).await?;
        tx.commit().await?;
        self.calls.recorded(running);
        Ok(ClientMessage::known(id, Known::Reply(reply.clone())))
    }

    /// Writes the end of an executing call to its slot's row, with the reply if it is kept.
    pub(crate) async fn write(
        &self,
        tx: &mut S::Transaction,
        Replacing { mut slot, bytes }: Replacing,
        id: CallId,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        let kept = self.keeps(reply);
        slot.complete(id.sequence, kept.then(|| (reply.clone(), Keep::Session)));
        let record = slot.record().ok_or_else(|| StoreError::damaged("a slot"))?;
        tx.save_slot(id.session.number, id.slot, &record).await?;
        self.keeps_no_more(bytes);
        Ok(())
    }

    /// Locks the slot of a call, in a new transaction.
    async fn lock(&self, running: &Running) -> Result<Locked<S::Transaction>, StoreError> {
        let id = running.id;
        let mut tx = self.store.begin().await?;
        let Some((row, record)) = tx.lock_slot(id.session.number, id.slot).await? else {
            return Ok(Locked::Gone);
        };
        if row.is_closed() {
            return Ok(Locked::Gone);
        }
        if !running.may_speak(row.epoch) {
            return Ok(Locked::Superseded);
        }
        let bytes = match &record.state {
            RecordedState::Done { reply, .. } => reply.len() as u64,
            _ => 0,
        };
        Ok(match decide(slot_of(record)?, running) {
            Locked::Free((), replacing) => Locked::Free(tx, Replacing { bytes, ..replacing }),
            Locked::Ended(known) => Locked::Ended(known),
            Locked::FalseRetry => Locked::FalseRetry,
            Locked::Gone => Locked::Gone,
            Locked::Superseded => Locked::Superseded,
            Locked::Violation(reason) => Locked::Violation(reason),
        })
    }

    /// See [`Completions::begin`](crate::Completions::begin).
    pub(crate) async fn begin(
        self: Arc<Self>,
        id: Option<CallId>,
    ) -> Result<Guard<S>, CompletionError> {
        let id = id.ok_or(CompletionError::Misused(
            "a read or maybe call has no number, and so no record of its end",
        ))?;
        let call = self.calls.get(id).ok_or(CompletionError::Misused(
            "the call is none of a server that was started with these completions",
        ))?;
        if !call.guard() {
            return Err(CompletionError::Misused("the call has a transaction already"));
        }
        // Gives the right back if this is dropped.
        let mut guard = Guard::new(Arc::clone(&self), Arc::clone(&call));
        let (mut pause, mut told) = (Pause::new(), false);
        loop {
            match self.lock(&call).await {
                Ok(Locked::Free(tx, slot)) => {
                    guard.hold(tx, slot);
                    return Ok(guard);
                }
                Ok(other) => {
                    if let Locked::Ended(known) = other {
                        call.set_ended(known);
                    }
                    return Err(CompletionError::Settled);
                }
                Err(StoreError::Locked) => {
                    if !told {
                        call.tell_working();
                        told = true;
                    }
                    pause.wait().await;
                }
                Err(error) => {
                    self.failed(&error);
                    return Err(error.into());
                }
            }
        }
    }

    /// Whether a commit of which that is not known has happened. Waits for the transaction that may
    /// still be about to commit: it has the slot's lock.
    pub(crate) async fn read_back(&self, call: &Running) -> Result<Known<Bytes>, CompletionError> {
        let (mut pause, until) = (Pause::new(), tokio::time::Instant::now() + READ_BACK);
        loop {
            let why = match self.lock(call).await {
                Ok(Locked::Ended(known)) => return Ok(known),
                Ok(Locked::Free(..)) => {
                    return Err(CompletionError::Again("the commit did not happen".into()));
                }
                Ok(_) => return Err(CompletionError::Settled),
                Err(error) => error,
            };
            if tokio::time::Instant::now() >= until {
                return Err(why.into());
            }
            pause.wait().await;
        }
    }
}

fn decide(mut slot: Slot<Bytes>, running: &Running) -> Locked<()> {
    match slot.request(running.id.sequence, running.digest) {
        Ok(Decision::Execute) => Locked::Free((), Replacing { slot, bytes: 0 }),
        Ok(Decision::Answer(known)) => Locked::Ended(known),
        Ok(Decision::FalseRetry) => Locked::FalseRetry,
        Err(violation) => Locked::Violation(violation.as_str()),
    }
}

fn said<T>(id: CallId, locked: Locked<T>) -> ClientMessage {
    match locked {
        Locked::Free(..) => ClientMessage::known(id, Known::Working),
        Locked::Ended(known) => ClientMessage::known(id, known),
        Locked::FalseRetry => ClientMessage::false_retry(id),
        Locked::Gone => ClientMessage::refused(id.session, Refusal::Expired),
        Locked::Superseded => ClientMessage::refused(id.session, Refusal::Superseded),
        Locked::Violation(reason) => ClientMessage::violation(reason),
    }
}
