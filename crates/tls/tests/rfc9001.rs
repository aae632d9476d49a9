//! The examples of RFC 9001 Appendix A, through the packet decoder and the key traits. Our versions
//! use the salts and labels of QUIC version 1, so they apply as they stand.

use bytes::BytesMut;
use stubborn_core::transport::crypto::{DirectionalKeys, InitialCrypto};
use stubborn_core::transport::{ConnectionId, Side};
use stubborn_core::wire::PacketType;
use stubborn_core::wire::frame::{Frame, Frames};
use stubborn_core::wire::packet::Packet;
use stubborn_tls::{ServerTrust, TlsClient};

const QUIC_V1: u32 = 1;

const CLIENT_PAYLOAD: &str = "\
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578\
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
    0d0010000e0403050306030203080408050806002d00020101001c0002400100\
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
    75300901100f088394c8f03e51570806048000ffff";

const SERVER_PAYLOAD: &str = "\
    02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739\
    88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94\
    0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00\
    020304";

const SERVER_PACKET: &str = "\
    cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a\
    5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3\
    dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84\
    022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4\
    2158407dd074ee";

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn crypto() -> TlsClient {
    TlsClient::builder(ServerTrust::DangerouslyAcceptAnyCertificate).build().unwrap()
}

fn destination() -> ConnectionId {
    ConnectionId::new(&hex("8394c8f03e515708")).unwrap()
}

/// Seals and protects a packet whose header has `number_length` bytes of packet number at its end.
fn protect(
    keys: &DirectionalKeys,
    header: &str,
    number: u64,
    number_length: usize,
    payload: &[u8],
) -> Vec<u8> {
    let header = hex(header);
    let mut sealed = payload.to_vec();
    sealed.resize(payload.len() + keys.packet.tag_len(), 0);
    keys.packet.seal(number, &header, &mut sealed);
    let mut packet = [&header[..], &sealed].concat();
    let number_at = header.len() - number_length;
    let (head, sample) = packet.split_at_mut(number_at + 4);
    let (first, number) = head.split_at_mut(number_at);
    keys.header.protect(
        &sample[..keys.header.sample_len()],
        &mut first[0],
        &mut number[..number_length],
    );
    packet
}

#[test]
fn the_clients_initial_of_a_2_is_made_and_read() {
    let crypto = crypto();
    let client = crypto.initial_keys(QUIC_V1, &destination(), Side::Client);
    let mut payload = hex(CLIENT_PAYLOAD);
    payload.resize(1162, 0);
    let header = "c300000001088394c8f03e5157080000449e00000002";
    let packet = protect(&client.local, header, 2, 4, &payload);
    assert_eq!(packet.len(), 1200);
    let start = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b";
    assert!(packet.starts_with(&hex(start)));
    assert!(packet.ends_with(&hex("e221af44860018ab0856972e194cd934")));

    let server = crypto.initial_keys(QUIC_V1, &destination(), Side::Server);
    let decoded = Packet::decode(BytesMut::from(&packet[..]), &[QUIC_V1]);
    let Ok((Packet::Protected(protected), None)) = decoded else { panic!() };
    assert_eq!(protected.packet_type(), PacketType::Initial);
    assert_eq!(protected.destination(), destination());
    let unprotected = protected.unprotect(&*server.remote.header).unwrap();
    assert_eq!(unprotected.number(0), 2);
    let opened = unprotected.open(&*server.remote.packet, 2).unwrap();
    assert_eq!(opened.payload, payload);
    let mut frames = Frames::new(&opened.payload, PacketType::Initial, Side::Client);
    let hello = &payload[4..245];
    assert_eq!(frames.next(), Some(Ok(Frame::Crypto { offset: 0, data: hello })));
    assert_eq!(frames.next(), Some(Ok(Frame::Padding(1162 - 245))));
}

#[test]
fn the_servers_initial_of_a_3_is_made_and_read() {
    let crypto = crypto();
    let server = crypto.initial_keys(QUIC_V1, &destination(), Side::Server);
    let header = "c1000000010008f067a5502a4262b50040750001";
    let packet = protect(&server.local, header, 1, 2, &hex(SERVER_PAYLOAD));
    assert_eq!(packet, hex(SERVER_PACKET));

    let client = crypto.initial_keys(QUIC_V1, &destination(), Side::Client);
    let decoded = Packet::decode(BytesMut::from(&packet[..]), &[QUIC_V1]);
    let Ok((Packet::Protected(protected), None)) = decoded else { panic!() };
    assert_eq!(protected.source().as_slice(), hex("f067a5502a4262b5"));
    let unprotected = protected.unprotect(&*client.remote.header).unwrap();
    assert_eq!(unprotected.number(0), 1);
    let opened = unprotected.open(&*client.remote.packet, 1).unwrap();
    assert_eq!(opened.payload, hex(SERVER_PAYLOAD));
}

#[test]
fn the_retry_of_a_4_has_the_tag_that_is_computed() {
    let packet = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba");
    let decoded = Packet::decode(BytesMut::from(&packet[..]), &[QUIC_V1]);
    let Ok((Packet::Retry(retry), None)) = decoded else { panic!() };
    assert_eq!(retry.token, &b"token"[..]);
    let tag = crypto().retry_tag(QUIC_V1, &destination(), &retry.untagged);
    assert_eq!(tag, retry.tag);
    let other = ConnectionId::from([0; 8]);
    assert_ne!(crypto().retry_tag(QUIC_V1, &other, &retry.untagged), retry.tag);
}
