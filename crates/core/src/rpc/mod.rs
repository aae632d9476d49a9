//! Calls in flight: what a client half and a server half say to each other in messages, and when.
//!
//! `Client` and `Server` are mirrored: each is driven by the [`node`](crate::node) with what the
//! endpoint reports, and acts on the endpoint through a `Context`. `docs/protocol.md` section 4
//! has the messages.

mod admission;
mod arena;
mod assembly;
pub mod balance;
mod borrowed;
mod client;
mod codec;
mod config;
mod context;
mod desk;
mod event;
mod events;
mod group;
mod keeper;
mod kept;
mod message;
mod policies;
mod policy;
mod server;
mod spares;
mod stored;
mod stream;
mod trace;
mod watch;

pub use admission::{Load, Shed};
pub use codec::Malformed;
pub use config::{ChannelConfig, JournalStart, SessionTicket};
pub use event::{
    CallKey, ChannelEvent, ChannelKey, Event, IncomingRequest, JournalCall, JournalEntry,
    JournalRequest, RequestKey, StreamKey, StreamRead, StreamRefusal,
};

pub use message::Staleness;
pub use policies::{Policies, Tokens};
pub use policy::{
    Again, Balancing, ChannelCounters, CircuitBreaker, Codes, EndpointState, EndpointStats,
    FailurePercentageEjection, HedgingPolicy, MethodConfig, MethodName, OutlierDetection, RING_KEY,
    RetryPolicy, RetryThrottling, ServiceConfig, SuccessRateEjection,
};

pub use group::{
    ClientMessage, IDS_SINCE, OWNERS_SINCE, SessionCommand, SessionTable, TableReader, Told, Unrun,
};
pub use keeper::{Front, SessionKeeper};
pub use server::{Finding, IncomingQuery, PlaceEnd, PlaceRequest, QueryKey};
pub use stored::{Ask, Asked, record_of};
pub use trace::{CallLog, CallName, CallStep, Passed, StepKind, in_order};
pub use watch::{Batch, Watch};

pub(crate) use assembly::{Assembly, Progress};
pub(crate) use client::Client;
pub(crate) use codec::MessageBuffer;
pub(crate) use context::{Context, close_code};
pub(crate) use events::Events;
pub(crate) use server::Server;
