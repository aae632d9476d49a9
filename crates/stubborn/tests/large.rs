//! A message that is far larger than every window on its way.

mod common;

use std::future::IntoFuture;
use std::time::Duration;

use common::{Note, SIZE, Site, call};
use stubborn::{ChannelBuilder, ClientEndpoint, Limits};

/// What the issue promises, where the code is fast enough; a sixteenth of both where it is not.
const SCALE: usize = if cfg!(debug_assertions) { 16 } else { 1 };
const MESSAGE: usize = (1 << 30) / SCALE;
const WINDOW: u64 = (16 << 20) / SCALE as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_gigabyte_goes_through_a_window_of_16_megabytes() {
    let limits = Limits {
        receive_window: WINDOW,
        send_window: WINDOW,
        message: 2 << 30,
        assembly: 4 << 30,
        ..Limits::default()
    };
    let site = Site { limits: limits.clone(), ..Site::new() };
    let server = site.start().await;
    let endpoint = ClientEndpoint::bind("127.0.0.1:0".parse().unwrap(), limits).unwrap();
    let builder = ChannelBuilder::new(server.local_addr().to_string());
    let channel = builder.trust(site.trust()).endpoint(&endpoint).connect().await.unwrap();
    // Not all zero, so that a part in the wrong place is noticed by the digest.
    let data: Vec<u8> = (0..MESSAGE).map(|n| (n / 1000) as u8).collect();
    let sent = call(&channel, &SIZE, &Note::data(data)).into_future();
    let reply = tokio::time::timeout(Duration::from_secs(300), sent).await.unwrap().unwrap();
    assert_eq!(reply.number, MESSAGE as u64);
}
