use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use stubborn_core::node::{JournalRequest, SessionTicket};
use stubborn_core::service::{
    CallState, Encoded, IncomingReply, Metadata, Method, Semantics, Shape,
};
use stubborn_core::session::{CallId, SessionId, SessionSecret};

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
    Record::Session(SessionTicket { session: SESSION, secret })
}

fn unfinished(book: &Book) -> Vec<CallId> {
    book.unfinished().collect()
}

#[test]
fn what_was_written_is_there_again() {
    let place = Place::new("again");
    let (mut file, book) = JournalFile::open(&place.file()).unwrap();
    assert!(book.session.is_none() && unfinished(&book).is_empty());
    file.append(&[session(), call(0, 1, b"one"), call(1, 1, b"two")]).unwrap();
    file.append(&[reply(0, 1, b"done"), Record::Settled(id(0, 1)), call(0, 2, b"three")]).unwrap();
    file.append(&[reply(1, 1, b"two done")]).unwrap();
    drop(file);
    for _ in 0..2 {
        let (_, book) = JournalFile::open(&place.file()).unwrap();
        assert_eq!(book.session.as_ref().unwrap().secret.expose(), &[9; 32]);
        assert_eq!(unfinished(&book), [id(0, 2), id(1, 1)]);
        let known = &book.calls[&id(0, 2)];
        let request = known.request.as_ref().unwrap();
        assert_eq!(request.encoded.verified(METHOD.id()).unwrap(), "three");
        assert_eq!((&request.method, request.metadata.get_str("who")), (&METHOD, Some("me")));
        assert!(known.outcome.is_none());
        let done = book.calls[&id(1, 1)].outcome.as_ref().unwrap();
        assert!(matches!(done, CallState::Replied(r) if r.reply.body.to_vec() == b"two done"));
        let slots: Vec<_> = book.slots().iter().map(|s| (s.slot, s.sequence, s.answered)).collect();
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
    assert_eq!(book.slots().first().map(|slot| slot.sequence), Some(39));
}
