//! What callers see of servers that die, leave, or are not what they should be.

mod common;

use std::future::IntoFuture;
use std::time::Duration;

use common::*;
use stubborn::{
    ChannelBuilder, ChannelStatus, Identity, NotExecutedReason, Outcome, Server, Trust,
};

#[tokio::test]
async fn after_a_kill_and_restart_calls_in_flight_are_told_and_the_next_call_works() {
    let site = Site::new();
    let server = site.start().await;
    let address = server.local_addr();
    let channel = site.channel(&server).await;
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
    let held = tokio::spawn(call(&channel, &HOLD, &Note::default()).into_future());
    reaches(&site.lab.began, 1).await;

    server.kill().await;
    let server = site.start_at(address).await;
    let error = soon(held).await.unwrap().unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost), "{error}");
    assert_eq!(*site.lab.began.borrow(), 1, "a lost call never runs again");
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 2);
    drop(server);
}

#[tokio::test]
async fn an_orderly_drain_lets_a_started_call_end_and_refuses_new_ones() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let held = tokio::spawn(call(&channel, &HOLD, &Note::number(3)).into_future());
    reaches(&site.lab.began, 1).await;
    let drain = tokio::spawn(server.drain());
    site.lab.gate.add_permits(1);
    assert_eq!(soon(held).await.unwrap().unwrap().number, 3);
    drop(channel);
    let report = soon(drain).await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_eq!(report.dropped_handlers, 0);
}

#[tokio::test]
async fn a_program_that_just_ends_keeps_no_server_from_draining() {
    let site = Site::new();
    let server = site.start().await;
    let builder = site.to(&server);
    let program = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let channel = builder.connect().await.unwrap();
            number(&channel, &COUNT).await.unwrap()
        })
    });
    let ended = tokio::task::spawn_blocking(|| program.join().unwrap());
    assert_eq!(soon(ended).await.unwrap(), 1);
    // The kept reply was released by the program's goodbye, so nothing is waited for.
    let report = soon(server.drain()).await;
    assert!(report.complete, "{report:?}");
}

#[tokio::test]
async fn a_name_with_several_addresses_finds_the_one_that_answers() {
    let site = Site::new();
    let server = site.start().await;
    // Often ::1 comes first, where nobody listens.
    let address = format!("stubborn://localhost:{}", server.local_addr().port());
    let trust = Trust::pem(site.identity.certificate_pem()).unwrap();
    let channel = soon(ChannelBuilder::new(address).trust(trust).connect()).await.unwrap();
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_drops_what_still_runs_and_says_so() {
    let mut site = Site::new();
    site.drain = Duration::from_millis(100);
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let held = tokio::spawn(call(&channel, &HOLD, &Note::default()).into_future());
    reaches(&site.lab.began, 1).await;
    let report = soon(server.drain()).await;
    assert!(!report.complete);
    assert_eq!(report.dropped_handlers, 1);
    reaches(&site.lab.dropped, 1).await;
    held.abort();
}

#[tokio::test]
async fn where_no_server_is_a_connection_fails_and_says_where() {
    let site = Site::new();
    let server = site.start().await;
    let address = server.local_addr();
    server.kill().await;
    let builder = ChannelBuilder::new(address.to_string())
        .trust(site.trust())
        .attempt_timeout(Duration::from_millis(100));
    let error = soon(builder.connect()).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_call_without_a_server_is_not_executed_unless_it_waits_for_one() {
    let site = Site::new();
    let server = site.start().await;
    let address = server.local_addr();
    server.kill().await;
    let connection = ChannelBuilder::new(address.to_string())
        .trust(site.trust())
        .attempt_timeout(Duration::from_millis(100))
        .open_now()
        .await
        .unwrap();
    let channel = connection.channel();
    let error = number(&channel, &COUNT).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");

    let waiting = call(&channel, &COUNT, &Note::default()).wait_for_ready(true);
    let waiting = tokio::spawn(waiting.into_future());
    let server = site.start_at(address).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap().number, 1);
    drop(server);
}

#[tokio::test]
async fn the_second_address_is_used_when_nobody_answers_at_the_first() {
    let site = Site::new();
    let (dead, alive) = (site.start().await, site.start().await);
    let addresses = format!("{},{}", dead.local_addr(), alive.local_addr());
    dead.kill().await;
    // The second one gets its chance long before the attempt at the first is given up.
    let builder = ChannelBuilder::new(addresses).trust(site.trust()).attempt_timeout(2 * LIMIT);
    let channel = soon(builder.connect()).await.unwrap();
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let server = site.start().await;
    for trust in [other.trust(), Trust::pem(other.identity.certificate_pem()).unwrap()] {
        let builder = ChannelBuilder::new(server.local_addr().to_string()).trust(trust);
        let error = soon(builder.connect()).await.unwrap_err();
        assert!(matches!(error.kind(), stubborn::client::ConnectErrorKind::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let mut site = Site::new();
    site.identity = Identity::self_signed(["bank.example"]).unwrap();
    let server = site.start().await;
    let roots = || Trust::pem(site.identity.certificate_pem()).unwrap();
    let address = server.local_addr();
    let wrong = ChannelBuilder::new(address.to_string()).trust(roots());
    assert!(soon(wrong.connect()).await.is_err());
    let right = ChannelBuilder::new(format!("{address}?name=bank.example")).trust(roots());
    assert!(soon(right.connect()).await.is_ok());
}

#[tokio::test]
async fn a_pin_in_the_address_is_enough() {
    let site = Site::new();
    let server = site.start().await;
    let pin = site.identity.fingerprint().unwrap();
    let address = format!("stubborn://{}?pin={pin}", server.local_addr());
    let channel = soon(stubborn::connect(&address)).await.unwrap();
    assert_eq!(number(&channel, &COUNT).await.unwrap(), 1);
}

#[tokio::test]
async fn with_mutual_tls_strangers_stay_outside_and_sessions_belong_to_certificates() {
    let site = Site::new();
    let client = Identity::self_signed(["teller"]).unwrap();
    let stranger = Identity::self_signed(["stranger"]).unwrap();
    let server = Server::bind("127.0.0.1:0")
        .identity(site.identity.clone())
        .client_roots(Trust::pem(client.certificate_pem()).unwrap())
        .service(site.lab.clone())
        .start()
        .await
        .unwrap();
    assert!(soon(site.to(&server).connect()).await.is_err());
    assert!(soon(site.to(&server).identity(stranger).connect()).await.is_err());
    let channel = soon(site.to(&server).identity(client.clone()).connect()).await.unwrap();
    let who = soon(call(&channel, &WHO, &Note::default()).into_future()).await.unwrap();
    assert_eq!(who.data[..], client.fingerprint().unwrap().0);
}

#[tokio::test]
async fn two_servers_on_one_port_and_one_without_identity_are_refused_with_advice() {
    let site = Site::new();
    let server = site.start().await;
    let again = Server::bind(server.local_addr()).identity(site.identity.clone()).start().await;
    assert!(again.unwrap_err().to_string().contains("another program"));
    let nobody = Server::bind("127.0.0.1:0").start().await;
    assert!(nobody.unwrap_err().to_string().contains("identity"));
}

#[tokio::test]
async fn a_restart_is_seen_as_another_incarnation() {
    let site = Site::new();
    let server = site.start().await;
    let address = server.local_addr();
    let connection = soon(site.to(&server).open()).await.unwrap();
    let before = connection.status();
    server.kill().await;
    let _server = site.start_at(address).await;
    // A call is what makes the client notice.
    let count = call(&connection.channel(), &COUNT, &Note::default()).wait_for_ready(true);
    let _ = soon(count.into_future()).await;
    let after = loop {
        match soon(connection.status_other(&before)).await {
            ready @ ChannelStatus::Ready { .. } => break ready,
            _ => tokio::task::yield_now().await,
        }
    };
    let incarnation = |status| match status {
        ChannelStatus::Ready { incarnation, .. } => incarnation,
        other => panic!("{other:?}"),
    };
    assert_ne!(incarnation(before), incarnation(after));
}

#[tokio::test]
async fn a_reserved_number_that_is_not_used_never_runs() {
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    let mut unused = call(&channel, &COUNT, &Note::default());
    let id = soon(unused.id()).await.unwrap();
    drop(unused);
    let state = soon(channel.outcome::<Note>(&COUNT, id)).await.unwrap();
    match state {
        stubborn::CallState::NotExecuted(why) => {
            assert!(matches!(why.reason, NotExecutedReason::Fenced | NotExecutedReason::Cancelled));
        }
        stubborn::CallState::AlreadySettled => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(number(&channel, &LOOK).await.unwrap(), 0);
}
