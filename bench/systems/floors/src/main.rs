//! The floors: datagrams that are sent back, one for each call in flight.

mod batched;
mod ping;
mod plain;

use bench_driver::protocol::{Load, Ready, ServerOptions};
use bench_driver::{Announce, Floor, Recorder, Result, run_floor};
use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};

fn main() {
    run_floor::<Udp>()
}

/// How datagrams are sent and received.
#[derive(Clone, Copy)]
enum Udp {
    /// One system call for each, which waits.
    Blocking,
    /// One system call for each, which tokio waits for.
    Tokio,
    /// As many for each system call as there are, cut by the kernel (GSO, GRO).
    Batched,
}

impl Floor for Udp {
    type Pinger = UdpSocket;

    fn variant(name: &str) -> Option<Self> {
        match name {
            "udp-blocking" => Some(Self::Blocking),
            "udp-tokio" => Some(Self::Tokio),
            "udp-batched" => Some(Self::Batched),
            _ => None,
        }
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        let socket = socket((options.bind, 0).into())?;
        announce.ready(&Ready { address: socket.local_addr()?, trust: String::new() });
        match self {
            Self::Blocking => plain::serve_blocking(&socket),
            Self::Tokio => plain::serve_tokio(socket),
            Self::Batched => batched::serve(socket),
        }
    }

    fn connect(&self, server: &Ready) -> Result<UdpSocket> {
        let any = match server.address.is_ipv4() {
            true => SocketAddr::from(([0, 0, 0, 0], 0)),
            false => SocketAddr::from(([0; 16], 0)),
        };
        let socket = socket(any)?;
        socket.connect(server.address)?;
        Ok(socket)
    }

    fn ping(&self, socket: UdpSocket, load: &Load, recorder: &mut Recorder) -> Result {
        match self {
            Self::Blocking => plain::ping_blocking(&socket, load, recorder),
            Self::Tokio => plain::ping_tokio(socket, load, recorder),
            Self::Batched => batched::ping(socket, load, recorder),
        }
    }
}

/// A socket with buffers for a thousand datagrams, if the system lets us.
fn socket(address: SocketAddr) -> Result<UdpSocket> {
    const BUFFER: usize = 8 << 20;
    let socket = UdpSocket::bind(address)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
    }
    Ok(socket)
}
