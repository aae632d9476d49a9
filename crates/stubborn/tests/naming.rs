//! Channels follow what their resolvers say.

mod common;

use std::io;
use std::net::SocketAddr;

use common::*;

use stubborn::client::ConnectErrorKind;
use stubborn::naming::{Resolver, Resolving};
use stubborn::{ChannelBuilder, ServerHandle, Trust};
use tokio::sync::watch;

/// Tells what the test wants it to tell.
struct Told(watch::Receiver<Vec<SocketAddr>>, bool);

impl Resolver for Told {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            if self.1 {
                self.0.changed().await.map_err(io::Error::other)?;
            }
            self.1 = true;
            Ok(self.0.borrow_and_update().clone())
        })
    }
}

/// A resolver, and what tells it the servers.
fn told(servers: &[&ServerHandle]) -> (watch::Sender<Vec<SocketAddr>>, Told) {
    let (sender, receiver) = watch::channel(servers.iter().map(|s| s.local_addr()).collect());
    (sender, Told(receiver, false))
}

fn through(site: &Site, resolver: impl Resolver) -> ChannelBuilder {
    let trust = Trust::pem(site.identity.certificate_pem()).unwrap();
    ChannelBuilder::new("stubborn://localhost").trust(trust).resolver(resolver)
}

#[tokio::test]
async fn a_channel_goes_where_its_resolver_says_and_leaves_what_it_strikes_off() {
    let site = Site::new();
    let (old, new) = (site.start().await, site.start().await);
    let (sender, resolver) = told(&[&old]);
    let connection = soon(through(&site, resolver).open()).await.unwrap();
    let server = || connection.stats().map(|(address, _)| address);
    assert_eq!(server(), Some(old.local_addr()));
    sender.send_replace(vec![new.local_addr()]);
    // Nothing is lost on the way over: each call runs once, at the one or at the other.
    let mut calls = 0;
    while server() != Some(new.local_addr()) {
        calls += 1;
        assert_eq!(
            soon(async { number(&connection.channel(), &COUNT).await }).await.unwrap(),
            calls
        );
    }
    assert_eq!(number(&connection.channel(), &COUNT).await.unwrap(), calls + 1);
}

#[tokio::test]
async fn an_empty_list_does_not_take_away_the_servers_that_answer() {
    let site = Site::new();
    let server = site.start().await;
    let (sender, resolver) = told(&[&server]);
    let channel = soon(through(&site, resolver).connect()).await.unwrap();
    sender.send_replace(Vec::new());
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_service_without_a_server_is_said_to_have_none() {
    let site = Site::new();
    let (_sender, resolver) = told(&[]);
    let error = soon(through(&site, resolver).connect()).await.unwrap_err();
    assert!(matches!(error.kind(), ConnectErrorKind::Resolve(_)), "{error}");
    assert!(error.to_string().contains("no server now"), "{error}");
}

#[tokio::test]
async fn a_file_says_where_the_servers_are() {
    let site = Site::new();
    let server = site.start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.hosts");
    std::fs::write(&path, format!("{} # the bank\n", server.local_addr())).unwrap();
    let trust = Trust::pem(site.identity.certificate_pem()).unwrap();
    let address = format!("file://{}?name=localhost", path.display());
    let channel = soon(ChannelBuilder::new(address).trust(trust).connect()).await.unwrap();
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn the_name_that_servers_must_prove_is_the_one_that_the_builder_was_given() {
    let site = Site::new();
    let server = site.start().await;
    let port = server.local_addr().port();
    let named = |address: &str, name: &str| {
        let trust = Trust::pem(site.identity.certificate_pem()).unwrap();
        let builder = ChannelBuilder::new(format!("stubborn://{address}")).trust(trust);
        soon(builder.server_name(name).connect())
    };
    let wrong = named(&format!("localhost:{port}"), "bank.example").await.unwrap_err();
    assert!(matches!(wrong.kind(), ConnectErrorKind::Refused(_)), "{wrong}");
    named(&format!("127.0.0.1:{port}?name=bank.example"), "localhost").await.unwrap();
}
