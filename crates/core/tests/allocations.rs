//! How often the transport allocates in its steady state, where messages are small: never, neither
//! to send nor to receive.
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use stubborn_core::random::Random;
use stubborn_core::time::{Instant, earliest};
use stubborn_core::transport::connection::ConnectionEvent;
use stubborn_core::transport::crypto::{ClientTls, ServerTls};
use stubborn_core::transport::endpoint::{ConnectionHandle, Endpoint, EndpointConfig, Received};
use stubborn_tls::{ServerTrust, TlsClient, TlsServer, self_signed};

struct Counting;

#[global_allocator]
static GLOBAL: Counting = Counting;

thread_local! {
    /// Of this thread alone: the test harness allocates on others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every method hands its arguments on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Messages that go each way between two moments.
const BURST: usize = 50;

#[derive(Default)]
struct Counted {
    sending: u64,
    receiving: u64,
    datagrams: u64,
}

struct Pair {
    now: Instant,
    hosts: [Endpoint; 2],
    lines: [Option<ConnectionHandle>; 2],
    received: usize,
    buf: Vec<u8>,
    counted: Counted,
    /// What is received into: one buffer for many datagrams, as a driver has it.
    arriving: BytesMut,
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8 + 1], 7400))
}

impl Pair {
    fn new() -> Self {
        let made = self_signed(["server.test"]).unwrap();
        let trust = ServerTrust::Roots(made.roots());
        let client: Arc<dyn ClientTls> = Arc::new(TlsClient::builder(trust).build().unwrap());
        let server: Arc<dyn ServerTls> =
            Arc::new(TlsServer::builder(made.identity).build().unwrap());
        let config = EndpointConfig::default;
        let mut hosts = [
            Endpoint::new(config(), None, Random::from_seed([1; 32]), None),
            Endpoint::new(config(), Some(server), Random::from_seed([2; 32]), Some(1)),
        ];
        let line = hosts[CLIENT]
            .connect(Instant::ZERO, address(SERVER), "server.test", &client, None, None)
            .unwrap();
        Self {
            now: Instant::ZERO,
            hosts,
            lines: [Some(line), None],
            received: 0,
            buf: Vec::new(),
            counted: Counted::default(),
            arriving: BytesMut::new(),
        }
    }

    /// What one host has to send reaches the other, which reads it.
    fn pass(&mut self, from: usize) {
        let before = ALLOCATIONS.get();
        self.buf.clear();
        let mut batches = [(0, 0); 64];
        let mut count = 0;
        while let Some(transmit) = self.hosts[from].poll_transmit(self.now, &mut self.buf) {
            batches[count] = (transmit.size, transmit.segment.unwrap_or(transmit.size));
            count += 1;
        }
        self.counted.sending += ALLOCATIONS.get() - before;
        self.now += Duration::from_micros(50);
        let mut rest = &self.buf[..];
        for (size, segment) in &batches[..count] {
            let (batch, after) = rest.split_at(*size);
            rest = after;
            for datagram in batch.chunks(*segment) {
                self.arriving.reserve(datagram.len());
                self.arriving.extend_from_slice(datagram);
                let data = self.arriving.split();
                let local = Some(address(1 - from).ip());
                let received =
                    Received { from: address(from), local, ecn: Default::default(), data };
                let before = ALLOCATIONS.get();
                self.hosts[1 - from].handle(self.now, received);
                self.counted.receiving += ALLOCATIONS.get() - before;
                self.counted.datagrams += 1;
            }
        }
        let before = ALLOCATIONS.get();
        self.read(1 - from);
        self.counted.receiving += ALLOCATIONS.get() - before;
    }

    fn read(&mut self, host: usize) {
        let endpoint = &mut self.hosts[host];
        while let Some((line, event)) = endpoint.poll_event() {
            match event {
                ConnectionEvent::Connected => self.lines[host] = Some(line),
                ConnectionEvent::MessagesReadable => {
                    let connection = endpoint.connection_mut(line).unwrap();
                    while connection.take_whole_message().is_some() {
                        self.received += 1;
                    }
                    assert_eq!(connection.accept_message(), None, "all are small");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn burst(&mut self) {
        for host in [CLIENT, SERVER] {
            let Some(line) = self.lines[host] else { continue };
            let before = ALLOCATIONS.get();
            let connection = self.hosts[host].connection_mut(line).unwrap();
            for _ in 0..BURST {
                connection
                    .send(Bytes::from_static(&[1; 20]), Bytes::from_static(&[2; 64]))
                    .unwrap();
            }
            self.counted.sending += ALLOCATIONS.get() - before;
        }
        for host in [CLIENT, SERVER] {
            self.pass(host);
        }
        let next = earliest(self.hosts[CLIENT].poll_timeout(), self.hosts[SERVER].poll_timeout());
        if next.is_some_and(|at| at <= self.now) {
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
        }
    }
}

#[test]
fn small_messages_are_sent_and_received_without_an_allocation() {
    let mut pair = Pair::new();
    // Until buffers, rings and windows have their size.
    for _ in 0..2_000 {
        pair.burst();
    }
    pair.counted = Counted::default();
    pair.received = 0;
    for _ in 0..1_000 {
        pair.burst();
    }
    let Counted { sending, receiving, datagrams } = pair.counted;
    assert!(pair.received > 90_000, "{} messages arrived", pair.received);
    assert_eq!(sending, 0, "allocations to send {} messages", pair.received);
    assert!(datagrams > 2_000, "{datagrams} datagrams");
    assert_eq!(receiving, 0, "allocations to receive {datagrams} datagrams");
}
