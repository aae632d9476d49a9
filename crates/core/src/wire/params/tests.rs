use alloc::vec;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::*;

fn id(byte: u8) -> ConnectionId {
    ConnectionId::from([byte; 8])
}

fn full(sender: Side) -> TransportParameters {
    TransportParameters {
        initial_source: id(1),
        max_idle_timeout: 30_000,
        max_udp_payload_size: 1_472,
        initial_max_data: 16 << 20,
        initial_max_message_data: 1 << 20,
        initial_max_messages: 4_096,
        active_connection_id_limit: 4,
        max_datagram_frame_size: 65_507,
        version_information: Some(VersionInformation { chosen: 7, available: vec![7, 8] }),
        server: sender.is_server().then(|| ServerParameters {
            original_destination: id(2),
            retry_source: Some(id(3)),
            stateless_reset_token: Some([4; 16]),
            incarnation: 0xfeed,
            group: false,
            ids: false,
        }),
    }
}

fn raw(parameters: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parameters.iter().for_each(|(id, value)| encode_bytes(*id, value, &mut out));
    out
}

/// The error for a client's parameters of which one more is `(id, value)`.
fn refused(id: u64, value: &[u8]) -> &'static str {
    let bytes = raw(&[(0x0f, &[1; 8]), (id, value)]);
    TransportParameters::decode(&bytes, Side::Client).expect_err("refused").0
}

#[test]
fn what_each_side_declares_is_read_back() {
    for sender in [Side::Client, Side::Server] {
        let full = full(sender);
        assert_eq!(TransportParameters::decode(&full.encode(), sender), Ok(full));
    }
}

#[test]
fn absent_parameters_have_their_defaults() {
    let least = TransportParameters::decode(&raw(&[(0x0f, &[])]), Side::Client).unwrap();
    assert_eq!(least, TransportParameters::new(ConnectionId::EMPTY));
    assert_eq!(least.active_connection_id_limit, 2);
}

#[test]
fn a_client_may_not_send_what_only_a_server_sends() {
    for id in [0x00, 0x02, 0x10, 0x5342] {
        let value: &[u8] = if id == 0x02 { &[0; 16] } else { &[0; 8] };
        assert_eq!(refused(id, value), "a client sent a server's transport parameter");
    }
}

#[test]
fn doubled_parameters_are_refused_known_or_not() {
    for id in [0x0f, 0x7777] {
        let bytes = raw(&[(0x0f, &[1; 8]), (0x7777, &[]), (id, &[1; 8])]);
        let error = TransportParameters::decode(&bytes, Side::Client).unwrap_err();
        assert_eq!(error.0, "doubled transport parameter");
    }
}

#[test]
fn missing_connection_ids_and_incarnation_are_refused() {
    let error = TransportParameters::decode(&[], Side::Client).unwrap_err();
    assert_eq!(error.0, "initial_source_connection_id is missing");
    for absent in [0x00, 0x5342] {
        let all: [(u64, &[u8]); 3] = [(0x0f, &[1; 8]), (0x00, &[2; 8]), (0x5342, &[3; 8])];
        let kept: Vec<_> = all.into_iter().filter(|(id, _)| *id != absent).collect();
        let error = TransportParameters::decode(&raw(&kept), Side::Server).unwrap_err();
        assert!(error.0.ends_with("is missing"), "{error}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    assert_eq!(refused(0x03, &[0x44, 0xaf]), "max_udp_payload_size below 1200");
    assert_eq!(refused(0x0e, &[1]), "active_connection_id_limit below 2");
    assert_eq!(refused(0x08, &[0xff; 8]), "initial_max_messages above 2^60");
    assert_eq!(refused(0x01, &[1, 1]), "malformed transport parameter");
    assert_eq!(refused(0x01, &[]), "malformed transport parameter");
    assert_eq!(refused(0x11, &[]), "malformed transport parameter");
    assert_eq!(refused(0x11, &[0, 0, 0, 1, 2]), "malformed version_information");
    assert_eq!(refused(0x11, &[0, 0, 0, 0]), "malformed version_information");
    assert_eq!(refused(0x11, &[1; 4 * 34]), "too many available versions");
    let bytes = raw(&[(0x0f, &[1; 21])]);
    let error = TransportParameters::decode(&bytes, Side::Client).unwrap_err();
    assert_eq!(error.0, "connection id longer than 20 bytes");
}

#[test]
fn many_unknown_parameters_are_refused_few_are_skipped() {
    let parameters = |count: u64| {
        let mut bytes = raw(&[(0x0f, &[])]);
        (0..count).for_each(|n| encode_bytes(0x10_0000 + n, b"grease", &mut bytes));
        TransportParameters::decode(&bytes, Side::Client)
    };
    assert_eq!(parameters(63), Ok(TransportParameters::new(ConnectionId::EMPTY)));
    assert_eq!(parameters(64), Err(ParameterError("too many transport parameters")));
}

#[test]
fn parameters_cut_short_are_refused_or_miss_something() {
    let bytes = full(Side::Server).encode();
    for length in 0..bytes.len() {
        assert!(TransportParameters::decode(&bytes[..length], Side::Server).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, client: bool) {
        let sender = if client { Side::Client } else { Side::Server };
        let _ = TransportParameters::decode(&bytes, sender);
    }

    #[test]
    fn arbitrary_parameters_that_decode_survive(
        parameters in vec_of((0u64..0x22, vec_of(any::<u8>(), 0..10)), 0..12), client: bool,
    ) {
        let sender = if client { Side::Client } else { Side::Server };
        let mut bytes = full(sender).encode();
        parameters.iter().for_each(|(id, value)| encode_bytes(*id, value, &mut bytes));
        if let Ok(decoded) = TransportParameters::decode(&bytes, sender) {
            prop_assert_eq!(TransportParameters::decode(&decoded.encode(), sender), Ok(decoded));
        }
    }

    #[test]
    fn any_values_in_range_survive(
        numbers in vec_of(0u64..1 << 60, 4), udp in 1200u64..70_000, ids in 2u64..100,
        source in vec_of(any::<u8>(), 0..=20), incarnation: u64, group: bool, token: Option<[u8; 16]>,
    ) {
        let mut parameters = full(Side::Server);
        parameters.initial_source = ConnectionId::new(&source).unwrap();
        parameters.max_idle_timeout = numbers[0];
        parameters.initial_max_data = numbers[1];
        parameters.initial_max_message_data = numbers[2];
        parameters.initial_max_messages = numbers[3];
        parameters.max_udp_payload_size = udp;
        parameters.active_connection_id_limit = ids;
        let server = parameters.server.as_mut().unwrap();
        (server.incarnation, server.group) = (incarnation, group);
        server.stateless_reset_token = token;
        let decoded = TransportParameters::decode(&parameters.encode(), Side::Server);
        prop_assert_eq!(decoded, Ok(parameters));
    }
}
