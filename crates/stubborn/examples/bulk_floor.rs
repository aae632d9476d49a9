//! What moving large messages costs without anything of ours: datagrams of one size over loopback, in
//! batches that the kernel cuts (GSO) and joins (GRO), half a megabyte in flight, one thread on each side.
//!
//! `chrt -f 5 taskset -c 2,3 cargo run --release -p stubborn --example bulk_floor -- 1472`

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;

/// Bytes of a message.
const MESSAGE: u64 = 16 << 20;

/// Bytes that may be sent and not yet received.
const IN_FLIGHT: u64 = 512 << 10;

/// The most that the kernel cuts at once.
const BATCH: usize = 65_000;

const TIME: Duration = Duration::from_secs(1);

fn main() {
    let size = std::env::args().nth(1).map_or(1_472, |size| size.parse().expect("a size in bytes"));
    let (sender, receiver) = (socket(), socket());
    let to = receiver.local_addr().expect("an address");
    let received = AtomicU64::new(0);
    let (sent, took) = thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &received));
        send(&sender, to, size, &received)
    });
    let each = took.as_secs_f64() * MESSAGE as f64 / sent as f64;
    let speed = MESSAGE as f64 * 8.0 / each / 1e9;
    println!("datagrams of {size} B: {:.2} ms for 16 MiB, {speed:.1} Gbit/s", each * 1e3);
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    // More than fits into what the kernel grants is not in flight.
    let _ = SockRef::from(&socket).set_recv_buffer_size(8 << 20);
    let _ = SockRef::from(&socket).set_send_buffer_size(8 << 20);
    socket
}

/// Sends for some time; returns how much and how long. The last thing it sends is one byte, which ends the
/// receiver.
fn send(socket: &UdpSocket, to: SocketAddr, size: usize, received: &AtomicU64) -> (u64, Duration) {
    let state = UdpSocketState::new(socket.into()).expect("a socket");
    let bytes = vec![7; (BATCH / size).clamp(1, state.max_gso_segments()) * size];
    let transmit = |contents| Transmit {
        destination: to,
        ecn: None,
        contents,
        segment_size: (bytes.len() > size).then_some(size),
        src_ip: None,
    };
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        if sent - received.load(Ordering::Relaxed) < IN_FLIGHT
            && state.try_send(socket.into(), &transmit(&bytes)).is_ok()
        {
            sent += bytes.len() as u64;
        }
    }
    while received.load(Ordering::Relaxed) < sent {
        assert!(start.elapsed() < 2 * TIME, "a datagram was lost");
    }
    let took = start.elapsed();
    socket.send_to(&[0], to).expect("the last datagram");
    (sent, took)
}

fn receive(socket: &UdpSocket, received: &AtomicU64) {
    let state = UdpSocketState::new(socket.into()).expect("a socket");
    let mut buffers = [vec![0; 1 << 16], vec![0; 1 << 16]];
    let mut metas = [RecvMeta::default(); 2];
    loop {
        let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let Ok(count) = state.recv(socket.into(), &mut slices, &mut metas) else { continue };
        let bytes: usize = metas[..count].iter().map(|meta| meta.len).sum();
        if bytes == 1 {
            return;
        }
        received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
