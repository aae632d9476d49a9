//! Holds the client's record against the ledger file, to the cent.

use std::collections::BTreeMap;

use super::client::{Record, Told};
use super::ledger::{self, Transfer};

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) calls: u64,
    /// Calls that ran, those that were refused included.
    pub(super) executed: u64,
    /// Of these, those that were refused.
    pub(super) refused: u64,
    pub(super) not_executed: u64,
    /// Calls whose outcome may still become known.
    pub(super) pending: u64,
    /// Calls whose outcome went with the server's memory.
    pub(super) outcome_lost: u64,
    /// Of these, those whose effect is in the ledger.
    pub(super) outcome_lost_with_effect: u64,
    /// Records in the ledger.
    pub(super) effects: u64,
    /// Records beyond the first of a transfer.
    pub(super) duplicates: u64,
    /// Effects that are missing: the call was reported executed.
    pub(super) lost: u64,
    /// Effects that should not be: of calls that were reported not executed or refused, of
    /// transfers that nobody asked for, or with another amount or account than asked for.
    pub(super) wrong: u64,
    /// Whether the balances that the service told are those of the ledger.
    pub(super) balances_agree: bool,
}

impl Verdict {
    /// What is wrong, in words; empty if all is well. `killed`: the server's memory was destroyed
    /// on purpose, so that outcomes may be lost.
    pub(super) fn faults(&self, killed: bool) -> Vec<String> {
        let unexplained = if killed { 0 } else { self.outcome_lost };
        let counted = [
            (self.pending, "unresolved"),
            (unexplained, "with a lost outcome though no server was killed"),
            (self.duplicates, "doubled"),
            (self.lost, "without the effect that was reported"),
            (self.wrong, "with an effect that was not reported"),
        ];
        let mut faults: Vec<String> = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if !self.balances_agree {
            faults.push("balances that differ from the ledger".into());
        }
        faults
    }
}

/// Compares. `balances` are what the service told after the run.
pub(super) fn compare(
    records: &[Record],
    effects: &[Transfer],
    balances: &BTreeMap<String, i64>,
) -> Verdict {
    let mut by_reference: BTreeMap<u64, Vec<&Transfer>> = BTreeMap::new();
    let mut expected = ledger::opening_balances();
    for effect in effects {
        by_reference.entry(effect.reference).or_default().push(effect);
        ledger::apply(&mut expected, effect);
    }
    let mut verdict = Verdict {
        calls: records.len() as u64,
        effects: effects.len() as u64,
        balances_agree: *balances == expected,
        ..Verdict::default()
    };
    for record in records {
        let found = by_reference.remove(&record.transfer.reference).unwrap_or_default();
        verdict.count(record, &found);
    }
    verdict.wrong += by_reference.values().map(|effects| effects.len() as u64).sum::<u64>();
    verdict
}

impl Verdict {
    fn count(&mut self, record: &Record, found: &[&Transfer]) {
        let there = !found.is_empty();
        self.duplicates += found.len().saturating_sub(1) as u64;
        let altered = found.iter().any(|effect| **effect != record.transfer);
        self.wrong += u64::from(altered);
        match record.told {
            Told::Executed => {
                self.executed += 1;
                self.lost += u64::from(!there);
            }
            Told::Refused => {
                self.executed += 1;
                self.refused += 1;
                self.wrong += u64::from(there);
            }
            Told::NotExecuted => {
                self.not_executed += 1;
                self.wrong += u64::from(there);
            }
            Told::Pending => self.pending += 1,
            Told::Lost => {
                self.outcome_lost += 1;
                self.outcome_lost_with_effect += u64::from(there);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn transfer(reference: u64) -> Transfer {
        Transfer { reference, from: ledger::account(0), to: ledger::account(1), cents: 5 }
    }

    fn record(reference: u64, told: Told) -> Record {
        Record { transfer: transfer(reference), told, took: Duration::ZERO }
    }

    fn verdict(records: &[Record], effects: &[Transfer]) -> Verdict {
        let mut balances = ledger::opening_balances();
        assert!(effects.iter().all(|effect| ledger::apply(&mut balances, effect)));
        compare(records, effects, &balances)
    }

    #[test]
    fn what_was_told_and_what_was_done_agree() {
        let records = [
            record(1, Told::Executed),
            record(2, Told::NotExecuted),
            record(3, Told::Refused),
            record(4, Told::Lost),
            record(5, Told::Lost),
        ];
        let found = verdict(&records, &[transfer(1), transfer(4)]);
        assert_eq!(found.faults(true), Vec::<String>::new());
        assert_eq!((found.executed, found.refused, found.not_executed), (2, 1, 1));
        assert_eq!((found.outcome_lost, found.outcome_lost_with_effect), (2, 1));
        assert_eq!(found.faults(false), ["2 with a lost outcome though no server was killed"]);
    }

    #[test]
    fn an_effect_that_is_missing_or_doubled_is_found_also_of_a_lost_call() {
        let records = [record(1, Told::Executed), record(2, Told::Lost)];
        let found = verdict(&records, &[transfer(2), transfer(2)]);
        assert_eq!((found.lost, found.duplicates), (1, 1));
        assert_eq!(found.faults(true).len(), 2);
    }

    #[test]
    fn an_effect_that_nobody_asked_for_or_was_told_of_is_wrong() {
        let records = [record(1, Told::NotExecuted), record(2, Told::Refused)];
        let found = verdict(&records, &[transfer(1), transfer(2), transfer(3)]);
        assert_eq!(found.wrong, 3);
        let more = Transfer { cents: 6, ..transfer(1) };
        assert_eq!(verdict(&[record(1, Told::Executed)], &[more]).wrong, 1);
    }

    #[test]
    fn a_cent_too_much_in_an_account_and_a_call_without_an_end_are_found() {
        let mut balances = ledger::opening_balances();
        *balances.get_mut(&ledger::account(3)).unwrap() += 1;
        let found = compare(&[record(1, Told::Pending)], &[], &balances);
        let faults = ["1 unresolved", "balances that differ from the ledger"];
        assert_eq!(found.faults(true), faults);
    }
}
