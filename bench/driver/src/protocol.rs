//! What the harness says to the processes of a system, and what they answer.
//!
//! Command lines are `PROGRAM server VARIANT JSON` and `PROGRAM client VARIANT JSON`. A server prints
//! [`Ready`] and serves until its standard input ends. A client prints [`Outcome`] and ends.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The reply is the request.
    Echo,
    /// The reply is the number of bytes in the request.
    Upload,
}

/// How to serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Where to listen; the port is free to choose.
    pub bind: IpAddr,
    /// Processors to run on; none for all.
    pub cores: Vec<usize>,
    /// Threads that serve.
    pub workers: usize,
    /// What the calls will do, for systems that have no methods.
    pub work: Work,
    /// Calls that one connection will have in flight at most, for systems that hold memory for as
    /// many as they allow.
    pub in_flight: usize,
}

/// A server is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    pub address: SocketAddr,
    /// What clients must know to trust it: a certificate in PEM, or a key's fingerprint. Empty
    /// without encryption.
    pub trust: String,
}

/// What a client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClientOptions {
    pub server: Ready,
    /// The server's process, whose processor time and memory are measured.
    pub server_pid: i32,
    /// Processors to run on; none for all.
    pub cores: Vec<usize>,
    pub task: Task,
}

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Load(Load),
    Idle(Idle),
}

/// Calls, one after another, as many in flight as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub work: Work,
    /// Bytes in each request.
    pub payload: usize,
    /// Calls in flight over all connections.
    pub in_flight: usize,
    pub connections: usize,
    /// Threads that share the connections, each with a runtime of its own.
    pub threads: usize,
    pub warm_up_ms: u64,
    pub measure_ms: u64,
}

/// Connections that do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    pub connections: usize,
    /// How long they do nothing before memory is measured.
    pub hold_ms: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Load(LoadReport),
    Idle(IdleReport),
    /// It could not be done.
    Error(String),
}

/// Calls that began and ended within the time that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LoadReport {
    pub calls: u64,
    pub seconds: f64,
    /// Latencies in nanoseconds, each the upper end of its bucket, with how many calls had it.
    pub latency: Vec<(u64, u64)>,
    /// Processor time in the time measured, in user mode and in the kernel.
    pub client_cpu_ns: u64,
    pub server_cpu_ns: u64,
    /// The most memory that each process held so far, in bytes.
    pub client_peak: u64,
    pub server_peak: u64,
    /// Calls that failed or gave a wrong reply, also while warming up.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Calls that had not ended when the time was over. What they would have shown is not known.
    #[serde(default)]
    pub unfinished: u64,
}

/// The server's memory with idle connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IdleReport {
    pub connections: usize,
    /// Resident memory in bytes: with one connection, and with all of them after the time of
    /// doing nothing.
    pub before: u64,
    pub after: u64,
    pub peak: u64,
    /// Connections over which a call failed after that time.
    pub failed: u64,
    pub first_failure: Option<String>,
}
