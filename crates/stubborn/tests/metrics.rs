//! What servers and channels count and measure.

mod common;

use std::future::IntoFuture;

use common::*;
use stubborn::metrics::{MethodCalls, MetricsClient, Side, SnapshotReply, SnapshotRequest};
use stubborn::{ClientEndpoint, Method, MetricsFor, Outcome, Semantics, Server, Shape};

fn of(told: &SnapshotReply, side: Side, method: &str) -> MethodCalls {
    let same = |calls: &&MethodCalls| calls.side() == side && calls.method == method;
    told.methods.iter().find(same).cloned().unwrap_or_default()
}

fn count(counts: &[stubborn::metrics::Count], name: &str) -> u64 {
    counts.iter().find(|count| count.name == name).map_or(0, |count| count.count)
}

#[tokio::test]
async fn both_sides_count_every_call_by_its_method_and_outcome() {
    let site = Site::new();
    let server = site.start().await;
    let connection = soon(site.to(&server).open()).await.unwrap();
    let channel = connection.channel();
    for number in 0..3 {
        soon(call(&channel, &ECHO, &Note::number(number)).into_future()).await.unwrap();
    }
    soon(call(&channel, &REFUSE, &Note::number(1)).into_future()).await.unwrap_err();
    let missing = Method::new("lab.v1.Lab/Missing", Semantics::AtMostOnce, Shape::Unary);
    let error = soon(call(&channel, &missing, &Note::number(1)).into_future()).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)));
    let held = tokio::spawn(call(&channel, &HOLD_READ, &Note::number(1)).into_future());
    reaches(&site.lab.began, 1).await;

    for (told, side) in [(server.metrics(8), Side::Server), (connection.metrics(8), Side::Client)] {
        let echo = of(&told, side, ECHO.name());
        assert_eq!((echo.replied, echo.ended(), echo.in_flight), (3, 3, 0), "{side:?}");
        let latency = echo.latency.unwrap();
        assert_eq!(latency.count, 3);
        assert!(latency.max_ns > 0 && latency.quantile(0.5) <= latency.max_ns);
        let refused = of(&told, side, REFUSE.name());
        assert_eq!((refused.statuses.len(), refused.ended()), (1, 1));
        let unknown = of(&told, side, if side == Side::Server { "" } else { missing.name() });
        assert_eq!(count(&unknown.not_executed, "unknown_method"), 1, "{side:?}");
        assert_eq!(of(&told, side, HOLD_READ.name()).in_flight, 1);
        let link = &told.links[0];
        assert!(link.rtt_ns > 0 && link.window > 0 && link.mtu >= 1_200 && link.side() == side);
        assert!(link.traffic.unwrap().packets_received > 0);
    }
    assert_eq!(server.metrics(0).held.unwrap().sessions, 1);

    held.abort();
    reaches(&site.lab.dropped, 1).await;
    let called = of(&connection.metrics(0), Side::Client, HOLD_READ.name());
    let served = of(&server.metrics(0), Side::Server, HOLD_READ.name());
    for calls in [called, served] {
        assert_eq!((calls.abandoned, calls.in_flight), (1, 0));
        assert_eq!(calls.latency.unwrap().count, 0);
    }
}

#[tokio::test]
async fn a_server_tells_what_it_counts_to_those_who_may_ask() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    soon(call(&channel, &ECHO, &Note::number(1)).into_future()).await.unwrap();
    let request = SnapshotRequest { links: 1 };
    let told = soon(MetricsClient::new(channel).snapshot(request).into_future()).await.unwrap();
    assert_eq!(of(&told, Side::Server, ECHO.name()).replied, 1);
    assert_eq!((told.links.len(), told.held.unwrap().connections), (1, 1));
    assert!(told.uptime_ns > 0 && !told.version.is_empty());

    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    let server = server.metrics(MetricsFor::Nobody).start().await.unwrap();
    let channel = site.channel(&server).await;
    let error = soon(MetricsClient::new(channel).snapshot(request).into_future()).await;
    assert!(matches!(error.unwrap_err().outcome(), Outcome::NotExecuted(_)));
}

#[tokio::test]
async fn links_beyond_the_bound_and_links_that_are_gone_are_counted_together() {
    let site = Site::new();
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    let server = server.service(site.lab.clone()).workers(2).start().await.unwrap();
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        let endpoint = ClientEndpoint::new().unwrap();
        let channel = soon(site.to(&server).endpoint(&endpoint).connect()).await.unwrap();
        soon(call(&channel, &ECHO, &Note::number(1)).into_future()).await.unwrap();
        endpoints.push((endpoint, channel));
    }
    let told = server.metrics(2);
    assert_eq!((told.links.len(), told.traffic.unwrap().connections), (2, 5));
    assert!(told.links[0].datagrams() >= told.links[1].datagrams());
    assert_eq!(of(&told, Side::Server, ECHO.name()).replied, 5, "of both workers");
    for (endpoint, channel) in endpoints {
        drop(channel);
        soon(endpoint.close()).await;
    }
    let after = server.metrics(2).traffic.unwrap();
    assert!(after.connections == 5 && after.packets_sent >= told.traffic.unwrap().packets_sent);
}

#[cfg(feature = "replica")]
#[tokio::test]
async fn a_replica_counts_the_commands_and_reads_of_its_clients() {
    use stubborn::kv::{GetRequest, KvClient, KvReplica, PutRequest, Store};
    use stubborn::{Authority, ChannelBuilder, Replica};

    let authority = Authority::generate().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = authority.issue_node(["node-1.stubborn".to_owned(), "127.0.0.1".into()]).unwrap();
    let key = node.fingerprint().unwrap();
    // It is not connected to: there is no other member.
    let replica = Replica::open(folder.path().join("1"))
        .group(0x100)
        .node(1)
        .listen("127.0.0.1:0")
        .identity(node)
        .authority(authority.trust())
        .member(1, "127.0.0.1:1", key)
        .create(true)
        .machine(KvReplica::new(Store::new()));
    #[cfg(feature = "prometheus")]
    let replica = replica.prometheus("127.0.0.1:0");
    let replica = soon(replica.start()).await.unwrap();
    let channel = ChannelBuilder::new(replica.local_addr().to_string())
        .trust(authority.trust())
        .identity(authority.issue_client("client").unwrap())
        // It may not lead yet.
        .wait_for_ready(true);
    let channel = soon(channel.connect()).await.unwrap();
    let client = KvClient::new(channel.clone());
    for value in ["1", "2"] {
        let put = PutRequest { key: "a".into(), value: value.into() };
        soon(client.put(put).into_future()).await.unwrap();
    }
    soon(client.get(GetRequest { key: "a".into() }).into_future()).await.unwrap();
    let request = SnapshotRequest { links: 0 };
    let asked = soon(MetricsClient::new(channel).snapshot(request).into_future()).await.unwrap();
    let told = soon(replica.metrics(8)).await.unwrap();
    for told in [asked, told] {
        let put = of(&told, Side::Server, "stubborn.kv.v1.Kv/Put");
        assert_eq!((put.replied, put.latency.clone().unwrap().count), (2, 2));
        assert!(put.latency.unwrap().max_ns > 0);
        assert_eq!(of(&told, Side::Server, "stubborn.kv.v1.Kv/Get").replied, 1);
        assert!(told.links[0].rtt_ns > 0 && told.held.unwrap().connections >= 1);
    }
    #[cfg(feature = "prometheus")]
    {
        let told = http_get(replica.prometheus_addr().unwrap(), "/metrics").await;
        assert!(told.contains("\nstubborn_group_leads 1\n"), "{told}");
        let put = "method=\"stubborn.kv.v1.Kv/Put\",side=\"server\",outcome=\"replied\"";
        assert!(told.contains(&format!("stubborn_calls_total{{{put},detail=\"\"}} 2")), "{told}");
    }
    soon(replica.stop()).await.unwrap();
}
