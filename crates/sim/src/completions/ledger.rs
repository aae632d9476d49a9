//! What the application's table holds, what clients were told, and whether that agrees.

use std::collections::{BTreeMap, BTreeSet};

use stubborn_core::session::{CallId, SessionId};
use stubborn_core::time::Instant;

use super::CompletionCounts;
use crate::oracle::Violation;
use crate::oracle::calls::Token;

/// What a handler is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Change the table, and reply.
    Change,
    /// The same, with a reply that is too large to be kept.
    Large,
    /// Change it, give that up and begin again.
    Twice,
    /// Change it, and end with a status.
    Charge,
    /// Begin to change it, and refuse.
    Refuse,
    /// Reply without a transaction.
    Plain,
}

impl Work {
    pub(super) const ALL: [Self; 6] =
        [Self::Change, Self::Large, Self::Twice, Self::Charge, Self::Refuse, Self::Plain];

    /// Whether a call that was executed has changed the table.
    fn has_effect(self) -> bool {
        !matches!(self, Self::Refuse | Self::Plain)
    }

    fn replies(self) -> bool {
        !matches!(self, Self::Refuse | Self::Charge)
    }
}

/// A row of the application's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) token: Token,
    /// Which run of a handler wrote it; a reply tells it, too.
    pub(super) run: u64,
}

/// What a client was told of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// With the run that the reply is of.
    Replied(u64),
    /// With a status of the handler's.
    Status,
    /// It ran, and its reply was not kept.
    ReplyNotKept,
    NotExecuted,
    Lost,
}

#[derive(Default)]
pub(super) struct Ledger {
    calls: BTreeMap<Token, Known>,
    runs: u64,
    pub(super) counts: CompletionCounts,
    violation: Option<Violation>,
}

/// What is known of a call.
struct Known {
    client: String,
    work: Work,
    effects: Vec<u64>,
    told: Option<Told>,
}

impl Ledger {
    pub(super) fn begin(&mut self, token: Token, client: &str, work: Work) {
        self.counts.begun += 1;
        let client = client.to_owned();
        self.calls.insert(token, Known { client, work, effects: Vec::new(), told: None });
    }

    /// The calls of a client that was not told how they ended.
    pub(super) fn untold(&self, client: &str) -> Vec<Token> {
        let calls = self.calls.iter();
        let untold = calls.filter(|(_, known)| known.client == client && known.told.is_none());
        untold.map(|(token, _)| *token).collect()
    }

    pub(super) fn is_told(&self, token: Token) -> bool {
        self.calls.get(&token).is_some_and(|known| known.told.is_some())
    }

    /// A handler starts; returns the number of this run.
    pub(super) fn runs(&mut self, token: Token, now: Instant) -> u64 {
        self.runs += 1;
        self.counts.runs += 1;
        if !self.calls.contains_key(&token) {
            self.accuse("integrity", now, format!("a call {token} arrived that nobody made"));
        }
        self.runs
    }

    /// A row of the application's table is committed.
    pub(super) fn takes_effect(&mut self, effect: Effect, at: Instant) {
        let Effect { token, run } = effect;
        self.counts.effects += 1;
        let Some(known) = self.calls.get_mut(&token) else { return };
        known.effects.push(run);
        let (times, told) = (known.effects.len(), known.told);
        if times > 1 {
            self.accuse("exactly once", at, format!("the call {token} took effect {times} times"));
        }
        if told == Some(Told::NotExecuted) {
            let what = format!("the call {token} took effect after it was told not to be executed");
            self.accuse("fences hold", at, what);
        }
    }

    #[cfg(test)]
    pub(super) fn effects_of(&self, token: Token) -> usize {
        self.calls.get(&token).map_or(0, |known| known.effects.len())
    }

    /// A client is told how its call ended. `removed` are the sessions that are gone.
    pub(super) fn told(
        &mut self,
        (token, id): (Token, Option<CallId>),
        told: Told,
        removed: &BTreeSet<u64>,
        now: Instant,
    ) {
        match told {
            Told::Replied(_) => self.counts.replied += 1,
            Told::Status => self.counts.statuses += 1,
            Told::ReplyNotKept => self.counts.not_kept += 1,
            Told::NotExecuted => self.counts.not_executed += 1,
            Told::Lost => self.counts.lost += 1,
        }
        let session = id.map(|id| id.session);
        let gone = session.is_some_and(|SessionId { number, .. }| removed.contains(&number));
        if told == Told::Lost && !gone {
            let what = format!("the call {token} ({id:?}) is lost, and its session is there");
            self.accuse("lost only with its session", now, what);
        }
        let Some(known) = self.calls.get_mut(&token) else { return };
        let before = known.told.replace(told);
        if before.is_some_and(|before| !agree(before, told)) {
            let what = format!("of the call {token} was told {before:?}, and then {told:?}");
            self.accuse("one outcome", now, what);
        }
        self.judge(token, now);
    }

    /// Compares what was told of a call with the table.
    fn judge(&mut self, token: Token, now: Instant) {
        let Some(known) = self.calls.get(&token) else { return };
        let (work, effects) = (known.work, &known.effects[..]);
        let executed = effects.len() == usize::from(work.has_effect());
        let fine = match known.told {
            None | Some(Told::Lost) => effects.len() <= 1,
            Some(Told::NotExecuted) => effects.is_empty(),
            Some(Told::Status) => executed && !work.replies(),
            // A status may be too much, too, where many replies are kept.
            Some(Told::ReplyNotKept) => executed,
            Some(Told::Replied(run)) => {
                let its_own = !work.has_effect() || effects == [run];
                executed && work.replies() && its_own
            }
        };
        if !fine {
            let what = format!(
                "of the call {token} ({work:?}) was told {:?}, and the runs {effects:?} took effect",
                known.told
            );
            self.accuse("outcomes", now, what);
        }
    }

    /// Looks at every call again: what was told stays true.
    pub(super) fn judge_all(&mut self, now: Instant) {
        let tokens: Vec<Token> = self.calls.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.judge(token, now));
    }

    pub(super) fn accuse(&mut self, promise: &'static str, now: Instant, what: String) {
        self.violation.get_or_insert(Violation::new(promise, now, what));
    }

    pub(super) fn violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }
}

/// Whether two answers about one call are the same. A reply may have been let go meanwhile, or its
/// session; and one that is not kept may still be on its way to its own client.
fn agree(before: Told, then: Told) -> bool {
    match (before, then) {
        (_, Told::Lost) => true,
        (Told::Replied(_) | Told::Status, Told::ReplyNotKept) => true,
        (Told::ReplyNotKept, Told::Replied(_) | Told::Status) => true,
        (before, then) => before == then,
    }
}

#[cfg(test)]
pub(super) fn effect_for_tests(ledger: &mut Ledger) -> Effect {
    let token = Token(1);
    ledger.begin(token, "client", Work::Change);
    Effect { token, run: ledger.runs(token, Instant::ZERO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;
    const CALL: CallId =
        CallId { session: SessionId { incarnation: 0x100, number: 7 }, slot: 0, sequence: 1 };

    /// The promise that is seen to be broken after what `act` does with a call whose run is the first.
    fn broken(work: Work, act: impl FnOnce(&mut Ledger, Effect)) -> Option<&'static str> {
        let mut ledger = Ledger::default();
        ledger.begin(Token(1), "client", work);
        let run = ledger.runs(Token(1), NOW);
        act(&mut ledger, Effect { token: Token(1), run });
        ledger.judge_all(NOW);
        ledger.violation().map(|violation| violation.promise)
    }

    fn tell(ledger: &mut Ledger, told: Told) {
        ledger.told((Token(1), Some(CALL)), told, &BTreeSet::new(), NOW);
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let twice = broken(Work::Change, |ledger, effect| {
            ledger.takes_effect(effect, NOW);
            ledger.takes_effect(Effect { run: 2, ..effect }, NOW);
        });
        assert_eq!(twice, Some("exactly once"));
        let after_a_fence = broken(Work::Change, |ledger, effect| {
            tell(ledger, Told::NotExecuted);
            ledger.takes_effect(effect, NOW);
        });
        assert_eq!(after_a_fence, Some("fences hold"));
        let without_effect = broken(Work::Change, |ledger, effect| {
            tell(ledger, Told::Replied(effect.run));
        });
        assert_eq!(without_effect, Some("outcomes"));
        let of_another_run = broken(Work::Change, |ledger, effect| {
            ledger.takes_effect(effect, NOW);
            tell(ledger, Told::Replied(effect.run + 1));
        });
        assert_eq!(of_another_run, Some("outcomes"));
        let lost = broken(Work::Change, |ledger, _| tell(ledger, Told::Lost));
        assert_eq!(lost, Some("lost only with its session"));
        let otherwise = broken(Work::Plain, |ledger, effect| {
            tell(ledger, Told::Replied(effect.run));
            tell(ledger, Told::Replied(effect.run + 1));
        });
        assert_eq!(otherwise, Some("one outcome"));
        let refused = broken(Work::Refuse, |ledger, effect| {
            ledger.takes_effect(effect, NOW);
            tell(ledger, Told::Status);
        });
        assert_eq!(refused, Some("outcomes"));
    }

    #[test]
    fn what_keeps_its_promises_is_not_accused() {
        for work in Work::ALL {
            let fine = broken(work, |ledger, effect| {
                if work.has_effect() {
                    ledger.takes_effect(effect, NOW);
                }
                let replied = Told::Replied(effect.run);
                tell(ledger, if work.replies() { replied } else { Told::Status });
            });
            assert_eq!(fine, None, "{work:?}");
            let never = broken(work, |ledger, _| tell(ledger, Told::NotExecuted));
            assert_eq!(never, None, "{work:?}");
        }
        let forgotten = broken(Work::Change, |ledger, effect| {
            ledger.takes_effect(effect, NOW);
            let told = (Token(1), Some(CALL));
            ledger.told(told, Told::Lost, &BTreeSet::from([7]), NOW);
        });
        assert_eq!(forgotten, None);
    }
}
