//! What every system of the benchmark shares: the load, the measuring, the processes.
//!
//! A system is a small program made of this crate and one file that says how the system serves and
//! how it is called. The program runs as a server or as a client, each in a process of its own. What
//! is asked of it comes as JSON on the command line, what it answers goes as lines of JSON to
//! standard output ([`protocol`]).
//!
//! - [`System`] and [`Client`]: what is implemented for an RPC system; [`run`] is then its `main`.
//! - [`Floor`]: the same for bare datagrams, which are not asynchronous; [`run_floor`].

mod client;
mod floor;
mod idle;
mod load;
pub mod process;
pub mod protocol;
mod record;
mod server;
mod system;

#[cfg(feature = "certificate")]
pub mod certificate;

pub use floor::{Floor, run_floor};
pub use record::Recorder;
pub use server::{Announce, echo_or_count, local_runtime, runtime, yield_once};
pub use system::{Client, System, Target, run};

/// Any error; the benchmark only prints them.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What can fail with any error.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;
