//! A channel to several servers over real sockets: the settings arrive, and the counters say so.

mod common;

use std::future::IntoFuture;

use common::*;
use stubborn::ChannelBuilder;
use stubborn::service_config::{Balancing, EndpointState};

const SETTINGS: &str = r#"{
    "loadBalancingConfig": [{ "round_robin": {} }],
    "methodConfig": [{
        "name": [{ "service": "lab.v1.Lab", "method": "HoldRead" }],
        "hedgingPolicy": { "maxAttempts": 2, "hedgingDelay": "0.005s" }
    }]
}"#;

#[tokio::test]
async fn calls_are_spread_over_three_servers_as_a_service_config_says() {
    let site = Site::new();
    let servers = [site.start().await, site.start().await, site.start().await];
    let addresses = servers.each_ref().map(|server| server.local_addr().to_string());
    let builder = ChannelBuilder::new(addresses.join(",")).trust(site.trust());
    let connection = soon(builder.service_config(SETTINGS).unwrap().open()).await.unwrap();
    let ready = || connection.endpoints().iter().all(|e| e.state == EndpointState::Ready);
    soon(async {
        while !ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let channel = connection.channel();
    for _ in 0..30 {
        soon(call(&channel, &COUNT, &Note::default()).into_future()).await.unwrap();
    }
    let endpoints = connection.endpoints();
    // On a machine that is busy a server may look silent for a moment; the simulator counts exactly.
    assert!(endpoints.iter().all(|e| e.attempts > 0 && e.outstanding == 0), "{endpoints:?}");
    assert_eq!(endpoints.iter().map(|e| e.attempts).sum::<u64>(), 30);
    let read = tokio::spawn(call(&channel, &HOLD_READ, &Note::default()).into_future());
    reaches(&site.lab.began, 2).await;
    assert_eq!(connection.counters().hedges, 1, "the second copy is at another server");
    site.lab.gate.add_permits(1);
    soon(read).await.unwrap().unwrap();
    reaches(&site.lab.dropped, 1).await;
}

#[tokio::test]
async fn a_channel_of_the_builder_alone_spreads_its_calls_too() {
    let site = Site::new();
    let servers = [site.start().await, site.start().await];
    let addresses = servers.each_ref().map(|server| server.local_addr().to_string());
    let builder = ChannelBuilder::new(addresses.join(",")).trust(site.trust());
    let connection = soon(builder.balancing(Balancing::RoundRobin).open()).await.unwrap();
    soon(async {
        while connection.endpoints().iter().any(|e| e.state != EndpointState::Ready) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let channel = connection.channel();
    for _ in 0..8 {
        soon(call(&channel, &COUNT, &Note::default()).into_future()).await.unwrap();
    }
    let endpoints = connection.endpoints();
    assert!(endpoints.iter().all(|e| e.attempts > 0), "{endpoints:?}");
    assert_eq!(endpoints.iter().map(|e| e.attempts).sum::<u64>(), 8);
}
