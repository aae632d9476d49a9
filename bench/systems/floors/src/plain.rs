//! One datagram for each system call.

use std::net::UdpSocket;
use std::time::Instant;

use bench_driver::protocol::Load;
use bench_driver::{Recorder, Result, runtime};
use tokio::time::timeout;

use crate::ping::{Flight, LOST};

pub(crate) fn serve_blocking(socket: &UdpSocket) -> Result {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..length], from)?;
    }
}

pub(crate) fn ping_blocking(socket: &UdpSocket, load: &Load, recorder: &mut Recorder) -> Result {
    socket.set_read_timeout(Some(LOST))?;
    let mut buffer = vec![0; 65_536];
    let mut flight = Flight::new(load)?;
    for datagram in flight.first() {
        socket.send(&datagram)?;
    }
    while flight.under_way > 0 {
        let length = socket.recv(&mut buffer).map_err(|_| "a datagram was lost")?;
        if flight.answered(&buffer[..length], Instant::now(), recorder)? {
            socket.send(&buffer[..length])?;
        }
    }
    Ok(())
}

pub(crate) fn serve_tokio(socket: UdpSocket) -> Result {
    runtime(1)?.block_on(async {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            socket.send_to(&buffer[..length], from).await?;
        }
    })
}

pub(crate) fn ping_tokio(socket: UdpSocket, load: &Load, recorder: &mut Recorder) -> Result {
    let give_up = recorder.end() + LOST;
    runtime(1)?.block_on(async {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let mut buffer = vec![0; 65_536];
        let mut flight = Flight::new(load)?;
        let exchange = async {
            for datagram in flight.first() {
                socket.send(&datagram).await?;
            }
            while flight.under_way > 0 {
                let length = socket.recv(&mut buffer).await?;
                if flight.answered(&buffer[..length], Instant::now(), recorder)? {
                    socket.send(&buffer[..length]).await?;
                }
            }
            Ok(())
        };
        // One timer for all: one for each datagram would not be a floor.
        timeout(give_up - Instant::now(), exchange).await.map_err(|_| "a datagram was lost")?
    })
}
