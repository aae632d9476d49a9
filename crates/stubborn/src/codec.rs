//! How messages become bytes and come back: a stub names one of these.

pub use stubborn_core::service::codec::*;

#[cfg(feature = "traits")]
pub use self::json::Json;

#[cfg(feature = "traits")]
mod json {
    use bytes::Bytes;
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use stubborn_core::service::codec::{Codec, EncodeError, Form, Malformed, Rope};

    /// Messages of `serde`, as JSON: for services whose messages change, and for reading along.
    ///
    /// A struct may get a field anywhere if it has `#[serde(default)]`, and loses none that the other side
    /// needs; who does not know a field leaves it alone. The arguments of a method are an array, whose
    /// length is fixed: let a method that is to grow take one struct.
    #[derive(Clone, Copy, Debug)]
    pub struct Json;

    impl<M: Serialize + DeserializeOwned> Codec<M> for Json {
        fn encode(message: &M) -> Result<Rope, EncodeError> {
            let bytes = serde_json::to_vec(message).map_err(EncodeError::new)?;
            Ok(Bytes::from(bytes).into())
        }

        fn decode(bytes: Bytes) -> Result<M, Malformed> {
            serde_json::from_slice(&bytes).map_err(Malformed::new)
        }

        fn form() -> Option<Form> {
            Some(Form::of::<M>("json", true))
        }
    }
}
