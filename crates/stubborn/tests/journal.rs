//! Clients that keep a journal: what one process left is settled by the next.

mod common;

use common::*;
use std::future::IntoFuture;
use std::path::PathBuf;
use stubborn::client::ConnectErrorKind;
use stubborn::{CallState, ChannelBuilder, ChannelStatus, Connection, ServerHandle};

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

#[tokio::test]
async fn calls_at_several_servers_are_each_settled_where_they_began() {
    let site = Site::new();
    let (one, two) = (site.start().await, site.start().await);
    let address = format!("{},{}", one.local_addr(), two.local_addr());
    let file = File::new("several");
    let open = async || {
        let builder = ChannelBuilder::new(&address).trust(site.trust()).journal(&file.0);
        soon(builder.open()).await.unwrap()
    };
    let first = open().await;
    let hold = |n| tokio::spawn(call(&first.channel(), &HOLD, &Note::number(n)).into_future());
    let at_one = hold(5);
    reaches(&site.lab.began, 1).await;
    // It lets its call end, and has others go to the second server as soon as the client has heard of it,
    // as it has when a call was answered after it.
    let drained = tokio::spawn(one.drain());
    tokio::task::yield_now().await;
    number(&first.channel(), &COUNT).await.unwrap();
    let at_two = hold(6);
    reaches(&site.lab.began, 2).await;
    soon(first.journal().unwrap().close()).await;

    let second = open().await;
    let left = second.journal().unwrap().unfinished();
    let incarnations: Vec<_> = left.iter().map(|call| call.id().session.incarnation).collect();
    assert!(left.len() == 2 && incarnations[0] != incarnations[1], "{left:?}");
    site.lab.gate.add_permits(2);
    let mut numbers = vec![];
    for call in left {
        let reply = soon(call.resend()).await.unwrap();
        numbers.push(reply.reply.decode::<Note>(HOLD.id()).unwrap().number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [5, 6]);
    assert_eq!(*site.lab.began.borrow(), 2);
    number(&second.channel(), &COUNT).await.unwrap();
    soon(second.journal().unwrap().close()).await;
    let third = open().await;
    assert!(third.journal().unwrap().unfinished().is_empty());
    at_one.abort();
    at_two.abort();
    drop((first, second, third));
    soon(drained).await.unwrap();
}

#[tokio::test]
async fn of_a_journal_and_its_copy_only_one_goes_on_though_neither_makes_a_call_in_between() {
    let site = Site::new();
    let server = site.start().await;
    let file = File::new("original");
    let copy = File::new("copy");
    let first = file.open(&site, &server).await;
    assert_eq!(number(&first.channel(), &COUNT).await.unwrap(), 1);
    soon(first.journal().unwrap().flush()).await;
    std::fs::copy(&file.0, &copy.0).unwrap();

    let second = copy.open(&site, &server).await;
    let error = number(&first.channel(), &COUNT).await.unwrap_err();
    assert!(error.to_string().contains("a copy of this journal"), "{error}");
    assert!(matches!(first.status(), ChannelStatus::Refused(_)), "{:?}", first.status());
    soon(first.journal().unwrap().close()).await;
    // Nor does it come back by being opened again.
    let error = soon(site.to(&server).journal(&file.0).open()).await.unwrap_err();
    assert!(error.to_string().contains("a copy of this journal"), "{error}");
    assert_eq!(number(&second.channel(), &COUNT).await.unwrap(), 2);
}
