//! What protecting and opening packets costs alone, without anything around it: nanoseconds for each
//! packet and milliseconds for 16 MiB, by suite and size.
//!
//! `taskset -c 3 cargo run --release -p stubborn-tls --example packet_cost`

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::quic::{self, HeaderProtectionKey};
use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

/// What is sealed in all before a figure is told.
const WORK: usize = 64 << 20;

/// Payloads of packets that fill a datagram at path MTUs of 1,500, 9,000 and 65,535.
const SIZES: [usize; 3] = [1_440, 8_940, 65_475];

/// Bytes of a packet's header.
const HEADER: usize = 12;

fn main() {
    let suites: [(&str, &aead::Algorithm, &quic::Algorithm); 2] = [
        ("AES-128-GCM", &aead::AES_128_GCM, &quic::AES_128),
        ("AES-256-GCM", &aead::AES_256_GCM, &quic::AES_256),
    ];
    for (name, packet, header) in suites {
        let key = [7; 32];
        let unbound = UnboundKey::new(packet, &key[..packet.key_len()]).expect("a key that fits");
        let packet = LessSafeKey::new(unbound);
        let header = HeaderProtectionKey::new(header, &key[..header_key_len(header)]);
        let header = header.expect("a key that fits");
        for size in SIZES {
            report(name, "seal from elsewhere", size, scatter(&packet, size));
            report(name, "seal in place", size, in_place(&packet, size));
            report(name, "open in place", size, open(&packet, size));
        }
        let mask = per_turn(100_000, |_| {
            black_box(header.new_mask(&[3; 16]).expect("a sample that fits"));
        });
        println!("{name:12} header mask                       {:>6} ns", mask.as_nanos());
    }
}

fn header_key_len(algorithm: &quic::Algorithm) -> usize {
    if *algorithm == quic::AES_128 { 16 } else { 32 }
}

fn report(suite: &str, what: &str, size: usize, each: Duration) {
    let all = each.as_secs_f64() * (16 << 20) as f64 / size as f64 * 1e3;
    println!("{suite:12} {what:20} {size:>6} B  {:>6} ns  {all:.2} ms for 16 MiB", each.as_nanos());
}

/// The median over some rounds of what one of `turns` takes.
fn per_turn(turns: usize, mut turn: impl FnMut(usize)) -> Duration {
    let mut rounds: Vec<_> = (0..9)
        .map(|_| {
            let start = Instant::now();
            (0..turns).for_each(&mut turn);
            start.elapsed() / turns as u32
        })
        .collect();
    rounds.sort();
    rounds[rounds.len() / 2]
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([9; 12])
}

/// From a large message that lies elsewhere, one part after another, into a buffer that is used again.
fn scatter(key: &LessSafeKey, size: usize) -> Duration {
    let message = vec![1; 16 << 20];
    let (mut begin, mut sealed) = ([5; 8], vec![0; size - 8 + 16]);
    per_turn(WORK / size, |turn| {
        let at = turn * size % (message.len() - size);
        let end = &message[at..at + size - 8];
        let aad = Aad::from([2; HEADER]);
        key.seal_in_place_scatter(nonce(), aad, &mut begin, end, &mut sealed).expect("it is short");
    })
}

fn in_place(key: &LessSafeKey, size: usize) -> Duration {
    let mut buffer = vec![1; size];
    per_turn(WORK / size, |_| {
        let aad = Aad::from([2; HEADER]);
        let tag = key.seal_in_place_separate_tag(nonce(), aad, &mut buffer);
        let _ = black_box(tag.expect("it is short"));
    })
}

/// Each time a copy of one packet; what copying it takes is taken off.
fn open(key: &LessSafeKey, size: usize) -> Duration {
    let mut sealed = vec![1; size];
    key.seal_in_place_append_tag(nonce(), Aad::from([2; HEADER]), &mut sealed).expect("short");
    let mut buffer = sealed.clone();
    let copying = per_turn(WORK / size, |_| {
        buffer.copy_from_slice(&sealed);
        black_box(&mut buffer);
    });
    let both = per_turn(WORK / size, |_| {
        buffer.copy_from_slice(&sealed);
        key.open_in_place(nonce(), Aad::from([2; HEADER]), &mut buffer).expect("it is authentic");
    });
    both.saturating_sub(copying)
}
