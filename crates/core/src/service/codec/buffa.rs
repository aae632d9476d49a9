//! Messages of `buffa`.

use bytes::Bytes;
use stubborn_rope::Rope;

use super::{Codec, EncodeError, Malformed};

/// Messages of `buffa`: what is generated from `.proto` files with that backend. On the wire they are
/// those of `prost`.
#[derive(Clone, Copy, Debug)]
pub struct Buffa;

impl<M: ::buffa::Message> Codec<M> for Buffa {
    fn encode(message: &M) -> Result<Rope, EncodeError> {
        let mut pieces = ::buffa::Rope::new();
        message.try_encode(&mut pieces).map_err(EncodeError::new)?;
        Ok(pieces.into_segments().into_iter().collect())
    }

    fn decode(mut bytes: Bytes) -> Result<M, Malformed> {
        M::decode(&mut bytes).map_err(Malformed::new)
    }
}
