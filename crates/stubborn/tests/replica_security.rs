//! Who may call a group of replicas, and whose its sessions are: three of them, on sockets and disks.

mod common;

use std::fs;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use common::group::Group;
use common::soon;
use stubborn::kv::{GetRequest, KvClient, PutRequest, WatchRequest};
use stubborn::{
    AccessError, AccessFile, Arriving, CallError, CallId, CallState, Connection, NotExecuted,
    NotExecutedReason, Outcome, Permissions, ReplicaError,
};
use tokio::sync::watch;

const TELLER: &str = "spiffe://bank.example/teller";
const CLERK: &str = "spiffe://bank.example/clerk";
const KV: &str = "stubborn.kv.v1.Kv";
const PUT: &str = "stubborn.kv.v1.Kv/Put";

async fn put(connection: &Connection, key: &str) -> Result<CallId, CallError> {
    let put = PutRequest { key: key.into(), value: "1".into() };
    let mut call = KvClient::new(connection.channel()).put(put);
    let id = soon(call.id()).await?;
    soon(call.into_future()).await.map(|_| id)
}

async fn get(connection: &Connection, key: &str) -> Result<bool, CallError> {
    let get = KvClient::new(connection.channel()).get(GetRequest { key: key.into() });
    soon(get.into_future()).await.map(|reply| reply.pair.is_some())
}

fn why<T>(result: Result<T, CallError>) -> NotExecutedReason {
    match result.err().expect("it is refused").outcome() {
        Outcome::NotExecuted(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

/// Why a call is refused: with its reason from some time on. As long as a member has not applied the entry
/// that activates the version of groups that has reasons, it says "fenced" of what changes something; and
/// a read that another member got a copy of, since the first one was slow, is unanswered.
async fn refusal<T>(mut call: impl AsyncFnMut() -> Result<T, CallError>) -> NotExecutedReason {
    soon(async {
        loop {
            let result = call().await;
            if matches!(&result, Err(error) if *error.outcome() == Outcome::Unanswered) {
                continue;
            }
            match why(result) {
                NotExecutedReason::Fenced => {}
                why => break why,
            }
        }
    })
    .await
}

fn says_secret(call: &Arriving<'_>) -> bool {
    call.request().body.to_vec().windows(6).any(|part| part == b"secret")
}

fn tellers_write() -> Permissions {
    Permissions::new()
        .allow_spiffe(PUT, [TELLER])
        .allow(KV, |call| call.peer.spiffe().is_some())
        .allow_health()
}

#[tokio::test]
async fn a_group_runs_what_is_allowed_and_goes_by_new_permissions_while_it_runs() {
    let group = Group::start(|_, replica| replica.authorize(tellers_write())).await;
    let [teller, clerk] = [TELLER, CLERK].map(|name| group.identity(name));
    let (teller, clerk) = (group.open(&teller).await, group.open(&clerk).await);
    put(&teller, "a").await.unwrap();
    let denied = NotExecutedReason::PermissionDenied;
    for _ in 0..3 {
        assert_eq!(refusal(async || put(&clerk, "b").await).await, denied);
    }
    assert!(get(&clerk, "a").await.unwrap() && !get(&clerk, "b").await.unwrap());
    // What is not named: the group's own service.
    let own = stubborn::group::GroupClient::new(teller.channel());
    let status = async || own.status(stubborn::group::StatusRequest {}).await;
    assert_eq!(refusal(status).await, denied);
    // A stranger reads nothing, and watches nothing.
    let stranger = group.open(&group.identity("client")).await;
    assert_eq!(refusal(async || get(&stranger, "a").await).await, denied);
    let watch = KvClient::new(stranger.channel()).watch(WatchRequest { from: 1, keys: None });
    let mut watched = soon(watch.into_future()).await.unwrap();
    assert_eq!(why(soon(watched.message()).await), denied);

    let mut spelled_wrong = Vec::new();
    for replica in group.replicas.values() {
        let nobody = Permissions::new().allow_anybody("stubborn.kv.v1.Vk");
        spelled_wrong.push(replica.authorize(&nobody));
        let all = Permissions::new().allow_spiffe(KV, [TELLER, CLERK]);
        replica.authorize(&all).unwrap();
    }
    for error in spelled_wrong {
        assert!(matches!(error, Err(ReplicaError::Settings(why)) if why.contains("Vk")));
    }
    // In the sessions that they have.
    put(&clerk, "b").await.unwrap();
    assert!(get(&teller, "b").await.unwrap());
}

#[tokio::test]
async fn a_replica_takes_permissions_and_tokens_from_a_file_and_keeps_them_if_the_next_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.conf");
    // Nobody sees half of it.
    let write = |text: &str| {
        fs::write(folder.path().join("next"), text).unwrap();
        fs::rename(folder.path().join("next"), &path).unwrap();
    };
    write(&format!("{KV}/Get = certificate\n{PUT} = {TELLER}"));
    let told = Arc::new(watch::Sender::new((0, 0)));
    let group = Group::start(|_, replica| {
        let told = told.clone();
        let tell = move |result: &Result<(), AccessError>| {
            told.send_modify(|(good, wrong)| match result {
                Ok(()) => *good += 1,
                Err(_) => *wrong += 1,
            });
        };
        replica.access_file(AccessFile::new(&path).every(Duration::from_millis(5)).tell(tell))
    })
    .await;
    let [teller, clerk] = [TELLER, CLERK].map(|name| group.identity(name));
    let (teller, clerk) = (group.open(&teller).await, group.open(&clerk).await);
    put(&teller, "a").await.unwrap();
    let denied = NotExecutedReason::PermissionDenied;
    assert_eq!(refusal(async || put(&clerk, "b").await).await, denied);
    // None of the three has such a service.
    write("stubborn.kv.v1.Vk = anybody");
    soon(told.subscribe().wait_for(|(_, wrong)| *wrong >= 3)).await.unwrap();
    assert!(get(&clerk, "a").await.unwrap());
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let token = format!("{PUT} = {CLERK}, subject:ada\n{KV} = certificate\ntoken ada = {digest}");
    write(&token);
    soon(told.subscribe().wait_for(|(good, _)| *good >= 3)).await.unwrap();
    put(&clerk, "b").await.unwrap();
    assert_eq!(refusal(async || put(&teller, "c").await).await, denied);
    let request = PutRequest { key: "c".into(), value: "1".into() };
    let call = KvClient::new(teller.channel()).put(request);
    soon(call.metadata("authorization", "Bearer test").into_future()).await.unwrap();
}

#[tokio::test]
async fn members_that_differ_in_permissions_tell_the_same_of_a_call() {
    // The first member alone does not let anybody write.
    let group = Group::start(|number, replica| match number {
        1 => replica.authorize(Permissions::new().allow_anybody("stubborn.kv.v1.Kv/Get")),
        _ => replica,
    })
    .await;
    let teller = group.identity(TELLER);
    let strict = group.replicas.iter().find(|(_, replica)| replica.status().node == 1);
    let strict = *strict.expect("the first member").0;
    let others: Vec<_> = group.replicas.keys().filter(|member| **member != strict).collect();
    let first = group.open_at(strict, &teller).await;
    let mut id = None;
    let refused = refusal(async || {
        let request = PutRequest { key: "a".into(), value: "1".into() };
        let mut refused = KvClient::new(first.channel()).put(request);
        id = Some(refused.id().await?);
        refused.await
    });
    assert_eq!(refused.await, NotExecutedReason::PermissionDenied);
    let id = id.expect("it has a number");
    let ticket = first.ticket();
    for member in others {
        let other = group.open_at(*member, &teller).await;
        let known = soon(other.outcome_of(id, ticket.clone())).await.unwrap();
        let denied = |why: &NotExecuted| why.reason == NotExecutedReason::PermissionDenied;
        assert!(
            matches!(&known, CallState::NotExecuted(why) if denied(why))
                || matches!(known, CallState::AlreadySettled),
            "{known:?}"
        );
        assert!(!get(&other, "a").await.unwrap());
        put(&other, "b").await.unwrap();
    }
    assert!(get(&first, "b").await.unwrap());
}

#[tokio::test]
async fn a_session_of_a_group_is_its_spiffe_ids_and_survives_a_new_key_and_the_loss_of_its_replica()
{
    let mut group = Group::start(|_, replica| replica).await;
    let [first, renewed] = [TELLER, TELLER].map(|name| group.identity(name));
    let connection = group.open(&first).await;
    // From some call on, since the group begins with the version that knows keys alone.
    let colleague = group.open(&renewed).await;
    let id = soon(async {
        loop {
            let id = put(&connection, "a").await.unwrap();
            let known = colleague.outcome_of(id, connection.ticket()).await;
            if matches!(known, Ok(CallState::Replied(_) | CallState::AlreadySettled)) {
                break id;
            }
        }
    })
    .await;
    let stranger = group.open(&group.identity(CLERK)).await;
    let known = soon(stranger.outcome_of(id, connection.ticket())).await;
    assert!(!matches!(known, Ok(CallState::Replied(_) | CallState::AlreadySettled)), "{known:?}");
    // Its next connection is to another member, with the new key.
    connection.reload(&renewed).unwrap();
    let home = group.members[&connection.server_identity().unwrap().0.0];
    let home = group.replicas.remove(&home).unwrap();
    soon(home.stop()).await.unwrap();
    let next = put(&connection, "b").await.unwrap();
    assert_eq!(next.session, id.session);
}

#[tokio::test]
async fn a_group_knows_callers_by_tokens_and_its_interceptors_see_what_is_let_in() {
    let group = Group::start(|_, replica| {
        replica
            .authenticate(|token| token.strip_prefix("of-").map(ToOwned::to_owned))
            .authorize(Permissions::new().allow_subjects(KV, ["ada"]))
            .intercept(|call| match says_secret(call) {
                true if call.method().name() == PUT => {
                    Err(NotExecuted::because(NotExecutedReason::Malformed, "no secrets"))
                }
                _ => Ok(()),
            })
            .intercept(|call| match call.context().metadata.get_str("panics") {
                // Without a word, which would take long.
                Some(_) => std::panic::resume_unwind(Box::new("as its test wants")),
                None => Ok(()),
            })
    })
    .await;
    let nobody = group.identity("client");
    let connection = group.open(&nobody).await;
    let call = |key: &str, token: &str| {
        let put = PutRequest { key: key.into(), value: "1".into() };
        let call = KvClient::new(connection.channel()).put(put);
        soon(call.metadata("authorization", format!("Bearer {token}")).into_future())
    };
    call("a", "of-ada").await.unwrap();
    assert_eq!(refusal(async || call("b", "ada").await).await, NotExecutedReason::Unauthenticated);
    assert_eq!(
        refusal(async || call("b", "of-bob").await).await,
        NotExecutedReason::PermissionDenied
    );
    assert_eq!(
        refusal(async || call("secret", "of-ada").await).await,
        NotExecutedReason::Malformed
    );
    let panics = KvClient::new(connection.channel()).get(GetRequest { key: "a".into() });
    let panics = panics.metadata("authorization", "Bearer of-ada").metadata("panics", "1");
    assert_eq!(why(soon(panics.into_future()).await), NotExecutedReason::PermissionDenied);
    let get = |key: &str| {
        let get = KvClient::new(connection.channel()).get(GetRequest { key: key.into() });
        soon(get.metadata("authorization", "Bearer of-ada").into_future())
    };
    assert!(get("a").await.unwrap().pair.is_some());
    for refused in ["b", "secret"] {
        assert!(get(refused).await.unwrap().pair.is_none(), "{refused}");
    }
}
