//! Messages as bytes with their end-to-end checksum: made by the sending stub, checked by the
//! receiving stub (Saltzer, Reed, Clark: "End-to-end arguments in system design").

use bytes::Bytes;
use prost::Message;
use stubborn_rope::Rope;

use super::codec::{Codec, EncodeError, Malformed, Prost, decoder, encoder};
use super::method::MethodId;

/// An encoded message and its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The message as encoded.
    pub body: Rope,
    /// [`MethodId::digest`] of the body.
    pub digest: u64,
}

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes are not those that the other stub encoded.
    Digest,
    /// The bytes are not a message of the expected type.
    Malformed(Malformed),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Digest => f.write_str("the message's end-to-end checksum does not match"),
            Self::Malformed(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Encoded {
    /// No bytes, and no digest of them.
    pub(crate) const EMPTY: Self = Self { body: Rope::EMPTY, digest: 0 };

    /// Encodes a request or reply of `method`. Large fields of type `Bytes` are not copied.
    pub fn new<M: Message>(method: MethodId, message: &M) -> Self {
        Self::from_rope(method, Rope::encode(message))
    }

    /// Takes bytes that are encoded already.
    pub fn from_body(method: MethodId, body: Bytes) -> Self {
        Self::from_rope(method, body.into())
    }

    /// The same with bytes in several pieces.
    pub fn from_rope(method: MethodId, body: Rope) -> Self {
        Self { digest: method.digest(&body), body }
    }

    /// Checks the digest and decodes.
    ///
    /// # Errors
    /// If the bytes changed on their way or are not such a message.
    pub fn decode<M: Message + Default>(&self, method: MethodId) -> Result<M, DecodeError> {
        self.decode_with(Prost, method)
    }

    /// Encodes a message of this codec's.
    ///
    /// # Errors
    /// If it has no encoded form.
    pub fn with<C: Codec<M>, M>(_: C, method: MethodId, message: &M) -> Result<Self, EncodeError> {
        encoder::<C, M>()(method, message)
    }

    /// As [`decode`](Self::decode), of a message of this codec's.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with<C: Codec<M>, M>(&self, _: C, method: MethodId) -> Result<M, DecodeError> {
        C::decode(self.verified(method)?).map_err(DecodeError::Malformed)
    }

    /// The same, for the last who wants it.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn into_message<M: Message + Default>(self, method: MethodId) -> Result<M, DecodeError> {
        self.into_message_with(Prost, method)
    }

    /// As [`into_message`](Self::into_message), of a message of this codec's.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn into_message_with<C: Codec<M>, M>(
        mut self,
        _: C,
        method: MethodId,
    ) -> Result<M, DecodeError> {
        decoder::<C, M>()(&mut self, method)
    }

    /// Checks the digest and hands the bytes out.
    ///
    /// # Errors
    /// If the bytes changed on their way.
    pub fn verified(&self, method: MethodId) -> Result<Bytes, DecodeError> {
        if method.digest(&self.body) == self.digest {
            Ok(self.body.clone().into_bytes())
        } else {
            Err(DecodeError::Digest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_request_that_cannot_be_read_names_the_field() {
        use super::super::details::BadRequest;
        let id = MethodId::of("a.B/C");
        // A field violation whose description is a number.
        let wrong = Encoded::from_body(id, Bytes::from_static(b"\x0a\x02\x10\x05"));
        let error = wrong.decode::<BadRequest>(id).unwrap_err().to_string();
        assert!(error.contains("FieldViolation.description"), "{error}");
        assert!(error.contains("BadRequest.field_violations"), "{error}");
    }

    #[test]
    fn a_flipped_bit_and_another_method_are_both_noticed() {
        let id = MethodId::of("a.B/C");
        let good = Encoded::from_body(id, Bytes::from_static(b"\x08\x01"));
        assert!(good.verified(id).is_ok());
        let bad = Encoded { body: Bytes::from_static(b"\x08\x03").into(), ..good.clone() };
        assert_eq!(bad.verified(id), Err(DecodeError::Digest));
        assert_eq!(good.verified(MethodId::of("a.B/D")), Err(DecodeError::Digest));
    }
}
