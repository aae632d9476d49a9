//! What is known of a method before it is called: name, id, semantics, shape.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use stubborn_rope::Rope;
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, Hasher, RawHasher, SecretBuffer};
use xxhash_rust::const_xxh3;
use xxhash_rust::xxh3;

use super::codec::Signature;

/// From so many bytes on, XXH3 makes use of vectors, and costs more to begin.
const LONG: usize = 241;

/// What the system promises about how often a call of a method runs.
///
/// Chosen per method in the `.proto` file; `docs/semantics.md` has each promise in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Semantics {
    /// One datagram, which may be lost; no reply.
    Maybe,
    /// Runs once while the server process lives; never a silent second run.
    AtMostOnce,
    /// May run again on the same server.
    Idempotent,
    /// Has no side effects: takes no slot, may be sent again anywhere.
    Read,
    /// Runs once across retry, kill -9, restart and failover.
    ExactlyOnce,
}

impl Semantics {
    /// Whether a call takes a slot and a sequence number.
    pub const fn takes_slot(self) -> bool {
        !matches!(self, Self::Maybe | Self::Read)
    }
}

/// Which sides send one message and which a stream of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One request, one reply.
    Unary,
    /// A stream of requests, one reply.
    ClientStreaming,
    /// One request, a stream of replies.
    ServerStreaming,
    /// Streams both ways.
    BidiStreaming,
}

impl Shape {
    /// Whether the client sends a stream of messages.
    pub const fn client_streams(self) -> bool {
        matches!(self, Self::ClientStreaming | Self::BidiStreaming)
    }

    /// Whether the server sends a stream of messages.
    pub const fn server_streams(self) -> bool {
        matches!(self, Self::ServerStreaming | Self::BidiStreaming)
    }
}

/// A method as it is named on the wire: XXH3-64 of `package.Service/Method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(pub u64);

impl MethodId {
    /// The id of the method with this full name, `package.Service/Method`.
    pub const fn of(full_name: &str) -> Self {
        Self(const_xxh3::xxh3_64(full_name.as_bytes()))
    }

    /// The digest of `body` as a request or reply of this method: the end-to-end checksum that the
    /// sending stub makes and the receiving stub checks, and by which a false retry is told.
    pub fn digest(self, body: &Rope) -> u64 {
        match body.pieces() {
            [whole] if whole.len() < LONG => xxh3::xxh3_64_with_seed(whole, self.0),
            [whole] => Hasher::oneshot_with_seed(self.0, whole),
            pieces => {
                let secret = SecretBuffer::with_seed(self.0, [0; DEFAULT_SECRET_LENGTH]);
                let mut digest = RawHasher::new(secret.expect("as long as it has to be"));
                pieces.iter().for_each(|piece| core::hash::Hasher::write(&mut digest, piece));
                core::hash::Hasher::finish(&digest)
            }
        }
    }
}

/// A method: what a client must know to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    name: Cow<'static, str>,
    id: MethodId,
    semantics: Semantics,
    shape: Shape,
    signature: Told,
}

/// How a method tells its signature. It is not part of what a method is.
#[derive(Clone, Copy, Debug)]
struct Told(Option<fn() -> Signature>);

impl PartialEq for Told {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Told {}

impl Method {
    /// A method known at compile time. `name` is `package.Service/Method`.
    pub const fn new(name: &'static str, semantics: Semantics, shape: Shape) -> Self {
        let id = MethodId::of(name);
        Self { name: Cow::Borrowed(name), id, semantics, shape, signature: Told(None) }
    }

    /// A method learned at run time, for example by reflection.
    pub fn dynamic(name: String, semantics: Semantics, shape: Shape) -> Self {
        let id = MethodId::of(&name);
        Self { id, name: Cow::Owned(name), semantics, shape, signature: Told(None) }
    }

    /// The same method of a Rust trait, whose messages have these codecs and whose arguments these names:
    /// for reflection.
    pub const fn signed(mut self, signature: fn() -> Signature) -> Self {
        self.signature = Told(Some(signature));
        self
    }

    /// How the method is called, if it is that of a Rust trait. Computed anew each time.
    pub fn signature(&self) -> Option<Signature> {
        self.signature.0.map(|tell| tell())
    }

    /// The full name, `package.Service/Method`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id on the wire.
    pub const fn id(&self) -> MethodId {
        self.id
    }

    /// What is promised about its calls.
    pub const fn semantics(&self) -> Semantics {
        self.semantics
    }

    /// Whether a call of it takes a slot: a stream does, whatever its semantics.
    pub const fn takes_slot(&self) -> bool {
        self.semantics.takes_slot() || !matches!(self.shape, Shape::Unary)
    }

    /// Which sides stream.
    pub const fn shape(&self) -> Shape {
        self.shape
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A service: its methods, and the compiled `.proto` files that describe them for reflection.
#[derive(Debug)]
pub struct ServiceDescriptor {
    /// The full name, `package.Service`.
    pub name: &'static str,
    /// The methods, in the order of the `.proto` file.
    pub methods: &'static [Method],
    /// An encoded `google.protobuf.FileDescriptorSet` with the file of the service and all that it
    /// imports.
    pub file_descriptor_set: &'static [u8],
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_method_has_the_same_id_whether_known_at_compile_time_or_learned() {
        const KNOWN: Method = Method::new("a.B/C", Semantics::Read, Shape::Unary);
        let learned = Method::dynamic("a.B/C".into(), Semantics::Read, Shape::Unary);
        assert_eq!(KNOWN, learned);
        assert_eq!(KNOWN.id().0, xxh3::xxh3_64(b"a.B/C"));
    }

    #[test]
    fn the_digest_of_one_body_differs_between_methods() {
        let body = Rope::from(Bytes::from_static(b"x"));
        assert_ne!(MethodId::of("a.B/C").digest(&body), MethodId::of("a.B/D").digest(&body));
    }

    #[test]
    fn the_digest_of_a_body_is_the_same_however_it_is_cut_and_computed() {
        let whole: Bytes = (0..70_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let id = MethodId::of("a.B/C");
        for length in [0, 1, LONG - 1, LONG, 1_024, 70_000] {
            let body = Rope::from(whole.slice(..length));
            assert_eq!(id.digest(&body), xxh3::xxh3_64_with_seed(&whole[..length], id.0));
        }
        for cut in [1, 5, 255, 256, 257, 1_024, 65_535, 69_999] {
            let pieces = [whole.slice(..cut), whole.slice(cut..)].into_iter().collect();
            assert_eq!(id.digest(&pieces), id.digest(&whole.clone().into()), "at {cut}");
        }
    }
}
