//! What generated server stubs implement and servers drive.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::Pin;

use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Codec, EncodeError};
use super::encoded::Encoded;
use super::metadata::{CALL_ID, Metadata, MetadataError};
use super::method::{MethodId, ServiceDescriptor, Shape};
use super::outcome::{NotExecuted, text};
use super::status::{Code, Status};
use super::stream::Port;
use crate::identity::{CertifiedNames, SpiffeId};
use crate::session::{CallId, KeyAccount, KeyedEnd, NotExecutedReason};
use crate::time::{Duration, Instant};

/// A request as a handler receives it: the message and what is known of the call.
#[derive(Debug)]
pub struct Call<T> {
    message: T,
    context: CallContext,
}

impl<T> Call<T> {
    /// Puts a call together; for tests of handlers and for generated code.
    pub fn new(message: T, context: CallContext) -> Self {
        Self { message, context }
    }

    /// The request message.
    pub fn message(&self) -> &T {
        &self.message
    }

    /// The request message, by value.
    pub fn into_message(self) -> T {
        self.message
    }

    /// Both parts.
    pub fn into_parts(self) -> (T, CallContext) {
        (self.message, self.context)
    }

    /// What is known of the call.
    pub fn context(&self) -> &CallContext {
        &self.context
    }

    /// The same, to be changed by what stands before a handler.
    pub fn context_mut(&mut self) -> &mut CallContext {
        &mut self.context
    }

    /// Gives the call the clock of the node that it came to: what a driver does before it hands the
    /// call to a service.
    pub fn set_clock(&mut self, clock: Clock) {
        self.context.clock = clock;
    }
}

impl<T> core::ops::Deref for Call<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

/// What is known of a call beside its message.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// The id; `None` for reads and `maybe` calls, which take no slot.
    pub id: Option<CallId>,
    /// Who calls.
    pub peer: Arc<Peer>,
    /// Metadata that came with the request.
    pub metadata: Metadata,
    /// When the caller stops waiting, on the clock of this node; `None` for never.
    pub deadline: Option<Instant>,
    /// The clock of this node.
    pub clock: Clock,
}

impl CallContext {
    /// The id (metadata [`CALL_ID`]) of the call that this call's handler makes as its child of this
    /// number: the same whenever the handler runs again, and of no other call.
    ///
    /// # Errors
    /// [`MetadataError::NoId`] if this call has none itself, as reads and `maybe` calls have not.
    pub fn child_id(&self, child: u64) -> Result<String, MetadataError> {
        // A call that names itself may come under another number when it comes again.
        if let Some(key) = self.metadata.get_str(CALL_ID) {
            let account = self.peer.key_account();
            let mut whose = account.owner.map(|owner| owner.to_vec()).unwrap_or_default();
            whose.extend_from_slice(account.subject.as_deref().unwrap_or_default().as_bytes());
            return Ok(format!("of-{:016x}/{key}/{child}", xxh3_64(&whose)));
        }
        let id = self.id.ok_or(MetadataError::NoId)?;
        Ok(format!("{id}/{child}"))
    }

    /// Time until the caller stops waiting: `None` for no deadline, zero if it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.deadline?.since(self.clock.now()))
    }
}

/// The other side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where its datagrams come from.
    pub address: Option<SocketAddr>,
    /// SHA-256 of the public key of the certificate that it proved to own; `None` if anonymous.
    pub identity: Option<[u8; 32]>,
    /// What its sessions belong to, if it has shown a certificate: see [`Peer::owner`].
    pub owner: Option<[u8; 32]>,
    /// The names in that certificate.
    pub names: CertifiedNames,
    /// Whom the call's token is of, as the server's authenticator says; `None` without a token.
    pub subject: Option<Arc<str>>,
}

impl Peer {
    /// What sessions belong to: a digest of the SPIFFE id of its certificate, so that they survive a
    /// new key; without such an id that of the key; `None` if anonymous.
    pub fn owner(&self) -> Option<[u8; 32]> {
        self.owner.or(self.identity)
    }

    /// Whose keys its calls have.
    pub fn key_account(&self) -> KeyAccount {
        KeyAccount { owner: self.owner(), subject: self.subject.clone() }
    }

    /// The SPIFFE id that it has proved.
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        self.names.spiffe()
    }
}

/// A handle to a node's clock, which may be virtual. The default one stands at zero, for tests of
/// handlers.
#[derive(Clone)]
pub struct Clock(Reading);

#[derive(Clone)]
enum Reading {
    Stands(Instant),
    Runs(Arc<dyn Fn() -> Instant + Send + Sync>),
}

impl Default for Clock {
    fn default() -> Self {
        Self::standing(Instant::ZERO)
    }
}

impl Clock {
    /// A clock that stands at `now`: in a replicated service time is that of the log's entry.
    pub const fn standing(now: Instant) -> Self {
        Self(Reading::Stands(now))
    }

    /// A clock that reads its time from `now`.
    pub fn new(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Reading::Runs(Arc::new(now)))
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Reading::Stands(now) => *now,
            Reading::Runs(now) => now(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// With a slot and a sequence number: its outcome is kept.
    Numbered,
    /// As a read.
    Read,
    /// As a `maybe` call: no answer is sent.
    Maybe,
    /// As a stream, with a slot and a sequence number.
    Stream(Shape),
}

impl KeyedEnd for Answer {
    fn ran(&self) -> bool {
        !matches!(self, Self::NotExecuted(_))
    }

    fn size(&self) -> usize {
        match self {
            Self::Reply(reply, metadata) => reply.body.len() + metadata.size(),
            Self::Status(status) => {
                status.message().len() + status.details().len() + status.metadata().size()
            }
            Self::NotExecuted(_) => 0,
        }
    }

    fn without_reply(&self) -> Self {
        let why = "it ran, once; its reply was too large to be kept for a copy of the call";
        Self::Status(Status::new(Code::DataLoss, why))
    }
}

/// What became of a request at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The handler ran and returned this.
    Reply(Encoded, Metadata),
    /// The handler ran and said this.
    Status(Status),
    /// The handler was not started, and never will be for this call.
    NotExecuted(NotExecuted),
}

impl Answer {
    /// A reply of this codec's; a reply without an encoded form becomes a status that says so.
    pub fn reply_with<C: Codec<R>, R>(codec: C, method: MethodId, reply: &R) -> Self {
        match Encoded::with(codec, method, reply) {
            Ok(reply) => Self::Reply(reply, Metadata::new()),
            Err(error) => Self::unwritable(&error),
        }
    }

    /// The handler ran, but what it returned has no encoded form.
    pub fn unwritable(error: &EncodeError) -> Self {
        Self::Status(Status::new(Code::Internal, text(format_args!("executed, but {error}"))))
    }

    /// The request could not be read, so no handler was started.
    pub fn unreadable(error: super::encoded::DecodeError) -> Self {
        let reason = match error {
            super::encoded::DecodeError::Digest => NotExecutedReason::Corrupted,
            super::encoded::DecodeError::Malformed(_) => NotExecutedReason::Malformed,
        };
        Self::NotExecuted(NotExecuted::because(
            reason,
            text(format_args!("the server could not read the request: {error}")),
        ))
    }
}

/// A handler at work on one request. Dropped when the caller of a read has gone, or a stream was
/// cancelled; never dropped while another call with side effects runs, except when the server's drain time is over.
pub type Handling = Pin<Box<dyn Future<Output = Answer> + Send + 'static>>;

/// A service as a server drives it: generated code implements it over the user's handlers.
pub trait Service: Send + Sync + 'static {
    /// The service's name, methods and files.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// Starts work on a request of the method at this index of the descriptor.
    fn call(&self, method: usize, request: Call<Encoded>) -> Handling;

    /// Starts work on a stream of the method at this index, whose messages are at `port`. The future is
    /// dropped when the caller cancels the stream.
    fn stream(&self, method: usize, request: Call<Encoded>, port: Arc<dyn Port>) -> Handling {
        let _ = (method, request, port);
        Box::pin(async {
            Answer::Status(Status::unimplemented("this server cannot run this method"))
        })
    }
}

impl<S: Service + ?Sized> Service for Arc<S> {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        (**self).descriptor()
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        (**self).call(method, request)
    }

    fn stream(&self, method: usize, request: Call<Encoded>, port: Arc<dyn Port>) -> Handling {
        (**self).stream(method, request, port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionId;

    #[test]
    fn a_peer_stays_small() {
        // Each connection of a server has one, and nearly all of them are anonymous.
        assert!(size_of::<Peer>() <= 128, "{}", size_of::<Peer>());
    }

    fn numbered(sequence: u64) -> CallContext {
        let session = SessionId { incarnation: 0xab, number: 7 };
        CallContext { id: Some(CallId { session, slot: 3, sequence }), ..CallContext::default() }
    }

    fn named(key: &str, subject: Option<&str>) -> CallContext {
        let peer = Arc::new(Peer { subject: subject.map(Into::into), ..Peer::default() });
        let mut context = CallContext { peer, ..numbered(9) };
        context.metadata.insert(CALL_ID, key).unwrap();
        context
    }

    #[test]
    fn ids_of_child_calls_follow_from_the_parents_and_nothing_else() {
        let id = |context: &CallContext, child| context.child_id(child).unwrap();
        assert_eq!(id(&numbered(1), 0), id(&numbered(1), 0));
        assert_ne!(id(&numbered(1), 0), id(&numbered(1), 1));
        assert_ne!(id(&numbered(1), 0), id(&numbered(2), 0));
        assert_eq!(CallContext::default().child_id(0), Err(MetadataError::NoId));
    }

    #[test]
    fn a_call_that_names_itself_has_the_same_children_under_any_number_but_not_under_other_callers()
    {
        let ada = named("a", Some("ada"));
        let again = CallContext { id: numbered(70).id, ..ada.clone() };
        assert_eq!(ada.child_id(0), again.child_id(0));
        assert_ne!(ada.child_id(0), named("a", Some("bob")).child_id(0));
        assert_ne!(ada.child_id(0), named("a", None).child_id(0));
        // Nobody passes for a call with a number by naming a call so.
        let forged = named(&format!("{}", numbered(1).id.unwrap()), None);
        assert_ne!(forged.child_id(0), numbered(1).child_id(0));
    }
}
