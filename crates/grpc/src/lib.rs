//! gRPC over HTTP/2 for what is written against Stubborn's traits.
//!
//! - [`door`]: services answer gRPC over TCP, with the promises of Stubborn where gRPC can carry them.
//! - [`client`]: generated stubs call a gRPC server.
//!
//! HTTP/2 is hyper's, messages, statuses and compression are tonic's. The crate `stubborn` puts both
//! to use under its feature `grpc`; most programs need nothing from here.
//!
//! Of metadata these keys have a meaning here, and travel as any other:
//!
//! | key | with | meaning |
//! |---|---|---|
//! | `stubborn-call-id` | request | copies of a call with the same id run once |
//! | `stubborn-not-executed` | status | the call did not run and never will: the number of the reason |
//! | `stubborn-executed` | status | the handler said this, though the code also stands for a failure on the way |
//! | `stubborn-executing` | status | the call, or the one with its id, is still executing |

pub mod client;
mod codec;
pub mod door;
mod noticed;
mod outlet;
mod words;

/// Metadata of a request: its id. Copies with the same id, from the same caller, run once.
pub use stubborn_core::service::CALL_ID;

/// Metadata of a status: the call did not run. The value is the reason's number
/// ([`NotExecutedReason::to_wire`](stubborn_core::session::NotExecutedReason::to_wire)).
pub const NOT_EXECUTED: &str = "stubborn-not-executed";

/// Metadata of a status: in how many milliseconds to try again, as retries of gRPC's clients know it
/// (gRFC A6, "Pushback").
pub const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Metadata of a status: the handler ran and said this.
pub const EXECUTED: &str = "stubborn-executed";

/// Metadata of a status: the call is still executing, and its outcome is not known yet.
pub const EXECUTING: &str = "stubborn-executing";
