//! Numbers written side by side straight into the memory that they stay in.
//!
//! What is put together elsewhere, number by number, and copied then, is slow to copy: the processor
//! waits until every number has reached its cache.

use alloc::vec::Vec;

use super::varint;

/// A frame's header, a [`Head`] and eight bytes more, so that every number is written as eight.
const ROOM: usize = 80;

/// The first fields of a message: their size is known before they are written, so that the header of a
/// frame can stand in front of them.
pub trait Head {
    /// Bytes that [`write`](Self::write) writes, at most [`Fields::HEAD`].
    fn size(&self) -> usize;

    /// Writes them.
    fn write(&self, fields: &mut Fields<'_>);
}

/// Where fields are written.
#[derive(Debug)]
pub struct Fields<'a> {
    bytes: &'a mut [u8; ROOM],
    len: usize,
}

impl Fields<'_> {
    /// Bytes of a [`Head`] at most: a kind and six numbers.
    pub const HEAD: usize = 1 + 6 * varint::MAX_SIZE;

    /// Appends fields to `out`.
    ///
    /// # Panics
    /// If `write` writes more than a frame's header and a [`Head`].
    #[inline]
    pub fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Fields<'_>)) {
        let start = out.len();
        out.extend_from_slice(&[0; ROOM]);
        let Some(bytes) = out[start..].first_chunk_mut() else { unreachable!("it was appended") };
        let mut fields = Fields { bytes, len: 0 };
        write(&mut fields);
        let end = start + fields.len;
        out.truncate(end);
    }

    /// One byte.
    #[inline]
    pub fn byte(&mut self, value: u8) -> &mut Self {
        self.bytes[self.len] = value;
        self.len += 1;
        self
    }

    /// A number in its shortest form.
    ///
    /// # Panics
    /// If it is above 2^62 - 1.
    #[inline]
    pub fn varint(&mut self, value: u64) -> &mut Self {
        let (bytes, size) = varint::to_bytes(value);
        self.put(bytes, size)
    }

    /// Eight bytes, the highest first.
    #[inline]
    pub fn fixed64(&mut self, value: u64) -> &mut Self {
        self.put(value.to_be_bytes(), 8)
    }

    #[inline]
    fn put(&mut self, bytes: [u8; 8], size: usize) -> &mut Self {
        self.bytes[self.len..][..8].copy_from_slice(&bytes);
        self.len += size;
        self
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn the_longest_fields_have_room_behind_the_longest_header() {
        let mut out = vec![7];
        Fields::append(&mut out, |fields| {
            // A frame's type, a message's id and length.
            fields.byte(1).varint(varint::MAX).varint(varint::MAX);
            fields.byte(2);
            for _ in 0..6 {
                fields.fixed64(u64::MAX);
            }
        });
        assert_eq!(out.len(), 1 + 17 + Fields::HEAD);
        assert_eq!((out[0], out[1], out[18]), (7, 1, 2));
    }

    #[test]
    fn a_short_number_is_overwritten_by_what_follows_it() {
        let mut out = vec![];
        Fields::append(&mut out, |fields| {
            fields.varint(5).fixed64(9).byte(1);
        });
        assert_eq!(out, [5, 0, 0, 0, 0, 0, 0, 0, 9, 1]);
    }
}
