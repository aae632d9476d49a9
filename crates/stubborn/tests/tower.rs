//! Layers of tower around handlers and channels.

mod common;

use std::future::IntoFuture;
use std::time::Duration;

use common::*;
use stubborn::{
    CallError, CallId, CallState, Channel, Code, NotExecutedReason, Outcome, Server, ServerBuilder,
    ServerHandle,
};
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;

/// Nothing waits for it: it passes.
const SHORT: Duration = Duration::from_millis(20);

async fn start(site: &Site, layers: impl FnOnce(ServerBuilder) -> ServerBuilder) -> ServerHandle {
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    layers(server.service(site.lab.clone())).start().await.unwrap()
}

fn why(error: &CallError) -> NotExecutedReason {
    match error.outcome() {
        Outcome::NotExecuted(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

/// Why a call did not run that was pending.
async fn settled(channel: &Channel, id: CallId) -> NotExecutedReason {
    loop {
        match soon(channel.outcome::<Note>(&COUNT, id)).await.unwrap() {
            CallState::NotExecuted(why) => return why.reason,
            CallState::Executing => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A call that its handler holds until the gate opens.
async fn held(site: &Site, channel: &Channel) -> tokio::task::JoinHandle<Result<Note, CallError>> {
    let began = *site.lab.began.borrow();
    let held = tokio::spawn(call(channel, &HOLD, &Note::number(7)).into_future());
    reaches(&site.lab.began, began + 1).await;
    held
}

#[tokio::test]
async fn a_call_that_a_layer_of_the_server_turns_away_did_not_run() {
    let site = Site::new();
    let layers = ServiceBuilder::new().load_shed().concurrency_limit(1);
    let server = start(&site, |server| server.layer(layers)).await;
    let channel = site.channel(&server).await;
    let first = held(&site, &channel).await;
    let turned = call(&channel, &COUNT, &Note::default()).deadline(LIMIT);
    let error = soon(turned.into_future()).await.unwrap_err();
    assert_eq!(why(&error), NotExecutedReason::Overloaded, "{error}");
    assert_eq!(site.lab.counted(), 0);
    site.lab.gate.add_permits(1);
    assert_eq!(soon(first).await.unwrap().unwrap().number, 7);
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_call_that_waits_for_a_layer_past_its_deadline_did_not_run() {
    let site = Site::new();
    let server = start(&site, |s| s.layer(ConcurrencyLimitLayer::new(1))).await;
    let channel = site.channel(&server).await;
    let _first = held(&site, &channel).await;
    let waits = call(&channel, &COUNT, &Note::default()).deadline(SHORT);
    let error = soon(waits.into_future()).await.unwrap_err();
    // Whoever notices the deadline first: the client may be told that the call has begun.
    let reason = match *error.outcome() {
        Outcome::Pending(id) => settled(&channel, id).await,
        _ => why(&error),
    };
    assert_eq!(reason, NotExecutedReason::Deadline, "{error}");
    assert_eq!(site.lab.counted(), 0);
}

#[tokio::test]
async fn a_handler_that_a_layer_stops_has_run() {
    let site = Site::new();
    let server = start(&site, |server| server.layer(TimeoutLayer::new(SHORT))).await;
    let channel = site.channel(&server).await;
    let stopped = call(&channel, &HOLD, &Note::default()).into_future();
    let error = soon(stopped).await.unwrap_err();
    assert_eq!(error.status().map(stubborn::Status::code), Some(Code::Cancelled), "{error}");
    assert_eq!(*site.lab.dropped.borrow(), 1);
}

/// A call that its handler holds, which a layer of the client has given up. One that was given up before
/// it was sent did not run.
async fn given_up(timed: &Channel) -> CallId {
    loop {
        let error = soon(call(timed, &HOLD, &Note::default()).into_future()).await.unwrap_err();
        match error.outcome() {
            Outcome::Pending(id) => return *id,
            _ => assert_eq!(why(&error), NotExecutedReason::NeverSent, "{error}"),
        }
    }
}

#[tokio::test]
async fn what_a_layer_of_the_client_does_takes_nothing_from_the_outcome() {
    let site = Site::new();
    let server = site.start().await;
    let plain = site.channel(&server).await;
    let timed = |limit| stubborn::tower::layered(plain.clone(), TimeoutLayer::new(limit));
    let id = given_up(&timed(SHORT)).await;
    site.lab.gate.add_permits(1);
    // The handler has ended before its reply is kept.
    let state = loop {
        match soon(plain.outcome::<Note>(&HOLD, id)).await.unwrap() {
            CallState::Executing => {}
            state => break state,
        }
    };
    assert!(matches!(state, CallState::Replied(_)), "{state:?}");
    let timed = timed(LIMIT);
    assert_eq!(number(&timed, &COUNT).await.unwrap(), 1);
    assert_eq!(number(&timed, &LOOK).await.unwrap(), 1);

    let shed = ServiceBuilder::new().load_shed().concurrency_limit(1);
    let shed = stubborn::tower::layered(plain, shed);
    let first = held(&site, &shed).await;
    let error = soon(call(&shed, &COUNT, &Note::default()).into_future()).await.unwrap_err();
    assert_eq!(why(&error), NotExecutedReason::NeverSent, "{error}");
    site.lab.gate.add_permits(1);
    soon(first).await.unwrap().unwrap();
    assert_eq!(number(&shed, &COUNT).await.unwrap(), 2);
}
