//! From a captured frame to the datagram in it.

use std::net::{IpAddr, SocketAddr};

/// A UDP datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) payload: &'a [u8],
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
const UDP: u8 = 17;

/// The datagram in a frame of this link-layer header type; none if there is none, or only a fragment.
pub(super) fn datagram(link: u32, frame: &[u8]) -> Option<Datagram<'_>> {
    match link {
        // BSD loopback: a family of the machine that captured, in its own byte order.
        0 | 108 => ip(frame.get(4..)?),
        1 => ethernet(frame.get(12..)?),
        // Raw IP, by its several numbers.
        12 | 14 | 101 | 228 | 229 => ip(frame),
        // Linux, cooked.
        113 => of_type(number(frame, 14)?, frame.get(16..)?),
        276 => of_type(number(frame, 0)?, frame.get(20..)?),
        _ => None,
    }
}

fn ethernet(mut from_type: &[u8]) -> Option<Datagram<'_>> {
    for _ in 0..2 {
        if VLAN.contains(&number(from_type, 0)?) {
            from_type = from_type.get(4..)?;
        }
    }
    of_type(number(from_type, 0)?, from_type.get(2..)?)
}

fn of_type(kind: u16, packet: &[u8]) -> Option<Datagram<'_>> {
    [IPV4, IPV6].contains(&kind).then(|| ip(packet))?
}

fn ip(packet: &[u8]) -> Option<Datagram<'_>> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let fragment = number(packet, 6)? & 0x3fff != 0;
            if fragment || header < 20 || *packet.get(9)? != UDP {
                return None;
            }
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            udp(from.into(), to.into(), packet.get(header..)?)
        }
        6 => {
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            let (mut next, mut rest) = (*packet.get(6)?, packet.get(40..)?);
            // Hop-by-hop, routing and destination options (RFC 8200 §4).
            while [0, 43, 60].contains(&next) {
                next = *rest.first()?;
                rest = rest.get(usize::from(*rest.get(1)?) * 8 + 8..)?;
            }
            (next == UDP).then(|| udp(from.into(), to.into(), rest))?
        }
        _ => None,
    }
}

fn udp(from: IpAddr, to: IpAddr, segment: &[u8]) -> Option<Datagram<'_>> {
    let (source, destination) = (number(segment, 0)?, number(segment, 2)?);
    // A length of 0 or more than there is: several datagrams that are one to the kernel.
    let length = usize::from(number(segment, 4)?);
    let payload = segment.get(8..)?;
    let payload = match length.checked_sub(8) {
        Some(length) => payload.get(..length).unwrap_or(payload),
        None => payload,
    };
    Some(Datagram { from: (from, source).into(), to: (to, destination).into(), payload })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|two| u16::from_be_bytes(*two))
}
