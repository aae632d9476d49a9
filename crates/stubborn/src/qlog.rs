//! What happens in connections, as qlog, which qvis shows: see `docs/observability.md`.
//!
//! A [`Folder`] is given to a server ([`ServerBuilder::qlog`](crate::ServerBuilder::qlog)), a replica or
//! an endpoint of clients ([`ClientEndpoint::with_qlog`](crate::ClientEndpoint::with_qlog)). Without
//! one nothing is recorded.

pub use stubborn_qlog::{Folder, QLOG_VARIABLE};
