//! How fast a world runs: the number that decides how many seeds can be explored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{Habits, Worker};
use super::probe::Probe;
use super::unwell::Ailments;
use crate::world::{Failure, Settings, World, millis, run, secs};

/// The speed of a world of five hosts at 5 % loss.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// The world's time that passed.
    pub simulated: Duration,
    /// How long that took.
    pub took: Duration,
    /// Calls made meanwhile.
    pub calls: u64,
    /// Datagrams that arrived.
    pub datagrams: u64,
}

/// The world's time of a measurement.
const LENGTH: Duration = secs(1_000);

/// Runs a world of one server and four clients, each of which makes four small calls a second, at
/// 5 % loss, on one core.
///
/// # Errors
/// If a promise was broken.
pub fn measure_speed() -> Result<Speed, Failure> {
    let begun = Instant::now();
    let report = run(Settings::new(0), five_hosts)?;
    Ok(Speed {
        simulated: report.simulated,
        took: begun.elapsed(),
        calls: report.calls.begun,
        datagrams: report.wire.delivered,
    })
}

async fn five_hosts(world: World) {
    let probe = world.clone();
    world.host("server", move || Probe::new(probe.clone(), "server", Ailments::default()));
    world.network().lose(0.05).keep();
    let stop = Arc::new(AtomicBool::new(false));
    let mut random = world.random();
    for number in 0..4 {
        let name = format!("client-{number}");
        let worker = Worker {
            caller: world.caller(&name, &["server"], |_| {}),
            world: world.clone(),
            habits: Habits {
                pause: millis(500),
                large: 0.0,
                largest: 0,
                deadlines: 0.0,
                drops: 0.0,
                kept_reply: 64 << 10,
            },
            random: random.fork(),
            stop: Arc::clone(&stop),
        };
        world.spawn_on(&name, worker.run());
    }
    world.sleep(LENGTH).await;
    stop.store(true, Ordering::Relaxed);
}
