//! The machine behind the service.

use std::ops::Bound;

use bytes::Bytes;
use stubborn_core::service::{Applied, Image, Next, Piece, RestoreError, Status};

use super::compare_and_swap_request::Expected;
use super::history::{Changed, History};
use super::snapshot::{Restored, Restoring};
use super::tree::Tree;
use super::{
    CompareAndSwapReply, CompareAndSwapRequest, DeleteReply, DeleteRequest, GetReply, GetRequest,
    KvMachine, ListReply, ListRequest, MAX_BYTES, MAX_KEY, MAX_PAGE, MAX_VALUE, PAGE_BYTES, PAIR,
    Pair, PutReply, PutRequest, WatchReply, WatchRequest, snapshot,
};

/// Keys and values in memory, as one replica has them.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub(super) pairs: Tree<Stored>,
    /// The latest changes.
    pub(super) history: History,
    /// What the pairs count.
    bytes: u64,
    /// Leaves room for `MAX_BYTES` less this; for tests.
    taken: u64,
    /// A snapshot of which not all pieces are there.
    restoring: Restoring,
}

/// Of the same pairs and changes.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        (&self.history, &self.pairs) == (&other.history, &other.pairs)
    }
}

impl Eq for Store {}

/// A value and when it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) value: Bytes,
    pub(super) revision: u64,
    pub(super) created: u64,
}

impl Store {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision of the latest change of any key; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.history.last()
    }

    #[cfg(test)]
    pub(super) fn with_history(bytes: u64) -> Self {
        Self { history: History::with_room(0, bytes), ..Self::default() }
    }

    #[cfg(test)]
    pub(super) fn with_room(bytes: u64) -> Self {
        Self { taken: MAX_BYTES - bytes, ..Self::default() }
    }

    fn revision_of(&self, key: &str) -> u64 {
        self.pairs.get(key).map_or(0, |stored| stored.revision)
    }

    /// Gives a key a value and returns the revision of that.
    fn insert(&mut self, key: String, value: Bytes) -> Result<u64, Status> {
        let before = self.pairs.get(&key);
        let freed = before.map_or(0, |stored| weight(&key, &stored.value));
        let bytes = self.bytes - freed + weight(&key, &value);
        if bytes > MAX_BYTES - self.taken && bytes > self.bytes {
            return Err(Status::resource_exhausted(format!(
                "keys and values may have {MAX_BYTES} bytes together: delete some first"
            )));
        }
        self.bytes = bytes;
        let revision = self.revision() + 1;
        let created = before.map_or(revision, |stored| stored.created);
        // What came in a larger message does not keep all of it in memory.
        let value = Bytes::copy_from_slice(&value);
        self.history.push(Changed { key: key.clone(), put: Some((value.clone(), created)) });
        self.pairs.insert(&key, Stored { value, revision, created });
        Ok(revision)
    }

    /// Takes a key away, if it is there, and returns the revision of the latest change.
    fn remove(&mut self, key: &str) -> u64 {
        if let Some(stored) = self.pairs.remove(key) {
            self.bytes -= weight(key, &stored.value);
            self.history.push(Changed { key: key.to_owned(), put: None });
        }
        self.revision()
    }
}

impl KvMachine for Store {
    fn put(&mut self, _: &Applied, request: PutRequest) -> Result<PutReply, Status> {
        let PutRequest { key, value } = request;
        check_key(&key)?;
        check_value(&value)?;
        let previous = self.revision_of(&key);
        let revision = self.insert(key, value)?;
        Ok(PutReply { revision, previous })
    }

    fn get(&self, request: GetRequest) -> Result<GetReply, Status> {
        check_key(&request.key)?;
        let found = self.pairs.get(&request.key);
        let pair = found.map(|stored| pair(&request.key, stored, false));
        Ok(GetReply { pair, revision: self.revision() })
    }

    fn delete(&mut self, _: &Applied, request: DeleteRequest) -> Result<DeleteReply, Status> {
        check_key(&request.key)?;
        let previous = self.revision_of(&request.key);
        Ok(DeleteReply { revision: self.remove(&request.key), previous })
    }

    fn compare_and_swap(
        &mut self,
        _: &Applied,
        request: CompareAndSwapRequest,
    ) -> Result<CompareAndSwapReply, Status> {
        let CompareAndSwapRequest { key, expected, swap } = request;
        check_key(&key)?;
        swap.as_ref().map_or(Ok(()), check_value)?;
        let is = self.pairs.get(&key);
        let fits = match &expected {
            None => {
                return Err(Status::invalid_argument(
                    "say what is expected: a revision (0 for a key that is not there) or a value",
                ));
            }
            Some(Expected::Revision(revision)) => self.revision_of(&key) == *revision,
            Some(Expected::Value(value)) => is.is_some_and(|stored| stored.value == *value),
        };
        if !fits {
            let revision = self.revision_of(&key);
            return Ok(CompareAndSwapReply { swapped: false, revision });
        }
        let revision = match swap {
            Some(value) => self.insert(key, value)?,
            None => self.remove(&key),
        };
        Ok(CompareAndSwapReply { swapped: true, revision })
    }

    fn list(&self, request: ListRequest) -> Result<ListReply, Status> {
        let ListRequest { prefix, after, limit, keys_only } = request;
        if prefix.len() > MAX_KEY || after.len() > MAX_KEY {
            return Err(Status::invalid_argument(format!("a key has at most {MAX_KEY} bytes")));
        }
        let limit = match limit as usize {
            0 => MAX_PAGE,
            limit => limit.min(MAX_PAGE),
        };
        let from = match after.as_str() >= prefix.as_str() && !after.is_empty() {
            true => Bound::Excluded(after.as_str()),
            false => Bound::Included(prefix.as_str()),
        };
        let mut found =
            self.pairs.starting(from).take_while(|(key, _)| key.starts_with(&prefix)).peekable();
        let mut reply = ListReply { revision: self.revision(), ..ListReply::default() };
        let mut bytes = 0;
        while reply.pairs.len() < limit && bytes < PAGE_BYTES {
            let Some((key, stored)) = found.next() else { break };
            let pair = pair(key, stored, keys_only);
            bytes += pair.key.len() + pair.value.len();
            reply.pairs.push(pair);
        }
        if found.peek().is_some() {
            reply.next = reply.pairs.last().map(|pair| pair.key.clone()).unwrap_or_default();
        }
        Ok(reply)
    }

    fn watch(&self, request: WatchRequest, position: u64) -> Result<Next<WatchReply>, Status> {
        self.history.watch(&request, position)
    }

    fn snapshot(&self) -> Image {
        snapshot::image(self)
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        if let Some(restored) = self.restoring.take(piece)? {
            let Restored { history, pairs, bytes } = restored;
            *self = Self { pairs, history, bytes, ..Self::default() };
        }
        Ok(())
    }
}

fn pair(key: &str, stored: &Stored, key_only: bool) -> Pair {
    let Stored { value, revision, created } = stored;
    let value = if key_only { Bytes::new() } else { value.clone() };
    Pair { key: key.to_owned(), value, revision: *revision, created: *created }
}

pub(super) fn weight(key: &str, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64 + PAIR
}

pub(super) fn check_key(key: &str) -> Result<(), Status> {
    match key.len() {
        0 => Err(Status::invalid_argument("a key has at least one byte")),
        1..=MAX_KEY => Ok(()),
        length => Err(Status::invalid_argument(format!(
            "the key has {length} bytes, which is more than {MAX_KEY}"
        ))),
    }
}

pub(super) fn check_value(value: &Bytes) -> Result<(), Status> {
    match value.len() {
        0..=MAX_VALUE => Ok(()),
        length => Err(Status::invalid_argument(format!(
            "the value has {length} bytes, which is more than {MAX_VALUE}"
        ))),
    }
}
