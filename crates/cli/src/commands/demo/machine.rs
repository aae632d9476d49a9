//! The bank as a state machine: every replica of the group has one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn::{Applied, Image, Piece, RestoreError, Status};

use super::ledger::{self, Transfer};
use crate::stubs::bank::v1::{
    BalanceReply, BalanceRequest, BankMachine, TransferReply, TransferRequest,
};

/// Balances, and every transfer that made them what they are. Clones share them: the process writes
/// them down at its end.
#[derive(Clone, Debug)]
pub(super) struct Bank(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    balances: BTreeMap<String, i64>,
    transfers: Vec<Transfer>,
}

impl Bank {
    pub(super) fn new() -> Self {
        let balances = ledger::opening_balances();
        Self(Arc::new(Mutex::new(Books { balances, transfers: Vec::new() })))
    }

    /// Every transfer that was executed, in their order.
    pub(super) fn transfers(&self) -> Vec<Transfer> {
        self.books().transfers.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BankMachine for Bank {
    fn transfer(&mut self, _: &Applied, request: TransferRequest) -> Result<TransferReply, Status> {
        let TransferRequest { from, to, cents, reference } = request;
        let mut books = self.books();
        let transfer = Transfer { reference, from, to, cents };
        ledger::check(&books.balances, &transfer)?;
        if ledger::to_record(&transfer).is_err() {
            return Err(Status::invalid_argument("the names of the accounts are too long"));
        }
        ledger::apply(&mut books.balances, &transfer);
        let from_cents = books.balances[&transfer.from];
        books.transfers.push(transfer);
        Ok(TransferReply { from_cents })
    }

    fn balance(&self, request: BalanceRequest) -> Result<BalanceReply, Status> {
        let balance = self.books().balances.get(&request.account).copied();
        let cents = balance.ok_or_else(|| Status::not_found("no such account"))?;
        Ok(BalanceReply { cents })
    }

    fn snapshot(&self) -> Image {
        let books = self.books();
        let records = books.transfers.iter().filter_map(|t| ledger::to_record(t).ok());
        records.collect::<String>().into_bytes().into()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        let text = std::str::from_utf8(&piece).map_err(|_| RestoreError::new("no text"))?;
        let transfers = ledger::from_records(text).map_err(|e| RestoreError::new(e.to_string()))?;
        let mut balances = ledger::opening_balances();
        for transfer in &transfers {
            ledger::apply(&mut balances, transfer);
        }
        *self.books() = Books { balances, transfers };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(bank: &mut Bank, reference: u64, cents: i64) -> Result<i64, Status> {
        let (from, to) = (ledger::account(0), ledger::account(1));
        let request = TransferRequest { from, to, cents, reference };
        bank.transfer(&Applied::default(), request).map(|reply| reply.from_cents)
    }

    #[test]
    fn a_snapshot_has_every_transfer_and_the_balances_that_follow_from_them() {
        let mut bank = Bank::new();
        assert_eq!(transfer(&mut bank, 1, 5).unwrap(), ledger::OPENING - 5);
        assert!(transfer(&mut bank, 2, 0).is_err());
        let mut other = Bank::new();
        other.restore(Piece::only(&bank.snapshot().to_bytes().unwrap())).unwrap();
        assert_eq!(other.transfers(), bank.transfers());
        assert_eq!(transfer(&mut other, 3, 5).unwrap(), ledger::OPENING - 10);
        assert!(other.restore(Piece::only(b"1 a b 3")).is_err());
    }
}
