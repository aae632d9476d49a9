//! Calls between two nodes over a network in memory: real core, real TLS, virtual time, one seed.

mod failures;
mod outcomes;
mod world;
