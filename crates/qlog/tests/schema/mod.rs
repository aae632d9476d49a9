//! What a file of qlog 0.3 may hold, as draft-ietf-quic-qlog-main-schema-05 and
//! draft-ietf-quic-qlog-quic-events-04 have it (the last ones with this version and the category
//! `transport`). Stricter than they are: of a map that they list only what is listed may be there, though
//! an event's data may formally be anything.

use serde_json::{Map, Value};

/// Fields of a map: `name:type`, with `?` before those that may be missing.
type Fields = &'static str;

const EVENTS: &[(&str, Fields)] = &[
    (
        "connectivity:connection_started",
        "?ip_version:v4|v6 src_ip:text dst_ip:text ?protocol:text ?src_port:16 ?dst_port:16 \
         ?src_cid:hex ?dst_cid:hex",
    ),
    (
        "connectivity:connection_closed",
        "?owner:local|remote ?connection_code:32 ?application_code:32 ?internal_code:32 \
         ?reason:text",
    ),
    (
        "transport:parameters_set",
        "?owner:local|remote ?max_idle_timeout:64 ?max_udp_payload_size:32 \
         ?active_connection_id_limit:32 ?initial_max_data:64 ?initial_max_stream_data_uni:64 \
         ?initial_max_streams_uni:64",
    ),
    ("transport:packet_sent", "header:header ?frames:frames ?raw:raw ?is_mtu_probe_packet:bool"),
    ("transport:packet_received", "header:header ?frames:frames ?raw:raw"),
    ("recovery:packet_lost", "?header:header ?frames:frames ?is_mtu_probe_packet:bool"),
    (
        "recovery:metrics_updated",
        "?min_rtt:float ?smoothed_rtt:float ?latest_rtt:float ?rtt_variance:float ?pto_count:16 \
         ?congestion_window:64 ?bytes_in_flight:64 ?ssthresh:64",
    ),
];

const FRAMES: &[(&str, Fields)] = &[
    ("padding", "?length:32 payload_length:32"),
    ("ping", "?length:32 ?payload_length:32"),
    ("ack", "?ack_delay:float ?acked_ranges:ranges ?ect0:64 ?ect1:64 ?ce:64"),
    ("reset_stream", "stream_id:64 error_code:32 final_size:64"),
    ("stop_sending", "stream_id:64 error_code:32"),
    ("crypto", "offset:64 length:64"),
    ("stream", "stream_id:64 offset:64 length:64 ?fin:bool"),
    ("max_data", "maximum:64"),
    ("max_stream_data", "stream_id:64 maximum:64"),
    ("max_streams", "stream_type:unidirectional|bidirectional maximum:64"),
    ("data_blocked", "limit:64"),
    ("streams_blocked", "stream_type:unidirectional|bidirectional limit:64"),
    (
        "new_connection_id",
        "sequence_number:32 retire_prior_to:32 ?connection_id_length:8 connection_id:hex",
    ),
    ("retire_connection_id", "sequence_number:32"),
    ("path_challenge", "?data:hex"),
    ("path_response", "?data:hex"),
    (
        "connection_close",
        "?error_space:transport|application ?error_code:32 ?raw_error_code:32 ?reason:text",
    ),
    ("handshake_done", ""),
    // Of draft 05 of the events; before that a frame of RFC 9221 is any map.
    ("datagram", "?length:64"),
];

/// The entries of a file, each of which is what the schema has.
///
/// # Panics
/// If one is not.
pub(crate) fn checked(file: &str) -> Vec<Value> {
    // RFC 7464: a record separator before each, a line feed behind.
    let whole = file.strip_suffix('\n').expect("a line feed last");
    let entries = whole.strip_prefix('\u{1e}').expect("a separator first").split("\n\u{1e}");
    let entries: Vec<Value> =
        entries.map(|entry| serde_json::from_str(entry).expect(entry)).collect();
    header(&entries[0]);
    let mut before = 0.0;
    for entry in &entries[1..] {
        let time = entry["time"].as_f64().expect("a time");
        assert!(time >= before, "times go back: {entry}");
        before = time;
        event(entry);
    }
    entries
}

fn header(entry: &Value) {
    let fields = "qlog_format:JSON-SEQ qlog_version:0.3 ?title:text ?description:text trace:any";
    check(entry, fields, "the header");
    let trace = &entry["trace"];
    let fields = "?title:text ?description:text ?common_fields:any ?vantage_point:any";
    check(trace, fields, "the trace");
    check(&trace["vantage_point"], "?name:text type:client|server|network|unknown", "who looks");
    let common = map(&trace["common_fields"], "the common fields");
    for (name, kind) in [
        ("time_format", "absolute|delta|relative"),
        ("reference_time", "float"),
        ("protocol_type", "texts"),
        ("ODCID", "hex"),
    ] {
        assert!(fits(&common[name], kind), "{name} of {common:?}");
    }
}

/// Events may have further fields beside their data.
fn event(entry: &Value) {
    let name = entry["name"].as_str().expect("a name");
    let (_, fields) = EVENTS.iter().find(|(known, _)| *known == name).expect(name);
    check(&entry["data"], fields, name);
}

fn check(value: &Value, fields: Fields, what: &str) {
    let map = map(value, what);
    let mut known = Vec::new();
    for field in fields.split_ascii_whitespace() {
        let (name, kind) = field.split_once(':').expect(field);
        let needed = !name.starts_with('?');
        let name = name.trim_start_matches('?');
        known.push(name);
        match map.get(name) {
            Some(value) => assert!(fits(value, kind), "{name} of {what} is no {kind}: {value}"),
            None => assert!(!needed, "{what} has no {name}: {value}"),
        }
    }
    let other = map.keys().find(|key| !known.contains(&key.as_str()));
    assert_eq!(other, None, "{what} has no such field: {value}");
}

fn map<'a>(value: &'a Value, what: &str) -> &'a Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{what} is no map: {value}"))
}

fn fits(value: &Value, kind: &str) -> bool {
    let number = |bits: u32| value.as_u64().is_some_and(|n| n >> (bits - 1) <= 1);
    match kind {
        "any" => true,
        "text" => value.is_string(),
        "texts" => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        "hex" => value.as_str().is_some_and(|text| {
            let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            text.len() % 2 == 0 && text.bytes().all(digit)
        }),
        "bool" => value.is_boolean(),
        "float" => value.is_number(),
        "8" | "16" | "32" | "64" => number(kind.parse().unwrap()),
        "raw" => {
            check(value, "?length:64 ?payload_length:64 ?data:hex", "raw");
            true
        }
        "header" => {
            let types = "packet_type:initial|handshake|0RTT|1RTT|retry|version_negotiation|\
                         stateless_reset|unknown ?packet_number:64";
            check(value, types, "the packet's header");
            true
        }
        "ranges" => {
            let range = |range: &Value| {
                let ends = range.as_array().map(Vec::as_slice).unwrap_or_default();
                (1..=2).contains(&ends.len()) && ends.iter().all(Value::is_u64)
            };
            value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(range))
        }
        "frames" => {
            for frame in value.as_array().expect("frames are a list") {
                let mut fields = map(frame, "a frame").clone();
                let name = fields.remove("frame_type").expect("a frame has a type");
                let name = name.as_str().expect("a type is a name");
                let (name, known) = FRAMES.iter().find(|(known, _)| *known == name).expect(name);
                check(&Value::Object(fields), known, name);
            }
            true
        }
        words => value.as_str().is_some_and(|text| words.split('|').any(|word| word == text)),
    }
}
