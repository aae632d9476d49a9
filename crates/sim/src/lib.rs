//! A deterministic world in which Stubborn is tested: virtual time, one seed, many hosts, a network
//! that does its worst, and the very node that ships.
//!
//! ```no_run
//! # fn main() {
//! use stubborn_sim::{explore, secs};
//!
//! explore(200, |world| async move {
//!     // world.host("bank", || BankServer::new(Ledger::default()));
//!     // let bank = BankClient::new(world.channel("teller", "bank"));
//!     let _loss = world.network().lose(0.2); // lifts when dropped
//!     // world.after(secs(3)).kill("bank").for_(secs(1));
//!     // call, await, compare
//!     world.sleep(secs(10)).await;
//! });
//! # }
//! ```
//!
//! Everything follows from the seed: two runs of one seed have the same trace. What users write into
//! a scenario must keep to that too: no clock but the world's (or `tokio::time`), no threads, no
//! randomness but [`World::random`], no iteration over hash maps, `biased;` in `tokio::select!`.

mod batch;
mod crypto;
mod disk;
mod explorer;
mod groups;
mod linearizability;
mod network;
mod nodes;
mod oracle;
mod replicas;
mod world;

pub use batch::{Batch, Counts};
pub use explorer::{
    LossyFigures, LossyWork, Resender, Speed, WorldCounts, explore, explore_seeds, measure_lossy,
    measure_speed, simulate,
};
pub use groups::{
    CalmCounts, Cut, CutCounts, DeathCounts, NodeCounts, explore_cuts, explore_node_seeds,
    simulate_calm, simulate_cut, simulate_deaths, simulate_nodes,
};
pub use network::{Attack, Guard, Network, Rule};
pub use oracle::{CallCounts, RaceCounts, Violation, WireCounts};
pub use replicas::{GroupCounts, Sabotage, explore_group_seeds, simulate_group};
pub use world::{
    After, Brief, Failure, Report, Settings, SimCaller, SimSocket, World, millis, run, secs,
};
