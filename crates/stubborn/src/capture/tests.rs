use super::*;

#[test]
fn several_datagrams_in_one_are_told_apart_by_their_destinations() {
    let one = |length: usize| {
        let mut datagram = vec![0x41; length];
        datagram[1..9].copy_from_slice(b"receiver");
        datagram
    };
    assert_eq!(segment(&one(400)), 400);
    assert_eq!(segment(&[one(400), one(400), one(90)].concat()), 400);
    assert_eq!(segment(&[0x41; 3]), 3);
    assert_eq!(segment(&[]), 0);
}

#[test]
fn bytes_of_others_and_of_nobody_open_nothing_and_do_no_harm() {
    let mut opener = Opener::new("CLIENT_TRAFFIC_SECRET_0 00 00\n");
    let mut begins_well = vec![0xc0];
    begins_well.extend(VERSION.to_be_bytes());
    for length in 0..200 {
        for byte in [0, 8, 0x40, 0x80, 0xc0, 0xff] {
            opener.datagram(&vec![byte; length]);
            let long = [&begins_well[..], &vec![byte; length]].concat();
            let packets = opener.datagram(&long);
            assert!(packets.iter().all(|packet| matches!(packet, CapturedPacket::Sealed(_))));
        }
    }
    assert_eq!(opener.connections(), 0);
}
