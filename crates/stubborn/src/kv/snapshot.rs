//! The state of a store as bytes: a version, the revision, the numbers of pairs and of changes that
//! are kept, then each pair in the order of the keys, and each change in the order of the revisions.
//! Numbers have eight bytes, the most significant first.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::service::RestoreError;

use super::history::{Changed, History};
use super::store::{Store, Stored, check_key, check_value};

/// Of the form that is written here.
const VERSION: u64 = 2;

/// Of the form without changes.
const WITHOUT_CHANGES: u64 = 1;

pub(super) fn write(store: &Store) -> Vec<u8> {
    let mut out = Vec::new();
    let changes = store.history.changes();
    for number in [VERSION, store.revision(), store.pairs.len() as u64, changes.len() as u64] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for (key, Stored { value, revision, created }) in &store.pairs {
        for number in [*revision, *created, key.len() as u64, value.len() as u64] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
    }
    for Changed { key, put } in changes {
        // No key is made by revision 0.
        let (value, created) = put.as_ref().map_or((&[][..], 0), |(value, at)| (value, *at));
        for number in [created, key.len() as u64, value.len() as u64] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
    }
    out
}

pub(super) fn read(snapshot: &[u8]) -> Result<Store, RestoreError> {
    let mut rest = snapshot;
    let version = number(&mut rest)?;
    if ![VERSION, WITHOUT_CHANGES].contains(&version) {
        return Err(RestoreError::new(format!("its version is {version}, not {VERSION}")));
    }
    let (revision, count) = (number(&mut rest)?, number(&mut rest)?);
    let changes = if version == VERSION { number(&mut rest)? } else { 0 };
    let mut pairs = BTreeMap::new();
    for _ in 0..count {
        let (changed, created) = (number(&mut rest)?, number(&mut rest)?);
        let (key, value) = (number(&mut rest)?, number(&mut rest)?);
        let key = std::str::from_utf8(bytes(&mut rest, key)?).map_err(|_| unsound())?;
        let value = Bytes::copy_from_slice(bytes(&mut rest, value)?);
        let sound = check_key(key).is_ok()
            && check_value(&value).is_ok()
            && (1..=changed).contains(&created)
            && changed <= revision
            && pairs.last_key_value().is_none_or(|(last, _): (&String, _)| last.as_str() < key);
        if !sound {
            return Err(unsound());
        }
        pairs.insert(key.to_owned(), Stored { value, revision: changed, created });
    }
    let mut history = History::since(revision.checked_sub(changes).ok_or_else(unsound)?);
    for _ in 0..changes {
        history.push(changed(&mut rest, history.last() + 1)?);
    }
    if history.changes().len() as u64 != changes {
        return Err(RestoreError::new("it has more changes than are kept"));
    }
    if !rest.is_empty() {
        return Err(RestoreError::new(format!("{} bytes are left over", rest.len())));
    }
    Ok(Store::restored(history, pairs))
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
