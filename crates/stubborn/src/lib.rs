//! RPC whose calls always resolve.

// Generated code names this crate as its users do.
extern crate self as stubborn;

mod generated;
mod macros;
pub mod reflection;

/// The messages of generated code are made with these.
#[doc(hidden)]
pub use {prost, prost_types};

pub use stubborn_core::service::{
    Answer, Call, CallContext, CallError, CallState, Caller, Channel, Code, Encoded, Handling,
    IncomingReply, Metadata, Method, NotExecuted, Outcome, OutgoingCall, Peer, Semantics, Service,
    ServiceDescriptor, Shape, Status, UnaryCall,
};
pub use stubborn_core::session::CallId;
