//! Calls that name themselves by a key: a copy runs once.
//!
//! A table of its own, since a key is neither a slot nor a number: nothing acknowledges it, so that it is
//! kept for a fixed time. The table is bounded: when it is full a call is refused before it runs.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use stubborn_core::time::Instant;
use tokio::sync::watch;

use super::call::Ended;

/// Bytes that an entry counts beside what its caller sent and its reply.
const OVERHEAD: u64 = 512;

/// The longest key, in bytes.
pub(super) const LONGEST: usize = 256;

/// Whose keys they are: keys of one caller mean nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Account {
    /// Who showed this certificate.
    Identity([u8; 32]),
    /// Everybody who shows none: they may come back from another address.
    Anonymous,
}

/// The bounds of the table.
#[derive(Clone, Debug)]
pub struct KeyLimits {
    /// Keys at once.
    pub keys: usize,
    /// Keys at once of one certificate, or of one address without.
    pub keys_per_caller: usize,
    /// Bytes of kept replies and keys. A call that begins counts with the largest reply that is kept.
    pub bytes: u64,
    /// The largest reply that is kept. A copy of a call with a larger one is told that it ran.
    pub reply: usize,
    /// How long after its end a call is known.
    pub retention: Duration,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self {
            keys: 65_536,
            keys_per_caller: 16_384,
            bytes: 256 << 20,
            reply: 64 << 10,
            retention: Duration::from_secs(3_600),
        }
    }
}

/// What became of a call, for its copies.
pub(super) type Kept = Option<Arc<Ended>>;

/// What to do with a call that has a key.
pub(super) enum Begin {
    /// It is new: run it, then [`Keys::finish`] it with this.
    Run(Ticket),
    /// It has run.
    Known(Arc<Ended>),
    /// It is running.
    Wait(watch::Receiver<Kept>),
    /// The key is taken by another request.
    Other,
    /// There is no room.
    Full,
}

/// The right to run the call of a key, and the duty to say how it ended.
pub(super) struct Ticket {
    name: Name,
    done: watch::Sender<Kept>,
}

type Name = (Account, Arc<str>);
/// Who is charged: the certificate, or without one the address.
type Payer = (Account, Option<IpAddr>);

struct Record {
    digest: u64,
    payer: Payer,
    bytes: u64,
    state: State,
}

enum State {
    Running(watch::Receiver<Kept>),
    Ended(Arc<Ended>),
}

/// The table.
pub(super) struct Keys {
    limits: KeyLimits,
    records: HashMap<Name, Record>,
    payers: HashMap<Payer, usize>,
    bytes: u64,
    /// Those that have ended, in that order.
    ended: VecDeque<(Instant, Name)>,
}

impl Keys {
    pub(super) fn new(limits: KeyLimits) -> Self {
        let (records, payers) = (HashMap::new(), HashMap::new());
        Self { limits, records, payers, bytes: 0, ended: VecDeque::new() }
    }

    /// A call with this key has come, from this caller, with a request of this digest.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        account: Account,
        address: Option<IpAddr>,
        key: &str,
        digest: u64,
    ) -> Begin {
        self.expire(now);
        let name = (account, Arc::from(key));
        if let Some(record) = self.records.get(&name) {
            return match &record.state {
                _ if record.digest != digest => Begin::Other,
                State::Running(done) => Begin::Wait(done.clone()),
                State::Ended(ended) => Begin::Known(ended.clone()),
            };
        }
        let address = if account == Account::Anonymous { address } else { None };
        let payer = (account, address);
        let bytes = OVERHEAD + key.len() as u64 + self.limits.reply as u64;
        let paid = self.payers.get(&payer).copied().unwrap_or(0);
        if self.records.len() >= self.limits.keys
            || paid >= self.limits.keys_per_caller
            || self.bytes + bytes > self.limits.bytes
        {
            return Begin::Full;
        }
        let (done, running) = watch::channel(None);
        self.bytes += bytes;
        self.payers.insert(payer, paid + 1);
        let record = Record { digest, payer, bytes, state: State::Running(running) };
        self.records.insert(name.clone(), record);
        Begin::Run(Ticket { name, done })
    }

    /// The call of the ticket has ended so. If it did not run, its key is free again.
    pub(super) fn finish(&mut self, now: Instant, ticket: Ticket, ended: Arc<Ended>) {
        let Ticket { name, done } = ticket;
        if !ended.ran() {
            self.remove(&name);
            done.send_replace(Some(ended));
            return;
        }
        let kept = if ended.size() > self.limits.reply {
            Arc::new(ended.without_reply())
        } else {
            ended.clone()
        };
        if let Some(record) = self.records.get_mut(&name) {
            let bytes = OVERHEAD + name.1.len() as u64 + kept.size() as u64;
            self.bytes = self.bytes - record.bytes + bytes;
            record.bytes = bytes;
            record.state = State::Ended(kept);
            self.ended.push_back((now, name));
        }
        // Who waits gets the whole reply.
        done.send_replace(Some(ended));
    }

    /// Forgets what ended too long ago.
    fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.ended.front() {
            if now.since(*at) < self.limits.retention {
                break;
            }
            let (_, name) = self.ended.pop_front().expect("it was looked at");
            self.remove(&name);
        }
    }

    fn remove(&mut self, name: &Name) {
        let Some(record) = self.records.remove(name) else { return };
        self.bytes -= record.bytes;
        if let Entry::Occupied(mut payer) = self.payers.entry(record.payer) {
            *payer.get_mut() -= 1;
            if *payer.get() == 0 {
                payer.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Answer, Encoded, Metadata, MethodId, NotExecuted, Status};
    use stubborn_core::session::NotExecutedReason;

    use super::*;

    const ME: Account = Account::Anonymous;
    const NOW: Instant = Instant::ZERO;

    fn limits() -> KeyLimits {
        KeyLimits { keys: 3, keys_per_caller: 2, bytes: 1 << 20, reply: 8, ..Default::default() }
    }

    fn replied(length: usize) -> Arc<Ended> {
        let body = Encoded::from_body(MethodId::of("a.B/C"), vec![7; length].into());
        Arc::new(Ended::of(Answer::Reply(body, Metadata::new())))
    }

    fn begin(keys: &mut Keys, key: &str, digest: u64) -> Begin {
        keys.begin(NOW, ME, None, key, digest)
    }

    fn run(keys: &mut Keys, key: &str, ended: Arc<Ended>) {
        let Begin::Run(ticket) = begin(keys, key, 1) else { panic!("not new") };
        keys.finish(NOW, ticket, ended);
    }

    #[test]
    fn a_copy_gets_the_reply_of_the_first_and_another_request_is_refused() {
        let mut keys = Keys::new(limits());
        run(&mut keys, "a", replied(3));
        assert!(matches!(begin(&mut keys, "a", 1), Begin::Known(e) if *e == *replied(3)));
        assert!(matches!(begin(&mut keys, "a", 2), Begin::Other));
    }

    #[test]
    fn a_copy_of_a_call_that_runs_waits_for_its_end() {
        let mut keys = Keys::new(limits());
        let Begin::Run(ticket) = begin(&mut keys, "a", 1) else { panic!("not new") };
        let Begin::Wait(done) = begin(&mut keys, "a", 1) else { panic!("not running") };
        assert!(done.borrow().is_none());
        keys.finish(NOW, ticket, replied(100));
        assert_eq!(done.borrow().as_deref(), Some(&*replied(100)));
    }

    #[test]
    fn keys_of_one_caller_mean_nothing_for_another() {
        let mut keys = Keys::new(limits());
        run(&mut keys, "a", replied(1));
        let other = Account::Identity([1; 32]);
        assert!(matches!(keys.begin(NOW, other, None, "a", 9), Begin::Run(_)));
    }

    #[test]
    fn a_call_that_did_not_run_leaves_its_key_free() {
        let mut keys = Keys::new(limits());
        let why = NotExecuted::new(NotExecutedReason::Malformed);
        run(&mut keys, "a", Arc::new(Ended::of(Answer::NotExecuted(why))));
        assert!(matches!(begin(&mut keys, "a", 2), Begin::Run(_)));
    }

    #[test]
    fn a_status_is_kept_too_and_a_large_reply_becomes_one() {
        let mut keys = Keys::new(limits());
        run(&mut keys, "a", Arc::new(Ended::of(Answer::Status(Status::aborted("x")))));
        assert!(matches!(begin(&mut keys, "a", 1), Begin::Known(_)));
        run(&mut keys, "b", replied(9));
        let Begin::Known(kept) = begin(&mut keys, "b", 1) else { panic!("it ran") };
        assert!(matches!(&kept.answer, Answer::Status(_)) && kept.ran());
    }

    #[test]
    fn a_full_table_refuses_until_something_expires() {
        let mut keys = Keys::new(limits());
        run(&mut keys, "a", replied(1));
        run(&mut keys, "b", replied(1));
        assert!(matches!(begin(&mut keys, "c", 1), Begin::Full), "of one caller");
        let address = Some([10, 0, 0, 1].into());
        assert!(matches!(keys.begin(NOW, ME, address, "c", 1), Begin::Run(_)));
        let address = Some([10, 0, 0, 2].into());
        assert!(matches!(keys.begin(NOW, ME, address, "d", 1), Begin::Full), "of all");
        let later = NOW + limits().retention;
        assert!(matches!(keys.begin(later, ME, address, "d", 1), Begin::Run(_)));
        assert!(matches!(keys.begin(later, ME, address, "a", 7), Begin::Run(_)), "forgotten");
    }

    #[test]
    fn bytes_are_given_back_with_what_they_were_for() {
        let room = OVERHEAD + 1 + 8;
        let mut keys = Keys::new(KeyLimits { bytes: room, ..limits() });
        run(&mut keys, "a", replied(2));
        assert_eq!(keys.bytes, OVERHEAD + 1 + 2);
        assert!(matches!(begin(&mut keys, "b", 1), Begin::Full));
        keys.expire(NOW + limits().retention);
        assert_eq!((keys.bytes, keys.records.len(), keys.payers.len()), (0, 0, 0));
    }

    #[test]
    fn a_call_that_runs_does_not_expire() {
        let mut keys = Keys::new(limits());
        let Begin::Run(_ticket) = begin(&mut keys, "a", 1) else { panic!("not new") };
        let later = NOW + limits().retention * 2;
        assert!(matches!(keys.begin(later, ME, None, "a", 1), Begin::Wait(_)));
    }
}
