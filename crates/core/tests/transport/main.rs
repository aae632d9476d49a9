//! Connections over a network in memory: the real core with real TLS, virtual time, one seed.

mod copies;
mod endings;
mod handshake;
mod hostile;
mod messages;
mod operations;
mod pair;
mod paths;
mod recording;
mod recovery;
mod tls;
