//! Serde types in the [postcard format](https://postcard.jamesmunns.com/wire-format): what services that
//! are written as Rust traits speak.
//!
//! The crate `postcard` writes. Reading is done here: the crate's reader goes as deep and as long as the
//! bytes say, which are a peer's. And where a message ends before an `Option`, that one is `None`, so that
//! a method can get further arguments.

mod read;
#[cfg(test)]
mod tests;

use alloc::string::{String, ToString};
use core::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use stubborn_rope::Rope;

use super::{Codec, EncodeError, Form, Malformed};

/// Messages of `serde`, in few bytes: neither names nor types of fields are sent.
///
/// Both sides therefore have to know the same types. What may change while the other side is as it was:
///
/// - A method may get further arguments at its end if each is an `Option`; so may a struct its fields,
///   where it is the last thing in the message (a reply, or the last argument). Who does not know them
///   leaves them alone; who is not sent them reads `None`.
/// - An enum may get further variants at its end. Who does not know one refuses the message that has it.
/// - Names of types, fields, variants and arguments are free to change.
///
/// Nothing else: another order or type of fields is not noticed, and read as something else.
/// Attributes of serde that need names in the message (`flatten`, `untagged`, `tag`,
/// `skip_serializing_if`) do not work.
#[derive(Clone, Copy, Debug)]
pub struct Postcard;

impl<M: Serialize + DeserializeOwned> Codec<M> for Postcard {
    fn encode(message: &M) -> Result<Rope, EncodeError> {
        let bytes = ::postcard::to_allocvec(message).map_err(EncodeError::new)?;
        Ok(Bytes::from(bytes).into())
    }

    fn decode(bytes: Bytes) -> Result<M, Malformed> {
        M::deserialize(&mut read::Reader::new(&bytes)).map_err(Malformed::new)
    }

    fn form() -> Option<Form> {
        Some(Form::of::<M>("postcard", false))
    }
}

/// Why bytes could not be read.
#[derive(Debug)]
pub(super) enum Error {
    End,
    Number,
    Text,
    Tag,
    Deep,
    Long,
    Untyped,
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "it ends too early",
            Self::Number => "a number does not fit its type",
            Self::Text => "a text is not UTF-8",
            Self::Tag => "a bool or an Option is neither 0 nor 1",
            Self::Deep => "its values are nested too deep",
            Self::Long => "it says that it has more values than bytes",
            Self::Untyped => "a type asks for what the format does not tell: names and types",
            Self::Other(why) => why,
        })
    }
}

impl core::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::Other(why.to_string())
    }
}
