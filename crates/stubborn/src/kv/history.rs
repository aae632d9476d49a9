//! The latest changes of a store, for those who watch it: every revision from the oldest that is kept
//! to the latest one, as many as [`HISTORY`] allows. It is part of the state that all replicas have
//! alike, so that any of them goes on with a watch where another one was.

use std::collections::VecDeque;

use bytes::Bytes;
use stubborn_core::service::{Next, Status};

use super::store::{check_key, weight};
use super::watch_request::Keys;
use super::{
    Change, HISTORY, MAX_KEY, Pair, Removal, WATCHED_AT_ONCE, WATCHED_BYTES, WatchReply,
    WatchRequest, change,
};

/// Changes that are looked at before others have their turn.
const LOOKED_AT: usize = 4_096;

/// Revisions are small enough for every message that tells them.
const MAX_REVISION: u64 = 1 << 61;

/// The latest changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    changes: VecDeque<Changed>,
    /// The revision of the last one, or of the last change of a store that keeps none.
    last: u64,
    /// What they count.
    bytes: u64,
    /// What they may count.
    room: u64,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) key: String,
    /// The value, and the revision that made the key; none if it was taken away.
    pub(super) put: Option<(Bytes, u64)>,
}

impl Default for History {
    fn default() -> Self {
        Self::since(0)
    }
}

impl History {
    /// No change is known up to this revision.
    pub(super) fn since(revision: u64) -> Self {
        Self::with_room(revision, HISTORY)
    }

    pub(super) fn with_room(revision: u64, room: u64) -> Self {
        Self { changes: VecDeque::new(), last: revision, bytes: 0, room }
    }

    /// Adds the change of the next revision; the oldest ones leave.
    pub(super) fn push(&mut self, changed: Changed) {
        self.last += 1;
        self.bytes += changed.weight();
        self.changes.push_back(changed);
        while self.bytes > self.room
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.weight();
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Those that are kept, the oldest first.
    pub(super) fn changes(&self) -> &VecDeque<Changed> {
        &self.changes
    }

    /// The oldest revision that can be told.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.changes.len() as u64
    }

    /// What follows for a watch that was told everything up to the revision before `position`; 0 for
    /// one that begins.
    pub(super) fn watch(
        &self,
        request: &WatchRequest,
        position: u64,
    ) -> Result<Next<WatchReply>, Status> {
        let keys = request.keys.as_ref();
        check(keys)?;
        let Some(told) = position.checked_sub(1) else {
            let told = request.from.checked_sub(1).unwrap_or(self.last);
            if told > MAX_REVISION {
                return Err(Status::invalid_argument("there will never be such a revision"));
            }
            self.check_kept(told)?;
            let begun = WatchReply { changes: Vec::new(), revision: told };
            return Ok(Next::Message(begun, told + 1));
        };
        self.check_kept(told)?;
        let mut reply = WatchReply { changes: Vec::new(), revision: told };
        let mut bytes = 0;
        // A replica that lags behind has nothing yet.
        let skipped = usize::try_from(told + 1 - self.oldest()).unwrap_or(usize::MAX);
        for changed in self.changes.iter().skip(skipped).take(LOOKED_AT) {
            if reply.changes.len() >= WATCHED_AT_ONCE || bytes >= WATCHED_BYTES {
                break;
            }
            reply.revision += 1;
            if changed.is_of(keys) {
                bytes += changed.weight();
                reply.changes.push(changed.told(reply.revision));
            }
        }
        let position = reply.revision + 1;
        Ok(match reply.changes.is_empty() {
            true => Next::Wait(position),
            false => Next::Message(reply, position),
        })
    }

    fn check_kept(&self, told: u64) -> Result<(), Status> {
        let oldest = self.oldest();
        if told + 1 >= oldest {
            return Ok(());
        }
        Err(Status::new(
            stubborn_core::service::Code::OutOfRange,
            format!(
                "the change of revision {} is not kept any more, the oldest one kept is {oldest}: \
                 list the keys, and watch from the revision after that of the list",
                told + 1
            ),
        ))
    }
}

impl Changed {
    fn weight(&self) -> u64 {
        weight(&self.key, self.put.as_ref().map_or(&Bytes::new(), |(value, _)| value))
    }

    fn is_of(&self, keys: Option<&Keys>) -> bool {
        match keys {
            None => true,
            Some(Keys::Key(key)) => self.key == *key,
            Some(Keys::Prefix(prefix)) => self.key.starts_with(prefix),
        }
    }

    fn told(&self, revision: u64) -> Change {
        let key = self.key.clone();
        let change = match &self.put {
            Some((value, created)) => {
                change::Change::Put(Pair { key, value: value.clone(), revision, created: *created })
            }
            None => change::Change::Removal(Removal { key, revision }),
        };
        Change { change: Some(change) }
    }
}

fn check(keys: Option<&Keys>) -> Result<(), Status> {
    match keys {
        Some(Keys::Key(key)) => check_key(key),
        Some(Keys::Prefix(prefix)) if prefix.len() > MAX_KEY => {
            Err(Status::invalid_argument(format!("a key has at most {MAX_KEY} bytes")))
        }
        _ => Ok(()),
    }
}
