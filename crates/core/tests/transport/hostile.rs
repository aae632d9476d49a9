//! Datagrams that nobody honest sends.

use std::time::Duration;

use bytes::Bytes;
use stubborn_core::random::Random;
use stubborn_core::wire::VERSION;

use crate::pair::{CLIENT, Flight, Pair, Rules, SERVER, pattern};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn replayed_truncated_and_flipped_datagrams_change_nothing() {
    for seed in 0..5 {
        let mut pair = Pair::new(seed);
        pair.record = true;
        let (client, server) = pair.established();
        pair.hosts[SERVER].echo = true;
        for n in 0..20 {
            pair.client(client).send(Bytes::new(), pattern(500, n)).unwrap();
        }
        pair.run_for(SECOND);
        let mut random = Random::from_seed([seed as u8; 32]);
        let captured: Vec<Flight> =
            pair.hosts.iter().flat_map(|host| host.sent.iter().cloned()).collect();
        for flight in captured {
            pair.arrive(flight.clone());
            let mut cut = flight.clone();
            cut.data.truncate(random.below(flight.data.len() as u64) as usize);
            pair.arrive(cut);
            let mut flipped = flight;
            let at = random.below(flipped.data.len() as u64) as usize;
            flipped.data[at] ^= 1 << random.below(8);
            pair.arrive(flipped);
        }
        pair.run_for(SECOND);
        assert_eq!(pair.hosts[SERVER].whole.len(), 20);
        assert_eq!(pair.hosts[CLIENT].whole.len(), 20);
        assert!(pair.client(client).is_established() && pair.server(server).is_established());
        pair.client(client).send(Bytes::new(), pattern(9, 9)).unwrap();
        pair.run_for(SECOND);
        assert_eq!(pair.hosts[CLIENT].whole.len(), 21);
    }
}

#[test]
fn a_flood_of_noise_makes_nothing_grow_and_the_connection_lives() {
    let mut pair = Pair::new(1);
    let (client, _) = pair.established();
    let mut random = Random::from_seed([9; 32]);
    let to = pair.hosts[SERVER].address;
    for n in 0..20_000_u32 {
        let mut data = vec![0; 1 + random.below(1400) as usize];
        random.fill(&mut data);
        if n % 3 == 0 && data.len() > 30 {
            // Make it look like an Initial packet of ours.
            data[0] = 0xc0 | data[0] & 0x0f;
            data[1..5].copy_from_slice(&VERSION.to_be_bytes());
            data[5] = 8;
            data[14] = 8;
            data.resize(1200, 0);
        }
        let from = format!("10.{}.{}.1:{}", n % 250, n / 250 % 250, 1000 + n % 1000);
        pair.arrive(Flight { from: from.parse().unwrap(), to, ecn: Default::default(), data });
    }
    assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 1);
    pair.record = true;
    pair.flush();
    assert!(pair.hosts[SERVER].sent.len() <= 256, "{}", pair.hosts[SERVER].sent.len());
    pair.client(client).send(Bytes::new(), pattern(9, 9)).unwrap();
    assert!(pair.run_until(SECOND, |p| p.hosts[SERVER].whole.len() == 1));
}

#[test]
fn noise_addressed_to_a_live_connection_is_dropped_without_an_answer() {
    let mut pair = Pair::new(2);
    let (client, _) = pair.established();
    pair.run_for(SECOND);
    pair.record = true;
    pair.client(client).send(Bytes::new(), pattern(9, 9)).unwrap();
    pair.run_for(SECOND);
    let real = pair.hosts[CLIENT].sent[0].clone();
    let answered = pair.hosts[SERVER].sent.len();
    let mut random = Random::from_seed([3; 32]);
    for _ in 0..5_000 {
        let mut forged = real.clone();
        let body = 9..forged.data.len();
        random.fill(&mut forged.data[body]);
        pair.arrive(forged);
    }
    pair.flush();
    assert_eq!(pair.hosts[SERVER].sent.len(), answered);
    let server = pair.server_handle();
    assert!(pair.server(server).stats().packets_dropped >= 5_000);
    assert!(pair.server(server).is_established());
}

#[test]
fn many_connections_at_once_on_a_bad_path_all_work() {
    let mut pair = Pair::new(4);
    pair.rules(Rules { loss: 0.1, ..Rules::default() });
    pair.hosts[SERVER].echo = true;
    let clients: Vec<_> = (0..100).map(|_| pair.connect()).collect();
    for (n, client) in clients.iter().enumerate() {
        pair.client(*client).send(Bytes::new(), pattern(2_000, n as u8)).unwrap();
    }
    assert!(pair.run_until(60 * SECOND, |p| p.hosts[CLIENT].whole.len() == 100));
    for (n, client) in clients.iter().enumerate() {
        let (_, got) = pair.hosts[CLIENT].messages.iter().find(|((h, _), _)| h == client).unwrap();
        assert_eq!(got[..], pattern(2_000, n as u8), "an answer for another connection");
    }
}
