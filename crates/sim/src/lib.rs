//! A deterministic world in which Stubborn is tested: virtual time, one seed, many hosts, a network
//! that does its worst, and the very node that ships.
//!
//! For the tests of services too: with `stubborn-sim` among the `dev-dependencies`, generated stubs run
//! in it as they are (`stubborn new` makes such a test).
//!
//! ```
//! # mod stubs { // What the generator would have made of counter.proto.
//! #     use std::sync::atomic::{AtomicU64, Ordering};
//! #     use stubborn_core::service::*;
//! #     pub const ADD: Method = Method::new("counter.v1.Counter/Add", Semantics::AtMostOnce, Shape::Unary);
//! #     static COUNTER: ServiceDescriptor =
//! #         ServiceDescriptor { name: "counter.v1.Counter", methods: &[ADD], file_descriptor_set: &[] };
//! #     #[derive(Default)]
//! #     pub struct Count(std::sync::Arc<AtomicU64>);
//! #     impl Count { pub fn of(ran: &std::sync::Arc<AtomicU64>) -> Self { Self(ran.clone()) } }
//! #     pub struct CounterServer(Count);
//! #     impl CounterServer { pub fn new(count: Count) -> Self { Self(count) } }
//! #     impl Service for CounterServer {
//! #         fn descriptor(&self) -> &'static ServiceDescriptor { &COUNTER }
//! #         fn call(&self, _: usize, _: Call<Encoded>) -> Handling {
//! #             let total = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
//! #             let reply = Encoded::from_body(ADD.id(), total.to_be_bytes().to_vec().into());
//! #             Box::pin(async move { Answer::Reply(reply, Metadata::new()) })
//! #         }
//! #     }
//! #     pub struct CounterClient(Channel);
//! #     impl CounterClient {
//! #         pub fn new(channel: Channel) -> Self { Self(channel) }
//! #         pub async fn add(&self) -> Result<(), CallError> {
//! #             let call = self.0.raw_unary::<()>(&ADD, Encoded::from_body(ADD.id(), Default::default()));
//! #             call.wait_for_ready(true).raw().await.map(drop)
//! #         }
//! #     }
//! # }
//! # use stubs::*;
//! # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
//! # use stubborn_core::service::Outcome;
//! use stubborn_sim::{explore, secs};
//!
//! // In a #[test]: 10 seeds; a failure prints the line that repeats it.
//! explore(10, |world| async move {
//!     let ran = Arc::new(AtomicU64::new(0));
//!     let counted = ran.clone();
//!     world.host("server", move || CounterServer::new(Count::of(&counted)));
//!     let counter = CounterClient::new(world.channel("client", "server"));
//!     let _loss = world.network().lose(0.2); // lifts when dropped
//!     world.after(secs(1)).kill("server").for_(secs(2));
//!     let (mut done, mut lost) = (0, 0);
//!     for _ in 0..50 {
//!         match counter.add().await {
//!             Ok(()) => done += 1,
//!             Err(error) if *error.outcome() == Outcome::Lost => lost += 1,
//!             Err(error) => assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}"),
//!         }
//!     }
//!     let ran = ran.load(Ordering::Relaxed);
//!     assert!((done..=done + lost).contains(&ran), "each call ran once, or is said to be lost");
//! });
//! ```
//!
//! The network [loses](Network::lose), [delays](Network::delay), [doubles](Network::duplicate),
//! [reorders](Network::reorder) and [corrupts](Network::corrupt), is [cut](Network::cut) whole, between two
//! hosts or one way; hosts are [killed](World::kill), [paused](World::pause), [slowed](World::slow) and
//! [drained](World::drain), at once or [later](World::after). Time is virtual, `tokio::time` included: a
//! minute of it takes milliseconds.
//!
//! Everything follows from the seed: two runs of one seed have the same trace. What users write into
//! a scenario must keep to that too: no clock but the world's (or `tokio::time`), no threads, no
//! randomness but [`World::random`], no iteration over hash maps, `biased;` in `tokio::select!`.

mod batch;
#[cfg(feature = "tokio")]
mod completions;
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
/// Records the connections of a world in a folder, for [`simulate_recorded`].
pub use stubborn_qlog::Folder as QlogFolder;

#[cfg(feature = "tokio")]
pub use completions::{CompletionCounts, explore_completion_seeds, simulate_completions};
pub use explorer::{
    LossyFigures, LossyWork, Resender, Speed, WorldCounts, explore, explore_seeds, measure_lossy,
    measure_speed, simulate, simulate_recorded,
};
pub use groups::{
    CalmCounts, CrowdedCounts, Cut, CutCounts, DeathCounts, NodeCounts, explore_cuts,
    explore_node_seeds, explore_operated_seeds, simulate_calm, simulate_crowded, simulate_cut,
    simulate_deaths, simulate_moves, simulate_nodes,
};
pub use network::{Attack, Guard, Network, Rule};
pub use oracle::{CallCounts, RaceCounts, Violation, WireCounts};
pub use replicas::{GroupCounts, Sabotage, explore_group_seeds, simulate_group};
pub use world::{
    After, Brief, Failure, Report, Settings, SimCaller, SimSocket, World, millis, run, secs,
};
