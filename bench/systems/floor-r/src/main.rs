//! Floor R: a UDP ping-pong that sends a datagram again when the round-trip time and a millisecond
//! have passed. No encryption, no congestion control, one datagram for each call.
//!
//! It knows the round-trip time beforehand: the variant names it, for example `200us` or `20ms`.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bench_driver::protocol::{Load, Ready, ServerOptions};
use bench_driver::{Announce, Floor, Recorder, Result, run_floor};
use nix::poll::{PollFd, PollFlags, ppoll};

/// What is waited beyond the round-trip time.
const MARGIN: Duration = Duration::from_millis(1);

/// Bytes that tell a call from others: its place and its number.
const HEADER: usize = 8;

fn main() {
    run_floor::<Resend>()
}

#[derive(Clone, Copy)]
struct Resend {
    after: Duration,
}

impl Floor for Resend {
    type Pinger = UdpSocket;

    fn variant(name: &str) -> Option<Self> {
        let micros = |digits: &str, each: u64| digits.parse::<u64>().ok()?.checked_mul(each);
        let round_trip = match (name.strip_suffix("us"), name.strip_suffix("ms")) {
            (Some(digits), _) => micros(digits, 1),
            (_, Some(digits)) => micros(digits, 1_000),
            _ => None,
        };
        Some(Self { after: Duration::from_micros(round_trip?) + MARGIN })
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        let socket = UdpSocket::bind((options.bind, 0))?;
        announce.ready(&Ready { address: socket.local_addr()?, trust: String::new() });
        let mut buffer = vec![0; 65_536];
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..len], from)?;
        }
    }

    fn connect(&self, server: &Ready) -> Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server.address)?;
        socket.set_nonblocking(true)?;
        // Else timeouts are 50 us late.
        nix::sys::prctl::set_timerslack(1)?;
        Ok(socket)
    }

    fn ping(&self, socket: UdpSocket, load: &Load, recorder: &mut Recorder) -> Result {
        let mut datagram = vec![0x5a; load.payload.max(HEADER)];
        let mut places = Vec::new();
        for place in 0..load.in_flight {
            let now = Instant::now();
            places.push(Place { number: 0, started: now, again: now + self.after });
            send(&socket, &mut datagram, place, 0)?;
        }
        let mut reply = vec![0; datagram.len()];
        while recorder.wants(Instant::now()) {
            while let Ok(len) = socket.recv(&mut reply) {
                let Some((index, number)) = header(&reply[..len]) else { continue };
                let Some(place) = places.get_mut(index).filter(|p| p.number == number) else {
                    continue;
                };
                let now = Instant::now();
                recorder.answered(place.started, now);
                let number = number.wrapping_add(1);
                *place = Place { number, started: now, again: now + self.after };
                send(&socket, &mut datagram, index, number)?;
            }
            self.send_again(&socket, &mut datagram, &mut places)?;
            let next = places.iter().map(|place| place.again).min().unwrap_or(recorder.end());
            let wait = next.min(recorder.end()).saturating_duration_since(Instant::now());
            ppoll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], Some(wait.into()), None)?;
        }
        Ok(())
    }
}

/// A call in flight.
struct Place {
    number: u32,
    started: Instant,
    again: Instant,
}

impl Resend {
    fn send_again(&self, socket: &UdpSocket, datagram: &mut [u8], places: &mut [Place]) -> Result {
        let now = Instant::now();
        for (index, place) in places.iter_mut().enumerate().filter(|(_, p)| p.again <= now) {
            place.again = now + self.after;
            send(socket, datagram, index, place.number)?;
        }
        Ok(())
    }
}

fn send(socket: &UdpSocket, datagram: &mut [u8], place: usize, number: u32) -> Result {
    datagram[..4].copy_from_slice(&(place as u32).to_be_bytes());
    datagram[4..HEADER].copy_from_slice(&number.to_be_bytes());
    socket.send(datagram)?;
    Ok(())
}

fn header(reply: &[u8]) -> Option<(usize, u32)> {
    let (place, number) = reply.get(..HEADER)?.split_at(4);
    let word = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    Some((word(place)? as usize, word(number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_names_the_round_trip_time() {
        let after = |name| Resend::variant(name).map(|resend| resend.after);
        assert_eq!(after("200us"), Some(Duration::from_micros(1_200)));
        assert_eq!(after("20ms"), Some(Duration::from_millis(21)));
        for wrong in ["", "20", "ms", "-1ms", "20s", "99999999999999999999us"] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reply_that_is_too_short_belongs_to_no_call() {
        assert_eq!(header(&[0; 7]), None);
        assert_eq!(header(&[0, 0, 0, 2, 0, 0, 0, 9, 1]), Some((2, 9)));
    }
}
