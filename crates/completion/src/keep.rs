//! What is done now and then: time goes on, sessions with a connection are renewed, others expire.

use std::sync::atomic::Ordering;

use stubborn_core::limits::RENEW_SESSIONS_EVERY;
use stubborn_core::node::Front;
use stubborn_core::time::{Duration, Instant};

use crate::commands::millis;
use crate::completions::Inner;
use crate::store::{CompletionStore, CompletionTransaction, StoreError};

/// The time of the database, as this server moves it on.
///
/// It is moved on only from the value that was seen last, by what has passed here since: of several
/// servers one does it, and it never goes faster than the fastest of their monotonic clocks. No time
/// of day comes into it.
struct Pace {
    seen: u64,
    at: Instant,
}

impl<S: CompletionStore> Inner<S> {
    /// Runs as long as the server does.
    pub(crate) async fn keep(&self, front: &dyn Front) {
        let mut pace = None;
        loop {
            let every = RENEW_SESSIONS_EVERY.min(self.limits().retention / 3);
            let every = every.max(Duration::from_millis(20));
            // What the database refuses now is done the next time.
            if let Err(error) = self.round(front, &mut pace).await {
                self.failed(&error);
            }
            tokio::time::sleep(std::time::Duration::from_nanos(
                u64::try_from(every.as_nanos()).unwrap_or(u64::MAX),
            ))
            .await;
        }
    }

    async fn round(&self, front: &dyn Front, pace: &mut Option<Pace>) -> Result<(), StoreError> {
        let time = match pace.take() {
            None => self.store.service(self.group).await?.time,
            Some(Pace { seen, at }) => {
                self.store.advance(seen, millis(front.now().since(at))).await?
            }
        };
        // Read after the answer has come: what the way took is not counted twice.
        *pace = Some(Pace { seen: time, at: front.now() });
        let attached: Vec<u64> =
            front.attached().into_iter().map(|session| session.number).collect();
        self.store.renew(&attached, time + millis(self.limits().retention)).await?;
        self.count_kept().await?;
        for session in self.store.expired(time).await? {
            match self.expire(session, time).await {
                Ok(()) | Err(StoreError::Locked) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts the replies that are kept, where they may have come near to the bound: what was released
    /// meanwhile, and what other servers keep, this one does not know.
    async fn count_kept(&self) -> Result<(), StoreError> {
        let before = self.kept.load(Ordering::Relaxed);
        if before >= self.limits().kept_replies / 2 {
            let counted = self.store.kept().await?;
            self.kept.fetch_add(counted, Ordering::Relaxed);
            self.keeps_no_more(before);
        }
        Ok(())
    }

    /// Forgets a session, unless it was renewed meanwhile, or a call of it executes.
    async fn expire(&self, session: u64, time: u64) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        if tx.lock_session(session).await?.is_some_and(|row| row.expires <= time) {
            tx.delete_session(session).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}
