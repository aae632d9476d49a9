//! The state of a store as bytes: a version, the revision, the number of pairs, then each pair in
//! the order of the keys. Numbers have eight bytes, the most significant first.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::service::RestoreError;

use super::store::{Store, Stored, check_key, check_value};

/// Of the form that is written here.
const VERSION: u64 = 1;

pub(super) fn write(store: &Store) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [VERSION, store.revision, store.pairs.len() as u64] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for (key, Stored { value, revision, created }) in &store.pairs {
        for number in [*revision, *created, key.len() as u64, value.len() as u64] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
    }
    out
}

pub(super) fn read(snapshot: &[u8]) -> Result<Store, RestoreError> {
    let mut rest = snapshot;
    match number(&mut rest)? {
        VERSION => {}
        other => return Err(RestoreError::new(format!("its version is {other}, not {VERSION}"))),
    }
    let (revision, count) = (number(&mut rest)?, number(&mut rest)?);
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
    if !rest.is_empty() {
        return Err(RestoreError::new(format!("{} bytes are left over", rest.len())));
    }
    Ok(Store::restored(revision, pairs))
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
