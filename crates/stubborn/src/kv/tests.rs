use bytes::Bytes;
use stubborn_core::service::{Applied, Code, Image, Next, Piece, RestoreError, Status};

use super::compare_and_swap_request::Expected;
use super::*;

const AT: Applied = Applied { index: 1, time: stubborn_core::time::Instant::ZERO, version: 1 };

fn put(store: &mut Store, key: &str, value: &str) -> Result<PutReply, Status> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    store.put(&AT, PutRequest { key: key.into(), value })
}

fn get(store: &Store, key: &str) -> Option<Pair> {
    store.get(GetRequest { key: key.into() }).unwrap().pair
}

fn delete(store: &mut Store, key: &str) -> DeleteReply {
    store.delete(&AT, DeleteRequest { key: key.into() }).unwrap()
}

fn swap(
    store: &mut Store,
    key: &str,
    expected: Expected,
    swap: Option<&str>,
) -> CompareAndSwapReply {
    let swap = swap.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    let request = CompareAndSwapRequest { key: key.into(), expected: Some(expected), swap };
    store.compare_and_swap(&AT, request).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

#[test]
fn a_key_that_is_empty_or_too_long_and_a_value_too_long_are_refused_everywhere() {
    let mut store = Store::new();
    for key in [String::new(), "k".repeat(MAX_KEY + 1)] {
        assert_eq!(code(put(&mut store, &key, "v")), Code::InvalidArgument);
        assert_eq!(code(store.get(GetRequest { key: key.clone() })), Code::InvalidArgument);
        let request = DeleteRequest { key: key.clone() };
        assert_eq!(code(store.delete(&AT, request)), Code::InvalidArgument);
        let expected = Some(Expected::Revision(0));
        let request = CompareAndSwapRequest { key, expected, swap: None };
        assert_eq!(code(store.compare_and_swap(&AT, request)), Code::InvalidArgument);
    }
    let long = "v".repeat(MAX_VALUE + 1);
    assert_eq!(code(put(&mut store, "k", &long)), Code::InvalidArgument);
    let request = CompareAndSwapRequest {
        key: "k".into(),
        expected: Some(Expected::Revision(0)),
        swap: Some(long.into()),
    };
    assert_eq!(code(store.compare_and_swap(&AT, request)), Code::InvalidArgument);
    let prefix = "p".repeat(MAX_KEY + 1);
    let request = ListRequest { prefix, ..ListRequest::default() };
    assert_eq!(code(store.list(request)), Code::InvalidArgument);
    assert_eq!(store, Store::new());
    assert!(put(&mut store, &"k".repeat(MAX_KEY), &"v".repeat(MAX_VALUE)).is_ok());
}

#[test]
fn a_full_store_refuses_what_needs_more_room_and_takes_what_frees_some() {
    let mut store = Store::with_room(2 * PAIR + 10);
    put(&mut store, "a", "1234").unwrap();
    put(&mut store, "b", "1234").unwrap();
    assert_eq!(code(put(&mut store, "c", "")), Code::ResourceExhausted);
    assert_eq!(code(put(&mut store, "a", "12345")), Code::ResourceExhausted);
    assert_eq!(store.revision(), 2);
    put(&mut store, "a", "12").unwrap();
    delete(&mut store, "b");
    put(&mut store, "c", "1").unwrap();
    assert_eq!(store.len(), 2);
}

#[test]
fn revisions_grow_with_each_change_and_with_nothing_else() {
    let mut store = Store::new();
    assert_eq!(put(&mut store, "a", "1").unwrap(), PutReply { revision: 1, previous: 0 });
    assert_eq!(put(&mut store, "a", "2").unwrap(), PutReply { revision: 2, previous: 1 });
    let pair = get(&store, "a").unwrap();
    assert_eq!((pair.value, pair.revision, pair.created), ("2".into(), 2, 1));
    assert_eq!(delete(&mut store, "b"), DeleteReply { revision: 2, previous: 0 });
    assert_eq!(delete(&mut store, "a"), DeleteReply { revision: 3, previous: 2 });
    assert_eq!(get(&store, "a"), None);
    put(&mut store, "a", "3").unwrap();
    assert_eq!(get(&store, "a").unwrap().created, 4);
}

#[test]
fn a_swap_happens_only_if_the_key_is_as_expected() {
    let mut store = Store::new();
    let made = swap(&mut store, "a", Expected::Revision(0), Some("1"));
    assert_eq!(made, CompareAndSwapReply { swapped: true, revision: 1 });
    let again = swap(&mut store, "a", Expected::Revision(0), Some("2"));
    assert_eq!(again, CompareAndSwapReply { swapped: false, revision: 1 });
    let other = swap(&mut store, "a", Expected::Value("x".into()), Some("2"));
    assert_eq!(other, CompareAndSwapReply { swapped: false, revision: 1 });
    assert!(swap(&mut store, "a", Expected::Value("1".into()), Some("2")).swapped);
    assert!(!swap(&mut store, "b", Expected::Value("".into()), Some("2")).swapped);
    let gone = swap(&mut store, "a", Expected::Revision(2), None);
    assert_eq!(gone, CompareAndSwapReply { swapped: true, revision: 3 });
    assert!(store.is_empty());
    let request = CompareAndSwapRequest { key: "a".into(), expected: None, swap: None };
    assert_eq!(code(store.compare_and_swap(&AT, request)), Code::InvalidArgument);
}

#[test]
fn a_list_goes_through_all_keys_of_a_prefix_page_by_page() {
    let mut store = Store::new();
    for key in ["a", "b/1", "b/2", "b/3", "b0", "c"] {
        put(&mut store, key, "v").unwrap();
    }
    let mut after = String::new();
    let mut seen = Vec::new();
    loop {
        let request = ListRequest { prefix: "b/".into(), after, limit: 2, keys_only: false };
        let page = store.list(request).unwrap();
        assert!(page.pairs.len() <= 2 && page.revision == 6);
        seen.extend(page.pairs.into_iter().map(|pair| pair.key));
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["b/1", "b/2", "b/3"]);
    let before = ListRequest { prefix: "b/".into(), after: "a".into(), ..Default::default() };
    assert_eq!(store.list(before).unwrap().pairs.len(), 3);
    let behind = ListRequest { prefix: "b/".into(), after: "c".into(), ..Default::default() };
    assert_eq!(store.list(behind).unwrap().pairs.len(), 0);
}

#[test]
fn a_page_ends_when_it_is_large_and_may_leave_the_values_out() {
    let mut store = Store::new();
    let value = "v".repeat(MAX_VALUE);
    for number in 0..8 {
        put(&mut store, &format!("{number}"), &value).unwrap();
    }
    let page = store.list(ListRequest::default()).unwrap();
    assert_eq!((page.pairs.len(), page.next.as_str()), (4, "3"));
    let keys = ListRequest { keys_only: true, ..ListRequest::default() };
    let page = store.list(keys).unwrap();
    assert_eq!((page.pairs.len(), page.next.as_str()), (8, ""));
    assert!(page.pairs.iter().all(|pair| pair.value.is_empty()));
}

fn image(store: &Store) -> Bytes {
    store.snapshot().to_bytes().unwrap()
}

fn restore(store: &mut Store, snapshot: &[u8]) -> Result<(), RestoreError> {
    store.restore(Piece::only(snapshot))
}

#[test]
fn a_snapshot_brings_a_store_back_and_two_equal_stores_write_the_same() {
    let mut store = Store::new();
    for (key, value) in [("b", "2"), ("a", "1"), ("c", ""), ("b", "3")] {
        put(&mut store, key, value).unwrap();
    }
    delete(&mut store, "c");
    let mut other = Store::new();
    put(&mut other, "old", "state").unwrap();
    restore(&mut other, &image(&store)).unwrap();
    assert_eq!(other, store);
    assert_eq!(image(&other), image(&store));
    assert_eq!(put(&mut other, "d", "").unwrap().revision, store.revision() + 1);
}

#[test]
fn a_large_state_is_written_in_small_pieces_while_it_changes_and_read_beside_another() {
    let mut store = Store::new();
    let value = "x".repeat(1_000);
    for number in 0..2_000 {
        put(&mut store, &format!("{number:04}"), &value).unwrap();
    }
    let (frozen, as_it_was) = (store.snapshot(), image(&store));
    let mut other = Store::new();
    put(&mut other, "old", "state").unwrap();
    let pieces: Vec<Bytes> = frozen.pieces().map(Result::unwrap).collect();
    assert!(pieces.len() > 30 && pieces.iter().all(|piece| piece.len() < Image::PIECE + 2_000));
    for (at, piece) in pieces.iter().enumerate() {
        // Both go on meanwhile.
        put(&mut store, &format!("{at:04}"), "changed").unwrap();
        delete(&mut store, &format!("{:04}", 1_999 - at));
        put(&mut other, "old", "still").unwrap();
        let is_last = at + 1 == pieces.len();
        other.restore(Piece::new(piece, at == 0, is_last)).unwrap();
        assert_eq!(get(&other, "old").is_none(), is_last);
    }
    assert_eq!(image(&other), as_it_was);
    assert_ne!(image(&store), as_it_was);
    // One that was begun anew has nothing of what came before.
    let (first, last) = (&pieces[0], pieces.last().unwrap());
    other.restore(Piece::new(first, true, false)).unwrap();
    assert!(other.restore(Piece::new(last, false, true)).is_err());
    restore(&mut other, &image(&store)).unwrap();
    assert_eq!(other, store);
}

#[test]
fn a_snapshot_that_is_torn_altered_or_of_another_version_is_refused_and_none_panics() {
    let mut store = Store::new();
    put(&mut store, "a", "1").unwrap();
    put(&mut store, "b", "2").unwrap();
    let whole = image(&store);
    for end in 0..whole.len() {
        assert!(restore(&mut Store::new(), &whole[..end]).is_err(), "{end}");
    }
    assert!(restore(&mut Store::new(), &[&whole[..], b"x"].concat()).is_err());
    for at in 0..whole.len() {
        let mut altered = whole.to_vec();
        altered[at] ^= 0x80;
        // Bytes of a value may be anything; nothing else may.
        let _ = restore(&mut Store::new(), &altered);
    }
    assert!(restore(&mut Store::new(), &[&[0; 7][..], &[3], &[0; 16]].concat()).is_err());
}

fn watch(keys: Option<watch_request::Keys>, from: u64) -> WatchRequest {
    WatchRequest { keys, from }
}

/// What a watch is told until it has to wait: each change as text; and its position then.
fn told(store: &Store, request: &WatchRequest, mut position: u64) -> (Vec<String>, u64) {
    let mut all = Vec::new();
    loop {
        match store.watch(request.clone(), position).unwrap() {
            Next::Message(reply, at) => {
                assert!(at > position);
                position = at;
                all.extend(reply.changes.into_iter().map(|change| match change.change.unwrap() {
                    change::Change::Put(Pair { key, value, revision, .. }) => {
                        format!("{revision} {key}={}", String::from_utf8_lossy(&value))
                    }
                    change::Change::Removal(Removal { key, revision }) => {
                        format!("{revision} {key} removed")
                    }
                }));
            }
            Next::Wait(at) if at == position => return (all, position),
            Next::Wait(at) => position = at,
            Next::End => panic!("a watch does not end"),
        }
    }
}

#[test]
fn a_watch_is_told_the_changes_of_its_keys_from_its_revision_on() {
    use watch_request::Keys;

    let mut store = Store::new();
    put(&mut store, "a", "1").unwrap();
    put(&mut store, "b", "2").unwrap();
    delete(&mut store, "a");
    delete(&mut store, "a");
    let (all, end) = told(&store, &watch(None, 1), 0);
    assert_eq!(all, ["1 a=1", "2 b=2", "3 a removed"]);
    let of_a = watch(Some(Keys::Key("a".into())), 2);
    assert_eq!(told(&store, &of_a, 0).0, ["3 a removed"]);
    assert_eq!(told(&store, &watch(None, 0), 0), (vec![], end));
    put(&mut store, "ab", "4").unwrap();
    assert_eq!(told(&store, &watch(None, 0), end).0, ["4 ab=4"]);
    let prefix = watch(Some(Keys::Prefix("a".into())), 3);
    assert_eq!(told(&store, &prefix, 0).0, ["3 a removed", "4 ab=4"]);
    assert_eq!(told(&store, &of_a, 0).0, ["3 a removed"]);
    assert_eq!(told(&store, &watch(None, 9), 0).0, Vec::<String>::new());
    for bad in [watch(Some(Keys::Key(String::new())), 0), watch(None, u64::MAX)] {
        assert_eq!(code(store.watch(bad, 0)), Code::InvalidArgument);
    }
}

#[test]
fn a_watch_begins_with_the_revision_from_which_it_tells() {
    let mut store = Store::new();
    put(&mut store, "a", "1").unwrap();
    for (from, revision) in [(0, 1), (1, 0), (2, 1), (5, 4)] {
        let Next::Message(first, at) = store.watch(watch(None, from), 0).unwrap() else {
            panic!("a watch from {from} does not begin");
        };
        assert_eq!((first, at), (WatchReply { changes: vec![], revision }, revision + 1));
    }
}

#[test]
fn a_watch_of_changes_that_are_not_kept_is_refused_and_told_the_oldest() {
    let mut store = Store::with_history(3 * (PAIR + 2));
    for value in ["1", "2", "3", "4", "5"] {
        put(&mut store, "a", value).unwrap();
    }
    assert_eq!(told(&store, &watch(None, 3), 0).0, ["3 a=3", "4 a=4", "5 a=5"]);
    // One that begins too late, and one that is too slow.
    for (from, position) in [(2, 0), (1, 2)] {
        let error = store.watch(watch(None, from), position).unwrap_err();
        assert_eq!(error.code(), Code::OutOfRange);
        assert!(error.message().contains("the oldest one kept is 3"), "{error:?}");
    }
}

#[test]
fn a_watch_at_a_replica_that_lags_behind_waits() {
    let mut store = Store::new();
    put(&mut store, "a", "1").unwrap();
    let behind = store.clone();
    put(&mut store, "a", "2").unwrap();
    let (_, position) = told(&store, &watch(None, 1), 0);
    assert_eq!(behind.watch(watch(None, 1), position).unwrap(), Next::Wait(position));
}

#[test]
fn a_reply_to_a_watch_ends_when_it_is_large_and_the_next_goes_on() {
    let mut store = Store::new();
    let value = "v".repeat(MAX_VALUE);
    for number in 0..3 {
        put(&mut store, &format!("{number}"), &value).unwrap();
    }
    let Next::Message(reply, at) = store.watch(watch(None, 1), 1).unwrap() else {
        panic!("there are changes")
    };
    assert_eq!((reply.changes.len(), reply.revision, at), (1, 1, 2));
    assert_eq!(told(&store, &watch(None, 1), at).0.len(), 2);
}

#[test]
fn a_snapshot_of_before_there_were_watches_has_no_changes_to_tell() {
    let mut store = Store::new();
    put(&mut store, "a", "1").unwrap();
    // Version, revision, one pair: its two revisions and its two lengths.
    let mut old: Vec<u8> = [1u64; 7].iter().flat_map(|number| number.to_be_bytes()).collect();
    old.extend_from_slice(b"a1");
    let mut restored = Store::new();
    restore(&mut restored, &old).unwrap();
    assert_eq!(get(&restored, "a"), get(&store, "a"));
    assert_eq!(code(restored.watch(watch(None, 1), 0)), Code::OutOfRange);
    assert_eq!(told(&restored, &watch(None, 2), 0).0, Vec::<String>::new());
}
