//! Messages as the bytes that they are: stubs encode and decode them.

use bytes::{Buf, BufMut, Bytes};
use stubborn_rope::Rope;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Passes encoded messages on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Rope;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Rope;
    type Error = Status;

    fn encode(&mut self, message: Rope, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.len());
        message.pieces().iter().for_each(|piece| to.put_slice(piece));
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
