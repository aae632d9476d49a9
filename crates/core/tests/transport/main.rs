//! Connections over a network in memory: the real core with real TLS, virtual time, one seed.

mod messages;
mod pair;
mod tls;
