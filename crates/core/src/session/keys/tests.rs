//! What a copy of a call with a key is answered, and what the table holds.

use super::*;

const NOW: Instant = Instant::ZERO;

/// A reply of so many bytes; none if the call did not run.
#[derive(Clone, Debug, PartialEq)]
struct End(Option<usize>);

impl KeyedEnd for End {
    fn ran(&self) -> bool {
        self.0.is_some()
    }

    fn size(&self) -> usize {
        self.0.unwrap_or(0)
    }

    fn without_reply(&self) -> Self {
        End(Some(0))
    }
}

type Table = Keys<&'static str, End>;

fn limits() -> KeyLimits {
    KeyLimits { keys: 3, keys_per_caller: 2, bytes: 1 << 20, reply: 8, ..Default::default() }
}

fn me() -> KeyAccount {
    KeyAccount::default()
}

fn begin(keys: &mut Table, key: &str, digest: u64) -> Begin<&'static str, End> {
    keys.begin(NOW, me(), None, key, digest, "running")
}

fn run(keys: &mut Table, key: &str, ended: End) {
    let Begin::Run(ticket) = begin(keys, key, 1) else { panic!("not new") };
    keys.finish(NOW, ticket, &ended);
}

#[test]
fn a_copy_gets_the_reply_of_the_first_and_another_request_is_refused() {
    let mut keys = Table::new(limits());
    run(&mut keys, "a", End(Some(3)));
    assert!(matches!(begin(&mut keys, "a", 1), Begin::Known(End(Some(3)))));
    assert!(matches!(begin(&mut keys, "a", 2), Begin::Other));
}

#[test]
fn a_copy_of_a_call_that_runs_waits_for_its_end() {
    let mut keys = Table::new(limits());
    let Begin::Run(_ticket) = begin(&mut keys, "a", 1) else { panic!("not new") };
    assert!(matches!(begin(&mut keys, "a", 1), Begin::Wait("running")));
    assert!(matches!(begin(&mut keys, "a", 2), Begin::Other));
}

#[test]
fn keys_of_one_caller_mean_nothing_for_another() {
    let mut keys = Table::new(KeyLimits { keys: 9, ..limits() });
    run(&mut keys, "a", End(Some(1)));
    let certificate = KeyAccount { owner: Some([1; 32]), subject: None };
    let token = KeyAccount { owner: None, subject: Some("ada".into()) };
    let both = KeyAccount { owner: Some([1; 32]), subject: Some("ada".into()) };
    for other in [certificate, token, both] {
        assert!(matches!(keys.begin(NOW, other, None, "a", 9, ""), Begin::Run(_)));
    }
}

#[test]
fn a_call_that_did_not_run_leaves_its_key_free() {
    let mut keys = Table::new(limits());
    run(&mut keys, "a", End(None));
    assert!(matches!(begin(&mut keys, "a", 2), Begin::Run(_)));
}

#[test]
fn of_a_large_reply_only_is_kept_that_the_call_ran() {
    let mut keys = Table::new(limits());
    run(&mut keys, "b", End(Some(9)));
    assert!(matches!(begin(&mut keys, "b", 1), Begin::Known(End(Some(0)))));
}

#[test]
fn a_full_table_refuses_until_something_expires() {
    let mut keys = Table::new(limits());
    run(&mut keys, "a", End(Some(1)));
    run(&mut keys, "b", End(Some(1)));
    assert!(matches!(begin(&mut keys, "c", 1), Begin::Full), "of one caller");
    let address = Some([10, 0, 0, 1].into());
    assert!(matches!(keys.begin(NOW, me(), address, "c", 1, ""), Begin::Run(_)));
    let address = Some([10, 0, 0, 2].into());
    assert!(matches!(keys.begin(NOW, me(), address, "d", 1, ""), Begin::Full), "of all");
    let later = NOW + limits().retention;
    assert!(matches!(keys.begin(later, me(), address, "d", 1, ""), Begin::Run(_)));
    assert!(matches!(keys.begin(later, me(), address, "a", 7, ""), Begin::Run(_)), "forgotten");
}

#[test]
fn bytes_are_given_back_with_what_they_were_for() {
    let room = OVERHEAD + 1 + 8;
    let mut keys = Table::new(KeyLimits { bytes: room, ..limits() });
    run(&mut keys, "a", End(Some(2)));
    assert_eq!(keys.bytes, OVERHEAD + 1 + 2);
    assert!(matches!(begin(&mut keys, "b", 1), Begin::Full));
    keys.expire(NOW + limits().retention);
    assert_eq!((keys.bytes, keys.records.len(), keys.payers.len()), (0, 0, 0));
}

#[test]
fn a_call_that_runs_does_not_expire() {
    let mut keys = Table::new(limits());
    let Begin::Run(_ticket) = begin(&mut keys, "a", 1) else { panic!("not new") };
    let later = NOW + limits().retention * 2;
    assert!(matches!(keys.begin(later, me(), None, "a", 1, ""), Begin::Wait(_)));
}
