//! Acknowledgements, timeouts and probes of an established connection.

use std::time::Duration;

use bytes::Bytes;
use stubborn_core::transport::connection::{Chunk, ConnectionEvent, EcnState, MessageId};
use stubborn_core::transport::endpoint::{ConnectionHandle, EndpointConfig};

use crate::pair::{CLIENT, Pair, Rules, SERVER, config, pattern};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Lets what the handshake left over settle: ids, path MTU probes.
fn settled(pair: &mut Pair) {
    pair.run_for(2 * SECOND);
}

#[test]
fn a_slow_handler_does_not_inflate_the_round_trip_time() {
    let mut pair = Pair::new(1);
    let (client, server) = pair.established();
    for _ in 0..20 {
        pair.client(client).send(Bytes::new(), pattern(50, 1)).unwrap();
        pair.run_for(500 * MILLI);
        pair.server(server).send(Bytes::new(), pattern(50, 2)).unwrap();
        pair.run_for(500 * MILLI);
    }
    let rtt = pair.client(client).rtt();
    assert!((19..24).contains(&rtt.as_millis()), "{rtt:?}");
    assert_eq!(pair.client(client).stats().packets_lost, 0);
    assert_eq!(pair.client(client).stats().probe_timeouts, 0);
}

#[test]
fn a_peer_that_polls_late_says_so_and_does_not_inflate_the_round_trip_time() {
    let mut pair = Pair::new(21);
    let (client, _) = pair.established();
    settled(&mut pair);
    for _ in 0..20 {
        pair.client(client).send(Bytes::new(), pattern(50, 1)).unwrap();
        pair.flush();
        let (_, request) = pair.air.pop_first().unwrap();
        pair.now += 10 * MILLI;
        pair.arrive(request);
        pair.now += 15 * MILLI;
        pair.flush();
        pair.run_for(20 * MILLI);
    }
    let rtt = pair.client(client).rtt();
    assert!((19..24).contains(&rtt.as_millis()), "{rtt:?}");
}

#[test]
fn a_reply_carries_the_acknowledgement_of_its_request() {
    let mut pair = Pair::new(2);
    let (client, _) = pair.established();
    settled(&mut pair);
    pair.hosts[SERVER].echo = true;
    pair.record = true;
    for call in 1..=50 {
        pair.client(client).send(Bytes::new(), pattern(50, 1)).unwrap();
        assert!(pair.run_until(SECOND, |p| p.hosts[CLIENT].whole.len() == call));
    }
    assert_eq!(pair.hosts[SERVER].sent.len(), 50, "one datagram a call");
}

#[test]
fn messages_that_are_ready_together_share_a_datagram() {
    let mut pair = Pair::new(3);
    let (client, _) = pair.established();
    settled(&mut pair);
    pair.record = true;
    for n in 0..10 {
        pair.client(client).send(Bytes::new(), pattern(100, n)).unwrap();
    }
    pair.flush();
    assert_eq!(pair.hosts[CLIENT].sent.len(), 1);
    pair.run_for(SECOND);
    assert_eq!(pair.hosts[SERVER].whole.len(), 10);
}

#[test]
fn the_sender_is_told_once_the_peer_holds_the_whole_message() {
    let mut pair = Pair::new(4);
    let (client, _) = pair.established();
    let id = pair.client(client).send(Bytes::new(), pattern(10_000, 1)).unwrap();
    pair.client(client).tell_acked(id);
    assert!(!pair.client(client).ever_fully_sent(id));
    pair.run_for(SECOND);
    assert!(pair.client(client).ever_fully_sent(id));
    let acked = ConnectionEvent::MessageAcked(id);
    assert_eq!(pair.hosts[CLIENT].events.iter().filter(|(_, e)| *e == acked).count(), 1);
}

/// When the client sent datagrams within `time`, since now.
fn send_times(pair: &mut Pair, time: Duration) -> Vec<Duration> {
    let start = pair.now;
    let mut times = Vec::new();
    while pair.now.since(start) < time {
        let sent = pair.hosts[CLIENT].sent.len();
        let left = time - pair.now.since(start);
        if pair.run_until(left, |p| p.hosts[CLIENT].sent.len() > sent) {
            times.push(pair.now.since(start));
        }
    }
    times
}

fn cut_with_a_call_in_flight(
    pair: &mut Pair,
) -> stubborn_core::transport::endpoint::ConnectionHandle {
    let (client, _) = pair.established();
    settled(pair);
    pair.rules(Rules { cut: true, ..Rules::default() });
    pair.record = true;
    pair.client(client).send(Bytes::new(), pattern(50, 1)).unwrap();
    client
}

#[test]
fn probe_timeouts_back_off_exponentially_with_two_probes_each_at_most() {
    let mut pair = Pair::new(5);
    let client = cut_with_a_call_in_flight(&mut pair);
    let times = send_times(&mut pair, 20 * SECOND);
    let gaps: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.len() >= 8);
    for w in gaps.windows(2).skip(1) {
        let ratio = w[1].as_secs_f64() / w[0].as_secs_f64();
        assert!((1.9..2.1).contains(&ratio), "{gaps:?}");
    }
    let timeouts = pair.client(client).stats().probe_timeouts as usize;
    assert!(pair.hosts[CLIENT].sent.len() <= 1 + 2 * timeouts);
    // Probes do not escape the accounting: all that is out counts as in flight.
    assert!(pair.client(client).stats().in_flight >= 50 * timeouts as u64);
}

#[test]
fn a_new_call_in_an_outage_probes_at_once_but_does_not_undo_the_back_off() {
    let mut pair = Pair::new(6);
    let client = cut_with_a_call_in_flight(&mut pair);
    pair.run_for(10 * SECOND);
    let before = pair.hosts[CLIENT].sent.len();
    let now = pair.now;
    pair.client(client).probe(now);
    pair.flush();
    let probes = pair.hosts[CLIENT].sent.len() - before;
    assert!((1..=2).contains(&probes), "{probes}");
    // Further calls within a second do not.
    for _ in 0..9 {
        pair.run_for(100 * MILLI);
        let now = pair.now;
        pair.client(client).probe(now);
    }
    pair.flush();
    assert!(pair.hosts[CLIENT].sent.len() - before <= 4);
    assert!(pair.client(client).stats().probe_timeouts_in_a_row > 4);
}

#[test]
fn after_an_outage_a_new_call_settles_the_old_one_within_a_round_trip() {
    let mut pair = Pair::new(7);
    let client = cut_with_a_call_in_flight(&mut pair);
    pair.run_for(16 * SECOND);
    pair.rules(Rules::default());
    let now = pair.now;
    pair.client(client).probe(now);
    assert!(pair.run_until(25 * MILLI, |p| p.hosts[SERVER].whole.len() == 1));
}

#[test]
fn any_authenticated_packet_ends_the_wait_of_a_backed_off_timeout() {
    let mut pair = Pair::new(8);
    let (_, server) = {
        let client = cut_with_a_call_in_flight(&mut pair);
        (client, pair.server_handle())
    };
    pair.run_for(16 * SECOND);
    pair.rules(Rules::default());
    // The server speaks first: that alone makes the client probe.
    pair.server(server).send(Bytes::new(), pattern(5, 1)).unwrap();
    assert!(pair.run_until(40 * MILLI, |p| p.hosts[SERVER].whole.len() == 1));
}

#[test]
fn in_flight_never_exceeds_the_window_but_for_probes() {
    for seed in 0..5 {
        let mut pair = Pair::new(seed);
        let (client, _) = pair.established();
        pair.rules(Rules { loss: 0.05, ..Rules::default() });
        pair.client(client).send(Bytes::new(), pattern(2_000_000, 1)).unwrap();
        for _ in 0..400 {
            pair.run_for(5 * MILLI);
            let stats = pair.client(client).stats();
            // Two probes, and one search for a larger datagram.
            let slack = 3 * 1_500;
            let cut_meanwhile = stats.window < 60_000;
            assert!(stats.in_flight <= stats.window + slack || cut_meanwhile, "{stats:?}");
        }
        assert!(pair.run_until(60 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
    }
}

#[test]
fn bytes_leave_in_bounded_bursts() {
    let mut pair = Pair::new(9);
    let (client, _) = pair.established();
    settled(&mut pair);
    pair.record = true;
    pair.client(client).send(Bytes::new(), pattern(1_000_000, 1)).unwrap();
    pair.flush();
    assert!(pair.hosts[CLIENT].sent.len() <= 10, "{}", pair.hosts[CLIENT].sent.len());
    let mut most = 0;
    while pair.hosts[SERVER].whole.is_empty() {
        let before = pair.hosts[CLIENT].sent.len();
        let now = pair.now;
        pair.run_until(SECOND, |p| p.now > now || !p.hosts[SERVER].whole.is_empty());
        most = most.max(pair.hosts[CLIENT].sent.len() - before);
    }
    assert!(most <= 64, "{most} datagrams at once");
}

#[test]
fn congestion_marks_are_reported_and_cut_the_window() {
    let window_after = |mark: f64| {
        let mut pair = Pair::new(10);
        let (client, server) = pair.established();
        settled(&mut pair);
        pair.client(client).send(Bytes::new(), pattern(3_000_000, 1)).unwrap();
        pair.run_for(100 * MILLI);
        assert_eq!(pair.client(client).stats().ecn, EcnState::Capable);
        pair.rules[CLIENT].mark = mark;
        pair.run_for(60 * MILLI);
        assert_eq!(pair.server(server).stats().ecn_ce_received > 0, mark > 0.0);
        assert!(pair.hosts[SERVER].whole.is_empty(), "the window counts only while it is used");
        assert_eq!(pair.client(client).stats().packets_lost, 0);
        pair.client(client).stats().window
    };
    let (free, marked) = (window_after(0.0), window_after(0.5));
    assert!(marked < free * 8 / 10, "{marked} {free}");
}

#[test]
fn a_path_that_loses_marks_is_used_without_them() {
    let mut pair = Pair::new(11);
    pair.rules(Rules { bleach: true, ..Rules::default() });
    let (client, _) = pair.established();
    pair.client(client).send(Bytes::new(), pattern(100_000, 1)).unwrap();
    assert!(pair.run_until(5 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
    assert_eq!(pair.client(client).stats().ecn, EcnState::Failed);
}

#[test]
fn the_largest_datagram_of_the_path_is_found_and_loss_of_probes_costs_nothing() {
    for (mtu, found) in [(1500, 1472), (1400, 1372)] {
        let mut pair = Pair::new(12);
        pair.rules(Rules { mtu, ..Rules::default() });
        let (client, server) = pair.established();
        pair.run_for(10 * SECOND);
        pair.client(client).send(Bytes::new(), pattern(100_000, 1)).unwrap();
        pair.run_for(5 * SECOND);
        assert_eq!(pair.client(client).stats().mtu, found);
        assert_eq!(pair.server(server).stats().mtu, found);
        assert_eq!(pair.client(client).stats().packets_lost, 0);
        assert_eq!(pair.hosts[SERVER].whole.len(), 1);
    }
}

#[test]
fn a_message_does_not_wait_for_a_probe_that_is_larger_than_the_window() {
    let large = EndpointConfig { max_probe: 65_507, ..config() };
    let mut pair = Pair::with(24, large.clone(), large);
    pair.rules(Rules { mtu: 65_535, ..Rules::default() });
    pair.record = true;
    let (client, _) = pair.established();
    let probed = |p: &Pair| p.hosts[CLIENT].sent.iter().any(|f| f.data.len() > 60_000);
    assert!(pair.run_until(10 * SECOND, probed));
    assert!(pair.client(client).stats().window < 60_000);
    let before = pair.hosts[CLIENT].sent.len();
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.flush();
    assert_eq!(pair.hosts[CLIENT].sent.len(), before + 1);
}

#[test]
fn no_datagram_is_larger_than_what_the_peers_socket_takes() {
    let server = EndpointConfig { max_udp_payload: 1300, ..config() };
    let mut pair = Pair::with(13, config(), server);
    pair.record = true;
    let (client, _) = pair.established();
    pair.client(client).send(Bytes::new(), pattern(100_000, 1)).unwrap();
    pair.run_for(10 * SECOND);
    let largest = pair.hosts[CLIENT].sent.iter().map(|f| f.data.len()).max();
    assert_eq!(largest, Some(1300));
}

#[test]
fn a_path_that_turns_into_a_black_hole_for_large_datagrams_falls_back() {
    let mut pair = Pair::new(14);
    let (client, _) = pair.established();
    pair.client(client).send(Bytes::new(), pattern(300_000, 1)).unwrap();
    pair.run_for(5 * SECOND);
    assert_eq!(pair.client(client).stats().mtu, 1472);
    pair.rules(Rules { mtu: 1300, ..Rules::default() });
    pair.client(client).send(Bytes::new(), pattern(300_000, 2)).unwrap();
    assert!(pair.run_until(30 * SECOND, |p| p.hosts[SERVER].whole.len() == 2));
    assert!(pair.client(client).stats().mtu <= 1300);
}

#[test]
fn a_large_message_streams_through_a_small_window() {
    let mut server = config();
    server.limits.receive_window = 64 << 10;
    let mut pair = Pair::with(15, config(), server);
    pair.rules(Rules { loss: 0.01, ..Rules::default() });
    let (client, _) = pair.established();
    let body = pattern(3 << 20, 1);
    pair.client(client).send(Bytes::new(), body.clone()).unwrap();
    assert!(pair.run_until(300 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
    assert_eq!(pair.hosts[SERVER].messages.values().next().unwrap()[..], body);
}

#[test]
fn a_reader_that_pauses_holds_the_sender_back() {
    let mut server = config();
    server.limits.receive_window = 64 << 10;
    let mut pair = Pair::with(16, config(), server);
    let (client, handle) = pair.established();
    pair.hosts[SERVER].reads = false;
    let before = pair.hosts[SERVER].received_bytes;
    pair.client(client).send(Bytes::new(), pattern(1 << 20, 1)).unwrap();
    pair.run_for(10 * SECOND);
    let came = pair.hosts[SERVER].received_bytes - before;
    assert!(came < 100 << 10, "{came}");
    pair.hosts[SERVER].reads = true;
    pair.hosts[SERVER].read(handle);
    assert!(pair.run_until(30 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
}

#[test]
fn a_message_given_up_before_it_was_fully_sent_never_arrives_whole() {
    let mut pair = Pair::new(17);
    let (client, server) = pair.established();
    pair.hosts[SERVER].reads = false;
    let id = pair.client(client).send(Bytes::new(), pattern(1 << 20, 1)).unwrap();
    pair.run_for(15 * MILLI);
    let accepted = pair.server(server).accept_message();
    assert_eq!(accepted, Some(MessageId(id.0)));
    assert!(!pair.client(client).reset(id, 7));
    pair.run_for(SECOND);
    let last = loop {
        match pair.server(server).read(id) {
            Chunk::Data { end, .. } => assert!(!end),
            other => break other,
        }
    };
    assert!(matches!(last, Chunk::Reset(7)), "{last:?}");
}

#[test]
fn unreliable_messages_go_once_and_whole() {
    let mut pair = Pair::new(18);
    let (client, _) = pair.established();
    pair.run_for(2 * SECOND);
    pair.rules(Rules { loss: 0.3, ..Rules::default() });
    for n in 0..100 {
        pair.client(client).send_unreliable(pattern(1_000, n)).unwrap();
        pair.run_for(10 * MILLI);
    }
    pair.run_for(5 * SECOND);
    let got: Vec<_> = pair.hosts[SERVER]
        .events
        .iter()
        .filter_map(|(_, e)| match e {
            ConnectionEvent::Unreliable(data) => Some(data.clone()),
            _ => None,
        })
        .collect();
    assert!((50..90).contains(&got.len()), "{}", got.len());
    let mut expected = (0..100).map(|n| pattern(1_000, n));
    assert!(got.iter().all(|data| expected.any(|e| e == *data)), "in order, each once, unaltered");
    let max = pair.client(client).max_unreliable().unwrap();
    assert!(pair.client(client).send_unreliable(pattern(max, 0)).is_ok());
    assert!(pair.client(client).send_unreliable(pattern(max + 1, 0)).is_err());
}

#[test]
fn an_unreliable_message_that_fits_no_more_is_dropped_and_holds_nothing_up() {
    let mut pair = Pair::new(18);
    let (client, server) = pair.established();
    pair.run_for(2 * SECOND);
    // What the server has sent makes for acknowledgements, which are repeated where packets are lost.
    pair.server(server).send(Bytes::new(), pattern(3_000, 1)).unwrap();
    pair.run_for(SECOND);
    pair.rules(Rules { cut: true, ..Rules::default() });
    pair.client(client).send(Bytes::new(), pattern(10, 1)).unwrap();
    pair.run_for(2 * SECOND);
    let sent = pair.client(client).stats().datagrams_sent;
    let max = pair.client(client).max_unreliable().unwrap();
    for n in 0..10 {
        pair.client(client).send_unreliable(pattern(max, n)).unwrap();
        pair.run_for(SECOND);
    }
    let sent = pair.client(client).stats().datagrams_sent - sent;
    assert!(sent < 40, "{sent} datagrams were sent to nobody");
    pair.rules(Rules::default());
    pair.client(client).send(Bytes::new(), pattern(10, 2)).unwrap();
    assert!(pair.run_until(10 * SECOND, |p| p.hosts[SERVER].whole.len() == 2));
}

#[test]
fn random_loss_alone_does_not_cut_the_rate() {
    let mut took = Vec::new();
    for loss in [0.0, 0.01, 0.05, 0.2] {
        let mut pair = Pair::new(19);
        let (client, _) = pair.established();
        settled(&mut pair);
        pair.rules(Rules { loss, ..Rules::default() });
        let start = pair.now;
        pair.client(client).send(Bytes::new(), pattern(5 << 20, 1)).unwrap();
        assert!(pair.run_until(60 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
        took.push(pair.now.since(start));
    }
    // A window that every loss halves would take 12 s at 5 % on this path.
    assert!(took[2] < 3 * SECOND && took[3] < 8 * SECOND, "{took:?}");
}

#[test]
fn calls_at_twenty_percent_loss_each_way_have_a_short_tail() {
    let mut pair = Pair::new(20);
    pair.hosts[SERVER].echo = true;
    let (client, _) = pair.established();
    settled(&mut pair);
    pair.rules(Rules { loss: 0.2, ..Rules::default() });
    let mut worst = Duration::ZERO;
    for call in 1..=300 {
        let start = pair.now;
        pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
        assert!(pair.run_until(60 * SECOND, |p| p.hosts[CLIENT].whole.len() == call));
        worst = worst.max(pair.now.since(start));
    }
    assert!(worst < 5 * SECOND, "{worst:?}");
}

#[test]
fn a_path_of_jumbo_datagrams_is_used_to_the_full() {
    let large = EndpointConfig { max_probe: 65_507, ..config() };
    let mut pair = Pair::with(22, large.clone(), large);
    pair.rules(Rules { mtu: 9_000, ..Rules::default() });
    let (client, _) = pair.established();
    pair.run_for(10 * SECOND);
    assert_eq!(pair.client(client).stats().mtu, 8_972);
    pair.record = true;
    for n in 0..100 {
        pair.client(client).send(Bytes::new(), pattern(100, n)).unwrap();
    }
    pair.run_for(SECOND);
    let largest = |p: &Pair| p.hosts[CLIENT].sent.iter().map(|f| f.data.len()).max();
    assert_eq!(largest(&pair), Some(1_472), "small messages do not share one fate");
    let whole = pair.client(client).max_unreliable().unwrap();
    assert!(whole > 8_000);
    pair.client(client).send_unreliable(pattern(whole, 1)).unwrap();
    pair.run_for(SECOND);
    let arrived = |(_, e): &(_, ConnectionEvent)| matches!(e, ConnectionEvent::Unreliable(_));
    assert!(pair.hosts[SERVER].events.iter().any(arrived));
    pair.client(client).send(Bytes::new(), pattern(2_000_000, 1)).unwrap();
    assert!(pair.run_until(5 * SECOND, |p| p.hosts[SERVER].whole.len() == 101));
    assert_eq!(largest(&pair), Some(8_972));
    assert_eq!(pair.client(client).stats().packets_lost, 0);
}

#[test]
fn a_silence_is_probed_and_counted_however_long_the_round_trip_was_before() {
    let mut pair = Pair::new(31);
    pair.rules(Rules { delay: 2 * SECOND, ..Rules::default() });
    let (client, _) = pair.established();
    pair.run_for(30 * SECOND);
    pair.rules(Rules { cut: true, ..Rules::default() });
    let now = pair.now;
    pair.client(client).await_answer(now, true);
    pair.client(client).send(Bytes::new(), pattern(10, 1)).unwrap();
    pair.run_for(15 * SECOND);
    assert!(pair.client(client).stats().probe_timeouts_in_a_row >= 3);
    pair.rules(Rules::default());
    assert!(pair.run_until(3 * SECOND, |p| p.hosts[SERVER].whole.len() == 1));
    pair.run_for(SECOND);
    assert_eq!(pair.client(client).stats().probe_timeouts_in_a_row, 0);
}

/// A settled pair whose server holds acknowledgements back; what is sent from now on is recorded.
fn holding() -> (Pair, ConnectionHandle, ConnectionHandle) {
    let mut pair = Pair::new(4);
    let (client, server) = pair.established();
    settled(&mut pair);
    pair.record = true;
    pair.hosts[SERVER].endpoint.hold_acks(8 * MILLI);
    (pair, client, server)
}

/// Until what was sent is there, and what that led to has been sent; no timer of the sender's is due.
const ONE_WAY: Duration = Duration::from_millis(11);

#[test]
fn an_acknowledgement_that_is_held_back_leaves_with_what_is_sent_next() {
    let (mut pair, client, server) = holding();
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(ONE_WAY);
    assert_eq!((pair.hosts[CLIENT].sent.len(), pair.hosts[SERVER].sent.len()), (1, 0));
    assert!(pair.hosts[SERVER].endpoint.is_holding_acks());
    pair.server(server).send(Bytes::new(), pattern(100, 2)).unwrap();
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.hosts[SERVER].sent.len(), 1);
    assert!(!pair.hosts[SERVER].endpoint.is_holding_acks());
    assert_eq!(
        pair.hosts[CLIENT].sent.len(),
        2,
        "the message, and an acknowledgement; nothing again"
    );
}

#[test]
fn acknowledgements_are_held_back_no_longer_where_that_ends() {
    let (mut pair, client, _) = holding();
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(ONE_WAY);
    assert!(pair.hosts[SERVER].sent.is_empty());
    pair.hosts[SERVER].endpoint.hold_acks(Duration::ZERO);
    pair.flush();
    assert_eq!((pair.hosts[CLIENT].sent.len(), pair.hosts[SERVER].sent.len()), (1, 1));
}

#[test]
fn an_acknowledgement_waits_no_longer_than_it_may() {
    let (mut pair, client, _) = holding();
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(ONE_WAY + 8 * MILLI);
    assert_eq!((pair.hosts[CLIENT].sent.len(), pair.hosts[SERVER].sent.len()), (1, 1));
}

#[test]
fn who_misses_a_packet_says_so_at_once() {
    let (mut pair, client, _) = holding();
    pair.rules[CLIENT].cut = true;
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.flush();
    pair.rules[CLIENT].cut = false;
    pair.client(client).send(Bytes::new(), pattern(100, 2)).unwrap();
    pair.run_for(ONE_WAY);
    assert_eq!(pair.hosts[SERVER].sent.len(), 1);
}

#[test]
fn a_large_message_is_acknowledged_while_it_comes() {
    let (mut pair, client, _) = holding();
    pair.client(client).send(Bytes::new(), pattern(300_000, 1)).unwrap();
    assert!(pair.run_until(Duration::from_secs(5), |p| p.hosts[SERVER].whole.len() == 1));
    assert!(pair.hosts[SERVER].sent.len() > 10, "{}", pair.hosts[SERVER].sent.len());
}

#[test]
fn a_connection_that_ends_while_it_holds_one_back_is_forgotten() {
    let (mut pair, client, _) = holding();
    pair.client(client).send(Bytes::new(), pattern(100, 1)).unwrap();
    pair.run_for(ONE_WAY);
    let now = pair.now;
    pair.client(client).close(now, 0, Bytes::new());
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.hosts[SERVER].endpoint.connections().count(), 0);
    assert!(!pair.hosts[SERVER].endpoint.is_holding_acks());
}
