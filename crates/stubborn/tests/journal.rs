//! Clients that keep a journal: what one process left is settled by the next.

mod common;

use common::*;
use std::future::IntoFuture;
use std::path::PathBuf;
use stubborn::client::ConnectErrorKind;
use stubborn::{CallState, Connection, ServerHandle};

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = format!("stubborn-client-journal-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(file))
    }

    async fn open(&self, site: &Site, server: &ServerHandle) -> Connection {
        soon(site.to(server).journal(&self.0).open()).await.unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for ending in ["", ".lock", ".new"] {
            let path = format!("{}{ending}", self.0.display());
            let _ = std::fs::remove_file(path);
        }
    }
}

#[tokio::test]
async fn what_one_process_left_is_settled_by_the_next_and_nothing_runs_twice() {
    let site = Site::new();
    let server = site.start().await;
    let file = File::new("left");
    let first = file.open(&site, &server).await;
    assert!(first.journal().unwrap().unfinished().is_empty());
    for n in 1..=3 {
        assert_eq!(number(&first.channel(), &COUNT).await.unwrap(), n);
    }
    let (held, dropped) = (
        call(&first.channel(), &HOLD, &Note::number(5)),
        call(&first.channel(), &HOLD, &Note::number(6)),
    );
    let held = tokio::spawn(held.into_future());
    reaches(&site.lab.began, 1).await;
    let dropped = tokio::spawn(dropped.into_future());
    reaches(&site.lab.began, 2).await;

    // A second process is kept out, and the first one's end leaves the file to the next.
    let error = soon(site.to(&server).journal(&file.0).open()).await.unwrap_err();
    assert!(matches!(error.kind(), ConnectErrorKind::Journal(_)), "{error}");
    soon(first.journal().unwrap().close()).await;

    let second = file.open(&site, &server).await;
    assert_eq!(second.ticket(), first.ticket());
    let mut left = second.journal().unwrap().unfinished();
    assert_eq!(left.len(), 2);
    let (b, a) = (left.pop().unwrap(), left.pop().unwrap());
    assert_eq!(a.method(), HOLD.name());
    site.lab.gate.add_permits(2);
    let mut numbers = vec![];
    for call in [a, b] {
        let reply = soon(call.resend()).await.unwrap();
        numbers.push(reply.reply.decode::<Note>(HOLD.id()).unwrap().number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [5, 6]);
    assert_eq!(*site.lab.began.borrow(), 2);
    assert_eq!(number(&second.channel(), &COUNT).await.unwrap(), 4);
    soon(second.journal().unwrap().close()).await;

    let third = file.open(&site, &server).await;
    assert!(third.journal().unwrap().unfinished().is_empty());
    held.abort();
    dropped.abort();
}

#[tokio::test]
async fn a_call_whose_server_is_gone_for_good_is_lost_and_the_journal_goes_on() {
    let site = Site::new();
    let server = site.start().await;
    let file = File::new("lost");
    let first = file.open(&site, &server).await;
    let held = tokio::spawn(call(&first.channel(), &HOLD, &Note::number(5)).into_future());
    reaches(&site.lab.began, 1).await;
    soon(first.journal().unwrap().close()).await;
    drop(server);
    let server = site.start().await;
    let second = file.open(&site, &server).await;
    let left = second.journal().unwrap().unfinished().pop().unwrap();
    let state = soon(left.fence()).await.unwrap();
    assert_eq!(state, CallState::Lost);
    assert_eq!(number(&second.channel(), &COUNT).await.unwrap(), 1);
    held.abort();
}

#[tokio::test]
async fn a_call_that_is_settled_by_hand_stays_until_then_though_its_outcome_was_told() {
    let site = Site::new();
    let server = site.start().await;
    let file = File::new("hand");
    let open = async || {
        let builder = site.to(&server).journal(&file.0).settled_by_hand();
        soon(builder.open()).await.unwrap()
    };
    let first = open().await;
    let mut known = call(&first.channel(), &COUNT, &Note::number(0));
    let id = known.id().await.unwrap();
    soon(known.into_future()).await.unwrap();
    let told = soon(call(&first.channel(), &COUNT, &Note::number(0)).into_future()).await.unwrap();
    assert_eq!(told.number, 2);
    first.journal().unwrap().settle(id);
    soon(first.journal().unwrap().close()).await;

    let second = open().await;
    let journal = second.journal().unwrap();
    // Told again as often as it is asked for: it has run once.
    for _ in 0..2 {
        let left = journal.unfinished().pop().unwrap();
        let reply = soon(left.resend()).await.unwrap();
        assert_eq!(reply.reply.decode::<Note>(COUNT.id()).unwrap().number, 2);
    }
    let left = journal.unfinished();
    assert_eq!(left.len(), 1);
    journal.settle(left[0].id());
    soon(journal.close()).await;
    let third = open().await;
    assert!(third.journal().unwrap().unfinished().is_empty());
}
