//! Messages that are sent twice because the path loses packets.

use std::time::Duration;

use bytes::Bytes;

use crate::pair::{CLIENT, Pair, Rules, SERVER, pattern};

const SECOND: Duration = Duration::from_secs(1);

/// A pair whose client has just seen a packet of its own lost, and whose path loses no more.
fn after_a_loss(seed: u64) -> (Pair, stubborn_core::transport::endpoint::ConnectionHandle) {
    let mut pair = Pair::new(seed);
    pair.hosts[SERVER].echo = true;
    let (client, _) = pair.established();
    pair.run_for(2 * SECOND);
    pair.rules[CLIENT].cut = true;
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.flush();
    pair.rules[CLIENT].cut = false;
    pair.run_for(2 * SECOND);
    assert!(pair.client(client).stats().packets_lost > 0, "{:?}", pair.client(client).stats());
    pair.record = true;
    (pair, client)
}

/// Makes a call and returns how many datagrams the client sent for it.
fn call(pair: &mut Pair, client: stubborn_core::transport::endpoint::ConnectionHandle) -> usize {
    let (sent, whole) = (pair.hosts[CLIENT].sent.len(), pair.hosts[CLIENT].whole.len());
    pair.client(client).send(Bytes::new(), pattern(100, 2)).unwrap();
    pair.flush();
    let left = pair.hosts[CLIENT].sent.len() - sent;
    assert!(pair.run_until(SECOND, |p| p.hosts[CLIENT].whole.len() > whole));
    left
}

#[test]
fn after_a_loss_a_message_goes_out_twice_at_once_and_its_first_packet_may_be_lost() {
    let (mut pair, client) = after_a_loss(1);
    assert_eq!(call(&mut pair, client), 2, "the message and its copy");
    pair.client(client).send(Bytes::new(), pattern(100, 3)).unwrap();
    pair.flush();
    let begun = pair.now;
    pair.air.pop_first().expect("the message is on its way");
    let whole = pair.hosts[SERVER].whole.len();
    assert!(pair.run_until(SECOND, |p| p.hosts[SERVER].whole.len() > whole));
    assert_eq!(pair.now.since(begun), Duration::from_millis(10), "no timer was waited for");
}

#[test]
fn copies_end_some_hundred_packets_after_the_last_loss() {
    let (mut pair, client) = after_a_loss(2);
    let mut left = 2;
    for _ in 0..400 {
        left = call(&mut pair, client);
    }
    assert_eq!(left, 1);
}

#[test]
fn a_lost_copy_is_not_sent_again() {
    let (mut pair, client) = after_a_loss(3);
    let resent = pair.client(client).stats().packets_resent;
    for _ in 0..50 {
        pair.client(client).send(Bytes::new(), pattern(100, 3)).unwrap();
        pair.flush();
        pair.air.pop_last().expect("the copy is on its way");
        pair.run_for(SECOND / 10);
    }
    assert_eq!(pair.hosts[SERVER].whole.len(), 51);
    let stats = pair.client(client).stats();
    assert!(stats.packets_lost > 40, "{stats:?}");
    assert_eq!(stats.packets_resent, resent);
}

#[test]
fn a_congestion_mark_ends_copies() {
    let (mut pair, client) = after_a_loss(4);
    assert_eq!(call(&mut pair, client), 2);
    pair.rules[CLIENT].mark = 1.0;
    call(&mut pair, client);
    pair.rules[CLIENT].mark = 0.0;
    assert_eq!(call(&mut pair, client), 1);
}

#[test]
fn copies_are_within_the_congestion_window() {
    let mut pair = Pair::new(5);
    let (client, _) = pair.established();
    pair.run_for(2 * SECOND);
    pair.rules(Rules { loss: 0.1, ..Rules::default() });
    for n in 0..200 {
        pair.client(client).send(Bytes::new(), pattern(20_000, n)).unwrap();
        pair.run_for(Duration::from_millis(3));
        let stats = pair.client(client).stats();
        let probes = if stats.probe_timeouts > 0 { 2 * 1_500 } else { 0 };
        assert!(stats.in_flight <= stats.window + probes, "{stats:?}");
    }
}
