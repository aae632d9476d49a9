//! Key-value pairs that travel beside a message.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Pairs of a key and a value, in the order in which they were added; a key may stand more than
/// once.
///
/// Keys are lower-case ASCII letters, digits, `-`, `_` and `.`, as in gRPC. Values are bytes; by
/// convention a key whose value is not text ends in `-bin`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(
    /// `None` if there are none, as there mostly are: every call moves this a few times.
    Option<Box<Pairs>>,
);

type Pairs = Vec<(String, Vec<u8>)>;

/// The most bytes of keys and values, each pair counted with 4 more, that a message may carry.
pub const MAX_METADATA: usize = 16 << 10;

/// The key under which a unary call names itself, so that a copy of it runs once: a call of a gRPC
/// client that may be sent again, or one that a handler makes and may make again.
pub const CALL_ID: &str = "stubborn-call-id";

/// Why a pair was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataError {
    /// The key is empty or has a character that keys may not have.
    Key,
    /// With this pair the metadata would exceed [`MAX_METADATA`].
    Size,
    /// An id was to be derived from a call that has none: a read, or a `maybe` call.
    NoId,
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str(
                "metadata keys are lower-case ASCII letters, digits, '-', '_' and '.', and not empty",
            ),
            Self::NoId => f.write_str(
                "ids are derived from calls that have one themselves, not from reads and maybe calls",
            ),
            Self::Size => write!(f, "metadata would exceed {MAX_METADATA} bytes"),
        }
    }
}

impl core::error::Error for MetadataError {}

impl Metadata {
    /// No pairs.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// If the key is not a valid one or the whole would be too large; nothing is added then.
    pub fn insert(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), MetadataError> {
        let (key, value) = (key.into(), value.into());
        if !is_key(key.as_bytes()) {
            return Err(MetadataError::Key);
        }
        if self.size() + key.len() + value.len() + 4 > MAX_METADATA {
            return Err(MetadataError::Size);
        }
        self.0.get_or_insert_default().push((key, value));
        Ok(())
    }

    /// Gives a key this value and no other.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); the key has no value then.
    pub fn set(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<(), MetadataError> {
        let key = key.into();
        if let Some(pairs) = &mut self.0 {
            pairs.retain(|(other, _)| *other != key);
        }
        self.0.take_if(|pairs| pairs.is_empty());
        self.insert(key, value)
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// The first value of a key, if it is text.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(|v| core::str::from_utf8(v).ok())
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.pairs().iter().map(|(k, v)| (k.as_str(), v.as_slice()))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that count against [`MAX_METADATA`].
    pub fn size(&self) -> usize {
        self.pairs().iter().map(|(k, v)| k.len() + v.len() + 4).sum()
    }

    fn pairs(&self) -> &[(String, Vec<u8>)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl fmt::Debug for Metadata {
    /// Keys only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(k, _)| k)).finish()
    }
}

fn is_key(key: &[u8]) -> bool {
    !key.is_empty()
        && key.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_keys_and_oversize_are_refused_and_change_nothing() {
        let mut m = Metadata::new();
        assert_eq!(m.insert("", "x"), Err(MetadataError::Key));
        assert_eq!(m.insert("Upper", "x"), Err(MetadataError::Key));
        assert_eq!(m.insert("k", alloc::vec![0; MAX_METADATA]), Err(MetadataError::Size));
        assert!(m.is_empty());
        m.insert("trace-id", "7").unwrap();
        assert_eq!(m.get_str("trace-id"), Some("7"));
    }
}
