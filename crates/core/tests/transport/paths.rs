//! Changes of address.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::pair::{CLIENT, Flight, Pair, Rules, SERVER, pattern};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The destination id of a 1-RTT packet.
fn destination(flight: &Flight) -> &[u8] {
    assert_eq!(flight.data[0] & 0x80, 0);
    &flight.data[1..9]
}

#[test]
fn the_server_follows_a_client_whose_port_was_changed_on_the_way_and_keeps_its_estimates() {
    let mut pair = Pair::new(1);
    let (client, server) = pair.established();
    pair.run_for(2 * SECOND);
    pair.server(server).send(Bytes::new(), pattern(5_000_000, 1)).unwrap();
    pair.run_for(100 * MILLI);
    let before = pair.server(server).stats();
    assert!(before.window > 30_000 && pair.hosts[CLIENT].whole.is_empty());
    let rebound = address("10.0.0.1:4444");
    pair.nat = Some(rebound);
    let moved = |p: &Pair| {
        let server = p.hosts[SERVER].endpoint.connection(server).unwrap();
        server.remote_address() == rebound
    };
    assert!(pair.run_until(SECOND, moved));
    let after = pair.server(server).stats();
    assert!(after.window >= before.window / 2 && after.mtu == before.mtu, "{before:?} {after:?}");
    pair.run_for(SECOND);
    assert_eq!(pair.server(server).stats().migrations, 1);
    // And back again.
    pair.nat = None;
    pair.client(client).send(Bytes::new(), pattern(100, 3)).unwrap();
    pair.run_for(5 * SECOND);
    assert_eq!(pair.server(server).remote_address(), pair.hosts[CLIENT].address);
    assert_eq!((pair.hosts[SERVER].whole.len(), pair.hosts[CLIENT].whole.len()), (1, 1));
}

#[test]
fn a_new_network_resets_the_estimates_and_gets_fresh_ids() {
    let mut pair = Pair::new(2);
    pair.record = true;
    let (client, server) = pair.established();
    pair.server(server).send(Bytes::new(), pattern(200_000, 1)).unwrap();
    pair.run_for(3 * SECOND);
    let before = pair.server(server).stats();
    assert!(before.window > 14_720);
    let last =
        |pair: &Pair, side: usize| destination(pair.hosts[side].sent.last().unwrap()).to_vec();
    let old = (last(&pair, CLIENT), last(&pair, SERVER));
    pair.nat = Some(address("10.7.7.7:1111"));
    let now = pair.now;
    pair.client(client).address_changed(now);
    pair.rules(Rules { delay: 40 * MILLI, ..Rules::default() });
    let moved = |p: &Pair| {
        let server = p.hosts[SERVER].endpoint.connection(server).unwrap();
        Some(server.remote_address()) == p.nat
    };
    assert!(pair.run_until(SECOND, moved));
    let after = pair.server(server).stats();
    assert!(after.window <= 14_720 && after.rtt == 100 * MILLI, "{after:?}");
    pair.run_for(SECOND);
    let after = pair.server(server).stats();
    assert!(after.migrations == 1 && after.min_rtt >= 80 * MILLI, "{after:?}");
    pair.client(client).send(Bytes::new(), pattern(10, 1)).unwrap();
    pair.run_for(SECOND);
    assert_ne!(last(&pair, CLIENT), old.0);
    assert_ne!(last(&pair, SERVER), old.1);
}

#[test]
fn a_rebound_address_is_proven_even_if_the_path_became_much_slower() {
    let mut pair = Pair::new(7);
    let (client, server) = pair.established();
    pair.run_for(SECOND);
    pair.nat = Some(address("10.0.0.1:4444"));
    pair.rules(Rules { delay: 150 * MILLI, ..Rules::default() });
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(2 * SECOND);
    assert_eq!(pair.server(server).stats().migrations, 1);
}

#[test]
fn an_address_change_during_a_transfer_loses_nothing() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        let (client, server) = pair.established();
        // Who only receives does not notice that its address was changed: it has to speak up.
        let now = pair.now;
        pair.client(client).keep_alive(now, true);
        pair.rules(Rules { loss: 0.05, ..Rules::default() });
        pair.client(client).send(Bytes::new(), pattern(300_000, 1)).unwrap();
        pair.server(server).send(Bytes::new(), pattern(300_000, 2)).unwrap();
        for change in 1..6 {
            pair.run_for(50 * MILLI);
            pair.nat = Some(address(&format!("10.{change}.0.1:{change}")));
        }
        let done = |p: &Pair| p.hosts.iter().all(|h| h.whole.len() == 1);
        let finished = pair.run_until(60 * SECOND, done);
        let lost: Vec<_> = pair.hosts.iter().map(|h| h.lost().cloned()).collect();
        assert!(finished, "seed {seed}: {lost:?}");
    }
}

#[test]
fn a_new_address_gets_three_times_what_came_from_it_until_it_is_proven() {
    let mut pair = Pair::new(4);
    let (client, server) = pair.established();
    pair.run_for(2 * SECOND);
    pair.record = true;
    let spoofed = address("10.66.66.66:666");
    // One packet, captured before it arrived, comes from an address that never answers.
    pair.rules[CLIENT].cut = true;
    pair.client(client).send(Bytes::new(), pattern(300, 1)).unwrap();
    pair.flush();
    let mut stolen = pair.hosts[CLIENT].sent.last().unwrap().clone();
    stolen.from = spoofed;
    let came = stolen.data.len();
    let first = pair.hosts[SERVER].sent.len();
    pair.arrive(stolen);
    pair.server(server).send(Bytes::new(), pattern(100_000, 2)).unwrap();
    pair.run_for(10 * SECOND);
    let sent: usize = pair.hosts[SERVER].sent[first..]
        .iter()
        .filter(|f| f.to == spoofed)
        .map(|f| f.data.len())
        .sum();
    assert!(sent > 0 && sent <= 3 * came, "{sent} for {came}");
    // The thief proved nothing: the old address counts again, and the connection goes on.
    assert_eq!(pair.server(server).remote_address(), pair.hosts[CLIENT].address);
    pair.rules[CLIENT].cut = false;
    pair.client(client).send(Bytes::new(), pattern(300, 3)).unwrap();
    let done = |p: &Pair| p.hosts[SERVER].whole.len() == 2 && p.hosts[CLIENT].whole.len() == 1;
    assert!(pair.run_until(20 * SECOND, done));
}

#[test]
fn replays_and_forgeries_from_another_address_move_nothing() {
    let mut pair = Pair::new(5);
    let (client, server) = pair.established();
    pair.record = true;
    pair.client(client).send(Bytes::new(), pattern(300, 1)).unwrap();
    pair.run_for(SECOND);
    let home = pair.hosts[CLIENT].address;
    let captured = pair.hosts[CLIENT].sent.clone();
    let sent = pair.hosts[SERVER].sent_bytes;
    for mut replay in captured {
        replay.from = address("10.66.66.66:666");
        pair.arrive(replay.clone());
        let at = replay.data.len() - 1;
        replay.data[at] ^= 1;
        pair.arrive(replay);
    }
    pair.run_for(SECOND);
    assert_eq!(pair.server(server).remote_address(), home);
    assert_eq!(pair.hosts[SERVER].sent_bytes, sent, "nothing is answered");
    assert_eq!(pair.hosts[SERVER].whole.len(), 1);
}

#[test]
fn a_client_does_not_follow_a_server_that_changes_its_address() {
    let mut pair = Pair::new(6);
    let (client, server) = pair.established();
    pair.run_for(2 * SECOND);
    pair.rules[SERVER].cut = true;
    pair.record = true;
    pair.server(server).send(Bytes::new(), pattern(300, 1)).unwrap();
    pair.flush();
    let mut moved = pair.hosts[SERVER].sent.last().unwrap().clone();
    moved.from = address("10.66.66.66:666");
    pair.arrive(moved);
    pair.flush();
    assert_eq!(pair.client(client).remote_address(), pair.hosts[SERVER].address);
    assert!(pair.hosts[CLIENT].whole.is_empty());
}
