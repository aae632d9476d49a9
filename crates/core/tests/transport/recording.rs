//! What a recorder is told agrees with what a connection counts. That it changes nothing is seen in the
//! simulator, where TLS draws from the seed too (`crates/sim/tests/qlog.rs`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stubborn_core::time::Instant;
use stubborn_core::transport::connection::Stats;
use stubborn_core::transport::record::{Beginning, Event, Record, Recorder, Recording};
use stubborn_core::transport::{Side, Space};
use stubborn_core::wire::frame::Frames;

use crate::pair::{CLIENT, Pair, Rules, SERVER, config, pattern};

/// What was told of one connection.
#[derive(Default)]
struct Told {
    sent: BTreeSet<(Space, u64)>,
    received: u64,
    lost: BTreeSet<(Space, u64)>,
    mtu_probes_lost: u64,
    metrics: u64,
    established: bool,
    closed: bool,
    last: Option<Instant>,
}

#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Told>>);

impl Recorder for Notebook {
    fn begin(&self, _: Instant, _: &Beginning) -> Option<Box<dyn Record>> {
        Some(Box::new(self.clone()))
    }
}

impl Record for Notebook {
    fn take(&mut self, at: Instant, event: Event<'_>) {
        let mut told = self.0.lock().unwrap();
        assert!(told.last.replace(at).is_none_or(|before| before <= at), "time went back");
        match event {
            Event::Sent(packet) => {
                let key = (packet.packet_type.space(), packet.number);
                assert!(told.sent.insert(key), "{key:?} twice");
                let frames = Frames::new(packet.frames, packet.packet_type, Side::Client);
                assert!(frames.map(Result::unwrap).count() > 0);
            }
            Event::Received(packet) => {
                told.received += 1;
                assert!(packet.size > packet.frames.len());
            }
            Event::Lost { mtu_probe: true, .. } => told.mtu_probes_lost += 1,
            Event::Lost { space, number, .. } => assert!(told.lost.insert((space, number))),
            Event::Metrics(_) => told.metrics += 1,
            Event::Established(_) => told.established = true,
            Event::Closed(_) => told.closed = true,
        }
    }
}

/// Sends messages over a bad path; returns what the client counted.
fn work(recording: Recording) -> Stats {
    let client = stubborn_core::transport::endpoint::EndpointConfig { recording, ..config() };
    let mut pair = Pair::with(3, client, config());
    pair.rules(Rules { loss: 0.1, duplicate: 0.05, mtu: 1_300, ..Rules::default() });
    let (client, _) = pair.established();
    pair.hosts[SERVER].echo = true;
    for n in 0..6 {
        pair.client(client).send(Bytes::new(), pattern(30_000, n)).unwrap();
    }
    let done = pair.run_until(Duration::from_secs(60), |p| p.hosts[CLIENT].whole.len() == 6);
    assert!(done);
    let now = pair.now;
    pair.client(client).close(now, 0, Bytes::new());
    pair.client(client).stats()
}

#[test]
fn what_is_recorded_agrees_with_what_is_counted() {
    let notebook = Notebook::default();
    let stats = work(Recording(Some(Arc::new(notebook.clone()))));
    let told = notebook.0.lock().unwrap();
    assert_eq!(told.sent.len() as u64, stats.packets_sent);
    assert_eq!(told.received, stats.packets_received);
    assert_eq!(told.lost.len() as u64, stats.packets_lost);
    assert!(stats.packets_lost > 0 && told.mtu_probes_lost > 0 && told.metrics > 0);
    assert!(told.lost.is_subset(&told.sent));
    assert!(told.established && told.closed);
}
