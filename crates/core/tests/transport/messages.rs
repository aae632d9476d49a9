//! Messages over a connection, on a good path and on bad ones.

use std::time::Duration;

use bytes::Bytes;

use crate::pair::{CLIENT, Pair, Rules, SERVER, pattern};

#[test]
fn a_message_goes_there_and_its_echo_comes_back() {
    let mut pair = Pair::new(1);
    let (client, server) = pair.established();
    pair.hosts[SERVER].echo = true;
    let body = pattern(100, 1);
    pair.client(client).send(Bytes::from_static(b"head"), body.clone()).unwrap();
    assert!(pair.run_until(Duration::from_secs(2), |p| p.hosts[CLIENT].whole.len() == 1));
    let echoed = pair.hosts[CLIENT].messages.values().next().unwrap().clone();
    assert_eq!(&echoed[..4], b"head");
    assert_eq!(echoed[4..], body);
    assert!(pair.server(server).is_established());
}

#[test]
fn large_and_small_messages_arrive_whole_and_once_over_a_path_that_does_everything_wrong() {
    for seed in 0..20 {
        let mut pair = Pair::new(seed);
        pair.rules(Rules {
            loss: 0.2,
            duplicate: 0.1,
            corrupt: 0.05,
            jitter: Duration::from_millis(20),
            ..Rules::default()
        });
        let (client, _) = pair.established();
        let mut sent = Vec::new();
        for (n, size) in [0, 1, 100, 1_199, 5_000, 200_000, 7].into_iter().enumerate() {
            let body = pattern(size, n as u8);
            sent.push(body.clone());
            pair.client(client).send(Bytes::new(), body).unwrap();
        }
        let done = pair.run_until(Duration::from_secs(120), |p| p.hosts[SERVER].whole.len() == 7);
        assert!(done, "seed {seed}: {:?}", pair.hosts[SERVER].whole);
        let got: Vec<_> = pair.hosts[SERVER].messages.values().collect();
        assert!(got.iter().zip(&sent).all(|(got, sent)| got[..] == sent[..]), "seed {seed}");
    }
}
