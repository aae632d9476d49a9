use serde_json::Value;
use stubborn_core::time::{Duration, Instant};
use stubborn_core::transport::connection::ConnectionError;
use stubborn_core::transport::record::{Beginning, Event, Packet, Record, Recorder};
use stubborn_core::transport::{ConnectionId, Side, Space};
use stubborn_core::wire::{PacketType, VERSION};

use super::Folder;

/// A log of a client's connection, and its entries once `record` was done.
fn logged(record: impl FnOnce(&mut dyn Record, Instant)) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let beginning = Beginning {
        side: Side::Client,
        version: VERSION,
        remote: "10.0.0.7:7400".parse().unwrap(),
        local: None,
        original: ConnectionId::from([0xab; 8]),
    };
    let start = Instant::ZERO + Duration::from_secs(3);
    let logs = Folder::at(folder.path().join("new")).unwrap();
    let mut log = logs.begin(start, &beginning).unwrap();
    record(&mut *log, start);
    drop(log);
    let text =
        std::fs::read_to_string(folder.path().join("new/abababababababab_client.sqlog")).unwrap();
    let entries = text.strip_prefix('\u{1e}').expect("a separator first").split("\n\u{1e}");
    entries.map(|entry| serde_json::from_str(entry).expect(entry)).collect()
}

#[test]
fn a_file_begins_with_what_qvis_asks_for() {
    let entries = logged(|_, _| {});
    let header = &entries[0];
    // QlogLoaderV2 of qvis: a version that it knows, the format, a trace, a format of time.
    assert_eq!(header["qlog_version"], "0.3");
    assert_eq!(header["qlog_format"], "JSON-SEQ");
    assert_eq!(header["trace"]["vantage_point"]["type"], "client");
    let common = &header["trace"]["common_fields"];
    assert_eq!(common["time_format"], "relative");
    assert_eq!(common["ODCID"], "abababababababab");
    assert!(common["reference_time"].as_f64().unwrap() > 1.7e12);
    assert_eq!(entries[1]["name"], "connectivity:connection_started");
    assert_eq!(entries[1]["data"]["dst_ip"], "10.0.0.7");
}

#[test]
fn packets_are_shown_with_their_frames_and_losses_with_their_numbers() {
    let entries = logged(|log, start| {
        // PING, MESSAGE 5 from 3 with two bytes and its end, and a frame that there is not.
        let frames = [0x01, 0x0f, 5, 3, 2, 9, 9, 0x3f];
        let packet =
            Packet { packet_type: PacketType::OneRtt, number: 7, size: 50, frames: &frames };
        log.take(start + Duration::from_micros(1_500), Event::Sent(packet));
        log.take(start + Duration::from_millis(2), Event::Received(packet));
        let lost = Event::Lost { space: Space::Data, number: 7, mtu_probe: false };
        log.take(start + Duration::from_secs(1), lost);
    });
    let sent = &entries[2];
    assert_eq!((&sent["name"], &sent["time"]), (&"transport:packet_sent".into(), &1.5.into()));
    assert_eq!(sent["data"]["header"]["packet_type"], "1RTT");
    assert_eq!(sent["data"]["header"]["packet_number"], 7);
    assert_eq!(sent["data"]["raw"]["length"], 50);
    let frames = sent["data"]["frames"].as_array().unwrap();
    assert_eq!(frames.len(), 2);
    let stream = serde_json::json!({
        "frame_type": "stream", "stream_id": 22, "offset": 3, "length": 2, "fin": true,
    });
    assert_eq!(frames[1], stream);
    assert_eq!(entries[3]["data"]["frames"][1]["stream_id"], 23, "the server's");
    assert_eq!(entries[4]["name"], "recovery:packet_lost");
    assert_eq!(entries[4]["time"], 1000.0);
}

#[test]
fn words_of_a_peer_cannot_break_the_file() {
    let entries = logged(|log, start| {
        let reason = b"\"},\x1e\n\\\x00\xff"[..].to_vec().into();
        log.take(start, Event::Closed(&ConnectionError::PeerClosed { code: 3, reason }));
    });
    assert_eq!(entries[2]["data"]["owner"], "remote");
    assert_eq!(entries[2]["data"]["application_code"], 3);
    assert_eq!(entries.len(), 3);
}
