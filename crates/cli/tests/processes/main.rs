//! Replicated clusters of real processes that are killed, paused, cut from one another and upgraded
//! under load.
#![cfg(unix)]

mod cluster;
mod cuts;
mod network;
mod torment;
mod upgrade;
mod world;
