//! Events as JSON.

use std::fmt::{Display, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use stubborn_core::transport::connection::ConnectionError;
use stubborn_core::transport::record::{Beginning, Event, Metrics, Packet};
use stubborn_core::transport::{ConnectionId, Side, Space, TransportError};
use stubborn_core::wire::PacketType;
use stubborn_core::wire::params::TransportParameters;

use super::{frame, name};

/// What a file begins with. `reference` is in milliseconds since 1970.
pub(super) fn header(line: &mut String, beginning: &Beginning, reference: f64) {
    let Beginning { side, version, remote, original, .. } = beginning;
    let _ = write!(
        line,
        "\"qlog_version\":\"0.3\",\"qlog_format\":\"JSON-SEQ\",\"title\":\"Stubborn\",\"trace\":{{\
         \"title\":\"{} with {remote}, version {version:#010x}\",\
         \"vantage_point\":{{\"name\":\"stubborn\",\"type\":\"{}\"}},\
         \"common_fields\":{{\"ODCID\":\"",
        name(*side),
        name(*side),
    );
    hex(line, original);
    let _ = write!(
        line,
        "\",\"protocol_type\":[\"QUIC\"],\"time_format\":\"relative\",\
         \"reference_time\":{reference:.3}}}}}"
    );
}

pub(super) fn started(line: &mut String, beginning: &Beginning) {
    let Beginning { side, remote, local, original, .. } = beginning;
    let unknown = match remote.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let local = local.unwrap_or(unknown);
    let version = if remote.is_ipv4() { "v4" } else { "v6" };
    // Our own port is the driver's to know.
    let (from, to) = match side {
        Side::Client => ((local, 0), (remote.ip(), remote.port())),
        Side::Server => ((remote.ip(), remote.port()), (local, 0)),
    };
    let _ = write!(
        line,
        "\"name\":\"connectivity:connection_started\",\"data\":{{\"ip_version\":\"{version}\",\
         \"src_ip\":\"{}\",\"dst_ip\":\"{}\",\"src_port\":{},\"dst_port\":{},\
         \"protocol\":\"stubborn/1\",\"dst_cid\":\"",
        from.0, to.0, from.1, to.1,
    );
    hex(line, original);
    line.push_str("\"}");
}

/// Name and data of an event at this side.
pub(super) fn event(line: &mut String, side: Side, event: &Event<'_>) {
    match event {
        Event::Sent(sent) => packet(line, "transport:packet_sent", side, sent),
        Event::Received(came) => packet(line, "transport:packet_received", side.peer(), came),
        Event::Lost { space, number, mtu_probe } => {
            let packet = match space {
                Space::Initial => PacketType::Initial,
                Space::Handshake => PacketType::Handshake,
                Space::Data => PacketType::OneRtt,
            };
            begin(line, "recovery:packet_lost");
            packet_header(line, packet, *number);
            if *mtu_probe {
                line.push_str(",\"is_mtu_probe_packet\":true");
            }
            line.push('}');
        }
        Event::Metrics(of) => metrics(line, of),
        Event::Established(theirs) => parameters(line, theirs),
        Event::Closed(why) => closed(line, why),
    }
}

fn begin(line: &mut String, name: &str) {
    let _ = write!(line, "\"name\":\"{name}\",\"data\":{{");
}

fn packet(line: &mut String, name: &str, sender: Side, packet: &Packet<'_>) {
    begin(line, name);
    packet_header(line, packet.packet_type, packet.number);
    let _ = write!(line, ",\"raw\":{{\"length\":{}}},\"frames\":[", packet.size);
    frame::frames(line, sender, packet);
    line.push_str("]}");
}

fn packet_header(line: &mut String, packet: PacketType, number: u64) {
    let kind = match packet {
        PacketType::Initial => "initial",
        PacketType::ZeroRtt => "0RTT",
        PacketType::Handshake => "handshake",
        PacketType::OneRtt => "1RTT",
    };
    let _ = write!(line, "\"header\":{{\"packet_type\":\"{kind}\",\"packet_number\":{number}}}");
}

fn metrics(line: &mut String, metrics: &Metrics) {
    begin(line, "recovery:metrics_updated");
    let _ = write!(
        line,
        "\"min_rtt\":{},\"smoothed_rtt\":{},\"latest_rtt\":{},\"rtt_variance\":{},\
         \"congestion_window\":{},\"bytes_in_flight\":{},\"pto_count\":{}}}",
        Milliseconds(metrics.min_rtt),
        Milliseconds(metrics.smoothed_rtt),
        Milliseconds(metrics.latest_rtt),
        Milliseconds(metrics.rtt_variance),
        metrics.window,
        metrics.in_flight,
        metrics.probe_timeouts.min(u16::MAX.into()),
    );
}

/// With messages in the place of QUIC's streams of one direction.
fn parameters(line: &mut String, theirs: &TransportParameters) {
    begin(line, "transport:parameters_set");
    let _ = write!(
        line,
        "\"owner\":\"remote\",\"max_idle_timeout\":{},\"max_udp_payload_size\":{},\
         \"active_connection_id_limit\":{},\"initial_max_data\":{},\
         \"initial_max_stream_data_uni\":{},\"initial_max_streams_uni\":{}}}",
        theirs.max_idle_timeout,
        short(theirs.max_udp_payload_size),
        short(theirs.active_connection_id_limit),
        theirs.initial_max_data,
        theirs.initial_max_message_data,
        theirs.initial_max_messages,
    );
    // What the schema has no field for may stand beside `data`, not in it.
    let datagrams = theirs.max_datagram_frame_size;
    let _ = write!(line, ",\"stubborn\":{{\"max_datagram_frame_size\":{datagrams}");
    if let Some(server) = &theirs.server {
        let _ = write!(line, ",\"incarnation\":\"{:016x}\"", server.incarnation);
    }
    line.push('}');
}

fn closed(line: &mut String, why: &ConnectionError) {
    begin(line, "connectivity:connection_closed");
    let owner = match why {
        ConnectionError::PeerTransport(_)
        | ConnectionError::PeerClosed { .. }
        | ConnectionError::Reset
        | ConnectionError::Refused => "remote",
        _ => "local",
    };
    let _ = write!(line, "\"owner\":\"{owner}\"");
    match why {
        ConnectionError::Transport(TransportError { code, .. })
        | ConnectionError::PeerTransport(TransportError { code, .. }) => {
            let _ = write!(line, ",\"connection_code\":{}", short(code.0));
        }
        ConnectionError::PeerClosed { code, .. } => {
            let _ = write!(line, ",\"application_code\":{}", short(*code));
        }
        _ => {}
    }
    line.push_str(",\"reason\":");
    text(line, &why.to_string());
    line.push('}');
}

/// A number for which the schema has 32 bits: what is larger says nothing of use.
pub(super) fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// qlog counts in milliseconds.
pub(super) struct Milliseconds(pub(super) Duration);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:06}", nanos / 1_000_000, nanos % 1_000_000)
    }
}

pub(super) fn hex(line: &mut String, id: &ConnectionId) {
    hex_bytes(line, id.as_slice());
}

pub(super) fn hex_bytes(line: &mut String, bytes: &[u8]) {
    bytes.iter().for_each(|byte| {
        let _ = write!(line, "{byte:02x}");
    });
}

/// A string, which a peer may have chosen.
pub(super) fn text(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if u32::from(c) < 0x20 => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}
