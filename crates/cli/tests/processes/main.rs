//! Replicated clusters of real processes that are killed, paused, cut from one another and upgraded
//! under load.
#![cfg(unix)]

mod cluster;
mod network;
mod torment;
