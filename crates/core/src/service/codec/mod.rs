//! How messages become bytes and come back. Stubs name a [`Codec`]; the types of calls do not, so that
//! code that makes calls looks the same whatever its messages are made with.

#[cfg(feature = "buffa")]
mod buffa;
mod form;
#[cfg(feature = "postcard")]
mod postcard;

use alloc::string::{String, ToString};
use core::fmt;

use bytes::Bytes;
use prost::Message;
pub use stubborn_rope::Rope;

#[cfg(feature = "buffa")]
pub use self::buffa::Buffa;
pub use self::form::{Form, Signature};
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
use super::encoded::{DecodeError, Encoded};
use super::method::MethodId;

/// A family of messages: how one of type `M` is written and read.
///
/// Both directions are deterministic, and neither panics or hangs whatever the bytes are: they come from
/// a peer. What is read is at most a small multiple of the bytes in memory.
pub trait Codec<M> {
    /// Writes a message.
    ///
    /// # Errors
    /// If it has no encoded form.
    fn encode(message: &M) -> Result<Rope, EncodeError>;

    /// Reads a message, which is all of `bytes`.
    ///
    /// # Errors
    /// If the bytes are none.
    fn decode(bytes: Bytes) -> Result<M, Malformed>;

    /// What messages look like, for those who do not have their types: `None` if this codec cannot tell.
    fn form() -> Option<Form> {
        None
    }
}

/// Messages of `prost`: what is generated from `.proto` files unless another backend is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Prost;

impl<M: Message + Default> Codec<M> for Prost {
    fn encode(message: &M) -> Result<Rope, EncodeError> {
        Ok(Rope::encode(message))
    }

    #[inline]
    fn decode(mut bytes: Bytes) -> Result<M, Malformed> {
        M::decode(&mut bytes).map_err(Malformed::new)
    }
}

/// Why bytes are not a message of the expected type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

/// Why a message has no encoded form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeError(String);

impl Malformed {
    /// With this reason, in a codec's words.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl EncodeError {
    /// With this reason, in a codec's words.
    pub fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message is malformed: {}", self.0)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message cannot be encoded: {}", self.0)
    }
}

impl core::error::Error for Malformed {}
impl core::error::Error for EncodeError {}

/// What messages of a type look like with this codec: for generated code.
#[doc(hidden)]
pub fn form_of<C: Codec<M>, M>(_: C) -> Form {
    C::form().unwrap_or_default()
}

/// A codec's way from a message, without its name: what calls and streams keep of it.
pub(super) type Encode<M> = fn(MethodId, &M) -> Result<Encoded, EncodeError>;

/// A codec's way to a message. The bytes are taken out of what is encoded.
pub(super) type Decode<M> = fn(&mut Encoded, MethodId) -> Result<M, DecodeError>;

pub(super) fn encoder<C: Codec<M>, M>() -> Encode<M> {
    |method, message| Ok(Encoded::from_rope(method, C::encode(message)?))
}

pub(super) fn decoder<C: Codec<M>, M>() -> Decode<M> {
    |encoded, method| {
        if method.digest(&encoded.body) != encoded.digest {
            return Err(DecodeError::Digest);
        }
        C::decode(core::mem::take(&mut encoded.body).into_bytes()).map_err(DecodeError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    use super::*;
    use crate::service::{
        Answer, BoxFuture, CallError, CallState, Caller, Channel, IncomingReply, Method, Outcome,
        OutgoingCall, Semantics, Shape,
    };
    use crate::session::{CallId, NotExecutedReason};

    const METHOD: Method = Method::new("a.B/C", Semantics::AtMostOnce, Shape::Unary);

    /// Writes small numbers only, as one byte.
    #[derive(Clone, Copy)]
    struct Byte;

    impl Codec<u64> for Byte {
        fn encode(message: &u64) -> Result<Rope, EncodeError> {
            let byte = u8::try_from(*message).map_err(EncodeError::new)?;
            Ok(Bytes::copy_from_slice(&[byte]).into())
        }

        fn decode(bytes: Bytes) -> Result<u64, Malformed> {
            match *bytes {
                [byte] => Ok(byte.into()),
                _ => Err(Malformed::new("it has to be one byte")),
            }
        }
    }

    /// Replies with what it is sent.
    struct Echo;

    impl Caller for Echo {
        fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
            let reply = IncomingReply { reply: call.request, ..IncomingReply::default() };
            alloc::boxed::Box::pin(async { Ok(reply) })
        }

        fn reserve(&self, _: &Method) -> BoxFuture<Result<CallId, CallError>> {
            panic!("a call that cannot be sent needs no number")
        }

        fn abandon(&self, _: CallId) {}

        fn outcome(&self, _: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
            unimplemented!("nobody asks")
        }
    }

    fn now<T>(future: impl IntoFuture<Output = T>) -> T {
        let mut future = pin!(future.into_future());
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_call_has_the_codec_that_its_stub_names_both_ways() {
        let channel = Channel(Arc::new(Echo));
        assert_eq!(now(channel.unary_with::<_, u64, u64>(Byte, &METHOD, &7)).unwrap(), 7);
    }

    #[test]
    fn a_request_without_an_encoded_form_was_not_executed_and_takes_no_number() {
        let channel = Channel(Arc::new(Echo));
        let call = || channel.unary_with::<_, u64, u64>(Byte, &METHOD, &256);
        let never_sent = |error: CallError| match error.outcome() {
            Outcome::NotExecuted(why) => why.reason == NotExecutedReason::NeverSent,
            _ => false,
        };
        assert!(never_sent(now(call()).unwrap_err()));
        assert!(never_sent(now(call().id()).unwrap_err()));
    }

    #[test]
    fn a_reply_without_an_encoded_form_is_a_status_that_says_so() {
        let Answer::Status(status) = Answer::reply_with(Byte, METHOD.id(), &256) else {
            panic!("there is no such reply");
        };
        assert!(status.message().contains("cannot be encoded"), "{status}");
    }

    #[test]
    fn what_a_codec_does_not_read_is_malformed_and_what_changed_on_its_way_is_not_shown_to_it() {
        let id = METHOD.id();
        let long = Encoded::from_body(id, Bytes::from_static(b"xy"));
        assert!(matches!(long.decode_with::<_, u64>(Byte, id), Err(DecodeError::Malformed(_))));
        let changed = Encoded { digest: !long.digest, ..long };
        assert_eq!(changed.decode_with::<_, u64>(Byte, id), Err(DecodeError::Digest));
    }
}
