//! Calls between two nodes over a network in memory: real core, real TLS, virtual time, one seed.

mod assembly;
mod failover;
mod failures;
mod outcomes;
mod workers;
mod world;
