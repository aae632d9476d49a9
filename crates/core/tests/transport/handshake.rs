//! Beginning a connection: on bad paths, under load, against attackers.

use std::time::Duration;

use bytes::Bytes;
use stubborn_core::transport::Code;
use stubborn_core::transport::connection::{ConnectionError, ConnectionEvent, Stats};
use stubborn_core::transport::endpoint::EndpointConfig;
use stubborn_core::wire::frame::Frame;
use stubborn_core::wire::packet::{Header, PacketWriter};
use stubborn_core::wire::params::TransportParameters;
use stubborn_core::wire::{ConnectionId, Side, VERSION};

use crate::operations::plain_tls::{PlainHeader, PlainKey, PlainTls};

use crate::pair::{CLIENT, Flight, INCARNATION, Pair, Rules, SERVER, config, pattern};
use crate::tls;

const SECOND: Duration = Duration::from_secs(1);

fn is_initial(datagram: &[u8]) -> bool {
    datagram[0] & 0xb0 == 0x80
}

fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xb0 == 0xb0
}

#[test]
fn a_large_hello_and_a_long_chain_complete_at_twenty_percent_loss() {
    for seed in 0..200 {
        let (client, server) = tls::long_chain(6 << 10);
        let mut pair = Pair::with_tls(seed, config(), config(), client, server);
        pair.record = true;
        pair.rules(Rules { loss: 0.2, ..Rules::default() });
        pair.connect();
        pair.flush();
        assert!(pair.hosts[CLIENT].sent.len() >= 2, "the hello takes two datagrams");
        let done = pair.run_until(30 * SECOND, |p| p.hosts.iter().all(|h| h.is_connected()));
        assert!(done, "seed {seed}: {:?}", pair.hosts[CLIENT].events);
    }
}

#[test]
fn every_client_datagram_with_an_initial_packet_is_padded() {
    let mut pair = Pair::new(3);
    pair.record = true;
    pair.rules(Rules { loss: 0.3, ..Rules::default() });
    pair.established();
    let initial: Vec<_> = pair.hosts[CLIENT].sent.iter().filter(|f| is_initial(&f.data)).collect();
    assert!(initial.len() >= 2);
    assert!(initial.iter().all(|f| f.data.len() >= 1200));
}

#[test]
fn a_server_sends_at_most_three_times_what_an_unproven_address_sent() {
    for seed in 0..20 {
        let (client, server) = tls::long_chain(16 << 10);
        let mut pair = Pair::with_tls(seed, config(), config(), client, server);
        // The client's second flight never comes, so its address stays unproven.
        pair.connect();
        pair.flush();
        pair.rules[CLIENT].cut = true;
        pair.run_for(20 * SECOND);
        let (got, sent) = (pair.hosts[SERVER].received_bytes, pair.hosts[SERVER].sent_bytes);
        assert!(sent > 0 && sent <= 3 * got, "{sent} for {got}");
        // Nor does it let timeouts back off that it could not act on (RFC 9002 §6.2.2.1).
        let server = pair.server_handle();
        assert_eq!(pair.server(server).stats().probe_timeouts, 0);
    }
}

/// Connections that a server accepts for one hello in a datagram of this size, from a client that
/// makes up ids of these lengths. The handshake is without cryptography, so that a test can write it.
fn accepted(size: usize, destination: usize, source: usize) -> usize {
    let id = |length: usize| ConnectionId::new(&[7; 20][..length]).unwrap();
    let parameters = TransportParameters::new(id(source)).encode();
    let mut hello = vec![1];
    hello.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
    hello.extend_from_slice(&parameters);
    let mut data = Vec::new();
    let writer =
        PacketWriter::begin(&Header::initial(id(destination), id(source), &[]), 0, None, &mut data);
    Frame::Crypto { offset: 0, data: &hello }.encode(&mut data);
    writer.pad_to(size, 16, &mut data);
    let key = PlainKey { space: 0, sender: Side::Client, phase: 0 };
    writer.finish(&PlainHeader, &key, &mut data);
    assert_eq!(data.len(), size);

    let mut pair = Pair::with_tls(5, config(), config(), PlainTls::client(), PlainTls::server());
    let (from, to) = (pair.hosts[CLIENT].address, pair.hosts[SERVER].address);
    pair.arrive(Flight { from, to, ecn: Default::default(), data });
    pair.flush();
    let accepted = pair.hosts[SERVER].endpoint.connections().count();
    assert_eq!(pair.hosts[SERVER].sent_bytes > 0, accepted > 0);
    accepted
}

#[test]
fn a_short_first_datagram_is_not_answered_at_all() {
    assert_eq!(accepted(1200, 8, 8), 1);
    assert_eq!(accepted(1199, 8, 8), 0);
}

#[test]
fn a_client_may_use_longer_ids_but_must_not_be_guessable() {
    assert_eq!(accepted(1200, 20, 20), 1);
    assert_eq!(accepted(1200, 11, 1), 1);
    assert_eq!(accepted(1200, 7, 8), 0);
}

#[test]
fn without_knowledge_of_the_path_the_first_timeout_is_three_tenths_of_a_second_then_doubles() {
    let mut pair = Pair::new(6);
    pair.rules[CLIENT].cut = true;
    pair.record = true;
    pair.connect();
    let times = send_times(&mut pair, 20 * SECOND);
    let gaps: Vec<_> = times.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
    assert_eq!(gaps[..4], [300, 600, 1200, 2400], "{times:?}");
}

#[test]
fn a_remembered_round_trip_time_seeds_the_first_timeout() {
    let mut pair = Pair::new(7);
    pair.rules[CLIENT].cut = true;
    pair.record = true;
    pair.connect_remembering(Some(Duration::from_millis(50)));
    let times = send_times(&mut pair, SECOND);
    // Smoothed plus four times half of it.
    assert_eq!((times[1] - times[0]).as_millis(), 150);
}

#[test]
fn a_server_repeats_a_lost_answer_as_soon_as_the_client_asks_again() {
    let mut pair = Pair::new(17);
    pair.rules[SERVER].cut = true;
    pair.connect_remembering(Some(Duration::from_millis(20)));
    // Until the hello has arrived and the answer is lost.
    assert!(pair.run_until(SECOND, |p| p.hosts[SERVER].sent_bytes > 0));
    pair.rules[SERVER].cut = false;
    // The client's timeout of 60 ms and two round trips; the server's own would be 300 ms.
    let limit = Duration::from_millis(150);
    assert!(pair.run_until(limit, |p| p.hosts.iter().all(|h| h.is_connected())));
}

#[test]
fn a_server_repeats_the_rest_of_its_answer_when_only_the_hello_got_through() {
    let mut late = Vec::new();
    for seed in 0..200 {
        let (client, server) = tls::long_chain(6 << 10);
        let mut pair = Pair::with_tls(seed, config(), config(), client, server);
        pair.rules(Rules { loss: 0.2, ..Rules::default() });
        pair.connect_remembering(Some(Duration::from_millis(20)));
        if !pair.run_until(SECOND, |p| p.hosts[CLIENT].is_connected()) {
            late.push(seed);
        }
    }
    // Without early answers it is 29.
    assert!(late.len() <= 15, "{late:?}");
}

#[test]
fn a_handshake_over_a_bad_path_hardly_ever_takes_three_seconds() {
    let late = (0..1_000).filter(|seed| {
        let mut pair = Pair::new(*seed);
        pair.rules(Rules { loss: 0.2, ..Rules::default() });
        pair.connect();
        !pair.run_until(3 * SECOND, |p| p.hosts[CLIENT].is_connected())
    });
    // Of 10,000 it is one. With a first timeout of a second it was a hundred, and six of these.
    let late: Vec<u64> = late.collect();
    assert!(late.len() <= 1, "{late:?}");
}

#[test]
fn a_path_slower_than_assumed_costs_a_few_datagrams_and_nothing_else() {
    /// How long it took, what each side had sent then, and what came of it.
    fn connect(delay: Duration, known: bool) -> (Duration, [usize; 2], [Stats; 2]) {
        let mut pair = Pair::new(18);
        pair.record = true;
        pair.rules(Rules { delay, ..Rules::default() });
        let start = pair.now;
        let client = pair.connect_remembering(known.then_some(2 * delay));
        assert!(pair.run_until(5 * SECOND, |p| p.hosts.iter().all(|h| h.is_connected())));
        let took = pair.now.since(start);
        pair.run_for(2 * SECOND);
        let server = pair.server_handle();
        let stats = [pair.client(client).stats(), pair.server(server).stats()];
        (took, [CLIENT, SERVER].map(|side| pair.hosts[side].sent.len()), stats)
    }
    for delay in [150, 200, 300, 450].map(Duration::from_millis) {
        let (took, needed, expected) = connect(delay, true);
        let (also_took, sent, stats) = connect(delay, false);
        assert_eq!(also_took, took, "{delay:?}");
        assert!(sent[CLIENT] <= needed[CLIENT] + 4, "{delay:?}: {sent:?} for {needed:?}");
        assert!(sent[SERVER] <= needed[SERVER] + 2, "{delay:?}: {sent:?} for {needed:?}");
        for (stats, expected) in stats.iter().zip(expected) {
            assert_eq!((stats.packets_lost, stats.probe_timeouts_in_a_row), (0, 0), "{stats:?}");
            assert_eq!((stats.window, stats.rtt), (expected.window, 2 * delay), "{stats:?}");
        }
    }
}

/// When the client sent, as time since the start.
fn send_times(pair: &mut Pair, time: Duration) -> Vec<Duration> {
    let start = pair.now;
    let mut times = Vec::new();
    let mut seen = 0;
    while pair.now.since(start) < time {
        let sent = pair.hosts[CLIENT].sent.len();
        pair.run_until(time - pair.now.since(start), |p| p.hosts[CLIENT].sent.len() > sent);
        if pair.hosts[CLIENT].sent.len() > seen {
            seen = pair.hosts[CLIENT].sent.len();
            times.push(pair.now.since(start));
        }
    }
    times
}

#[test]
fn an_acknowledgement_that_is_repeated_after_a_timeout_measures_nothing() {
    let mut pair = Pair::new(10);
    let client = pair.connect();
    pair.rules[SERVER].cut = true;
    assert!(pair.run_until(SECOND, |p| p.hosts[SERVER].sent_bytes > 0));
    // The server's timeout comes first, and acknowledges the client's first packet once more.
    let before = pair.hosts[SERVER].sent_bytes;
    (pair.rules[CLIENT].cut, pair.rules[SERVER].cut) = (true, false);
    assert!(pair.run_until(2 * SECOND, |p| p.hosts[SERVER].sent_bytes > before));
    pair.rules[CLIENT].cut = false;
    assert!(pair.run_until(SECOND, |p| p.hosts.iter().all(|h| h.is_connected())));
    let rtt = pair.client(client).rtt();
    assert!((20..22).contains(&rtt.as_millis()), "{rtt:?}");
}

#[test]
fn the_handshake_measures_the_path() {
    let mut pair = Pair::new(8);
    let (client, server) = pair.established();
    for rtt in [pair.client(client).rtt(), pair.server(server).rtt()] {
        assert!((20..22).contains(&rtt.as_millis()), "{rtt:?}");
    }
}

#[test]
fn the_peers_identity_and_the_servers_incarnation_are_known_after_the_handshake() {
    let (client_tls, server_tls, digest) = tls::mutual();
    let mut pair = Pair::with_tls(9, config(), config(), client_tls, server_tls);
    let client = pair.connect();
    assert_eq!(pair.client(client).peer_incarnation(), None);
    assert!(pair.run_until(SECOND, |p| p.hosts[SERVER].is_connected()));
    assert_eq!(pair.client(client).peer_incarnation(), Some(INCARNATION));
    assert!(pair.client(client).peer_identity().is_some());
    let server = pair.server_handle();
    assert_eq!(pair.server(server).peer_identity().unwrap().key_digest, digest);
    assert_eq!(pair.server(server).peer_incarnation(), None);
}

#[test]
fn a_server_that_cannot_prove_its_name_is_left_and_told_why() {
    let (client, server) = tls::strangers();
    let mut pair = Pair::with_tls(10, config(), config(), client, server);
    pair.connect();
    pair.run_for(SECOND);
    let Some(ConnectionError::Transport(error)) = pair.hosts[CLIENT].lost() else {
        panic!("{:?}", pair.hosts[CLIENT].events)
    };
    assert!(error.code.alert().is_some(), "{error}");
    let Some(ConnectionError::PeerTransport(told)) = pair.hosts[SERVER].lost() else {
        panic!("{:?}", pair.hosts[SERVER].events)
    };
    assert_eq!(told.code, error.code);
    assert!(!pair.hosts.iter().any(|h| h.is_connected()));
}

#[test]
fn a_client_that_the_server_does_not_let_in_is_told_why() {
    let (client, server) = tls::uninvited();
    let mut pair = Pair::with_tls(22, config(), config(), client, server);
    pair.connect();
    pair.run_for(SECOND);
    let Some(ConnectionError::PeerTransport(told)) = pair.hosts[CLIENT].lost() else {
        panic!("{:?}", pair.hosts[CLIENT].events)
    };
    assert!(told.code.alert().is_some(), "{told}");
    assert!(!pair.hosts[SERVER].is_connected());
}

fn always_retry() -> EndpointConfig {
    EndpointConfig { always_retry: true, ..config() }
}

#[test]
fn a_client_sent_back_with_a_token_gets_in_and_brings_its_proof() {
    for seed in 0..20 {
        let mut pair = Pair::with(seed, config(), always_retry());
        pair.record = true;
        pair.rules(Rules { loss: 0.1, duplicate: 0.2, ..Rules::default() });
        pair.established();
        assert!(pair.hosts[SERVER].sent.iter().any(|f| is_retry(&f.data)));
        assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 1);
    }
}

#[test]
fn a_retry_that_was_altered_or_comes_late_does_nothing() {
    let mut pair = Pair::with(12, config(), always_retry());
    pair.record = true;
    let client = pair.connect();
    pair.flush();
    let hello = pair.hosts[CLIENT].sent[0].clone();
    pair.air.clear();
    pair.arrive(hello);
    pair.flush();
    let retry = pair.hosts[SERVER].sent.last().unwrap().clone();
    assert!(is_retry(&retry.data));
    pair.air.clear();
    for at in 0..retry.data.len() {
        let mut altered = retry.clone();
        altered.data[at] ^= 0x10;
        pair.arrive(altered);
    }
    let sent = pair.hosts[CLIENT].sent.len();
    pair.flush();
    assert_eq!(pair.hosts[CLIENT].sent.len(), sent, "an altered Retry was followed");
    // The real one is, and once only.
    pair.arrive(retry.clone());
    pair.flush();
    assert!(pair.hosts[CLIENT].sent.len() > sent);
    let sent = pair.hosts[CLIENT].sent.len();
    pair.arrive(retry);
    pair.flush();
    assert_eq!(pair.hosts[CLIENT].sent.len(), sent);
    assert!(!pair.client(client).is_closed());
    assert!(pair.run_until(SECOND, |p| p.hosts[CLIENT].is_connected()));
}

#[test]
fn a_token_is_good_only_for_the_address_that_it_was_given_to_and_only_for_a_while() {
    for (spoof, wait) in [(true, Duration::ZERO), (false, 16 * SECOND), (false, SECOND)] {
        let mut pair = Pair::with(13, config(), always_retry());
        pair.record = true;
        pair.connect();
        pair.run_until(SECOND, |p| p.hosts[CLIENT].received_bytes > 0);
        pair.flush();
        let mut with_token = pair.hosts[CLIENT].sent.last().unwrap().clone();
        pair.air.clear();
        pair.rules(Rules { cut: true, ..Rules::default() });
        pair.run_for(wait);
        if spoof {
            with_token.from = "10.9.9.9:999".parse().unwrap();
        }
        let before = pair.hosts[SERVER].endpoint.connections().count();
        pair.arrive(with_token);
        pair.flush();
        let accepted = pair.hosts[SERVER].endpoint.connections().count() - before;
        assert_eq!(accepted, usize::from(wait == SECOND), "spoofed {spoof}, after {wait:?}");
    }
}

#[test]
fn under_load_nothing_is_kept_for_addresses_that_prove_nothing() {
    let mut server = config();
    server.limits.handshakes_before_retry = 8;
    let mut pair = Pair::with(14, config(), server);
    pair.record = true;
    pair.rules[SERVER].cut = true;
    for _ in 0..200 {
        pair.connect();
    }
    pair.run_for(Duration::from_millis(500));
    assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 8);
    assert!(pair.hosts[SERVER].sent.iter().filter(|f| is_retry(&f.data)).count() > 100);
    // Whoever answers gets in all the same.
    pair.rules[SERVER].cut = false;
    let all = |p: &Pair| {
        p.hosts[SERVER].endpoint.connections().count() == 200
            && p.hosts[CLIENT]
                .endpoint
                .connections()
                .all(|h| p.hosts[CLIENT].endpoint.connection(h).is_some_and(|c| c.is_established()))
    };
    assert!(pair.run_until(20 * SECOND, all));
}

#[test]
fn a_full_server_refuses_and_the_client_learns_it_at_once() {
    let mut server = config();
    server.limits.connections = 1;
    let mut pair = Pair::with(15, config(), server);
    pair.established();
    pair.connect();
    assert!(pair.run_until(SECOND, |p| p.hosts[CLIENT].lost().is_some()));
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::Refused));
    assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 1);
}

#[test]
fn at_a_full_server_the_connection_silent_longest_gives_way_and_its_client_learns_it() {
    let mut server = config();
    server.limits.connections = 2;
    let mut pair = Pair::with(17, config(), server);
    let lives = |p: &Pair, handle| {
        p.hosts[CLIENT].endpoint.connection(handle).is_some_and(|c| c.is_established())
    };
    let ended = |p: &Pair, handle, why| {
        let end = ConnectionEvent::Lost(why);
        p.hosts[CLIENT].events.iter().any(|(of, event)| *of == handle && *event == end)
    };
    let (silent, _) = pair.established();
    let talking = pair.connect();
    assert!(pair.run_until(SECOND, |p| lives(p, talking)));
    pair.run_for(4 * SECOND);
    pair.client(talking).send(Bytes::new(), pattern(10, 1)).unwrap();
    pair.run_for(2 * SECOND);
    let next = pair.connect();
    assert!(pair.run_until(SECOND, |p| lives(p, next)));
    assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 2);
    let last = pair.connect();
    assert!(pair.run_until(SECOND, |p| ended(p, last, ConnectionError::Refused)));
    pair.client(silent).send(Bytes::new(), pattern(10, 2)).unwrap();
    assert!(pair.run_until(SECOND, |p| ended(p, silent, ConnectionError::Reset)));
    assert!(lives(&pair, talking) && lives(&pair, next));
}

#[test]
fn a_draining_server_refuses_new_connections_and_keeps_the_old() {
    let mut pair = Pair::new(16);
    let (client, _) = pair.established();
    pair.hosts[SERVER].endpoint.stop_accepting();
    pair.connect();
    pair.run_for(SECOND);
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&ConnectionError::Refused));
    assert!(pair.client(client).is_established());
}

const NEWER: u32 = 0x5354_5202;

fn speaks(versions: &[u32]) -> EndpointConfig {
    EndpointConfig { versions: versions.to_vec(), ..config() }
}

#[test]
fn the_best_common_version_is_negotiated() {
    let mut pair = Pair::with(17, speaks(&[NEWER, VERSION]), speaks(&[VERSION]));
    pair.established();
}

#[test]
fn a_client_without_a_common_version_learns_what_the_server_speaks() {
    let mut pair = Pair::with(18, speaks(&[NEWER]), speaks(&[VERSION]));
    pair.connect();
    pair.run_for(SECOND);
    let expected = ConnectionError::VersionNegotiation(vec![VERSION]);
    assert_eq!(pair.hosts[CLIENT].lost(), Some(&expected));
}

#[test]
fn nobody_can_talk_two_sides_into_an_older_version() {
    let mut pair = Pair::with(19, speaks(&[NEWER, VERSION]), speaks(&[NEWER, VERSION]));
    pair.record = true;
    pair.connect();
    pair.flush();
    let hello = pair.hosts[CLIENT].sent[0].data.clone();
    let (ours, theirs) = (&hello[15..23], &hello[6..14]);
    let mut data = vec![0xc0, 0, 0, 0, 0, 8];
    data.extend_from_slice(ours);
    data.push(8);
    data.extend_from_slice(theirs);
    data.extend_from_slice(&VERSION.to_be_bytes());
    let (from, to) = (pair.hosts[SERVER].address, pair.hosts[CLIENT].address);
    pair.air.clear();
    pair.arrive(Flight { from, to, ecn: Default::default(), data });
    pair.run_for(SECOND);
    let Some(ConnectionError::Transport(error)) = pair.hosts[CLIENT].lost() else {
        panic!("{:?}", pair.hosts[CLIENT].events)
    };
    assert_eq!(error.code, Code::VERSION_NEGOTIATION_ERROR);
    assert!(!pair.hosts[CLIENT].is_connected());
    assert!(ConnectionId::new(ours).is_some());
}

#[test]
fn the_first_byte_of_an_endpoints_ids_names_its_worker() {
    let server = EndpointConfig { worker: 5, ..config() };
    let mut pair = Pair::with(20, config(), server);
    pair.record = true;
    let (client, _) = pair.established();
    pair.client(client).send(Bytes::new(), Bytes::new()).unwrap();
    pair.run_for(SECOND);
    let short: Vec<_> = pair.hosts[CLIENT].sent.iter().filter(|f| f.data[0] & 0x80 == 0).collect();
    assert!(!short.is_empty() && short.iter().all(|f| f.data[1] == 5));
}

#[test]
fn packets_with_early_data_are_dropped() {
    let mut pair = Pair::new(21);
    pair.record = true;
    let (client, server) = pair.established();
    pair.client(client).send(Bytes::new(), Bytes::new()).unwrap();
    pair.run_for(SECOND);
    let mut early = pair.hosts[CLIENT].sent[0].clone();
    // The type of the client's first Initial packet becomes 0-RTT; both are addressed alike.
    early.data[0] |= 0x10;
    let before = pair.server(server).stats();
    pair.arrive(early);
    pair.flush();
    assert_eq!(pair.server(server).stats().packets_received, before.packets_received);
    assert!(pair.server(server).is_established());
}
