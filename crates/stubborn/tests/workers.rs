//! Servers of several workers on real sockets, with the kernel steering and without.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use stubborn::{
    CallState, Channel, ChannelBuilder, ClientEndpoint, Connection, Outcome, ServeError, Server,
    ServerBuilder, ServerHandle,
};
use stubborn_core::wire::packet;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

const WORKERS: usize = 4;

fn builder(site: &Site, address: impl ToString) -> ServerBuilder {
    Server::bind(address).identity(site.identity.clone()).service(site.lab.clone()).workers(WORKERS)
}

async fn start(site: &Site, steered: bool) -> ServerHandle {
    let server = builder(site, "127.0.0.1:0").kernel_steering(steered).start().await.unwrap();
    assert_eq!(server.is_steered(), steered && cfg!(target_os = "linux"));
    server
}

fn forwarded(server: &ServerHandle) -> u64 {
    server.worker_stats().iter().map(|worker| worker.forwarded).sum()
}

/// The worker that a channel's calls run on.
async fn worker(channel: &Channel) -> String {
    let reply = soon(call(channel, &WHERE, &Note::default()).into_future()).await.unwrap();
    let name = String::from_utf8(reply.data.into()).unwrap();
    assert!(name.starts_with("stubborn-"), "handlers run on their workers, not on {name:?}");
    name
}

async fn channels_spread(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let (mut channels, mut calls) = (Vec::new(), BTreeMap::new());
    for _ in 0..2 * WORKERS {
        let channel = site.channel(&server).await;
        for _ in 0..3 {
            *calls.entry(worker(&channel).await).or_insert(0) += 1;
        }
        channels.push(channel);
    }
    assert_eq!(calls.into_values().collect::<Vec<_>>(), [6; WORKERS]);
    for stats in server.worker_stats() {
        assert_eq!((stats.connections, stats.sessions), (2, 2), "{stats:?}");
    }
    assert_eq!(server.sessions(), 2 * WORKERS);
    // All channels share a socket, so that without steering one worker receives everything.
    assert_eq!(forwarded(&server) == 0, server.is_steered());
}

#[tokio::test]
async fn channels_of_one_client_spread_evenly_over_all_workers() {
    channels_spread(true).await;
}

#[tokio::test]
async fn channels_of_one_client_spread_evenly_over_workers_that_forward() {
    channels_spread(false).await;
}

async fn clients_spread(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let (mut workers, mut clients) = (BTreeSet::new(), Vec::new());
    // Tests beside this one take bytes from the same count, so the spread need not be even here.
    for _ in 0..64 {
        let endpoint = ClientEndpoint::new().unwrap();
        let channel = soon(site.to(&server).endpoint(&endpoint).connect()).await.unwrap();
        workers.insert(worker(&channel).await);
        clients.push(channel);
    }
    assert_eq!(workers.len(), WORKERS);
    assert_eq!(forwarded(&server) == 0, server.is_steered());
}

#[tokio::test]
async fn clients_with_one_channel_each_reach_all_workers() {
    clients_spread(true).await;
}

#[tokio::test]
async fn clients_with_one_channel_each_reach_all_workers_that_forward() {
    clients_spread(false).await;
}

async fn a_new_port_stays(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let path = Path::to(&server).await;
    let connection = path.connect(&site).await;
    let channel = connection.channel();
    let (first, session) = (worker(&channel).await, connection.ticket());
    // Without steering the kernel chooses by the port: each new one is another draw.
    for _ in 0..12 {
        path.happens(Event::Rebind).await;
        assert_eq!(worker(&channel).await, first);
    }
    assert_eq!(connection.ticket(), session);
    assert_eq!(server.worker_stats().iter().map(|worker| worker.connections).sum::<usize>(), 1);
    assert_eq!(forwarded(&server) == 0, server.is_steered());
}

#[tokio::test]
async fn a_client_whose_port_changes_stays_with_its_worker() {
    a_new_port_stays(true).await;
}

#[tokio::test]
async fn a_client_whose_port_changes_stays_with_its_worker_that_others_forward_to() {
    a_new_port_stays(false).await;
}

async fn a_new_connection_finds_its_session(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let path = Path::to(&server).await;
    let connection = path.connect(&site).await;
    let channel = connection.channel();
    let (first, session) = (worker(&channel).await, connection.ticket());
    for count in 1..=4 {
        let held = tokio::spawn(call(&channel, &HOLD, &Note::number(count)).into_future());
        reaches(&site.lab.began, count).await;
        path.happens(Event::Break).await;
        path.happens(Event::Rebind).await;
        site.lab.gate.add_permits(1);
        assert_eq!(soon(held).await.unwrap().unwrap().number, count);
        assert_eq!(worker(&channel).await, first);
    }
    assert_eq!(connection.ticket(), session);
    assert_eq!(server.sessions(), 1);
}

#[tokio::test]
async fn a_client_whose_connection_breaks_finds_the_worker_of_its_session() {
    a_new_connection_finds_its_session(true).await;
}

#[tokio::test]
async fn a_client_whose_connection_breaks_finds_the_worker_that_others_forward_to() {
    a_new_connection_finds_its_session(false).await;
}

async fn outcomes_from_elsewhere(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let owner = soon(site.to(&server).open()).await.unwrap();
    let mut first = call(&owner.channel(), &ECHO, &Note::number(7));
    let id = soon(first.id()).await.unwrap();
    assert_eq!(soon(first.into_future()).await.unwrap().number, 7);
    let ticket = owner.ticket().unwrap();
    let endpoint = ClientEndpoint::new().unwrap();
    let (mut asked, mut others) = (BTreeSet::new(), Vec::new());
    for _ in 0..WORKERS {
        let other = soon(site.to(&server).endpoint(&endpoint).open()).await.unwrap();
        asked.insert(worker(&other.channel()).await);
        let state = soon(other.outcome_of(id, Some(ticket.clone()))).await.unwrap();
        assert!(matches!(state, CallState::Replied(_) | CallState::AlreadySettled), "{state:?}");
        others.push(other);
    }
    assert_eq!(asked.len(), WORKERS, "each of them was asked");
    let heir = soon(site.to(&server).endpoint(&endpoint).resume(ticket.clone()).open()).await;
    assert_eq!(heir.unwrap().ticket(), Some(ticket));
}

#[tokio::test]
async fn every_worker_knows_the_outcome_of_a_call_whose_session_another_one_keeps() {
    outcomes_from_elsewhere(true).await;
}

#[tokio::test]
async fn every_worker_that_forwards_knows_the_outcome_of_a_call() {
    outcomes_from_elsewhere(false).await;
}

async fn drain_of_all(steered: bool) {
    let site = Site::new();
    let server = start(&site, steered).await;
    let (mut channels, mut held) = (Vec::new(), Vec::new());
    for number in 0..WORKERS as u64 {
        let channel = site.channel(&server).await;
        held.push(tokio::spawn(call(&channel, &HOLD, &Note::number(number)).into_future()));
        channels.push(channel);
    }
    reaches(&site.lab.began, WORKERS as u64).await;
    let drain = tokio::spawn(server.drain());
    site.lab.gate.add_permits(WORKERS);
    for (number, held) in (0..).zip(held) {
        assert_eq!(soon(held).await.unwrap().unwrap().number, number);
    }
    drop(channels);
    let report = soon(drain).await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_eq!(report.dropped_handlers, 0);
}

#[tokio::test]
async fn a_drain_lets_the_calls_of_all_workers_end() {
    drain_of_all(true).await;
}

#[tokio::test]
async fn a_drain_lets_the_calls_of_all_workers_that_forward_end() {
    drain_of_all(false).await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_counts_what_all_workers_drop() {
    let site = Site::new();
    let server = builder(&site, "127.0.0.1:0").drain_timeout(Duration::from_millis(100));
    let server = server.start().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..WORKERS {
        let channel = site.channel(&server).await;
        held.push(tokio::spawn(call(&channel, &HOLD, &Note::default()).into_future()));
    }
    reaches(&site.lab.began, WORKERS as u64).await;
    let report = soon(server.drain()).await;
    assert!(!report.complete);
    assert_eq!(report.dropped_handlers, WORKERS);
    reaches(&site.lab.dropped, WORKERS as u64).await;
}

#[tokio::test]
async fn killed_workers_leave_their_port_to_the_next_server_which_knows_no_session_of_theirs() {
    let site = Site::new();
    let server = start(&site, true).await;
    let address = server.local_addr();
    let channel = site.channel(&server).await;
    let held = tokio::spawn(call(&channel, &HOLD, &Note::default()).into_future());
    reaches(&site.lab.began, 1).await;
    server.kill().await;
    let server = builder(&site, address).start().await.unwrap();
    let error = soon(held).await.unwrap().unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost), "{error}");
    worker(&channel).await;
    drop(server);
}

#[tokio::test]
async fn a_server_does_not_join_the_workers_of_another_one() {
    let site = Site::new();
    let server = start(&site, true).await;
    for workers in [1, WORKERS] {
        let second = builder(&site, server.local_addr()).workers(workers).start().await;
        assert!(matches!(second, Err(ServeError::Bind(..))), "{workers} workers");
    }
}

/// What happens to the path between a client and its server.
enum Event {
    /// The client's address and port, as the server sees them, become others.
    Rebind,
    /// Every connection there is goes silent for ever; new ones pass.
    Break,
}

/// A middlebox that one client speaks to instead of its server.
struct Path {
    address: SocketAddr,
    events: mpsc::Sender<(Event, oneshot::Sender<()>)>,
}

impl Path {
    async fn to(server: &ServerHandle) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let (events, happens) = mpsc::channel(1);
        tokio::spawn(relay(front, server.local_addr(), happens));
        Self { address, events }
    }

    async fn connect(&self, site: &Site) -> Connection {
        let endpoint = ClientEndpoint::new().unwrap();
        let builder = ChannelBuilder::new(self.address.to_string()).trust(site.trust());
        soon(builder.endpoint(&endpoint).open()).await.unwrap()
    }

    async fn happens(&self, event: Event) {
        let (done, happened) = oneshot::channel();
        assert!(self.events.send((event, done)).await.is_ok());
        happened.await.unwrap();
    }
}

async fn relay(
    front: UdpSocket,
    server: SocketAddr,
    mut happens: mpsc::Receiver<(Event, oneshot::Sender<()>)>,
) {
    let mut back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    let mut connections = Connections::default();
    loop {
        tokio::select! {
            event = happens.recv() => {
                let Some((event, done)) = event else { return };
                match event {
                    Event::Rebind => back = UdpSocket::bind("127.0.0.1:0").await.unwrap(),
                    Event::Break => connections.silence(),
                }
                let _ = done.send(());
            }
            got = front.recv_from(&mut up) => {
                let Ok((size, from)) = got else { continue };
                client = Some(from);
                if connections.passes(&up[..size]) {
                    let _ = back.send_to(&up[..size], server).await;
                }
            }
            got = back.recv_from(&mut down) => {
                let (Ok((size, _)), Some(client)) = (got, client) else { continue };
                if connections.passes(&down[..size]) {
                    let _ = front.send_to(&down[..size], client).await;
                }
            }
        }
    }
}

/// The connections that a middlebox sees, by the ids in their datagrams.
#[derive(Default)]
struct Connections {
    seen: BTreeSet<Vec<u8>>,
    silenced: BTreeSet<Vec<u8>>,
}

impl Connections {
    fn passes(&mut self, datagram: &[u8]) -> bool {
        let id = packet::destination(datagram).unwrap_or_default().to_vec();
        let passes = !self.silenced.contains(&id);
        if passes {
            self.seen.insert(id);
        }
        passes
    }

    fn silence(&mut self) {
        self.silenced.append(&mut self.seen);
    }
}
