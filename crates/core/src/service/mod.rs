//! What generated stubs are written against: methods, calls, statuses, outcomes, and the traits
//! between a stub and whatever carries its calls.
//!
//! One service, written once, runs over UDP, in process and in a simulated world, because stubs
//! know only these traits.

mod around;
mod client;
pub mod codec;
pub mod details;
mod encoded;
mod image;
mod machine;
mod metadata;
mod method;
mod outcome;
mod priority;
mod registry;
mod server;
mod status;
mod stream;
mod watch;

pub use client::{
    Begun, BoxFuture, Caller, Channel, IncomingReply, OutgoingCall, StreamEnd, UnaryCall,
};
pub use details::Detail;
pub use encoded::{DecodeError, Encoded};
pub use image::{Image, Piece, Pieces};
pub use machine::{Applied, FIRST_VERSION, Machine, Machines, RestoreError, Unsupported};
pub use metadata::{CALL_ID, MAX_METADATA, Metadata, MetadataError};
pub use method::{Method, MethodId, Semantics, ServiceDescriptor, Shape};
pub(crate) use outcome::text;
pub use outcome::{CallError, CallState, NotExecuted, Outcome};
pub use priority::{PRIORITY, Priority};
pub use registry::{RegisterError, Registry};
pub use server::{Answer, Call, CallContext, Clock, Handling, Peer, RequestKind, Service};
pub use status::{Code, Status};
pub use stream::{
    BidiStream, ClientStream, Finished, NotTaken, Port, Replies, ReplySender, RequestSender,
    Requests, StreamCall, StreamKind,
};
pub use watch::Next;
