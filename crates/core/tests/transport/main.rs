//! Connections over a network in memory: the real core with real TLS, virtual time, one seed.

mod handshake;
mod messages;
mod pair;
mod tls;
