//! Encoding a prost message into pieces.

#![expect(unsafe_code, reason = "what prost writes into is an unsafe trait")]

use alloc::vec::Vec;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes};
use prost::Message;

use super::Rope;

/// Fields of so many bytes are not copied. A smaller copy costs no more than to handle two pieces.
const LARGE: usize = 8 << 10;

/// Room for what stands between large fields: tags and lengths, mostly.
const BETWEEN: usize = 64;

pub(super) fn encode<M: Message>(message: &M) -> Rope {
    let size = message.encoded_len();
    if size < LARGE {
        let mut copy = Vec::with_capacity(size);
        message.encode_raw(&mut copy);
        return copy.into();
    }
    let mut writer = Writer { pieces: Vec::new(), tail: Vec::with_capacity(BETWEEN) };
    message.encode_raw(&mut writer);
    writer.end_piece();
    let rope: Rope = writer.pieces.into_iter().collect();
    debug_assert_eq!(rope.len(), size);
    rope
}

struct Writer {
    pieces: Vec<Bytes>,
    /// What was written after the last piece.
    tail: Vec<u8>,
}

impl Writer {
    fn end_piece(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(core::mem::take(&mut self.tail).into());
        }
    }
}

// SAFETY: `chunk_mut`, `advance_mut` and `remaining_mut` are those of `Vec<u8>`, called on one and the
// same vector, which nothing changes between a call of the first and one of the second: the other
// methods take `&mut self` too, and so end the borrow of the chunk. What they promise holds as it does
// for `Vec<u8>`.
unsafe impl BufMut for Writer {
    fn remaining_mut(&self) -> usize {
        self.tail.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has initialised so many bytes of `chunk_mut`, which is the vector's.
        unsafe { self.tail.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.tail.chunk_mut()
    }

    /// A field of type `Bytes` comes here whole, and `copy_to_bytes` shares its memory then.
    fn put<T: Buf>(&mut self, mut field: T) {
        let size = field.remaining();
        if size < LARGE {
            return self.tail.put(field);
        }
        self.end_piece();
        self.pieces.push(field.copy_to_bytes(size));
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Inner {
        #[prost(bytes = "bytes", tag = "1")]
        data: Bytes,
        #[prost(string, tag = "2")]
        name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Outer {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        many: Vec<Bytes>,
        #[prost(message, optional, tag = "3")]
        inner: Option<Inner>,
        #[prost(bytes = "vec", tag = "4")]
        owned: Vec<u8>,
        #[prost(uint32, optional, tag = "5")]
        last: Option<u32>,
    }

    #[test]
    fn a_large_field_shares_its_memory_and_a_small_one_does_not() {
        let data = Bytes::from(vec![7; LARGE]);
        let rope = Rope::encode(&Inner { data: data.clone(), name: "x".to_string() });
        assert_eq!(rope.pieces().len(), 3);
        assert_eq!(rope.pieces()[1].as_ptr(), data.as_ptr());
        let small = data.slice(1..);
        let rope = Rope::encode(&Inner { data: small, name: "y".repeat(2 * LARGE) });
        assert_eq!(rope.pieces().len(), 1);
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        (any::<u8>(), prop_oneof![0usize..40, LARGE - 2..LARGE + 2, LARGE..3 * LARGE])
            .prop_map(|(byte, size)| Bytes::from(vec![byte; size]))
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_encoding_of_the_message(
            number in any::<u64>(),
            many in prop::collection::vec(bytes(), 0..4),
            inner in prop::option::of((bytes(), "[a-z]{0,20}")),
            owned in bytes(),
            last in any::<Option<u32>>(),
        ) {
            let inner = inner.map(|(data, name)| Inner { data, name });
            let message = Outer { number, many, inner, owned: owned.to_vec(), last };
            prop_assert_eq!(Rope::encode(&message).into_bytes(), message.encode_to_vec());
        }
    }
}
