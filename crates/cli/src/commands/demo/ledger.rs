//! The ledger file: one record for each transfer that was executed, appended before the reply.
//!
//! A record has a fixed size that divides the page size, so that none lies across two pages: the
//! kernel copies it whole or not at all, and a killed process leaves no half of one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use stubborn::Status;

/// Accounts of the bank.
pub(super) const ACCOUNTS: u64 = 16;

/// What each account has at first, in cents.
pub(super) const OPENING: i64 = 100_000_000;

/// Bytes of a record, with its line feed.
const RECORD: usize = 64;

/// A transfer that was executed, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    /// The caller's own number.
    pub(super) reference: u64,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cents: i64,
}

/// The name of an account.
pub(super) fn account(number: u64) -> String {
    format!("account-{number:02}")
}

/// What is in each account before any transfer.
pub(super) fn opening_balances() -> BTreeMap<String, i64> {
    (0..ACCOUNTS).map(|number| (account(number), OPENING)).collect()
}

/// Moves the money of `transfer`. False, and nothing is moved, if an account does not exist.
pub(super) fn apply(balances: &mut BTreeMap<String, i64>, transfer: &Transfer) -> bool {
    if !balances.contains_key(&transfer.from) || !balances.contains_key(&transfer.to) {
        return false;
    }
    for (account, cents) in [(&transfer.from, -transfer.cents), (&transfer.to, transfer.cents)] {
        if let Some(balance) = balances.get_mut(account) {
            *balance += cents;
        }
    }
    true
}

/// A ledger to be continued.
#[derive(Debug)]
pub(super) struct Ledger(File);

impl Ledger {
    /// Opens the file, which is made if it does not exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(path)?))
    }

    /// Writes a transfer down. When this returns, the record outlives the process (not the machine:
    /// the demo kills processes only).
    pub(super) fn append(&mut self, transfer: &Transfer) -> io::Result<()> {
        self.0.write_all(to_record(transfer)?.as_bytes())
    }
}

/// A transfer as it is written down.
///
/// # Errors
/// If it does not fit into a record.
pub(super) fn to_record(transfer: &Transfer) -> io::Result<String> {
    let Transfer { reference, from, to, cents } = transfer;
    let record = format!("{reference:>15} {from:<15} {to:<15} {cents:>15}\n");
    if record.len() != RECORD {
        return Err(io::Error::other("the transfer does not fit into a record"));
    }
    Ok(record)
}

/// Whether a transfer may be made.
///
/// # Errors
/// What the caller is told if not.
pub(super) fn check(balances: &BTreeMap<String, i64>, transfer: &Transfer) -> Result<(), Status> {
    if transfer.cents <= 0 {
        return Err(Status::invalid_argument("a transfer moves more than nothing"));
    }
    let (Some(&available), true) =
        (balances.get(&transfer.from), balances.contains_key(&transfer.to))
    else {
        return Err(Status::not_found("no such account"));
    };
    if available < transfer.cents {
        return Err(Status::failed_precondition("not enough money"));
    }
    Ok(())
}

/// Reads every record, oldest first. A file that does not exist has none.
///
/// # Errors
/// If the file cannot be read, or something in it is no record.
pub(super) fn read(path: &Path) -> io::Result<Vec<Transfer>> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?.read_to_string(&mut text)?,
    };
    from_records(&text)
}

/// Reads records as they are written down.
///
/// # Errors
/// If something is no record.
pub(super) fn from_records(text: &str) -> io::Result<Vec<Transfer>> {
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let wrong = || io::Error::other(format!("line {} is no record: {line:?}", index + 1));
            parse(line).ok_or_else(wrong)
        })
        .collect()
}

fn parse(line: &str) -> Option<Transfer> {
    let mut fields = line.split_whitespace();
    let reference = fields.next()?.parse().ok()?;
    let (from, to) = (fields.next()?.to_owned(), fields.next()?.to_owned());
    let cents = fields.next()?.parse().ok()?;
    let whole = line.len() + 1 == RECORD && fields.next().is_none();
    whole.then_some(Transfer { reference, from, to, cents })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(reference: u64) -> Transfer {
        Transfer { reference, from: account(0), to: account(15), cents: 12_34 }
    }

    #[test]
    fn what_was_written_is_read_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        assert_eq!(read(&path).unwrap(), []);
        Ledger::open(&path).unwrap().append(&transfer(1)).unwrap();
        Ledger::open(&path).unwrap().append(&transfer(999_999_999)).unwrap();
        assert_eq!(read(&path).unwrap(), [transfer(1), transfer(999_999_999)]);
    }

    #[test]
    fn half_a_record_and_one_too_large_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let long = Transfer { from: "a name that is too long".into(), ..transfer(1) };
        assert!(Ledger::open(&path).unwrap().append(&long).is_err());
        std::fs::write(&path, "1 account-01 account-02 5\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn money_moves_between_accounts_that_exist_and_stays_the_same_in_sum() {
        let mut balances = opening_balances();
        assert!(apply(&mut balances, &transfer(1)));
        assert_eq!(balances[&account(0)], OPENING - 12_34);
        assert_eq!(balances[&account(15)], OPENING + 12_34);
        let nowhere = Transfer { to: "nobody".into(), ..transfer(2) };
        assert!(!apply(&mut balances, &nowhere));
        assert_eq!(balances.values().sum::<i64>(), OPENING * ACCOUNTS as i64);
    }
}
