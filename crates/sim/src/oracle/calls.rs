//! The oracles that follow calls end to end, by a token in each request that no protocol knows of.

use std::collections::BTreeSet;
use std::fmt;

use stubborn_core::service::Code;
use stubborn_core::time::Instant;

use super::at_most_once::AtMostOnce;
use super::liveness::Liveness;
use super::one_server::OneServer;
use super::outcomes::Outcomes;
use super::streams::Streams;
use super::{Violation, integrity, lost};

/// Names a call, end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a client was told, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Executed,
    NotExecuted,
    Lost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Executed => "executed",
            Self::NotExecuted => "not executed",
            Self::Lost => "lost",
        })
    }
}

/// Where a call may run again that has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    Never,
    AtTheSameServer,
    Anywhere,
}

/// How many calls ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls begun.
    pub begun: u64,
    /// Handlers that ran.
    pub runs: u64,
    /// Calls reported executed.
    pub executed: u64,
    /// Calls reported not executed.
    pub not_executed: u64,
    /// Calls reported lost.
    pub lost: u64,
    /// Reads and `maybe` calls that ended without an answer.
    pub unanswered: u64,
    /// Messages of streams that came back.
    pub streamed: u64,
}

impl std::ops::AddAssign for CallCounts {
    fn add_assign(&mut self, other: Self) {
        self.begun += other.begun;
        self.runs += other.runs;
        self.executed += other.executed;
        self.not_executed += other.not_executed;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.streamed += other.streamed;
    }
}

/// Everything that is known of the calls of a run.
#[derive(Default)]
pub(crate) struct Calls {
    at_most_once: AtMostOnce,
    one_server: OneServer,
    outcomes: Outcomes,
    streams: Streams,
    pub(crate) liveness: Liveness,
    pub(crate) counts: CallCounts,
    violation: Option<Violation>,
    next: u64,
    /// Statuses that handlers ended with since they were not well.
    failed: BTreeSet<(Token, u32)>,
}

impl Calls {
    /// A call is about to begin.
    pub(crate) fn begin(&mut self, now: Instant) -> Token {
        let token = self.token();
        self.liveness.began(token, now);
        self.counts.begun += 1;
        token
    }

    /// A token for a call whose end nobody waits for.
    pub(crate) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    /// A handler runs at a server.
    pub(crate) fn ran(&mut self, token: Token, again: Again, server: &str, now: Instant) {
        self.counts.runs += 1;
        match again {
            Again::Never => {
                let judged = self.at_most_once.ran(token);
                self.accuse("at most once", now, judged);
            }
            Again::AtTheSameServer => {
                let judged = self.one_server.ran(token, server);
                self.accuse("one server", now, judged);
            }
            Again::Anywhere => {}
        }
        let judged = self.outcomes.ran(token);
        self.accuse("outcomes", now, judged);
    }

    /// The handler of a call ends with a status that it was not asked for.
    pub(crate) fn fails(&mut self, token: Token, code: Code) {
        self.failed.insert((token, code as u32));
    }

    /// Whether a handler of the call has ended with this status, unasked.
    pub(crate) fn has_failed(&self, token: Token, code: Code) -> bool {
        self.failed.contains(&(token, code as u32))
    }

    /// A client is told how its call ended.
    pub(crate) fn told(&mut self, token: Token, verdict: Verdict, now: Instant) {
        self.liveness.ended(token);
        match verdict {
            Verdict::Executed => self.counts.executed += 1,
            Verdict::NotExecuted => self.counts.not_executed += 1,
            Verdict::Lost => self.counts.lost += 1,
        }
        let judged = self.outcomes.told(token, verdict);
        self.accuse("outcomes", now, judged);
    }

    /// A client is told that its call is lost.
    pub(crate) fn lost(&mut self, token: Token, destroyed: bool, now: Instant) {
        self.accuse("lost only with memory", now, lost::judge(token, destroyed));
        self.told(token, Verdict::Lost, now);
    }

    /// A read or `maybe` call ended without an answer, or nobody waits for the call any more.
    pub(crate) fn gone(&mut self, token: Token) {
        self.liveness.ended(token);
    }

    /// A message has arrived.
    pub(crate) fn message(&mut self, token: Token, salt: u64, bytes: &[u8], now: Instant) {
        self.accuse("integrity", now, integrity::check(token, salt, bytes));
    }

    /// The handler of a stream takes a message, and sends it back.
    pub(crate) fn took(&mut self, token: Token, index: u64, now: Instant) {
        let judged = self.streams.took(token, index);
        self.accuse("messages of streams", now, judged);
    }

    /// A message of a stream has come back to its client.
    pub(crate) fn came(&mut self, token: Token, index: u64, now: Instant) {
        self.counts.streamed += 1;
        let judged = self.streams.came(token, index);
        self.accuse("messages of streams", now, judged);
    }

    /// A client is told how many messages the handler of its stream took.
    pub(crate) fn stream_ended(&mut self, token: Token, taken: u64, well: bool, now: Instant) {
        let judged = self.streams.ended(token, taken, well);
        self.accuse("messages of streams", now, judged);
    }

    /// To be asked when calls have had time to resolve.
    pub(crate) fn check_liveness(&mut self, now: Instant) {
        let judged = self.liveness.check(now);
        self.accuse("liveness", now, judged);
    }

    /// Notes a broken promise.
    pub(crate) fn accuse(
        &mut self,
        promise: &'static str,
        now: Instant,
        judged: Result<(), String>,
    ) {
        if let Err(what) = judged {
            self.violation.get_or_insert(Violation::new(promise, now, what));
        }
    }

    /// The first promise that was broken.
    pub(crate) fn violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn broken(act: impl FnOnce(&mut Calls, Token)) -> Option<&'static str> {
        let mut calls = Calls::default();
        let token = calls.begin(NOW);
        act(&mut calls, token);
        calls.violation().map(|violation| violation.promise)
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let ran_twice = broken(|calls, token| {
            calls.ran(token, Again::Never, "a", NOW);
            calls.ran(token, Again::Never, "a", NOW);
        });
        assert_eq!(ran_twice, Some("at most once"));
        let ran_elsewhere = broken(|calls, token| {
            calls.ran(token, Again::AtTheSameServer, "a", NOW);
            calls.ran(token, Again::AtTheSameServer, "b", NOW);
        });
        assert_eq!(ran_elsewhere, Some("one server"));
        let ran_later = broken(|calls, token| {
            calls.told(token, Verdict::NotExecuted, NOW);
            calls.ran(token, Again::Never, "a", NOW);
        });
        assert_eq!(ran_later, Some("outcomes"));
        let never_ran = broken(|calls, token| calls.told(token, Verdict::Executed, NOW));
        assert_eq!(never_ran, Some("outcomes"));
        let lost = broken(|calls, token| calls.lost(token, false, NOW));
        assert_eq!(lost, Some("lost only with memory"));
        let stuck = broken(|calls, _| {
            calls.liveness.healed(NOW);
            calls.check_liveness(NOW + Duration::from_secs(11));
        });
        assert_eq!(stuck, Some("liveness"));
    }

    #[test]
    fn what_keeps_its_promises_is_not_accused() {
        let fine = broken(|calls, token| {
            calls.ran(token, Again::Never, "a", NOW);
            calls.told(token, Verdict::Executed, NOW);
            calls.liveness.healed(NOW);
            calls.check_liveness(NOW + Duration::from_secs(11));
            let lost = calls.begin(NOW);
            calls.lost(lost, true, NOW);
        });
        assert_eq!(fine, None);
        let twice_allowed = broken(|calls, token| {
            calls.ran(token, Again::AtTheSameServer, "a", NOW);
            calls.ran(token, Again::AtTheSameServer, "a", NOW);
        });
        assert_eq!(twice_allowed, None);
        let read_anywhere = broken(|calls, token| {
            calls.ran(token, Again::Anywhere, "a", NOW);
            calls.ran(token, Again::Anywhere, "b", NOW);
        });
        assert_eq!(read_anywhere, None);
    }
}
