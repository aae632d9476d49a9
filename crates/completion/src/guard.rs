//! The transaction of a call, in the hands of its handler.

use std::fmt;
use std::sync::Arc;

use prost::Message;
use stubborn_core::node::record_of;
use stubborn_core::service::{Answer, Encoded, Metadata, Status};
use stubborn_core::session::{Answer as Known, CallId};

use crate::completions::Inner;
use crate::error::CompletionError;
use crate::run::Replacing;
use crate::running::Running;
use crate::store::{CompletionStore, CompletionTransaction, StoreError};

/// The transaction of a call. It has the lock of the call's slot: no other handler of the call, no
/// fence and no expiry comes between.
///
/// Dropped without [`commit`](Self::commit), it is rolled back: what its handler then answers ends the
/// call, with nothing changed.
#[must_use = "dropped, the transaction is rolled back"]
pub struct Guard<S: CompletionStore> {
    inner: Arc<Inner<S>>,
    call: Arc<Running>,
    held: Option<(S::Transaction, Replacing)>,
}

impl<S: CompletionStore> Guard<S> {
    /// Nothing is held yet.
    pub(crate) fn new(inner: Arc<Inner<S>>, call: Arc<Running>) -> Self {
        Self { inner, call, held: None }
    }

    pub(crate) fn hold(&mut self, tx: S::Transaction, slot: Replacing) {
        self.held = Some((tx, slot));
    }

    /// The database's transaction, to change the application's tables with. It is not to be committed
    /// or rolled back by itself.
    pub fn transaction(&mut self) -> &mut <S::Transaction as CompletionTransaction>::Native {
        match &mut self.held {
            Some((tx, _)) => tx.native(),
            None => unreachable!("a guard that was handed out holds its transaction"),
        }
    }

    /// The call.
    pub fn call(&self) -> CallId {
        self.call.id
    }

    /// Commits what the handler changed, and with it that the call ended with this reply. Returns the
    /// reply, for the handler to end with.
    ///
    /// If the connection to the database is lost in the middle, the record is read back.
    ///
    /// # Errors
    /// If nothing was committed. The error ends the handler as it should.
    pub async fn commit<R: Message>(self, reply: R) -> Result<R, Status> {
        let encoded = Encoded::new(self.call.method, &reply);
        self.record(Answer::Reply(encoded, Metadata::new())).await?;
        Ok(reply)
    }

    /// Commits what the handler changed, and with it that the call ended with this status. Returns the
    /// status, for the handler to end with.
    pub async fn commit_status(self, status: Status) -> Status {
        match self.record(Answer::Status(status.clone())).await {
            Ok(()) => status,
            Err(error) => error.into(),
        }
    }

    /// Commits if the handler's work has gone well, and rolls back if not: then the call ends with the
    /// error's status, or is run again if the database was the reason and will do later.
    ///
    /// # Errors
    /// The status for the handler to end with.
    pub async fn end<R: Message>(self, result: Result<R, CompletionError>) -> Result<R, Status> {
        match result {
            Ok(reply) => self.commit(reply).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn record(mut self, answer: Answer) -> Result<(), CompletionError> {
        let Some((mut tx, slot)) = self.held.take() else {
            unreachable!("a guard that was handed out holds its transaction")
        };
        let Ok(reply) = record_of(answer) else { unreachable!("a reply or a status") };
        let apart = cfg!(feature = "planted-record-apart");
        if !apart {
            self.inner.write(&mut tx, slot, self.call.id, &reply).await?;
        }
        match tx.commit().await {
            // It is written when the handler has ended.
            Ok(()) if apart => {}
            Err(StoreError::Unknown(_)) if cfg!(feature = "planted-hopeful-commit") => {
                self.call.set_ended(Known::Reply(reply));
            }
            Ok(()) => {
                self.call.set_ended(Known::Reply(reply));
                self.inner.calls.recorded(&self.call);
            }
            Err(StoreError::Unknown(_)) => {
                let known = self.inner.read_back(&self.call).await?;
                // A record without its reply does not say whose it is: another server may have executed
                // the call meanwhile.
                let ours = matches!(&known, Known::Reply(recorded) if *recorded == reply);
                self.call.set_ended(known);
                if !ours {
                    return Err(CompletionError::Settled);
                }
            }
            Err(error) => {
                self.inner.failed(&error);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl<S: CompletionStore> Drop for Guard<S> {
    fn drop(&mut self) {
        self.held = None;
        self.call.unguard();
    }
}

impl<S: CompletionStore> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({})", self.call.id)
    }
}
