//! How connections end: closing, silence, keepalive, lost state, used-up keys.

use std::time::Duration;

use bytes::Bytes;
use stubborn_core::random::Random;
use stubborn_core::transport::connection::ConnectionError;
use stubborn_core::transport::endpoint::{Endpoint, EndpointConfig};

use crate::pair::{CLIENT, Flight, INCARNATION, Pair, Rules, SERVER, config, pattern};
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

#[test]
fn the_peer_learns_who_closed_and_why_and_both_sides_forget() {
    let mut pair = Pair::new(1);
    let (client, _) = pair.established();
    let now = pair.now;
    pair.client(client).close(now, 42, Bytes::from_static(b"enough"));
    pair.run_for(15 * MILLI);
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::LocalClose));
    let told = ConnectionError::PeerClosed { code: 42, reason: Bytes::from_static(b"enough") };
    assert_eq!(pair.hosts[SERVER].lost(), Some(&told));
    assert!(pair.client(client).send(Bytes::new(), Bytes::new()).is_err());
    // Three probe timeouts later nothing is left, nothing is sent, and no timer runs.
    pair.run_for(SECOND);
    for host in &mut pair.hosts {
        assert_eq!(host.endpoint.connections().count(), 0);
        assert_eq!(host.endpoint.poll_timeout(), None);
    }
}

#[test]
fn a_lost_close_is_repeated_to_a_peer_that_goes_on_but_ever_more_rarely() {
    let mut pair = Pair::new(2);
    let (client, server) = pair.established();
    pair.run_for(SECOND);
    pair.rules[CLIENT].cut = true;
    let now = pair.now;
    pair.client(client).close(now, 1, Bytes::new());
    pair.flush();
    pair.record = true;
    for n in 0..32 {
        pair.server(server).send_unreliable(pattern(100, n)).unwrap();
        pair.run_for(MILLI);
    }
    pair.run_for(12 * MILLI);
    let closes = pair.hosts[CLIENT].sent.len();
    assert!((4..=7).contains(&closes), "{closes}");
}

#[test]
fn silence_ends_a_connection_after_the_smaller_of_both_idle_timeouts() {
    let server = EndpointConfig { idle_timeout: 5 * SECOND, ..config() };
    let mut pair = Pair::with(3, config(), server);
    pair.established();
    pair.run_for(SECOND);
    pair.record = true;
    let start = pair.now;
    assert!(pair.run_until(60 * SECOND, |p| p.hosts.iter().all(|h| h.lost().is_some())));
    let lasted = pair.now.since(start);
    assert!((3 * SECOND..6 * SECOND).contains(&lasted), "{lasted:?}");
    assert!(pair.hosts.iter().all(|h| h.lost() == Some(&ConnectionError::IdleTimeout)));
    assert!(pair.hosts[CLIENT].sent.is_empty(), "nobody asked to keep it alive");
}

#[test]
fn keepalive_keeps_a_quiet_connection_and_pings_no_more_often_than_every_fifteen_seconds() {
    let mut pair = Pair::new(4);
    let (client, _) = pair.established();
    pair.run_for(2 * SECOND);
    let now = pair.now;
    pair.client(client).keep_alive(now, true);
    pair.record = true;
    pair.run_for(150 * SECOND);
    assert!(pair.hosts.iter().all(|h| h.lost().is_none()));
    let pings = pair.hosts[CLIENT].sent.len();
    assert!((8..=10).contains(&pings), "{pings}");
    let now = pair.now;
    pair.client(client).keep_alive(now, false);
    pair.run_for(60 * SECOND);
    assert!(pair.hosts[CLIENT].lost().is_some());
}

/// The server dies and comes back with nothing but its certificate and key.
fn restart_server(pair: &mut Pair) {
    let (_, server) = tls::pair();
    let random = Random::from_seed([77; 32]);
    let incarnation = Some(INCARNATION + 1);
    pair.hosts[SERVER].endpoint = Endpoint::new(config(), Some(server), random, incarnation);
}

#[test]
fn a_server_that_lost_its_state_says_so_at_once_and_the_next_handshake_tells_its_incarnation() {
    let mut pair = Pair::new(5);
    let (client, _) = pair.established();
    pair.run_for(SECOND);
    assert_eq!(pair.client(client).peer_incarnation(), Some(INCARNATION));
    restart_server(&mut pair);
    pair.record = true;
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(25 * MILLI);
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::Reset));
    let (trigger, reset) = (&pair.hosts[CLIENT].sent[0].data, &pair.hosts[SERVER].sent[0].data);
    assert!(reset.len() < trigger.len(), "{} {}", reset.len(), trigger.len());
    pair.hosts[CLIENT].events.clear();
    let again = pair.connect();
    assert!(pair.run_until(SECOND, |p| p.hosts[CLIENT].is_connected()));
    assert_eq!(pair.client(again).peer_incarnation(), Some(INCARNATION + 1));
}

#[test]
fn a_reset_with_a_wrong_token_or_from_elsewhere_does_nothing() {
    let mut pair = Pair::new(6);
    let (client, _) = pair.established();
    pair.run_for(SECOND);
    restart_server(&mut pair);
    pair.record = true;
    pair.rules[SERVER].cut = true;
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(15 * MILLI);
    let reset = pair.hosts[SERVER].sent[0].clone();
    for bit in 0..128 {
        let mut wrong = reset.clone();
        let at = wrong.data.len() - 16 + bit / 8;
        wrong.data[at] ^= 1 << (bit % 8);
        pair.arrive(wrong);
    }
    let elsewhere = Flight { from: "10.66.66.66:666".parse().unwrap(), ..reset.clone() };
    pair.arrive(elsewhere);
    pair.flush();
    assert!(pair.hosts[CLIENT].lost().is_none());
    pair.arrive(reset);
    pair.flush();
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::Reset));
}

#[test]
fn two_endpoints_that_know_nothing_of_one_another_fall_silent() {
    // The client's side is a server too, so that both answer strays.
    let (_, tls) = tls::pair();
    let mut pair = Pair::new(7);
    let random = Random::from_seed([5; 32]);
    pair.hosts[CLIENT].endpoint = Endpoint::new(config(), Some(tls), random, None);
    let (from, to) = (pair.hosts[CLIENT].address, pair.hosts[SERVER].address);
    let mut data = vec![0x40; 1000];
    data[1] = 9;
    pair.arrive(Flight { from, to, ecn: Default::default(), data });
    pair.record = true;
    pair.run_for(10 * SECOND);
    let sent: usize = pair.hosts.iter().map(|h| h.sent.len()).sum();
    assert!((1..60).contains(&sent), "{sent}");
    assert!(pair.air.is_empty());
}

#[test]
fn keys_are_updated_at_the_limit_again_and_again_and_every_message_arrives() {
    let limit = EndpointConfig { key_update_after: 100, ..config() };
    let mut pair = Pair::with(8, limit, config());
    pair.rules(Rules { loss: 0.1, jitter: 15 * MILLI, ..Rules::default() });
    let (client, server) = pair.established();
    let body = pattern(3_000_000, 1);
    pair.client(client).send(Bytes::new(), body.clone()).unwrap();
    assert!(pair.run_until(300 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
    assert_eq!(pair.hosts[SERVER].messages.values().next().unwrap()[..], body);
    let updates = pair.client(client).stats().key_updates;
    assert!(updates >= 3, "{updates}");
    assert!(pair.server(server).stats().key_updates + 1 >= updates);
    assert!(pair.hosts.iter().all(|h| h.lost().is_none()));
}

#[test]
fn both_sides_may_update_keys_at_the_same_time() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.rules(Rules { loss: 0.1, jitter: 15 * MILLI, ..Rules::default() });
        let (client, server) = pair.established();
        for round in 0..10 {
            pair.client(client).update_keys();
            pair.server(server).update_keys();
            pair.client(client).send(Bytes::new(), pattern(20_000, round)).unwrap();
            pair.server(server).send(Bytes::new(), pattern(20_000, round)).unwrap();
            pair.run_for(SECOND);
        }
        assert!(pair.run_until(30 * SECOND, |p| p.hosts.iter().all(|h| h.whole.len() == 10)));
        assert!(pair.client(client).stats().key_updates >= 5);
        assert!(pair.hosts.iter().all(|h| h.lost().is_none()), "seed {seed}");
    }
}

#[test]
fn no_second_update_begins_before_the_first_is_confirmed() {
    let limit = EndpointConfig { key_update_after: 1, ..config() };
    let mut pair = Pair::with(9, limit, config());
    let (client, _) = pair.established();
    pair.run_for(SECOND);
    let before = pair.client(client).stats().key_updates;
    pair.rules[SERVER].cut = true;
    for n in 0..50 {
        pair.client(client).send(Bytes::new(), pattern(10, n)).unwrap();
        pair.flush();
    }
    assert!(pair.client(client).stats().key_updates <= before + 1);
}

#[test]
fn a_restart_is_noticed_soon_while_an_answer_is_awaited_even_if_nothing_is_in_flight() {
    let mut pair = Pair::new(10);
    let (client, _) = pair.established();
    pair.run_for(5 * SECOND);
    let now = pair.now;
    pair.client(client).await_answer(now, true);
    pair.record = true;
    pair.run_for(20 * SECOND);
    // After 200 ms of silence, then ever longer, at most two seconds.
    let probes = pair.hosts[CLIENT].sent.len();
    assert!((10..=14).contains(&probes), "{probes}");
    restart_server(&mut pair);
    assert!(pair.run_until(3 * SECOND, |p| p.hosts[CLIENT].lost().is_some()));
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::Reset));
}
