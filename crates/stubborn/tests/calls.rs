//! Calls over real sockets on this machine.

mod common;

use common::*;
use std::future::IntoFuture;
use std::time::Duration;
use stubborn::client::EcnState;
use stubborn::{CallState, Code, NotExecutedReason, Outcome};

#[tokio::test]
async fn a_call_returns_what_its_handler_returned() {
    let site = Site::new();
    let server = site.start().await;
    let connection = soon(site.to(&server).open()).await.unwrap();
    let channel = connection.channel();
    for size in [0, 1, 1_000, 70_000, 3 << 20] {
        let note = Note::data(vec![size as u8; size]);
        assert_eq!(soon(call(&channel, &ECHO, &note).into_future()).await.unwrap(), note);
    }
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
    assert_eq!(number(&channel, &LOOK).await.unwrap(), 1);
    let (peer, stats) = connection.stats().unwrap();
    assert_eq!(peer, server.local_addr());
    // The mark in the IP header has to survive batched receives.
    if cfg!(target_os = "linux") {
        assert_eq!(stats.ecn, EcnState::Capable, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_each_run_once() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let calls: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(call(&channel, &COUNT, &Note::default()).into_future()))
        .collect();
    let mut numbers = Vec::new();
    for call in calls {
        numbers.push(soon(call).await.unwrap().unwrap().number);
    }
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=1_000));
}

#[tokio::test]
async fn a_refusal_and_a_panic_are_both_told_as_executed_and_the_server_goes_on() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let refused = number(&channel, &REFUSE).await.unwrap_err();
    assert_eq!(refused.status().unwrap().code(), Code::FailedPrecondition);
    let panicked = number(&channel, &PANIC).await.unwrap_err();
    assert_eq!(panicked.status().unwrap().code(), Code::Internal);
    assert_eq!(panicked.peer(), Some(server.local_addr()));
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_method_that_the_server_does_not_have_is_not_executed() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    for semantics in [stubborn::Semantics::AtMostOnce, stubborn::Semantics::Read] {
        let name = "lab.v1.Lab/Nothing".to_owned();
        let method = stubborn::Method::dynamic(name, semantics, stubborn::Shape::Unary);
        let error = number(&channel, &method).await.unwrap_err();
        let Outcome::NotExecuted(why) = error.outcome() else { panic!("{error}") };
        assert_eq!(why.reason, NotExecutedReason::UnknownMethod);
    }
}

#[tokio::test]
async fn a_call_with_side_effects_that_is_sent_as_a_read_does_not_run() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let name = COUNT.name().to_owned();
    let wrong = stubborn::Method::dynamic(name, stubborn::Semantics::Read, stubborn::Shape::Unary);
    let error = number(&channel, &wrong).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(site.lab.counted(), 0);
}

#[tokio::test]
async fn a_maybe_call_arrives_where_nothing_is_lost_and_returns_at_once() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    soon(call(&channel, &TELL, &Note::number(7)).into_future()).await.unwrap();
    reaches(&site.lab.told, 7).await;
}

#[tokio::test]
async fn the_id_is_known_before_the_call_and_its_outcome_after() {
    let site = Site::new();
    let server = site.start().await;
    let connection = soon(site.to(&server).open()).await.unwrap();
    let channel = connection.channel();
    let mut first = call(&channel, &COUNT, &Note::default());
    let id = soon(first.id()).await.unwrap();
    assert_eq!(site.lab.counted(), 0);
    assert_eq!(soon(first.into_future()).await.unwrap().number, 1);

    let elsewhere = soon(site.to(&server).open()).await.unwrap();
    let asked = soon(elsewhere.outcome_of(id, connection.ticket())).await.unwrap();
    let CallState::Replied(reply) = asked else { panic!("{asked:?}") };
    assert_eq!(reply.reply.decode::<Note>(COUNT.id()).unwrap().number, 1);
}

#[tokio::test]
async fn a_session_that_is_taken_over_settles_its_calls_for_good() {
    let site = Site::new();
    let server = site.start().await;
    let connection = soon(site.to(&server).open()).await.unwrap();
    let channel = connection.channel();
    let mut held = call(&channel, &HOLD, &Note::number(5));
    let id = soon(held.id()).await.unwrap();
    let held = tokio::spawn(held.into_future());
    reaches(&site.lab.began, 1).await;

    // Another process takes the session over.
    let later = soon(site.to(&server).resume(connection.ticket().unwrap()).open()).await.unwrap();
    let state = soon(later.channel().outcome::<Note>(&HOLD, id)).await.unwrap();
    assert_eq!(state, CallState::Executing);
    let unused = stubborn::CallId { slot: id.slot + 1, ..id };
    let state = soon(later.channel().outcome::<Note>(&HOLD, unused)).await.unwrap();
    assert!(matches!(state, CallState::NotExecuted(_)), "{state:?}");
    site.lab.gate.add_permits(1);
    reaches(&site.lab.ended, 1).await;
    let state = loop {
        match soon(later.channel().outcome::<Note>(&HOLD, id)).await.unwrap() {
            CallState::Executing => {}
            state => break state,
        }
    };
    assert_eq!(state, CallState::Replied(Note::number(5)));
    held.abort();
}

#[tokio::test]
async fn nobody_learns_of_a_call_without_the_sessions_secret() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let mut first = call(&channel, &COUNT, &Note::default());
    let id = soon(first.id()).await.unwrap();
    soon(first.into_future()).await.unwrap();
    let elsewhere = soon(site.to(&server).open()).await.unwrap();
    let told = soon(elsewhere.outcome_of(id, None)).await;
    assert!(!matches!(told, Ok(CallState::Replied(_))), "told without a secret: {told:?}");
}

#[tokio::test]
async fn dropping_a_held_read_stops_its_handler() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let read = tokio::spawn(call(&channel, &HOLD_READ, &Note::default()).into_future());
    reaches(&site.lab.began, 1).await;
    read.abort();
    reaches(&site.lab.dropped, 1).await;
}

#[tokio::test]
async fn dropping_a_call_with_side_effects_that_has_started_lets_it_run_to_its_end() {
    let site = Site::new();
    let server = site.start().await;
    let connection = soon(site.to(&server).open()).await.unwrap();
    let channel = connection.channel();
    let mut held = call(&channel, &HOLD, &Note::number(5));
    let id = soon(held.id()).await.unwrap();
    let held = tokio::spawn(held.into_future());
    reaches(&site.lab.began, 1).await;
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    // It is fenced in the background; that changes nothing, since it has started.
    site.lab.gate.add_permits(1);
    reaches(&site.lab.ended, 1).await;
    assert_eq!(*site.lab.dropped.borrow(), 0);
    let elsewhere = soon(site.to(&server).open()).await.unwrap();
    let asked = soon(elsewhere.outcome_of(id, connection.ticket())).await.unwrap();
    // The background fence has been answered with the reply by now, or is about to be.
    assert!(matches!(asked, CallState::Replied(_) | CallState::AlreadySettled), "{asked:?}");
}

#[tokio::test]
async fn a_call_that_outlives_its_deadline_is_pending_and_settles_later() {
    let site = Site::new();
    let server = site.start().await;
    let channel =
        soon(site.to(&server).settle_grace(Duration::from_millis(50)).connect()).await.unwrap();
    // One that its server came to later than that did not run.
    let id = loop {
        let short = call(&channel, &HOLD, &Note::number(5)).deadline(Duration::from_millis(100));
        let error = soon(short.into_future()).await.unwrap_err();
        match error.outcome() {
            Outcome::Pending(id) => break *id,
            Outcome::NotExecuted(_) => {}
            _ => panic!("{error}"),
        }
    };
    site.lab.gate.add_permits(1);
    reaches(&site.lab.ended, 1).await;
    let state = soon(channel.outcome::<Note>(&HOLD, id)).await.unwrap();
    match state {
        CallState::Replied(note) => assert_eq!(note.number, 5),
        CallState::AlreadySettled | CallState::Executing => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_deadline_travels_to_the_handler_and_into_the_calls_that_it_makes() {
    let (outer, inner) = (Site::new(), Site::new());
    let (outer_server, inner_server) = (outer.start().await, inner.start().await);
    let next = inner.channel(&inner_server).await;
    assert!(outer.lab.next.set(next).is_ok());
    let channel = outer.channel(&outer_server).await;
    assert_eq!(number(&channel, &TIME_LEFT).await.unwrap(), u64::MAX);
    assert_eq!(number(&channel, &FORWARD).await.unwrap(), u64::MAX);
    let minute = call(&channel, &FORWARD, &Note::default()).deadline(Duration::from_secs(60));
    let left = soon(minute.into_future()).await.unwrap().number;
    assert!((1..=60_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_message_larger_than_the_server_takes_is_not_executed() {
    let mut site = Site::new();
    site.limits.message = 1 << 20;
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let large = Note::data(vec![1; 2 << 20]);
    let error = soon(call(&channel, &ECHO, &large).into_future()).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn metadata_travels_and_invalid_metadata_keeps_a_call_from_being_sent() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let good = call(&channel, &COUNT, &Note::default()).metadata("trace-id", "7");
    soon(good.into_future()).await.unwrap();
    let bad = call(&channel, &COUNT, &Note::default()).metadata("Bad Key", "7");
    let error = soon(bad.into_future()).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(site.lab.counted(), 1);
}

#[tokio::test]
async fn numbers_that_are_asked_for_at_once_are_told_to_each_who_asked() {
    let site = Site::new();
    let server = site.start().await;
    let channel = soon(site.to(&server).connect()).await.unwrap();
    let calls = (0..40).map(|_| {
        let channel = channel.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let mut call = call(&channel, &COUNT, &Note::number(0));
                call.id().await.unwrap();
                call.await.unwrap();
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        soon(call).await.unwrap();
    }
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 201);
}
