//! Health over datagrams, by gRPC's protocol.

mod common;

use std::future::IntoFuture;

use common::*;
use stubborn::health::{
    Health, HealthCheckRequest, HealthClient, HealthListRequest, ServingStatus,
};
use stubborn::{Code, NotExecutedReason, Outcome, Server};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

#[tokio::test]
async fn services_serve_until_the_application_says_otherwise_and_who_watches_hears_of_it() {
    let site = Site::new();
    let server = site.start().await;
    let client = HealthClient::new(site.channel(&server).await);
    let check = async |service: &str| {
        soon(client.check(of(service)).into_future()).await.map(|reply| reply.status())
    };
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    assert_eq!(check("lab.v1.Lab").await.unwrap(), ServingStatus::Serving);
    let error = check("no.Such").await.unwrap_err();
    assert_eq!(error.status().unwrap().code(), Code::NotFound);

    let mut changes = client.watch(of("lab.v1.Lab")).await.unwrap();
    let mut next = async || soon(changes.message()).await.map(|reply| reply.map(|r| r.status()));
    assert_eq!(next().await.unwrap(), Some(ServingStatus::Serving));
    server.health().set("lab.v1.Lab", false);
    assert_eq!(next().await.unwrap(), Some(ServingStatus::NotServing));
    assert_eq!(check("lab.v1.Lab").await.unwrap(), ServingStatus::NotServing);
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);
    let list = soon(client.list(HealthListRequest {}).into_future()).await.unwrap();
    assert_eq!(list.statuses["lab.v1.Lab"].status(), ServingStatus::NotServing);
    server.health().set("lab.v1.Lab", true);
    assert_eq!(next().await.unwrap(), Some(ServingStatus::Serving));

    let drain = tokio::spawn(server.drain());
    assert_eq!(next().await.unwrap(), Some(ServingStatus::NotServing), "it drains");
    assert_eq!(next().await.unwrap_err().status().unwrap().code(), Code::Unavailable);
    assert!(soon(drain).await.unwrap().complete, "who watches holds no drain up");
}

#[tokio::test]
async fn a_server_does_not_tell_its_health_where_that_is_turned_off() {
    let site = Site::new();
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone()).health(None);
    let server = server.service(site.lab.clone()).start().await.unwrap();
    let client = HealthClient::new(site.channel(&server).await);
    let error = soon(client.check(of("")).into_future()).await.unwrap_err();
    let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
    assert_eq!(why.reason, NotExecutedReason::UnknownMethod);
}

#[tokio::test]
async fn a_service_that_is_not_ready_yet_says_so_from_the_start() {
    let (site, health) = (Site::new(), Health::new());
    health.set("lab.v1.Lab", false);
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    let server = server.service(site.lab.clone()).health(health.clone()).start().await.unwrap();
    let client = HealthClient::new(site.channel(&server).await);
    let check = async || soon(client.check(of("lab.v1.Lab")).into_future()).await.unwrap().status();
    assert_eq!(check().await, ServingStatus::NotServing);
    health.set("lab.v1.Lab", true);
    assert_eq!(check().await, ServingStatus::Serving);
}
