//! Frames that carry data, as headers: a sender writes the header, then its data straight into the
//! packet.

use alloc::vec::Vec;

use super::{Message, frame_type};
use crate::wire::fields::Fields;
use crate::wire::{Malformed, Reader, varint};

/// A MESSAGE frame without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// Which message.
    pub id: u64,
    /// Where the data stands in it.
    pub offset: u64,
    /// The message ends after the data.
    pub end: bool,
}

impl MessageHeader {
    /// Appends the header for `length` bytes of data; for `None` the data must fill the packet to
    /// its end.
    ///
    /// # Panics
    /// If a number is above 2^62 - 1.
    pub fn encode(&self, length: Option<usize>, out: &mut Vec<u8>) {
        let mut ty = frame_type::MESSAGE;
        ty |= if self.end { frame_type::MESSAGE_END } else { 0 };
        ty |= if length.is_some() { frame_type::MESSAGE_LENGTH } else { 0 };
        ty |= if self.offset > 0 { frame_type::MESSAGE_OFFSET } else { 0 };
        out.push(ty as u8);
        varint::encode(self.id, out);
        if self.offset > 0 {
            varint::encode(self.offset, out);
        }
        if let Some(length) = length {
            varint::encode(length as u64, out);
        }
    }

    /// Writes the header of a frame with all of a message of `length` bytes: what
    /// [`encode`](Self::encode) does, by a shorter way.
    ///
    /// # Panics
    /// If a number is above 2^62 - 1.
    #[inline]
    pub fn write_whole(id: u64, length: usize, fields: &mut Fields<'_>) {
        use frame_type::*;
        fields.byte((MESSAGE | MESSAGE_END | MESSAGE_LENGTH) as u8);
        fields.varint(id).varint(length as u64);
    }

    /// Bytes that [`MessageHeader::encode`] appends.
    pub const fn size(&self, length: Option<usize>) -> usize {
        let offset = if self.offset > 0 { varint::size(self.offset) } else { 0 };
        let length = if let Some(length) = length { varint::size(length as u64) } else { 0 };
        1 + varint::size(self.id) + offset + length
    }

    /// How many bytes of data fit, after this header with a length, into `room` bytes. `None` when
    /// not even the header does.
    pub const fn room(&self, room: usize) -> Option<usize> {
        data_room(room, self.size(None))
    }
}

impl<'a> Message<'a> {
    #[inline(always)]
    pub(super) fn decode(ty: u64, r: &mut Reader<'a>) -> Result<Self, Malformed> {
        let id = r.varint()?;
        let offset = if ty & frame_type::MESSAGE_OFFSET != 0 { r.varint()? } else { 0 };
        let data =
            if ty & frame_type::MESSAGE_LENGTH != 0 { r.length_prefixed()? } else { r.rest() };
        Ok(Self { id, offset, data, end: ty & frame_type::MESSAGE_END != 0 })
    }
}

/// A DATAGRAM frame without its data (RFC 9221 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramHeader;

impl DatagramHeader {
    /// Appends the header for `length` bytes of data; for `None` the data must fill the packet to
    /// its end.
    pub fn encode(&self, length: Option<usize>, out: &mut Vec<u8>) {
        match length {
            Some(length) => {
                out.push(frame_type::DATAGRAM_LENGTH as u8);
                varint::encode(length as u64, out);
            }
            None => out.push(frame_type::DATAGRAM as u8),
        }
    }

    /// Bytes that [`DatagramHeader::encode`] appends.
    pub const fn size(&self, length: Option<usize>) -> usize {
        if let Some(length) = length { 1 + varint::size(length as u64) } else { 1 }
    }
}

/// Appends the header of a CRYPTO frame; `length` bytes of data are to follow.
///
/// # Panics
/// If `offset` is above 2^62 - 1.
pub fn crypto_header(offset: u64, length: usize, out: &mut Vec<u8>) {
    out.push(frame_type::CRYPTO as u8);
    varint::encode(offset, out);
    varint::encode(length as u64, out);
}

/// How many bytes of data a CRYPTO frame at `offset` takes in `room` bytes. `None` when not even its
/// header fits.
pub const fn crypto_room(offset: u64, room: usize) -> Option<usize> {
    data_room(room, 1 + varint::size(offset))
}

/// The most data that fits into `room` after `fixed` bytes and the data's own length as a varint.
const fn data_room(room: usize, fixed: usize) -> Option<usize> {
    let Some(room) = room.checked_sub(fixed + 1) else { return None };
    // A longer length field takes room away: at the border the shorter field with less data wins.
    Some(match room {
        0..=0x3f => room,
        0x40 => 0x3f,
        0x41..=0x4000 => room - 1,
        0x4001..=0x4002 => 0x3fff,
        _ => {
            let data = room - 3;
            if data > 0x3fff_ffff { 0x3fff_ffff } else { data }
        }
    })
}
