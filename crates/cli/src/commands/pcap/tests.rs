use super::capture::Reader;
use super::network::{Datagram, datagram};
use super::opened::Writer;

/// An Ethernet frame with a datagram in IPv4.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x1c, 0xe8, 0x1c, 0xe9]);
    frame.extend((payload.len() as u16 + 8).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    file.extend(1u32.to_le_bytes());
    for (at, frame) in frames.iter().enumerate() {
        file.extend(
            [at as u32, 7, frame.len() as u32, frame.len() as u32].map(u32::to_le_bytes).concat(),
        );
        file.extend(frame);
    }
    file
}

#[test]
fn a_capture_is_read_to_its_end_and_frames_give_their_datagrams() {
    let frames = [frame(b"one"), frame(b"two")];
    let file = pcap(&frames);
    let mut reader = Reader::new(&file[..]).unwrap();
    for (at, expected) in ["one", "two"].into_iter().enumerate() {
        let frame = reader.next().unwrap().unwrap();
        assert_eq!(frame.nanos, at as u64 * 1_000_000_000 + 7_000);
        let found = datagram(frame.link, &frame.bytes).unwrap();
        let (from, to) = ("10.0.0.1:7400".parse().unwrap(), "10.0.0.2:7401".parse().unwrap());
        assert_eq!(found, Datagram { from, to, payload: expected.as_bytes() });
    }
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn what_is_written_is_read_again() {
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written).unwrap();
    let (from, to) = ("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
    writer.write(1_234_567_891, &Datagram { from, to, payload: b"" }, &[]).unwrap();
    writer.finish().unwrap();
    let mut reader = Reader::new(&written[..]).unwrap();
    let frame = reader.next().unwrap().unwrap();
    assert_eq!((frame.nanos, frame.link), (1_234_567_891, 252));
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn captures_and_frames_that_are_cut_or_altered_anywhere_do_no_harm() {
    let mut pcapng = Vec::new();
    let mut writer = Writer::new(&mut pcapng).unwrap();
    let (from, to) = ("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
    writer.write(1, &Datagram { from, to, payload: b"" }, &[]).unwrap();
    writer.finish().unwrap();
    for file in [pcap(&[frame(b"one"), frame(b"two")]), pcapng] {
        for cut in 0..file.len() {
            read_all(&file[..cut]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut altered = file.clone();
                altered[cut] = value;
                read_all(&altered);
            }
        }
    }
}

/// Reads as far as it goes, with every link-layer header type.
fn read_all(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file) else { return };
    while let Ok(Some(frame)) = reader.next() {
        for link in [0, 1, 101, 113, 276, frame.link] {
            datagram(link, &frame.bytes);
        }
    }
}
