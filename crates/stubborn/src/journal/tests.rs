use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use stubborn_core::node::{JournalRequest, SessionTicket};
use stubborn_core::service::{
    CallState, Encoded, IncomingReply, Metadata, Method, Semantics, Shape,
};
use stubborn_core::session::{CallId, JournalSlot, SessionId, SessionSecret};

use super::book::Book;
use super::error::JournalErrorKind;
use super::file::JournalFile;
use super::record::Record;

const METHOD: Method = Method::new("test.Bank/Add", Semantics::ExactlyOnce, Shape::Unary);
const SESSION: SessionId = SessionId { incarnation: 7, number: 1 };

/// A folder that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("stubborn-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn id(slot: u32, sequence: u64) -> CallId {
    CallId { session: SESSION, slot, sequence }
}

fn call(slot: u32, sequence: u64, body: &'static [u8]) -> Record {
    let mut metadata = Metadata::new();
    metadata.insert("who", "me").unwrap();
    let encoded = Encoded::from_body(METHOD.id(), Bytes::from_static(body));
    Record::Call(id(slot, sequence), Some(JournalRequest { method: METHOD, encoded, metadata }))
}

fn reply(slot: u32, sequence: u64, body: &'static [u8]) -> Record {
    let reply = Encoded::from_body(METHOD.id(), Bytes::from_static(body));
    let state = CallState::Replied(IncomingReply { reply, ..IncomingReply::default() });
    Record::Outcome(id(slot, sequence), state)
}

fn session() -> Record {
    let secret = SessionSecret::new([9; 32]);
    Record::Session(SessionTicket { session: SESSION, secret }, vec![1])
}

fn unfinished(book: &Book) -> Vec<CallId> {
    book.unfinished().collect()
}

#[test]
fn what_was_written_is_there_again() {
    let place = Place::new("again");
    let (mut file, book) = JournalFile::open(&place.file()).unwrap();
    assert!(book.last_session().is_none() && unfinished(&book).is_empty());
    file.append(&[session(), call(0, 1, b"one"), call(1, 1, b"two")]).unwrap();
    file.append(&[reply(0, 1, b"done"), Record::Settled(id(0, 1)), call(0, 2, b"three")]).unwrap();
    file.append(&[reply(1, 1, b"two done")]).unwrap();
    drop(file);
    for _ in 0..2 {
        let (_, book) = JournalFile::open(&place.file()).unwrap();
        assert_eq!(book.last_session().unwrap().secret.expose(), &[9; 32]);
        assert_eq!(unfinished(&book), [id(0, 2), id(1, 1)]);
        let known = &book.calls[&id(0, 2)];
        let request = known.request.as_ref().unwrap();
        assert_eq!(request.encoded.verified(METHOD.id()).unwrap(), "three");
        assert_eq!((&request.method, request.metadata.get_str("who")), (&METHOD, Some("me")));
        assert!(known.outcome.is_none());
        let done = book.calls[&id(1, 1)].outcome.as_ref().unwrap();
        assert!(matches!(done, CallState::Replied(r) if r.reply.body.to_vec() == b"two done"));
        let slots = book.start(Some(SESSION)).slots;
        let slots: Vec<_> = slots.iter().map(|s| (s.slot, s.sequence, s.answered)).collect();
        assert_eq!(slots, [(0, 2, false), (1, 1, true)]);
    }
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() {
    let place = Place::new("torn");
    let (mut file, _) = JournalFile::open(&place.file()).unwrap();
    file.append(&[session(), call(0, 1, b"one")]).unwrap();
    let whole = fs::metadata(place.file()).unwrap().len();
    file.append(&[call(1, 1, b"two")]).unwrap();
    drop(file);
    let bytes = fs::read(place.file()).unwrap();
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    for cut in (whole as usize..end).step_by(5) {
        fs::write(place.file(), &bytes[..cut]).unwrap();
        let (mut file, book) = JournalFile::open(&place.file()).unwrap();
        assert_eq!(unfinished(&book), [id(0, 1)], "cut at {cut}");
        // And what is written then is not lost behind the torn part.
        file.append(&[call(2, 1, b"three")]).unwrap();
        drop(file);
        let (_, book) = JournalFile::open(&place.file()).unwrap();
        assert_eq!(unfinished(&book), [id(0, 1), id(2, 1)]);
    }
}

#[test]
fn damage_before_the_end_is_refused_by_name() {
    let place = Place::new("damage");
    let (mut file, _) = JournalFile::open(&place.file()).unwrap();
    file.append(&[session(), call(0, 1, b"one")]).unwrap();
    file.append(&[call(1, 1, b"two")]).unwrap();
    drop(file);
    let good = fs::read(place.file()).unwrap();
    let last = good.len() - good.rchunks(8).position(|c| c == b"JBATCH01").unwrap() * 8 - 8;
    for at in (8..last).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(place.file(), &bytes).unwrap();
        match JournalFile::open(&place.file()) {
            Err(error) => {
                assert!(matches!(error.kind(), JournalErrorKind::Damaged { .. }), "{error}");
                assert!(error.to_string().contains("journal"), "{error}");
            }
            // The zeros between batches mean nothing.
            Ok((_, book)) => {
                assert_eq!(good[at], 0, "byte {at}");
                assert_eq!(unfinished(&book).len(), 2);
            }
        }
    }
    fs::write(place.file(), "something else").unwrap();
    let error = JournalFile::open(&place.file()).unwrap_err();
    assert!(matches!(error.kind(), JournalErrorKind::NotAJournal));
    assert_eq!(fs::read(place.file()).unwrap(), b"something else");
}

#[test]
fn a_journal_has_one_user_and_is_private() {
    let place = Place::new("one");
    let (file, _) = JournalFile::open(&place.file()).unwrap();
    let error = JournalFile::open(&place.file()).unwrap_err();
    assert!(matches!(error.kind(), JournalErrorKind::InUse), "{error}");
    drop(file);
    JournalFile::open(&place.file()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for file in fs::read_dir(&place.0).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}

#[test]
fn the_file_stays_small_however_many_calls_were_settled() {
    let place = Place::new("small");
    let (mut file, mut book) = JournalFile::open(&place.file()).unwrap();
    let mut write = |records: Vec<Record>| {
        file.append(&records).unwrap();
        records.into_iter().for_each(|record| book.apply(record));
        file.compact(&book).unwrap();
    };
    write(vec![session(), call(1, 1, b"open")]);
    static BODY: [u8; 256 << 10] = [7; 256 << 10];
    for sequence in 1..40 {
        write(vec![
            call(0, sequence, &BODY),
            reply(0, sequence, b""),
            Record::Settled(id(0, sequence)),
        ]);
        assert!(fs::metadata(place.file()).unwrap().len() < 2 << 20);
    }
    drop(file);
    let (_, book) = JournalFile::open(&place.file()).unwrap();
    assert_eq!(unfinished(&book), [id(1, 1)]);
    assert_eq!(book.start(Some(SESSION)).slots.first().map(|slot| slot.sequence), Some(39));
}

#[test]
fn the_last_number_of_a_slot_stays_the_last_when_an_earlier_one_is_still_to_be_told() {
    let records = vec![
        session(),
        call(0, 1, b"one"),
        reply(0, 1, b"told to nobody yet"),
        call(0, 2, b"two"),
        reply(0, 2, b"told"),
        Record::Settled(id(0, 2)),
    ];
    let book = Book::of(Book::of(records).records());
    assert_eq!(unfinished(&book), [id(0, 1)]);
    let last = JournalSlot { slot: 0, sequence: 2, answered: true };
    assert_eq!(book.start(Some(id(0, 1).session)).slots, [last]);
}

#[test]
fn every_session_with_an_open_call_is_kept_and_the_last_one() {
    let place = Place::new("sessions");
    let ticket = |number| {
        let session = SessionId { number, ..SESSION };
        SessionTicket { session, secret: SessionSecret::new([number as u8; 32]) }
    };
    let at = |number, sequence| {
        let session = SessionId { number, ..SESSION };
        CallId { session, slot: 0, sequence }
    };
    let request = || match call(0, 1, b"one") {
        Record::Call(_, request) => request,
        _ => unreachable!(),
    };
    let (mut file, _) = JournalFile::open(&place.file()).unwrap();
    let sessions = (1..=4).map(|number| Record::Session(ticket(number), vec![1]));
    file.append(&sessions.collect::<Vec<_>>()).unwrap();
    file.append(&[
        Record::Call(at(1, 1), request()),
        Record::Call(at(3, 7), request()),
        Record::Call(at(2, 1), request()),
        Record::Outcome(at(2, 1), CallState::ReplyNotKept),
        Record::Members(vec!["[::1]:7400".into(), "bank.example:7400".into()]),
    ])
    .unwrap();
    drop(file);
    for _ in 0..2 {
        let (_, book) = JournalFile::open(&place.file()).unwrap();
        let numbers: Vec<_> = book.sessions().map(|ticket| ticket.session.number).collect();
        assert_eq!(numbers, [1, 3, 4]);
        assert_eq!(unfinished(&book), [at(1, 1), at(2, 1), at(3, 7)]);
        let slots = book.start(Some(ticket(3).session)).slots;
        assert_eq!((slots.len(), slots[0].sequence, slots[0].answered), (1, 7, false));
        assert_eq!(book.members, ["[::1]:7400", "bank.example:7400"]);
    }
}

#[test]
fn processes_that_had_the_journal_are_named_since_one_of_them_attached() {
    let place = Place::new("holders");
    let open = || JournalFile::open(&place.file()).unwrap();
    let after = |book: &Book| book.start(Some(SESSION)).after;
    let (mut file, _) = open();
    file.append(&[session()]).unwrap();
    drop(file);
    let (file, second) = open();
    drop(file);
    let (mut file, third) = open();
    assert_eq!(after(&third), [1, second.holder, third.holder]);
    file.append(&[Record::Held(SESSION, third.holder)]).unwrap();
    drop(file);
    let (file, fourth) = open();
    assert_eq!(after(&fourth), [third.holder, fourth.holder]);
    drop(file);
    // As many as can be named to a server; with more than that it is not looked at.
    let named: Vec<usize> = (0..20).map(|_| after(&open().1).len()).collect();
    assert_eq!(named.iter().max(), Some(&16));
    assert_eq!(named[19], 0);
}
