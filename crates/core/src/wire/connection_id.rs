//! Connection ids: what a datagram says about where it belongs.

use core::fmt;

/// Bytes of every connection id that this implementation issues.
pub const LOCAL_LENGTH: usize = 8;

/// Bytes of the longest connection id that a packet of our version carries (RFC 9000 §17.2).
pub const MAX_LENGTH: usize = 20;

/// A connection id: [`LOCAL_LENGTH`] bytes when we issued it, up to [`MAX_LENGTH`] from a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    // The bytes past `length` are zero, so that the derived comparisons hold.
    bytes: [u8; MAX_LENGTH],
    length: u8,
}

impl ConnectionId {
    /// The id without bytes.
    pub const EMPTY: Self = Self { bytes: [0; MAX_LENGTH], length: 0 };

    /// The id with these bytes, or `None` when they are more than [`MAX_LENGTH`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self::EMPTY;
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        id.length = bytes.len() as u8;
        Some(id)
    }

    /// An id that we issue.
    pub const fn from_local(local: [u8; LOCAL_LENGTH]) -> Self {
        let mut id = Self::EMPTY;
        let mut i = 0;
        while i < LOCAL_LENGTH {
            id.bytes[i] = local[i];
            i += 1;
        }
        id.length = LOCAL_LENGTH as u8;
        id
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// True for [`ConnectionId::EMPTY`].
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    /// The bytes as a fixed array, when the id has the length of those that we issue.
    pub fn local(&self) -> Option<[u8; LOCAL_LENGTH]> {
        self.as_slice().try_into().ok()
    }
}

impl From<[u8; LOCAL_LENGTH]> for ConnectionId {
    fn from(local: [u8; LOCAL_LENGTH]) -> Self {
        Self::from_local(local)
    }
}

impl core::ops::Deref for ConnectionId {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_id_longer_than_twenty_bytes_is_refused() {
        assert_eq!(ConnectionId::new(&[1; 21]), None);
        assert_eq!(ConnectionId::new(&[1; 20]).unwrap().len(), 20);
        assert_eq!(ConnectionId::new(&[]), Some(ConnectionId::EMPTY));
    }

    #[test]
    fn ids_of_other_length_differ_even_when_padded_alike() {
        assert_ne!(ConnectionId::new(&[0]), ConnectionId::new(&[0, 0]));
        let local = ConnectionId::from([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(local.local(), Some([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(local.to_string(), "0102030405060708");
    }
}
