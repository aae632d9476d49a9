//! Many datagrams for each system call: the kernel cuts what is sent (GSO) and joins what is
//! received (GRO).

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use bench_driver::protocol::Load;
use bench_driver::{Recorder, Result, runtime};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::time::timeout;

use crate::ping::{Flight, LOST};

/// The most that the kernel takes at once.
const SEND_BYTES: usize = 65_000;

/// What one system call fills.
const RECEIVE_BYTES: usize = 65_536;

pub(crate) fn serve(socket: UdpSocket) -> Result {
    runtime(1)?.block_on(async {
        let mut socket = Batches::new(socket)?;
        loop {
            let received = socket.receive().await?;
            for index in 0..received {
                let (meta, length) = (socket.metas[index].addr, socket.metas[index].len);
                let stride = socket.metas[index].stride;
                socket.send(meta, stride, &socket.buffers[index][..length]).await?;
            }
        }
    })
}

pub(crate) fn ping(socket: UdpSocket, load: &Load, recorder: &mut Recorder) -> Result {
    let give_up = recorder.end() + LOST;
    let server = socket.peer_addr()?;
    runtime(1)?.block_on(async {
        let mut socket = Batches::new(socket)?;
        let mut flight = Flight::new(load)?;
        let exchange = async {
            let mut batch: Vec<u8> = flight.first().flatten().collect();
            socket.send(server, load.payload, &batch).await?;
            while flight.under_way > 0 {
                let received = socket.receive().await?;
                let now = Instant::now();
                batch.clear();
                for index in 0..received {
                    let datagrams = &socket.buffers[index][..socket.metas[index].len];
                    for datagram in datagrams.chunks(socket.metas[index].stride.max(1)) {
                        if flight.answered(datagram, now, recorder)? {
                            batch.extend_from_slice(datagram);
                        }
                    }
                }
                socket.send(server, load.payload, &batch).await?;
            }
            Ok(())
        };
        timeout(give_up - Instant::now(), exchange).await.map_err(|_| "a datagram was lost")?
    })
}

/// A socket with buffers to receive into.
struct Batches {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl Batches {
    fn new(socket: UdpSocket) -> Result<Self> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let buffers = vec![vec![0; RECEIVE_BYTES]; BATCH_SIZE];
        Ok(Self { socket, state, buffers, metas: [RecvMeta::default(); BATCH_SIZE] })
    }

    /// How many buffers were filled, each with datagrams of one sender.
    async fn receive(&mut self) -> Result<usize> {
        loop {
            self.socket.readable().await?;
            let mut slices = self.buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| slices.next().expect("there are as many buffers"));
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv((&self.socket).into(), &mut slices, &mut self.metas)
            });
            match received {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return Ok(other?),
            }
        }
    }

    /// Sends datagrams of `size` bytes each.
    async fn send(&self, to: SocketAddr, size: usize, datagrams: &[u8]) -> Result {
        let segments = (SEND_BYTES / size).clamp(1, self.state.max_gso_segments());
        for contents in datagrams.chunks(segments * size) {
            let segment_size = (contents.len() > size).then_some(size);
            let transmit =
                Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
            self.socket
                .async_io(Interest::WRITABLE, || {
                    self.state.try_send((&self.socket).into(), &transmit)
                })
                .await?;
        }
        Ok(())
    }
}
