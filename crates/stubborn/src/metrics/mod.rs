//! What a process has counted of its calls and measured of its links.
//!
//! Every server, channel and replica counts, always: two numbers and a class of a histogram for each
//! call, with clock readings that are made anyway. [`ServerHandle::metrics`], [`Connection::metrics`] and
//! `ReplicaHandle::metrics` tell it; so does the service `stubborn.metrics.v1.Metrics` of every server
//! to those that [`MetricsFor`] lets ask, which is where `stubborn top` has it from.
//!
//! Methods are bounded by the server's services, at a client by 1,024; links are told one by one up to a
//! number that the asker chooses, and all together beyond that. `docs/observability.md` lists what there
//! is.
//!
//! [`ServerHandle::metrics`]: crate::ServerHandle::metrics
//! [`Connection::metrics`]: crate::Connection::metrics

#[cfg(feature = "grpc")]
mod door;
mod histogram;
#[cfg(feature = "prometheus")]
mod http;
mod links;
mod meter;
mod service;
mod source;
mod text;

pub use crate::generated::stubborn::metrics::v1::*;
pub use service::MetricsFor;
pub use text::{PROMETHEUS_TYPE, prometheus_text};

#[cfg(feature = "grpc")]
pub(crate) use door::{DoorBook, DoorCall};
#[cfg(feature = "prometheus")]
pub(crate) use http::{Bound, Exporter};
pub(crate) use links::{held, links};
pub(crate) use meter::{Begun, Ending, Meters};
pub(crate) use service::{Board, add};
#[cfg(feature = "replica")]
pub(crate) use service::{METHOD, links_of};
#[cfg(feature = "replica")]
pub(crate) use source::Gathering;
pub(crate) use source::{MOST_LINKS, Source, USUAL_LINKS};
