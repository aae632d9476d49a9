//! Bare datagrams: what no RPC system can be faster than without batching.

use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use crate::client::{Started, measure, wait_for};
use crate::protocol::{Load, Ready, ServerOptions, Task};
use crate::server::{self, Announce};
use crate::{Recorder, Result};

/// A ping-pong of datagrams, in one variant: one datagram for each call in flight.
pub trait Floor: Clone + Send + Sync + 'static {
    /// The client's half, connected.
    type Pinger;

    /// The variant with this name.
    fn variant(name: &str) -> Option<Self>;

    /// Sends every datagram back until the process ends.
    ///
    /// # Errors
    /// If it cannot.
    fn serve(&self, options: ServerOptions, announce: Announce) -> Result;

    /// # Errors
    /// If it cannot.
    fn connect(&self, server: &Ready) -> Result<Self::Pinger>;

    /// Keeps `load.in_flight` datagrams in flight until the recorder wants no more.
    ///
    /// # Errors
    /// If a datagram is lost.
    fn ping(&self, pinger: Self::Pinger, load: &Load, recorder: &mut Recorder) -> Result;
}

/// The `main` of a floor's program. Ends the process.
pub fn run_floor<F: Floor>() -> ! {
    server::main(
        |variant, options, announce| known::<F>(variant)?.serve(options, announce),
        |variant, options| {
            let floor = known::<F>(variant)?;
            let Task::Load(load) = options.task else {
                return Err("datagrams have no connections".into());
            };
            let start = |share: crate::client::Share| {
                start_thread(floor.clone(), options.server.clone(), share.load)
            };
            measure(&load, options.server_pid, start)
        },
    )
}

fn known<F: Floor>(variant: &str) -> Result<F> {
    F::variant(variant).ok_or_else(|| format!("there is no variant named {variant}").into())
}

fn start_thread<F: Floor>(floor: F, server: Ready, load: Load) -> Result<Started> {
    let (connected, is_connected) = mpsc::channel();
    let (go, times) = oneshot::channel();
    let thread = thread::spawn(move || {
        let pinger = floor.connect(&server)?;
        let _ = connected.send(());
        let (from, to) = times.blocking_recv().map_err(|_| "the measurement was given up")?;
        let mut recorder = Recorder::new(from, to);
        floor.ping(pinger, &load, &mut recorder)?;
        Ok(recorder)
    });
    wait_for(&is_connected, go, thread)
}
