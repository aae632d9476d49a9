//! The state of a store as bytes, in pieces: a version, the revision, the numbers of pairs and of changes
//! that are kept, then each pair in the order of the keys, and each change in the order of the
//! revisions. Numbers have eight bytes, the most significant first. A pair or change is in one piece.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use stubborn_core::service::{Image, Piece, RestoreError};

use super::history::{Changed, History};
use super::store::{Store, Stored, check_key, check_value, weight};
use super::tree::Tree;

/// Of the form that is written here.
const VERSION: u64 = 2;

/// Of the form without changes.
const WITHOUT_CHANGES: u64 = 1;

/// The state as it is now; the store goes on.
pub(super) fn image(store: &Store) -> Image {
    let (pairs, history) = (store.pairs.clone(), Arc::new(store.history.clone()));
    Image::in_pieces(Pieces { pairs, history, next: Next::Head })
}

/// Writes a store that was frozen.
#[derive(Clone)]
struct Pieces {
    pairs: Tree<Stored>,
    history: Arc<History>,
    next: Next,
}

#[derive(Clone)]
enum Next {
    Head,
    PairAfter(Arc<str>),
    Change(usize),
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        let next = match &self.next {
            Next::Head => {
                let (pairs, changes) = (self.pairs.len(), self.history.changes().len());
                for number in [VERSION, self.history.last(), pairs as u64, changes as u64] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                self.put_pairs(&mut out, Bound::Unbounded)
            }
            Next::PairAfter(key) => self.put_pairs(&mut out, Bound::Excluded(key)),
            Next::Change(at) => Next::Change(*at),
        };
        self.next = match next {
            Next::Change(at) => self.put_changes(&mut out, at),
            next => next,
        };
        (!out.is_empty()).then(|| out.into())
    }
}

impl Pieces {
    /// Puts pairs until the piece is full or there are no more, and returns what follows.
    fn put_pairs(&self, out: &mut Vec<u8>, from: Bound<&str>) -> Next {
        for (key, Stored { value, revision, created }) in self.pairs.starting(from) {
            put(out, &[*revision, *created], key, value);
            if out.len() >= Image::PIECE {
                return Next::PairAfter(Arc::clone(key));
            }
        }
        Next::Change(0)
    }

    /// The same with changes.
    fn put_changes(&self, out: &mut Vec<u8>, from: usize) -> Next {
        let mut at = from;
        for Changed { key, put: change } in self.history.changes().range(from..) {
            if out.len() >= Image::PIECE {
                break;
            }
            // No key is made by revision 0.
            let (value, created) = change.as_ref().map_or((&[][..], 0), |(value, at)| (value, *at));
            put(out, &[created], key, value);
            at += 1;
        }
        Next::Change(at)
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64], key: &str, value: &[u8]) {
    for number in numbers.iter().copied().chain([key.len() as u64, value.len() as u64]) {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
}

/// A store that is being restored, beside the one that goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Restoring {
    pairs: Tree<Stored>,
    /// What they count.
    bytes: u64,
    revision: u64,
    /// Pairs that are to come.
    left: u64,
    last: Option<Arc<str>>,
    history: History,
    /// Changes that there are, and those of them that are to come.
    changes: u64,
    changes_left: u64,
}

/// A snapshot of which all pieces are there.
pub(super) struct Restored {
    pub(super) history: History,
    pub(super) pairs: Tree<Stored>,
    /// What the pairs count.
    pub(super) bytes: u64,
}

impl Restoring {
    /// Takes the next piece; with the last one, returns what was restored.
    pub(super) fn take(&mut self, piece: Piece<'_>) -> Result<Option<Restored>, RestoreError> {
        let mut rest = piece.bytes();
        if piece.is_first() {
            *self = Self::begin(&mut rest)?;
        }
        while !rest.is_empty() && self.left > 0 {
            self.take_pair(&mut rest)?;
        }
        while !rest.is_empty() && self.changes_left > 0 {
            let changed = changed(&mut rest, self.history.last() + 1)?;
            self.history.push(changed);
            self.changes_left -= 1;
        }
        if !rest.is_empty() {
            return Err(RestoreError::new(format!("{} bytes are left over", rest.len())));
        }
        if !piece.is_last() {
            return Ok(None);
        }
        let Self { pairs, bytes, history, changes, left, changes_left, .. } = std::mem::take(self);
        if left > 0 || changes_left > 0 {
            return Err(short());
        }
        if history.changes().len() as u64 != changes {
            return Err(RestoreError::new("it has more changes than are kept"));
        }
        Ok(Some(Restored { history, pairs, bytes }))
    }

    fn begin(rest: &mut &[u8]) -> Result<Self, RestoreError> {
        let version = number(rest)?;
        if ![VERSION, WITHOUT_CHANGES].contains(&version) {
            return Err(RestoreError::new(format!("its version is {version}, not {VERSION}")));
        }
        let (revision, left) = (number(rest)?, number(rest)?);
        let changes = if version == VERSION { number(rest)? } else { 0 };
        let history = History::since(revision.checked_sub(changes).ok_or_else(unsound)?);
        Ok(Self { revision, left, history, changes, changes_left: changes, ..Self::default() })
    }

    fn take_pair(&mut self, rest: &mut &[u8]) -> Result<(), RestoreError> {
        let (changed, created) = (number(rest)?, number(rest)?);
        let (key, value) = (number(rest)?, number(rest)?);
        let key = std::str::from_utf8(bytes(rest, key)?).map_err(|_| unsound())?;
        let value = Bytes::copy_from_slice(bytes(rest, value)?);
        let sound = check_key(key).is_ok()
            && check_value(&value).is_ok()
            && (1..=changed).contains(&created)
            && changed <= self.revision
            && self.last.as_deref().is_none_or(|last| last < key);
        if !sound {
            return Err(unsound());
        }
        self.last = Some(key.into());
        self.bytes += weight(key, &value);
        self.pairs.insert(key, Stored { value, revision: changed, created });
        self.left -= 1;
        Ok(())
    }
}

/// The change of this revision.
fn changed(rest: &mut &[u8], revision: u64) -> Result<Changed, RestoreError> {
    let (created, key, value) = (number(rest)?, number(rest)?, number(rest)?);
    let key = std::str::from_utf8(bytes(rest, key)?).map_err(|_| unsound())?.to_owned();
    let value = Bytes::copy_from_slice(bytes(rest, value)?);
    let sound = check_key(&key).is_ok()
        && check_value(&value).is_ok()
        && created <= revision
        && (created > 0 || value.is_empty());
    if !sound {
        return Err(RestoreError::new("a change in it cannot be"));
    }
    Ok(Changed { key, put: (created > 0).then_some((value, created)) })
}

fn number(rest: &mut &[u8]) -> Result<u64, RestoreError> {
    let (number, after) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    *rest = after;
    Ok(u64::from_be_bytes(*number))
}

fn bytes<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], RestoreError> {
    let length = usize::try_from(length).map_err(|_| short())?;
    let (bytes, after) = rest.split_at_checked(length).ok_or_else(short)?;
    *rest = after;
    Ok(bytes)
}

fn short() -> RestoreError {
    RestoreError::new("it ends too early")
}

fn unsound() -> RestoreError {
    RestoreError::new("a pair in it cannot be")
}
