//! What every store keeps to: the same cases over memory, SQLite, PostgreSQL and redb, with real
//! servers and clients.

mod common;

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use common::faulty::{Faulty, Step};
use common::*;
use stubborn::{CallId, CallState, Code, Encoded, NotExecutedReason, Outcome};
use stubborn_completion::store::{CompletionTransaction, ServiceRow, SessionRow, StoreError};
use stubborn_completion::{CompletionStore, Completions};
use stubborn_core::session::{Owner, RecordedState, SessionSecret, SlotPosition, SlotRecord};
use stubborn_core::time::Duration;

/// A session's row, put into the store past any server.
async fn session<S: CompletionStore>(store: &S) -> u64 {
    let mut tx = store.begin().await.unwrap();
    let mut service: ServiceRow = tx.lock_service().await.unwrap();
    let number = service.next_session;
    let row = SessionRow {
        number,
        owner: Owner::Anonymous(SessionSecret::new([number as u8; 32])),
        nonce: number.to_be_bytes().to_vec(),
        account: b"somebody".to_vec(),
        epoch: 1,
        holder: None,
        slots: 4,
        expires: service.time + 1_000,
    };
    service.next_session += 1;
    tx.save_service(&service).await.unwrap();
    tx.insert_session(&row).await.unwrap();
    tx.commit().await.unwrap();
    store.make_slot(number, 0).await.unwrap();
    number
}

fn done(sequence: u64, reply: &'static [u8]) -> SlotRecord {
    let state = RecordedState::Done { digest: u64::MAX, reply: bytes::Bytes::from_static(reply) };
    SlotRecord { sequence, state }
}

async fn slot<S: CompletionStore>(store: &S, session: u64) -> SlotRecord {
    let (_, record) = store.look(session, 0).await.unwrap().unwrap();
    record.unwrap_or(SlotRecord::UNUSED)
}

async fn save<S: CompletionStore>(store: &S, session: u64, record: &SlotRecord) {
    let mut tx = store.begin().await.unwrap();
    tx.lock_slot(session, 0).await.unwrap().unwrap();
    tx.save_slot(session, 0, record).await.unwrap();
    tx.commit().await.unwrap();
}

// The rows.

async fn the_first_who_asks_names_the_group_and_all_others_hear_the_same<S: Till>(store: S) {
    let row = store.service(0x100).await.unwrap();
    assert_eq!(store.service(0x200).await.unwrap(), row);
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.lock_service().await.unwrap(), row);
}

async fn what_is_not_committed_never_was<S: Till>(store: S) {
    let number = session(&store).await;
    let mut tx = store.begin().await.unwrap();
    S::add(tx.native(), 7).await.unwrap();
    tx.lock_slot(number, 0).await.unwrap().unwrap();
    tx.save_slot(number, 0, &done(1, b"seven")).await.unwrap();
    drop(tx);
    assert_eq!((slot(&store, number).await, store.total().await), (SlotRecord::UNUSED, 0));
    let mut tx = store.begin().await.unwrap();
    S::add(tx.native(), 7).await.unwrap();
    tx.lock_slot(number, 0).await.unwrap().unwrap();
    tx.save_slot(number, 0, &done(1, b"seven")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((slot(&store, number).await, store.total().await), (done(1, b"seven"), 7));
}

async fn a_slot_is_locked_by_one_transaction_at_a_time<S: Till>(store: S) {
    let number = session(&store).await;
    let mut first = store.begin().await.unwrap();
    first.lock_slot(number, 0).await.unwrap().unwrap();
    let second = {
        let store = Arc::new(store);
        let its = Arc::clone(&store);
        let second = tokio::spawn(async move {
            // It waits to begin, or is told that the slot is locked.
            loop {
                let mut tx = its.begin().await.unwrap();
                match tx.lock_slot(number, 0).await {
                    Ok(row) => return row.unwrap().1,
                    Err(StoreError::Locked) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        second
    };
    first.save_slot(number, 0, &done(1, b"first")).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(soon(second).await.unwrap(), done(1, b"first"));
}

/// Polls a future as many times, each time when it has asked for it, and drops it then.
async fn give_up_after<F: Future>(polls: usize, future: F) {
    let (mut future, mut left) = (std::pin::pin!(future), polls);
    poll_fn(|cx| {
        left -= 1;
        let ended = future.as_mut().poll(cx).is_ready();
        if ended || left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn a_transaction_that_is_given_up_while_it_begins_leaves_nothing_open<S: Till>(store: S) {
    for polls in (1..8).cycle().take(40) {
        give_up_after(polls, store.begin()).await;
        // Makes the row of a slot outside a transaction, which another one is to see.
        let number = session(&store).await;
        save(&store, number, &done(1, b"reply")).await;
        assert_eq!(slot(&store, number).await, done(1, b"reply"));
    }
}

async fn every_state_of_a_slot_is_read_as_it_was_written<S: Till>(store: S) {
    let number = session(&store).await;
    for state in [
        RecordedState::Done { digest: 1 << 63, reply: vec![0, 255].into() },
        RecordedState::Done { digest: 0, reply: bytes::Bytes::new() },
        RecordedState::NotKept { digest: 9 },
        RecordedState::Fenced(NotExecutedReason::TooLarge),
        RecordedState::Released,
        RecordedState::Idle,
    ] {
        let record = SlotRecord { sequence: (1 << 62) - 1, state };
        save(&store, number, &record).await;
        assert_eq!(slot(&store, number).await, record);
    }
    let mut tx = store.begin().await.unwrap();
    let report = tx.reports(number).await.unwrap()[0];
    assert_eq!((report.slot, report.sequence), (0, (1 << 62) - 1));
}

async fn a_released_reply_is_gone_and_a_later_number_stays<S: Till>(store: S) {
    let number = session(&store).await;
    for (sequence, state) in [
        (3, done(4, b"later")),
        (5, done(4, b"later")),
        (4, SlotRecord { sequence: 4, state: RecordedState::Released }),
    ] {
        save(&store, number, &done(4, b"later")).await;
        let mut tx = store.begin().await.unwrap();
        tx.release(number, &[SlotPosition { slot: 0, sequence }]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(slot(&store, number).await, state);
    }
}

async fn a_removed_session_takes_its_slots_with_it_unless_one_executes<S: Till + Clone>(store: S) {
    let number = session(&store).await;
    let mut executing = store.begin().await.unwrap();
    executing.lock_slot(number, 0).await.unwrap().unwrap();
    let its = store.clone();
    let removing = tokio::spawn(async move {
        let mut times = 0;
        loop {
            let mut tx = its.begin().await.unwrap();
            tx.lock_session(number).await.unwrap();
            match tx.delete_session(number).await {
                Ok(()) => return tx.commit().await.unwrap(),
                Err(StoreError::Locked) => times += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(times < 100_000);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    executing.save_slot(number, 0, &done(1, b"done")).await.unwrap();
    executing.commit().await.unwrap();
    soon(removing).await.unwrap();
    assert_eq!(store.look(number, 0).await.unwrap(), None);
    store.make_slot(number, 0).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.lock_slot(number, 0).await.unwrap(), None);
    assert_eq!(tx.opened_with(&number.to_be_bytes()).await.unwrap(), None);
}

async fn time_is_moved_on_by_one_of_those_who_saw_it<S: Till>(store: S) {
    session(&store).await;
    assert_eq!(store.advance(0, 30).await.unwrap(), 30);
    assert_eq!(store.advance(0, 40).await.unwrap(), 30);
    assert_eq!(store.advance(30, 5).await.unwrap(), 35);
    assert_eq!(store.service(1).await.unwrap().time, 35);
}

async fn sessions_are_counted_found_and_renewed<S: Till>(store: S) {
    let (one, two) = (session(&store).await, session(&store).await);
    let mut tx = store.begin().await.unwrap();
    let counts = tx.count(b"somebody").await.unwrap();
    assert_eq!((counts.of_account, counts.sessions, counts.slots), (2, 2, 8));
    assert_eq!(tx.count(b"nobody").await.unwrap().of_account, 0);
    assert_eq!(tx.opened_with(&two.to_be_bytes()).await.unwrap(), Some(two));
    drop(tx);
    save(&store, one, &done(1, b"not released")).await;
    assert!(store.expired(999).await.unwrap().is_empty());
    store.renew(&[two, 77], 3_000).await.unwrap();
    store.renew(&[two], 2_000).await.unwrap();
    assert_eq!(store.expired(1_000).await.unwrap(), [one]);
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.spare(None, 2_999).await.unwrap(), None);
    assert_eq!(tx.spare(Some(b"nobody"), 9_999).await.unwrap(), None);
    assert_eq!(tx.spare(Some(b"somebody"), 3_000).await.unwrap(), Some(two));
    let mut row = tx.lock_session(one).await.unwrap().unwrap();
    assert_eq!(row.holder, None);
    (row.expires, row.holder) = (SessionRow::CLOSED, Some(u64::MAX));
    tx.save_session(&row).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.look(one, 0).await.unwrap().unwrap().0, row);
    store.renew(&[one], 9_999).await.unwrap();
    assert_eq!(store.expired(0).await.unwrap(), [one], "a closed session is not renewed");
}

// Calls.

async fn calls_run_once_and_go_on_at_another_server_when_theirs_is_killed<S: Till + Clone>(
    store: S,
) {
    let site = Site::new();
    let ((_, first), (_, second)) = (site.serve(&store).await, site.serve(&store).await);
    let channel = site.channel(&[&first, &second]).await;
    let mut total = 0;
    for amount in 1..=20 {
        total += amount;
        assert_eq!(call(&channel, &ADD, amount).await.unwrap().amount, total);
    }
    let many: Vec<_> = (0..64).map(|_| begin(&channel, &ADD, 1)).collect();
    first.kill().await;
    for one in many {
        soon(one).await.unwrap().unwrap();
    }
    assert_eq!(call(&channel, &ADD, 0).await.unwrap().amount, total + 64);
    assert_eq!(store.total().await, total + 64);
}

async fn a_call_that_was_committed_and_not_answered_is_answered_by_another_server<
    S: Till + Clone,
>(
    store: S,
) {
    let site = Site::new();
    // Commits, and then hangs.
    let committed = Arc::new(tokio::sync::watch::Sender::new(0_u64));
    let its = Arc::clone(&committed);
    let hanging = Faulty::new(store.clone(), move |step| {
        let committed = Arc::clone(&its);
        async move {
            if step == Step::Committed {
                committed.send_modify(|times| *times += 1);
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let (_, first) = site.serve(&hanging).await;
    let channel_to_first = begin_at(&site, &first, &store).await;
    let (channel, second) = channel_to_first;
    let call = begin(&channel, &ADD, 5);
    reaches(&committed, 1).await;
    first.kill().await;
    assert_eq!(soon(call).await.unwrap().unwrap().amount, 5);
    assert_eq!(store.total().await, 5);
    assert_eq!(*second.0.began.borrow(), 0, "the record answers, not the handler");
}

/// A channel whose session is at the first server, and a second server.
async fn begin_at<S: Till + Clone>(
    site: &Site,
    first: &stubborn::ServerHandle,
    store: &S,
) -> (stubborn::Channel, (Counter<S>, stubborn::ServerHandle)) {
    let reserved = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    // It is not there yet, so that it cannot have the session.
    let connection = site.open(&[first.local_addr(), address]).await;
    drop(reserved);
    (connection.channel(), site.serve_at(store, address).await)
}

async fn a_transaction_that_its_server_did_not_commit_is_run_by_another<S: Till + Clone>(store: S) {
    let site = Site::new();
    let (counter, first) = site.serve(&store).await;
    let (channel, second) = begin_at(&site, &first, &store).await;
    second.0.gate.add_permits(1);
    let call = begin(&channel, &ADD_AND_WAIT, 5);
    reaches(&counter.added, 1).await;
    assert_eq!(store.total().await, 0);
    first.kill().await;
    assert_eq!(soon(call).await.unwrap().unwrap().amount, 5);
    assert_eq!(store.total().await, 5);
}

async fn a_refusal_is_an_outcome_and_changes_nothing<S: Till + Clone>(store: S) {
    let site = Site::new();
    let (counter, server) = site.serve(&store).await;
    let channel = site.channel(&[&server]).await;
    for (method, code) in [(REFUSE, Code::FailedPrecondition), (PANIC, Code::Internal)] {
        let error = call(&channel, &method, 5).await.unwrap_err();
        assert_eq!(error.status().map(|status| status.code()), Some(code), "{error}");
    }
    assert_eq!(store.total().await, 0);
    let error = call(&channel, &CHARGE, 3).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.message()), Some("charged"));
    assert_eq!(call(&channel, &PLAIN, 4).await.unwrap().amount, 4);
    let error = call(&channel, &TWICE, 4).await.unwrap_err();
    assert!(error.to_string().contains("has a transaction already"), "{error}");
    // A handler that finds its slot still locked by the call before begins again: what it did counts.
    assert_eq!((store.total().await, *counter.added.borrow()), (3, 3));
}

async fn a_number_that_was_fenced_never_runs<S: Till + Clone>(store: S) {
    let site = Site::new();
    let (counter, server) = site.serve(&store).await;
    let channel = site.channel(&[&server]).await;
    let mut unary = channel.unary::<Note, Note>(&ADD, &note(5));
    let id = soon(unary.id()).await.unwrap();
    match soon(channel.outcome::<Note>(&ADD, id)).await.unwrap() {
        CallState::NotExecuted(why) => assert_eq!(why.reason, NotExecutedReason::Fenced),
        other => panic!("{other:?}"),
    }
    let error = soon(std::future::IntoFuture::into_future(unary)).await.unwrap_err();
    assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
    assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, 1);
    assert_eq!(*counter.began.borrow(), 1);
}

async fn a_call_that_comes_too_late_is_fenced_before_that_is_said<S: Till + Clone>(store: S) {
    let site = Site::new();
    // The server comes to the call only when its time is over.
    let slow = Faulty::new(store.clone(), |step| async move {
        if step == Step::Look {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
        Ok(())
    });
    let (counter, server) = site.serve(&slow).await;
    let channel = site.channel(&[&server]).await;
    let mut record = None;
    // A client that is too busy to send it in time tells so by itself.
    for _ in 0..100 {
        let late = channel.unary::<Note, Note>(&ADD, &note(5));
        let late = late.deadline(std::time::Duration::from_millis(50));
        let error = soon(std::future::IntoFuture::into_future(late)).await.unwrap_err();
        assert!(matches!(error.outcome(), Outcome::NotExecuted(_)), "{error}");
        if let Some(id) = error.call_id() {
            (_, record) = store.look(id.session.number, id.slot).await.unwrap().unwrap();
        }
        if record.is_some() {
            break;
        }
    }
    let state = record.unwrap().state;
    assert!(matches!(state, RecordedState::Fenced(_)), "{state:?}");
    assert_eq!((*counter.began.borrow(), store.total().await), (0, 0));
}

async fn a_fence_waits_for_the_handler_of_another_server_and_tells_what_came_of_it<
    S: Till + Clone,
>(
    store: S,
) {
    let site = Site::new();
    let (counter, first) = site.serve(&store).await;
    let (channel, (other, second)) = begin_at(&site, &first, &store).await;
    other.gate.add_permits(8);
    let running = begin(&channel, &ADD_AND_WAIT, 5);
    reaches(&counter.added, 1).await;
    // From here on the first server is away for the client, and goes on by itself.
    running.abort();
    let _ = running.await;
    counter.gate.add_permits(1);
    let total = soon(async {
        loop {
            match store.total().await {
                0 => tokio::task::yield_now().await,
                total => return total,
            }
        }
    });
    assert_eq!(total.await, 5);
    drop((first, second));
}

async fn a_reply_that_is_too_large_is_told_once_and_then_as_not_kept<S: Till + Clone>(store: S) {
    let mut site = Site::new();
    site.limits.kept_reply = 1_000;
    let (_, server) = site.serve(&store).await;
    let channel = site.channel(&[&server]).await;
    let mut unary = channel.unary::<Note, Note>(&BIG, &note(2_000));
    let id = soon(unary.id()).await.unwrap();
    let reply = soon(std::future::IntoFuture::into_future(unary)).await.unwrap();
    assert_eq!(reply.data.len(), 2_000);
    let (_, record) = store.look(id.session.number, id.slot).await.unwrap().unwrap();
    assert!(!matches!(record.unwrap().state, RecordedState::Done { .. }));
    assert_eq!(store.total().await, 2_000);
}

async fn replies_of_all_slots_are_kept_within_one_bound<S: Till + Clone>(store: S) {
    let mut site = Site::new();
    (site.limits.kept_reply, site.limits.kept_replies) = (1_000, 2_500);
    let (counter, server) = site.serve(&store).await;
    let channel = site.channel(&[&server]).await;
    // Four at once, each in a slot of its own.
    let calls: Vec<_> = (0..4).map(|_| begin(&channel, &BIG, 900)).collect();
    for one in calls {
        assert_eq!(soon(one).await.unwrap().unwrap().data.len(), 900);
    }
    let kept = store.kept().await.unwrap();
    assert!(kept <= 2_500, "{kept}");
    // A server that starts counts what is there.
    let (_, second) = site.serve(&store).await;
    let other = site.channel(&[&second]).await;
    assert_eq!(call(&other, &BIG, 901).await.unwrap().data.len(), 901);
    assert!(store.kept().await.unwrap() <= 2_500);
    drop(counter);
}

async fn what_became_of_a_commit_is_read_back_when_its_answer_was_lost<S: Till + Clone>(store: S) {
    let site = Site::new();
    for happened in [true, false] {
        let (before, lost) = (store.total().await, Arc::new(AtomicU64::new(0)));
        let its = Arc::clone(&lost);
        let ambiguous = Faulty::new(store.clone(), move |step| {
            let wanted = if happened { Step::Committed } else { Step::Commit };
            let now = step == wanted && its.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let why = "the connection broke".into();
                if now { Err(StoreError::Unknown(why)) } else { Ok(()) }
            }
        });
        let (counter, server) = site.serve(&ambiguous).await;
        let channel = site.channel(&[&server]).await;
        assert_eq!(call(&channel, &ADD, 5).await.unwrap().amount, before + 5);
        assert_eq!(store.total().await, before + 5);
        // What did not happen is run again.
        assert_eq!(*counter.began.borrow(), if happened { 1 } else { 2 });
    }
}

/// A commit did not happen, though its server cannot know that; before it looks, another server has executed
/// the call.
async fn a_record_without_its_reply_is_not_taken_for_ones_own<S: Till + Clone>(store: S) {
    let mut site = Site::new();
    site.limits.kept_reply = 1_000;
    let digest = Encoded::new(BIG.id(), &note(2_000)).digest;
    let (lost, id) = (AtomicBool::new(false), Arc::new(Mutex::new(None::<CallId>)));
    let (its, of) = (store.clone(), Arc::clone(&id));
    let ambiguous = Faulty::new(store.clone(), move |step| {
        let fails = step == Step::Commit && !lost.swap(true, Ordering::SeqCst);
        let looks = step == Step::Begin && lost.load(Ordering::SeqCst);
        let (store, id) = (its.clone(), of.lock().unwrap().take_if(|_| looks));
        async move {
            if let Some(CallId { session, sequence, .. }) = id {
                let state = RecordedState::NotKept { digest };
                save(&store, session.number, &SlotRecord { sequence, state }).await;
            }
            let why = "the connection broke".into();
            if fails { Err(StoreError::Unknown(why)) } else { Ok(()) }
        }
    });
    let (_, server) = site.serve(&ambiguous).await;
    let channel = site.channel(&[&server]).await;
    let mut unary = channel.unary::<Note, Note>(&BIG, &note(2_000));
    let called = soon(unary.id()).await.unwrap();
    *id.lock().unwrap() = Some(called);
    let error = soon(std::future::IntoFuture::into_future(unary)).await.unwrap_err();
    let told = error.outcome();
    assert!(matches!(told, Outcome::Executed(why) if why.code() == Code::DataLoss), "{told:?}");
    assert_eq!(store.total().await, 0, "nothing that this server did was committed");
}

async fn a_database_that_is_away_for_a_while_is_no_outcome<S: Till + Clone>(store: S) {
    let site = Site::new();
    for away in common::faulty::STEPS {
        if away == Step::Committed {
            continue; // That is no error of a store.
        }
        let before = store.total().await;
        let times = Arc::new(AtomicU64::new(0));
        let its = Arc::clone(&times);
        let failing = Faulty::new(store.clone(), move |step| {
            // The first `begin` is the session's opening.
            let first = if away == Step::Begin { 1..4 } else { 0..3 };
            let now = step == away && first.contains(&its.fetch_add(1, Ordering::SeqCst));
            async move {
                let why = "it is away".into();
                if now { Err(StoreError::Unavailable(why)) } else { Ok(()) }
            }
        });
        let (_, server) = site.serve(&failing).await;
        let channel = site.channel(&[&server]).await;
        assert_eq!(call(&channel, &ADD, 5).await.unwrap().amount, before + 5, "{away:?}");
        assert_eq!(store.total().await, before + 5, "{away:?}");
        assert!(times.load(Ordering::SeqCst) > 3, "{away:?}");
    }
}

/// Adds one; the call's id.
async fn add_one(channel: &stubborn::Channel) -> CallId {
    let mut unary = channel.unary::<Note, Note>(&ADD, &note(1));
    let id = soon(unary.id()).await.unwrap();
    soon(std::future::IntoFuture::into_future(unary)).await.unwrap();
    id
}

/// How often the session of a call was attached.
async fn attaches<S: Till>(store: &S, call: CallId) -> u64 {
    let (session, _) = store.look(call.session.number, call.slot).await.unwrap().unwrap();
    session.epoch
}

async fn a_call_that_follows_one_of_the_same_server_is_not_looked_up<S: Till + Clone>(store: S) {
    let site = Site::new();
    let looks = Arc::new(AtomicU64::new(0));
    let its = Arc::clone(&looks);
    let counting = Faulty::new(store.clone(), move |step| {
        its.fetch_add(u64::from(step == Step::Look), Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    let (_, first) = site.serve(&counting).await;
    let (channel, second) = begin_at(&site, &first, &counting).await;
    let looked = || looks.load(Ordering::SeqCst);
    let mut calls = 0;
    // A client that had to attach again, as one may on a machine that is busy, is looked up again.
    loop {
        let id = add_one(&channel).await;
        let (before, attached) = (looked(), attaches(&store, id).await);
        for _ in 0..4 {
            call(&channel, &ADD, 1).await.unwrap();
        }
        calls += 5;
        assert!(before > 0);
        if attaches(&store, id).await == attached {
            assert_eq!(looked(), before);
            break;
        }
    }
    // Another server has to look, though a copy of the same client comes to it.
    let before = looked();
    first.kill().await;
    call(&channel, &ADD, 1).await.unwrap();
    assert_eq!(store.total().await, calls + 1);
    assert!(looked() > before);
    drop(second);
}

async fn an_operator_is_told_when_the_database_is_away<S: Till + Clone>(store: S) {
    let site = Site::new();
    let times = Arc::new(AtomicU64::new(0));
    let failing = Faulty::new(store.clone(), move |step| {
        let now = step == Step::LockSlot && times.fetch_add(1, Ordering::SeqCst) < 2;
        let away = now.then(|| StoreError::Unavailable("it is away".into()));
        std::future::ready(away.map_or(Ok(()), Err))
    });
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let its = Arc::clone(&told);
    let tell = move |error: &StoreError| its.lock().unwrap().push(error.to_string());
    let db = Completions::new(failing).await.unwrap().on_failure(tell);
    let (_, server) = site.serve_with(db.clone(), "127.0.0.1:0".parse().unwrap()).await;
    let channel = site.channel(&[&server]).await;
    assert_eq!(call(&channel, &ADD, 5).await.unwrap().amount, 5);
    assert!(db.failures() >= 2, "{}", db.failures());
    let told = told.lock().unwrap();
    assert!(told.iter().filter(|told| told.contains("it is away")).count() >= 2, "{told:?}");
}

async fn a_session_that_nothing_is_heard_of_is_forgotten_and_its_calls_refused<S: Till + Clone>(
    store: S,
) {
    let mut site = Site::new();
    site.limits.retention = Duration::from_secs(3_600);
    let (_, first) = site.serve(&store).await;
    let lonely = site.open(&[first.local_addr()]).await;
    call(&lonely.channel(), &ADD, 5).await.unwrap();
    let ticket = lonely.ticket().unwrap();
    let id = ticket.session;
    first.kill().await;
    // An hour later, by the time in the database.
    let time = store.service(1).await.unwrap().time;
    store.advance(time, 3_600_001).await.unwrap();
    let (_, second) = site.serve(&store).await;
    soon(async {
        while store.look(id.number, 0).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let asking = site.open(&[second.local_addr()]).await;
    assert_ne!(asking.ticket().unwrap().session, id);
    let call_id = stubborn::CallId { session: id, slot: 0, sequence: 1 };
    let state = soon(asking.outcome_of(call_id, Some(ticket))).await.unwrap();
    assert!(matches!(state, CallState::Lost), "{state:?}");
    assert_eq!(store.total().await, 5);
}

async fn an_outcome_can_be_asked_for_from_elsewhere_at_any_server<S: Till + Clone>(store: S) {
    let site = Site::new();
    let ((_, first), (_, second)) = (site.serve(&store).await, site.serve(&store).await);
    let caller = site.open(&[first.local_addr()]).await;
    let ticket = caller.ticket().unwrap();
    let mut unary = caller.channel().unary::<Note, Note>(&ADD, &note(5));
    let id = soon(unary.id()).await.unwrap();
    let asker = site.open(&[second.local_addr()]).await;
    let ask = async |ticket| soon(asker.outcome_of(id, Some(ticket))).await;
    assert!(matches!(ask(ticket.clone()).await.unwrap(), CallState::NotArrived));
    soon(std::future::IntoFuture::into_future(unary)).await.unwrap();
    let state = ask(ticket.clone()).await.unwrap();
    let known = matches!(&state, CallState::Replied(_));
    assert!(known || matches!(state, CallState::AlreadySettled), "{state:?}");
    let mut wrong = ticket;
    wrong.secret = SessionSecret::new([9; 32]);
    assert!(ask(wrong).await.is_err());
}

async fn a_full_table_refuses_until_a_session_is_closed<S: Till + Clone>(store: S) {
    let mut site = Site::new();
    site.limits.sessions_per_address = 2;
    let (_, server) = site.serve(&store).await;
    let first = site.open(&[server.local_addr()]).await;
    let second = site.channel(&[&server]).await;
    call(&first.channel(), &ADD, 1).await.unwrap();
    call(&second, &ADD, 1).await.unwrap();
    let to_server = || site.to(&[server.local_addr()]).wait_for_ready(false);
    let error = soon(to_server().open()).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains("no room") || told.contains("silent") || told.contains("session"),
        "{told}"
    );
    drop(first);
    let third = soon(async {
        loop {
            if let Ok(third) = to_server().open().await {
                return third;
            }
        }
    });
    assert_eq!(call(&third.await.channel(), &ADD, 1).await.unwrap().amount, 3);
}

async fn slots_are_as_many_as_were_chosen<S: Till + Clone>(store: S) {
    let db = Completions::new(store.clone()).await.unwrap().slots(3);
    let site = Site::new();
    let counter = Counter::new(db.clone());
    let server = stubborn::Server::bind("127.0.0.1:0")
        .identity(site.identity.clone())
        .service(counter.clone())
        .completions(db)
        .start()
        .await
        .unwrap();
    let channel = site.channel(&[&server]).await;
    counter.gate.add_permits(10);
    let calls: Vec<_> = (0..10).map(|_| begin(&channel, &WAIT_THEN_ADD, 1)).collect();
    for call in calls {
        soon(call).await.unwrap().unwrap();
    }
    let mut tx = store.begin().await.unwrap();
    let counts = tx.count(b"").await.unwrap();
    assert_eq!((counts.sessions, counts.slots), (1, 3));
    assert_eq!(tx.reports(1).await.unwrap().len(), 3);
}

async fn a_server_that_drains_lets_its_calls_end_and_sends_clients_to_another<S: Till + Clone>(
    store: S,
) {
    let site = Site::new();
    let (counter, first) = site.serve(&store).await;
    let (channel, (copy, second)) = begin_at(&site, &first, &store).await;
    let call_under_way = begin(&channel, &WAIT_THEN_ADD, 5);
    reaches(&counter.began, 1).await;
    let drained = tokio::spawn(first.drain());
    counter.gate.add_permits(1);
    // The client may have sent a copy there before the first one had ended.
    copy.gate.add_permits(1);
    assert!(soon(drained).await.unwrap().complete);
    assert_eq!(soon(call_under_way).await.unwrap().unwrap().amount, 5);
    assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, 6);
    drop(second);
}

async fn several_workers_share_the_sessions<S: Till + Clone>(store: S) {
    let db = Completions::new(store.clone()).await.unwrap();
    let site = Site::new();
    let server = stubborn::Server::bind("127.0.0.1:0")
        .identity(site.identity.clone())
        .service(Counter::new(db.clone()))
        .workers(3)
        .completions(db)
        .start()
        .await
        .unwrap();
    for n in 1..=6 {
        let channel = site.channel(&[&server]).await;
        assert_eq!(call(&channel, &ADD, 1).await.unwrap().amount, n);
    }
}

/// A module with all cases, over the store that `$fresh` makes, and what is to be kept until the end.
/// It gives `None` where the database cannot be had.
macro_rules! over {
    ($store:ident, $fresh:expr) => {
        over!($store, $fresh,
            the_first_who_asks_names_the_group_and_all_others_hear_the_same
            what_is_not_committed_never_was
            a_slot_is_locked_by_one_transaction_at_a_time
            a_transaction_that_is_given_up_while_it_begins_leaves_nothing_open
            every_state_of_a_slot_is_read_as_it_was_written
            a_released_reply_is_gone_and_a_later_number_stays
            a_removed_session_takes_its_slots_with_it_unless_one_executes
            time_is_moved_on_by_one_of_those_who_saw_it
            sessions_are_counted_found_and_renewed
            calls_run_once_and_go_on_at_another_server_when_theirs_is_killed
            a_call_that_was_committed_and_not_answered_is_answered_by_another_server
            a_transaction_that_its_server_did_not_commit_is_run_by_another
            a_refusal_is_an_outcome_and_changes_nothing
            a_number_that_was_fenced_never_runs
            a_call_that_comes_too_late_is_fenced_before_that_is_said
            a_fence_waits_for_the_handler_of_another_server_and_tells_what_came_of_it
            a_reply_that_is_too_large_is_told_once_and_then_as_not_kept
            replies_of_all_slots_are_kept_within_one_bound
            what_became_of_a_commit_is_read_back_when_its_answer_was_lost
            a_record_without_its_reply_is_not_taken_for_ones_own
            a_database_that_is_away_for_a_while_is_no_outcome
            a_call_that_follows_one_of_the_same_server_is_not_looked_up
            an_operator_is_told_when_the_database_is_away
            a_session_that_nothing_is_heard_of_is_forgotten_and_its_calls_refused
            an_outcome_can_be_asked_for_from_elsewhere_at_any_server
            a_full_table_refuses_until_a_session_is_closed
            slots_are_as_many_as_were_chosen
            a_server_that_drains_lets_its_calls_end_and_sends_clients_to_another
            several_workers_share_the_sessions
        );
    };
    ($store:ident, $fresh:expr, $($case:ident)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some((store, _kept)) = $fresh.await else { return };
                    super::$case(store).await;
                }
            )*
        }
    };
}

over!(memory, async {
    let db = stubborn_completion::MemoryCompletions::in_memory(0_i64).await.unwrap();
    Some((db.store().clone(), ()))
});

over!(sqlite, async {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.sqlite");
    let db = stubborn_completion::SqliteCompletions::open(file).await.unwrap();
    crate::common::make_till_in_sqlite(db.store()).await;
    Some((db.store().clone(), folder))
});

over!(redb, async {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.redb");
    let db = stubborn_completion::RedbCompletions::open(file).await.unwrap();
    Some((db.store().clone(), folder))
});

over!(postgres, async {
    match crate::common::cluster::fresh_database() {
        None => None,
        Some(url) => {
            let db = stubborn_completion::PostgresCompletions::connect(&url).await.unwrap();
            crate::common::make_till_in_postgres(db.store()).await;
            Some((db.store().clone(), ()))
        }
    }
});
