//! What is written is what the schema has: each event, each frame, and the largest numbers.

#[path = "schema/mod.rs"]
mod schema;

use serde_json::Value;
use stubborn_core::time::{Duration, Instant};
use stubborn_core::transport::connection::ConnectionError;
use stubborn_core::transport::record::{Beginning, Event, Metrics, Packet, Recorder};
use stubborn_core::transport::{ConnectionId, Side, Space};
use stubborn_core::wire::params::TransportParameters;
use stubborn_core::wire::{PacketType, VERSION};
use stubborn_qlog::Folder;

const LARGEST: [u8; 8] = [0xff; 8];

/// Every frame, with numbers as large as they may be on the wire.
fn frames() -> Vec<u8> {
    let mut all = Vec::new();
    let mut frame = |kind: u8, numbers: usize| {
        all.push(kind);
        (0..numbers).for_each(|_| all.extend(LARGEST));
    };
    frame(0x01, 0);
    frame(0x04, 3);
    frame(0x05, 2);
    frame(0x10, 1);
    frame(0x11, 2);
    frame(0x12, 1);
    frame(0x14, 1);
    frame(0x16, 1);
    frame(0x19, 1);
    frame(0x1a, 1);
    frame(0x1b, 1);
    // ACK of 5, then of 1 to 2, with counts of ECN.
    all.extend([0x03, 5, 0x40, 100, 1, 0, 1, 1, 7, 8, 9]);
    all.extend([0x06, 3, 2, b'h', b'i']);
    all.extend([0x0f, 5, 3, 2, 9, 9]);
    all.extend([0x18, 2, 1, 4, 1, 2, 3, 4]);
    all.extend([7; 16]);
    all.push(0x1c);
    all.extend(LARGEST);
    all.extend([0, 2, b'"', 0xff]);
    all.push(0x1d);
    all.extend(LARGEST);
    all.extend([1, b'x']);
    all.extend([0x31, 1, 9]);
    all.extend([0, 0, 0, 0x1e]);
    all
}

fn kinds(entry: &Value) -> Vec<&str> {
    let frames = entry["data"]["frames"].as_array().unwrap();
    frames.iter().map(|frame| frame["frame_type"].as_str().unwrap()).collect()
}

#[test]
fn every_event_and_frame_is_what_the_published_schema_has() {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::at(home.path()).unwrap();
    let beginning = Beginning {
        side: Side::Server,
        version: VERSION,
        remote: "[::1]:7400".parse().unwrap(),
        local: None,
        original: ConnectionId::from([0xab; 8]),
    };
    let start = Instant::ZERO + Duration::from_secs(3);
    let mut log = folder.begin(start, &beginning).unwrap();
    let frames = frames();
    let packet =
        |packet_type| Packet { packet_type, number: u64::MAX, size: 1_200, frames: &frames };
    log.take(start, Event::Sent(packet(PacketType::OneRtt)));
    log.take(start, Event::Received(packet(PacketType::OneRtt)));
    for packet_type in [PacketType::Initial, PacketType::ZeroRtt, PacketType::Handshake] {
        let frames = &[0x06, 0, 1, 7, 0];
        let packet = Packet { packet_type, number: 0, size: 50, frames };
        log.take(start, Event::Sent(packet));
    }
    for space in [Space::Initial, Space::Handshake, Space::Data] {
        log.take(start, Event::Lost { space, number: 9, mtu_probe: space == Space::Data });
    }
    let longest = Duration::from_secs(1 << 40);
    log.take(
        start + Duration::from_micros(1),
        Event::Metrics(Metrics {
            min_rtt: longest,
            smoothed_rtt: longest,
            latest_rtt: longest,
            rtt_variance: Duration::ZERO,
            window: u64::MAX,
            in_flight: u64::MAX,
            probe_timeouts: u32::MAX,
        }),
    );
    let parameters = TransportParameters {
        initial_source: ConnectionId::from([1; 8]),
        max_idle_timeout: u64::MAX,
        max_udp_payload_size: u64::MAX,
        initial_max_data: u64::MAX,
        initial_max_message_data: u64::MAX,
        initial_max_messages: u64::MAX,
        active_connection_id_limit: u64::MAX,
        max_datagram_frame_size: u64::MAX,
        version_information: None,
        server: None,
    };
    log.take(start + Duration::from_secs(9), Event::Established(&parameters));
    let reason = b"\"},\x1e\n\\\x00\xff"[..].to_vec().into();
    let closed = ConnectionError::PeerClosed { code: u64::MAX >> 2, reason };
    log.take(start + Duration::from_secs(9), Event::Closed(&closed));
    drop(log);

    let file = home.path().join("abababababababab_server.sqlog");
    let entries = schema::checked(&std::fs::read_to_string(file).unwrap());
    assert_eq!(entries.len(), 2 + 2 + 3 + 3 + 3);
    let expected = [
        "ping",
        "reset_stream",
        "stop_sending",
        "max_data",
        "max_stream_data",
        "max_streams",
        "data_blocked",
        "streams_blocked",
        "retire_connection_id",
        "path_challenge",
        "path_response",
        "ack",
        "crypto",
        "stream",
        "new_connection_id",
        "connection_close",
        "connection_close",
        "datagram",
        "padding",
        "handshake_done",
    ];
    assert_eq!(kinds(&entries[2]), expected[..], "{}", entries[2]);
    assert_eq!(
        kinds(&entries[3]).len(),
        expected.len() - 1,
        "a client does not say HANDSHAKE_DONE"
    );
}
