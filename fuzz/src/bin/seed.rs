//! Writes the corpus of the wire targets anew, from the encoders: run it after the format changes.

use std::fs;
use std::path::Path;

use stubborn_core::wire::frame::{
    EcnCounts, Frame, Message, MessageHeader, NewConnectionId, encode_ack,
};
use stubborn_core::wire::packet::{
    Header, PacketWriter, encode_retry, encode_stateless_reset, encode_version_negotiation,
};
use stubborn_core::wire::params::{ServerParameters, TransportParameters, VersionInformation};
use stubborn_core::wire::{ConnectionId, VERSION, varint};
use stubborn_fuzz::store;
use stubborn_fuzz::wire::Transparent;

fn main() -> std::io::Result<()> {
    let all = [
        ("varint", varints()),
        ("packet", packets()),
        ("frame", frames()),
        ("params", params()),
        ("store", store::seeds()),
    ];
    for (target, inputs) in all {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in inputs {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}

type Inputs = Vec<(String, Vec<u8>)>;

fn varints() -> Inputs {
    let mut all = Vec::new();
    for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, varint::MAX] {
        varint::encode(value, &mut all);
    }
    let overlong = vec![0x40, 0x25, 0x80, 0, 0, 1];
    vec![("all-sizes".into(), all), ("longer-than-needed".into(), overlong)]
}

fn some_frames() -> Vec<(&'static str, Frame<'static>)> {
    let id = ConnectionId::from([7; 8]);
    let new = NewConnectionId { sequence: 9, retire_prior_to: 8, id, reset_token: [3; 16] };
    vec![
        ("padding", Frame::Padding(3)),
        ("ping", Frame::Ping),
        ("reset-message", Frame::ResetMessage { id: 1, code: 2, final_size: 300 }),
        ("stop-message", Frame::StopMessage { id: 1, code: 2 }),
        ("crypto", Frame::Crypto { offset: 77, data: b"hello" }),
        ("message", Frame::Message(Message { id: 70, offset: 1 << 20, data: b"abc", end: true })),
        ("max-data", Frame::MaxData(1 << 40)),
        ("max-message-data", Frame::MaxMessageData { id: 5, limit: 1 << 20 }),
        ("max-messages", Frame::MaxMessages(4096)),
        ("data-blocked", Frame::DataBlocked(0)),
        ("messages-blocked", Frame::MessagesBlocked(63)),
        ("new-connection-id", Frame::NewConnectionId(new)),
        ("retire-connection-id", Frame::RetireConnectionId(64)),
        ("path-challenge", Frame::PathChallenge([1; 8])),
        ("path-response", Frame::PathResponse([2; 8])),
        ("close", Frame::ConnectionClose { code: 0x100, frame_type: 6, reason: b"why" }),
        ("application-close", Frame::ApplicationClose { code: 5, reason: b"done" }),
        ("handshake-done", Frame::HandshakeDone),
        ("datagram", Frame::Datagram(b"beat")),
    ]
}

fn frames() -> Inputs {
    let mut inputs = Inputs::new();
    let mut all = vec![0];
    for (name, frame) in some_frames() {
        let mut one = vec![0];
        frame.encode(&mut one);
        all.extend_from_slice(&one[1..]);
        inputs.push((name.into(), one));
    }
    inputs.push(("all".into(), all));
    for (name, ecn) in [("ack", None), ("ack-ecn", Some(EcnCounts { ect0: 9, ect1: 0, ce: 1 }))] {
        let mut ack = vec![1];
        encode_ack([990..1_000, 500..600, 3..4], 25, ecn, 100, &mut ack);
        inputs.push((name.into(), ack));
    }
    let mut open_end = vec![3 | 4];
    MessageHeader { id: 1, offset: 0, end: true }.encode(None, &mut open_end);
    open_end.extend_from_slice(b"to the end");
    inputs.push(("message-to-the-end".into(), open_end));
    inputs
}

fn packets() -> Inputs {
    let (ours, theirs) = (ConnectionId::from([1; 8]), ConnectionId::new(&[2; 20]).unwrap());
    let mut payload = Vec::new();
    Frame::Ping.encode(&mut payload);
    Frame::Crypto { offset: 0, data: b"client hello" }.encode(&mut payload);
    let mut messages = Vec::new();
    Frame::Message(Message { id: 0, offset: 0, data: b"request", end: true }).encode(&mut messages);

    let mut inputs = Inputs::new();
    let mut coalesced = Vec::new();
    for (name, header, payload) in [
        ("initial", Header::initial(ours, theirs, b"token"), &payload),
        ("handshake", Header::handshake(ours, theirs), &payload),
        ("zero-rtt", Header::zero_rtt(ours, theirs), &messages),
        ("one-rtt", Header::one_rtt(ours, true), &messages),
    ] {
        let mut one = Vec::new();
        let writer = PacketWriter::begin(&header, 300, Some(2), &mut one);
        one.extend_from_slice(payload);
        writer.finish(&Transparent, &Transparent, &mut one);
        coalesced.extend_from_slice(&one);
        inputs.push((name.into(), one));
    }
    inputs.push(("coalesced".into(), coalesced));

    let mut retry = Vec::new();
    encode_retry(VERSION, &ours, &theirs, b"token", &mut retry);
    retry.extend_from_slice(&[9; 16]);
    inputs.push(("retry".into(), retry));
    let mut negotiation = Vec::new();
    encode_version_negotiation(0x15, &ours, &[4; 30], &[VERSION, 1], &mut negotiation);
    inputs.push(("version-negotiation".into(), negotiation.clone()));
    negotiation[4] = 9;
    inputs.push(("other-version".into(), negotiation));
    let mut reset = Vec::new();
    encode_stateless_reset(&[0x5c; 20], &[8; 16], &mut reset);
    inputs.push(("stateless-reset".into(), reset));
    inputs
}

fn params() -> Inputs {
    let mut parameters = TransportParameters::new(ConnectionId::from([1; 8]));
    let least = parameters.encode();
    parameters.max_idle_timeout = 30_000;
    parameters.max_udp_payload_size = 1_472;
    parameters.initial_max_data = 16 << 20;
    parameters.initial_max_message_data = 1 << 20;
    parameters.initial_max_messages = 4_096;
    parameters.active_connection_id_limit = 4;
    parameters.max_datagram_frame_size = 65_507;
    parameters.version_information =
        Some(VersionInformation { chosen: VERSION, available: vec![VERSION] });
    let client = parameters.encode();
    parameters.server = Some(ServerParameters {
        original_destination: ConnectionId::from([2; 8]),
        retry_source: Some(ConnectionId::from([3; 8])),
        stateless_reset_token: Some([4; 16]),
        incarnation: 0xfeed,
        group: false,
    });
    let server = parameters.encode();
    [("least", 1, least), ("client", 1, client), ("server", 0, server)]
        .map(|(name, sender, bytes)| (name.into(), [&[sender], &bytes[..]].concat()))
        .to_vec()
}
