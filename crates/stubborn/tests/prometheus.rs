//! What Prometheus is told over HTTP.

mod common;

use std::future::IntoFuture;

use common::*;
use stubborn::Server;
use tokio::net::TcpStream;

/// A server that tells Prometheus.
async fn start(site: &Site) -> stubborn::ServerHandle {
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    let server = server.service(site.lab.clone()).prometheus("127.0.0.1:0");
    server.start().await.unwrap()
}

#[tokio::test]
async fn prometheus_is_told_of_calls_links_and_sessions_at_an_address_of_its_own() {
    let site = Site::new();
    let server = start(&site).await;
    let address = server.prometheus_addr().unwrap();
    let channel = site.channel(&server).await;
    soon(call(&channel, &ECHO, &Note::number(1)).into_future()).await.unwrap();
    let answer = http_get(address, "/metrics").await;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for line in [
        "stubborn_calls_total{method=\"lab.v1.Lab/Echo\",side=\"server\",outcome=\"replied\",detail=\"\"} 1",
        "stubborn_call_duration_seconds_count{method=\"lab.v1.Lab/Echo\",side=\"server\"} 1",
        "stubborn_sessions 1",
        "stubborn_connections 1",
        "# TYPE stubborn_link_rtt_seconds gauge",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
    assert!(text.contains("stubborn_link_rtt_seconds{peer=\"127.0.0.1:"), "{text}");

    drop(server);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn other_requests_are_refused_large_ones_are_not_read_and_idle_connections_are_bounded() {
    let site = Site::new();
    let server = start(&site).await;
    let address = server.prometheus_addr().unwrap();
    assert!(http_get(address, "/").await.starts_with("HTTP/1.1 404"));
    let post = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    assert!(soon(http_ask(address, post)).await.starts_with("HTTP/1.1 405"));
    let large = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(!soon(http_ask(address, large.as_bytes())).await.contains("200 OK"));
    assert!(!soon(http_ask(address, &[0xff; 100])).await.contains("200 OK"));
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    drop(idle);
    assert!(
        http_get(address, "/metrics").await.starts_with("HTTP/1.1 200"),
        "once there is room again"
    );
}

#[tokio::test]
async fn an_address_that_is_taken_keeps_the_server_from_starting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::bind("127.0.0.1:0").identity(Site::new().identity);
    let started = server.prometheus(taken.local_addr().unwrap()).start().await;
    assert!(matches!(started, Err(stubborn::ServeError::Bind(..))));
}
