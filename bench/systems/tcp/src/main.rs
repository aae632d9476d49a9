//! A bare TCP connection that is kept busy: what other traffic on a bottleneck looks like.
//!
//! A request is so many bytes, its reply eight; the next ones are sent before the first is answered.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use bench_driver::protocol::{Load, Ready, ServerOptions};
use bench_driver::{Announce, Floor, Recorder, Result, run_floor};

/// Bytes of a reply, and of the size of requests, which comes first on a connection.
const WORD: usize = 8;

fn main() {
    run_floor::<Tcp>()
}

#[derive(Clone, Copy)]
struct Tcp;

impl Floor for Tcp {
    type Pinger = TcpStream;

    fn variant(name: &str) -> Option<Self> {
        (name == "tcp").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        let listener = TcpListener::bind((options.bind, 0))?;
        announce.ready(&Ready { address: listener.local_addr()?, trust: String::new() });
        loop {
            let (connection, _) = listener.accept()?;
            // An error is the end of the connection, which the client knows too.
            thread::spawn(move || answer(connection));
        }
    }

    fn connect(&self, server: &Ready) -> Result<TcpStream> {
        let connection = TcpStream::connect(server.address)?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    fn ping(&self, mut connection: TcpStream, load: &Load, recorder: &mut Recorder) -> Result {
        connection.write_all(&(load.payload as u64).to_be_bytes())?;
        // One request is being written while the others wait for their replies.
        let (begun, replies_due) = mpsc::sync_channel(load.in_flight.saturating_sub(1));
        let request = vec![0x5a; load.payload];
        let mut sending = connection.try_clone()?;
        let sender = thread::spawn(move || {
            while begun.send(Instant::now()).is_ok() && sending.write_all(&request).is_ok() {}
        });
        let mut reply = [0; WORD];
        while recorder.wants(Instant::now()) {
            let Ok(started) = replies_due.recv() else { break };
            connection.read_exact(&mut reply)?;
            recorder.answered(started, Instant::now());
        }
        drop(replies_due);
        connection.shutdown(Shutdown::Both)?;
        sender.join().map_err(|_| "the sender panicked".into())
    }
}

fn answer(mut connection: TcpStream) -> Result {
    connection.set_nodelay(true)?;
    let mut size = [0; WORD];
    connection.read_exact(&mut size)?;
    let size = u64::from_be_bytes(size);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match connection.read(&mut buffer[..most]) {
                Ok(0) => return Ok(()),
                Ok(len) => left -= len as u64,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        connection.write_all(&size.to_be_bytes())?;
    }
}
