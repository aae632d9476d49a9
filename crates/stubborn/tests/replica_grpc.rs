//! Clients of gRPC at a group of replicas: three of them, each with a door.

mod common;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use common::group::Group;
use common::soon;
use stubborn::grpc::{CALL_ID, Grpc, Reflected};
use stubborn::health::{HealthCheckRequest, HealthClient, ServingStatus};
use stubborn::kv::{GetRequest, KvClient, PutReply, PutRequest, WatchRequest};
use stubborn::{
    Authority, CallError, Channel, ChannelBuilder, Identity, NotExecuted, NotExecutedReason,
    Outcome, Permissions,
};

const KV: &str = "stubborn.kv.v1.Kv";

/// A client of gRPC at one member.
async fn connect(group: &Group, member: SocketAddr, identity: &Identity) -> Channel {
    let builder = ChannelBuilder::new(format!("grpcs://{member}"))
        .trust(group.authority.trust())
        .identity(identity.clone());
    soon(builder.connect()).await.unwrap()
}

/// The member that leads, and the others.
async fn leader(group: &Group) -> (SocketAddr, Vec<SocketAddr>) {
    soon(async {
        loop {
            for replica in group.replicas.values() {
                let told = replica.status();
                if told.leader == told.node {
                    let others = group.replicas.keys().copied();
                    let own = replica.local_addr();
                    return (own, others.filter(|other| *other != own).collect());
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.into(), value: value.to_owned().into() }
}

/// Makes a call until it is known what became of it: a group may be without a leader at any time.
async fn settled<T>(mut call: impl AsyncFnMut() -> Result<T, CallError>) -> Result<T, CallError> {
    soon(async {
        loop {
            match call().await {
                Err(error) if is_to_be_repeated(&error) => {}
                ended => return ended,
            }
        }
    })
    .await
}

fn is_to_be_repeated(error: &CallError) -> bool {
    match error.outcome() {
        Outcome::Lost | Outcome::Unanswered => true,
        Outcome::NotExecuted(why) => {
            matches!(why.reason, NotExecutedReason::NeverSent | NotExecutedReason::Deadline)
        }
        _ => false,
    }
}

async fn try_put_under(
    client: &KvClient,
    id: &str,
    put: PutRequest,
) -> Result<PutReply, CallError> {
    let deadline = Duration::from_secs(5);
    settled(async || client.put(put.clone()).metadata(CALL_ID, id).deadline(deadline).await).await
}

async fn put_under(client: &KvClient, id: &str, put: PutRequest) -> PutReply {
    try_put_under(client, id, put).await.unwrap()
}

async fn get(client: &KvClient, key: &str) -> Result<Option<u64>, CallError> {
    let reply = settled(async || client.get(GetRequest { key: key.into() }).await).await?;
    Ok(reply.pair.map(|pair| pair.revision))
}

fn why<T>(result: Result<T, CallError>) -> NotExecutedReason {
    match result.err().expect("it is refused").outcome() {
        Outcome::NotExecuted(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_over_grpc_with_an_id_runs_once_at_a_group_whichever_replica_gets_its_copies() {
    let mut group = Group::start(|_, replica| replica.grpc(Grpc::new())).await;
    let identity = group.identity("client");
    let (leads, others) = leader(&group).await;
    let first = KvClient::new(connect(&group, leads, &identity).await);
    let second = KvClient::new(connect(&group, others[0], &identity).await);
    let reply = put_under(&first, "one", put("a", "1")).await;
    assert_eq!(put_under(&second, "one", put("a", "1")).await, reply);
    let another = try_put_under(&second, "one", put("a", "2")).await;
    assert_eq!(why(another), NotExecutedReason::FalseRetry);
    // Of somebody else it is another call.
    let stranger = KvClient::new(connect(&group, leads, &group.identity("other")).await);
    assert_eq!(put_under(&stranger, "one", put("b", "1")).await.revision, reply.revision + 1);

    // Calls are under way when their leader goes.
    let calls: Vec<_> = (0..32)
        .map(|number| {
            let (id, request) = (format!("call-{number}"), put(&format!("key-{number}"), "1"));
            let sent = first.put(request.clone()).metadata(CALL_ID, id.as_str());
            let sent = sent.deadline(Duration::from_secs(5)).into_future();
            (id, request, tokio::spawn(sent))
        })
        .collect();
    tokio::task::yield_now().await;
    drop(group.replicas.remove(&leads));
    for (id, request, sent) in calls {
        let copied = put_under(&second, &id, request).await;
        if let Ok(told) = soon(sent).await.unwrap() {
            assert_eq!(told, copied, "a copy got another reply");
        }
    }
    assert_eq!(put_under(&second, "one", put("a", "1")).await, reply);
    assert_eq!(get(&second, "a").await.unwrap(), Some(reply.revision));
    // Over datagrams an id means the same. Each of 34 calls ran once.
    let datagrams = KvClient::new(group.open_at(others[1], &identity).await.channel());
    assert_eq!(put_under(&datagrams, "one", put("a", "1")).await, reply);
    let last = put_under(&datagrams, "last", put("z", "1")).await;
    assert_eq!(last.revision, 2 + 32 + 1);
    // A read sees what ended before it began, at whichever replica.
    assert_eq!(get(&second, "z").await.unwrap(), Some(last.revision));
}

#[tokio::test]
async fn the_changes_of_a_group_are_streamed_over_grpc_until_its_replica_stops() {
    let mut group = Group::start(|_, replica| replica.grpc(Grpc::new())).await;
    let identity = group.identity("client");
    let (leads, others) = leader(&group).await;
    let [writes, watches] = [leads, others[0]];
    let writer = KvClient::new(connect(&group, writes, &identity).await);
    let channel = connect(&group, watches, &identity).await;
    let watcher = KvClient::new(channel.clone());
    let begin = async |from| {
        let watch = watcher.watch(WatchRequest { from, keys: None });
        soon(watch.into_future()).await.unwrap()
    };
    let mut watch = begin(1).await;
    for number in 1..=3 {
        let reply = put_under(&writer, &number.to_string(), put("a", &number.to_string())).await;
        assert_eq!(reply.revision, number);
    }
    let mut seen = 0;
    while seen < 3 {
        match soon(watch.message()).await {
            Ok(told) => {
                let told = told.expect("it goes on");
                seen += told.changes.len() as u64;
                assert_eq!(told.revision, seen);
            }
            // Its replica has lost its leader.
            Err(error) if is_to_be_repeated(&error) => watch = begin(seen + 1).await,
            Err(error) => panic!("{error}"),
        }
    }
    // What is there to be asked, and how it is.
    let services = soon(Reflected::new(channel.clone()).services()).await.unwrap();
    for service in [KV, "grpc.health.v1.Health", "stubborn.group.v1.Group"] {
        assert!(services.iter().any(|known| known == service), "{services:?}");
    }
    let health = HealthClient::new(channel).watch(HealthCheckRequest { service: KV.into() });
    let mut health = soon(health.into_future()).await.unwrap();
    let mut last = ServingStatus::NotServing;
    while last != ServingStatus::Serving {
        last = soon(health.message()).await.unwrap().expect("it goes on").status();
    }
    soon(group.replicas.remove(&watches).unwrap().stop()).await.unwrap();
    while let Ok(Some(told)) = soon(health.message()).await {
        last = told.status();
    }
    assert_eq!(last, ServingStatus::NotServing);
    soon(async { while matches!(watch.message().await, Ok(Some(_))) {} }).await;
}

#[tokio::test]
async fn a_replica_without_a_leader_runs_nothing_over_grpc_and_says_so() {
    let mut group = Group::start(|_, replica| replica.grpc(Grpc::new())).await;
    let identity = group.identity("client");
    let (leads, others) = leader(&group).await;
    let channel = connect(&group, others[0], &identity).await;
    let client = KvClient::new(channel.clone());
    put_under(&client, "one", put("a", "1")).await;
    for gone in [leads, others[1]] {
        drop(group.replicas.remove(&gone));
    }
    // Until it has noticed.
    let refused = soon(async {
        loop {
            match client.put(put("b", "1")).await.unwrap_err().into_outcome() {
                Outcome::NotExecuted(why) => break why.reason,
                Outcome::Lost => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(refused.await, NotExecutedReason::NeverSent);
    let read = client.get(GetRequest { key: "a".into() });
    assert_eq!(why(soon(read.into_future()).await), NotExecutedReason::NeverSent);
    let health = HealthClient::new(channel).check(HealthCheckRequest { service: KV.into() });
    let health = soon(health.into_future()).await.unwrap();
    assert_eq!(health.status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn who_may_not_call_a_group_may_not_over_grpc_either_and_nothing_of_the_call_is_in_its_log() {
    const TELLER: &str = "spiffe://bank.example/teller";
    const CLERK: &str = "spiffe://bank.example/clerk";
    let permissions = Permissions::new()
        .allow_spiffe("stubborn.kv.v1.Kv/Put", [TELLER])
        .allow(KV, |call| call.peer.spiffe().is_some());
    let group = Group::start(|_, replica| {
        replica.grpc(Grpc::new()).authorize(permissions.clone()).intercept(|call| {
            match call.request().body.to_vec().windows(6).any(|part| part == b"secret") {
                true => Err(NotExecuted::because(NotExecutedReason::Malformed, "no secrets")),
                false => Ok(()),
            }
        })
    })
    .await;
    let (leads, others) = leader(&group).await;
    // Nobody's certificate of another authority is taken, and who shows none is not let in.
    let forged = Authority::generate().unwrap().issue_client(TELLER).unwrap();
    let builder = || ChannelBuilder::new(format!("grpcs://{leads}")).trust(group.authority.trust());
    for builder in [builder(), builder().identity(forged)] {
        let called = async {
            let client = KvClient::new(builder.connect().await.ok()?);
            client.get(GetRequest { key: "a".into() }).await.ok()
        };
        assert!(soon(called).await.is_none());
    }
    let [teller, clerk] = [TELLER, CLERK].map(|name| group.identity(name));
    let clerk = KvClient::new(connect(&group, others[0], &clerk).await);
    let teller = KvClient::new(connect(&group, others[1], &teller).await);
    let before = put_under(&teller, "one", put("a", "1")).await;
    let denied = NotExecutedReason::PermissionDenied;
    for id in ["one", "two"] {
        assert_eq!(why(try_put_under(&clerk, id, put("a", "1")).await), denied);
    }
    let secret = try_put_under(&teller, "three", put("secret", "1")).await;
    assert_eq!(why(secret), NotExecutedReason::Malformed);
    assert_eq!(why(get(&teller, "secret").await), NotExecutedReason::Malformed);
    assert_eq!(get(&clerk, "a").await.unwrap(), Some(before.revision));
    // What is taken away is gone at once, also from who watches.
    let watch = clerk.watch(WatchRequest { from: 1, keys: None });
    let mut watch = soon(watch.into_future()).await.unwrap();
    let _ = soon(watch.message()).await;
    for replica in group.replicas.values() {
        replica.authorize(&Permissions::new().allow_spiffe(KV, [TELLER])).unwrap();
    }
    soon(async { while matches!(watch.message().await, Ok(Some(_))) {} }).await;
    let watched = settled(async || {
        let watch = clerk.watch(WatchRequest { from: 1, keys: None });
        watch.await?.message().await
    });
    assert_eq!(why(watched.await), denied);
    assert_eq!(why(get(&clerk, "a").await), denied);
    // Each call that was let in is one revision.
    assert_eq!(put_under(&teller, "next", put("b", "1")).await.revision, before.revision + 1);
}

#[tokio::test]
async fn callers_over_grpc_at_a_group_are_known_by_their_own_tokens_and_ids_are_their_own() {
    let group = Group::start(|_, replica| {
        let replica = replica.grpc(Grpc::new()).anybody_may_call();
        replica
            .authenticate(|token| token.strip_prefix("of-").map(ToOwned::to_owned))
            .authorize(Permissions::new().allow_subjects(KV, ["ada", "bob"]))
    })
    .await;
    let (_, others) = leader(&group).await;
    let builder = ChannelBuilder::new(format!("grpcs://{}", others[0]));
    let channel = soon(builder.trust(group.authority.trust()).connect()).await.unwrap();
    let client = KvClient::new(channel);
    let call = async |token: &str| {
        settled(async || {
            let call = client.put(put("a", token)).metadata(CALL_ID, "one");
            call.metadata("authorization", format!("Bearer {token}")).await
        })
        .await
    };
    // One after the other, and all by the door's one session.
    let ada = call("of-ada").await.unwrap();
    let bob = call("of-bob").await.unwrap();
    assert_eq!(bob.revision, ada.revision + 1);
    assert_eq!(call("of-ada").await.unwrap(), ada);
    assert_eq!(why(call("of-eve").await), NotExecutedReason::PermissionDenied);
    assert_eq!(why(call("eve").await), NotExecutedReason::Unauthenticated);
}
