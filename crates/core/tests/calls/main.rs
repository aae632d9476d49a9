//! Calls between two nodes over a network in memory: real core, real TLS, virtual time, one seed.

mod assembly;
mod balancing;
mod failover;
mod failures;
mod group;
mod handlers;
mod journal;
mod many;
mod outcomes;
mod overload;
mod replicas;
mod retries;
mod rolling;
mod stale;
mod streams;
mod watches;
mod workers;
mod world;
