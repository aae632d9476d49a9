//! A capture of opened packets, as the dissector `packaging/wireshark/stubborn.lua` reads it: pcapng
//! with Wireshark's "exported PDUs", each the packets of one datagram.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use stubborn::capture::{CapturedPacket, OpenedPacket, WholeMessage};

use super::network::Datagram;

/// Link-layer header type of exported PDUs.
const EXPORTED: u16 = 252;

/// Tags of exported PDUs (`epan/exported_pdu.h`).
const DISSECTOR: u16 = 12;
const IPV4: [u16; 2] = [20, 21];
const IPV6: [u16; 2] = [22, 23];
const PORT_TYPE: u16 = 24;
const PORTS: [u16; 2] = [25, 26];
const UDP: u32 = 3;

/// Bytes of whole messages in one record of the file. Wireshark reads records of up to 256 KiB; the
/// datagram itself takes up to 64, and more where a kernel was given several as one.
const MESSAGES: usize = 160 << 10;

pub(super) struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut to: W) -> io::Result<Self> {
        let mut section = Vec::new();
        section.extend(0x1a2b_3c4d_u32.to_be_bytes());
        section.extend([0, 1, 0, 0]);
        section.extend(u64::MAX.to_be_bytes());
        to.write_all(&block(0x0a0d_0d0a, section))?;
        let mut interface = EXPORTED.to_be_bytes().to_vec();
        interface.extend([0; 6]);
        // A clock of nanoseconds.
        interface.extend([0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
        to.write_all(&block(1, interface))?;
        Ok(Self { to })
    }

    /// Writes the packets of one datagram, captured at `nanos` since 1970.
    pub(super) fn write(
        &mut self,
        nanos: u64,
        datagram: &Datagram<'_>,
        packets: &[CapturedPacket],
    ) -> io::Result<()> {
        let mut pdu = tags(datagram.from, datagram.to);
        packets.iter().for_each(|packet| record(packet, &mut pdu));
        let mut room = MESSAGES;
        for packet in packets {
            let CapturedPacket::Opened(packet) = packet else { continue };
            for message in &packet.messages {
                whole(packet, message, &mut room, &mut pdu);
            }
        }
        let length = pdu.len() as u32;
        let mut packet = vec![0; 4];
        packet.extend(nanos.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend(pdu);
        self.to.write_all(&block(6, packet))
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn block(kind: u32, mut body: Vec<u8>) -> Vec<u8> {
    body.resize(body.len().next_multiple_of(4), 0);
    let length = (body.len() as u32 + 12).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, &body, &length].concat()
}

fn tags(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut tags = Vec::new();
    tag(&mut tags, DISSECTOR, b"stubborn_opened");
    for (at, address) in [from.ip(), to.ip()].into_iter().enumerate() {
        match address {
            IpAddr::V4(address) => tag(&mut tags, IPV4[at], &address.octets()),
            IpAddr::V6(address) => tag(&mut tags, IPV6[at], &address.octets()),
        }
    }
    tag(&mut tags, PORT_TYPE, &UDP.to_be_bytes());
    for (at, port) in [from.port(), to.port()].into_iter().enumerate() {
        tag(&mut tags, PORTS[at], &u32::from(port).to_be_bytes());
    }
    tag(&mut tags, 0, &[]);
    tags
}

fn tag(tags: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = value.len().next_multiple_of(4);
    tags.extend(kind.to_be_bytes());
    tags.extend((length as u16).to_be_bytes());
    tags.extend(value);
    tags.resize(tags.len() + length - value.len(), 0);
}

/// What stands before the bytes of a message: of how many frames it is, and how long.
const WHOLE: usize = 4 + 8;

/// A packet behind what the dissector cannot see in it.
fn record(packet: &CapturedPacket, out: &mut Vec<u8>) {
    match packet {
        CapturedPacket::Sealed(bytes) => {
            out.extend([0; 14]);
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
        CapturedPacket::Opened(packet) => {
            out.extend([1, sender(packet), packet.key_phase.into(), 0]);
            out.extend(packet.number.to_be_bytes());
            out.extend((packet.header.len() as u16).to_be_bytes());
            out.extend(((packet.header.len() + packet.frames.len()) as u32).to_be_bytes());
            out.extend(&packet.header);
            out.extend(&packet.frames);
        }
    }
}

/// A message that was put together, as far as there is room.
fn whole(packet: &OpenedPacket, message: &WholeMessage, room: &mut usize, out: &mut Vec<u8>) {
    let shown = &message.bytes[..message.bytes.len().min(*room)];
    *room -= shown.len();
    out.extend([2, sender(packet), 0, 0]);
    out.extend(message.id.to_be_bytes());
    out.extend([0; 2]);
    out.extend((WHOLE as u32 + shown.len() as u32).to_be_bytes());
    out.extend(message.parts.to_be_bytes());
    out.extend(message.length.to_be_bytes());
    out.extend(shown);
}

fn sender(packet: &OpenedPacket) -> u8 {
    if packet.sender.is_client() { 1 } else { 2 }
}
