//! The client: makes the transfers and writes down what it was told of each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stubborn::{CallError, CallState, Outcome};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::dice::Dice;
use super::ledger::{self, Transfer};
use crate::error::Error;
use crate::stubs::bank::v1::{BalanceRequest, BankClient, TransferRequest};

/// How often a pending call is asked about before it counts as unresolved. Each question waits as
/// long as a call does.
const QUESTIONS: usize = 3;

/// The largest transfer, in cents.
const MOST: u64 = 1_000;

/// What the client was told of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It ran and moved the money.
    Executed,
    /// It ran and was refused.
    Refused,
    /// It did not run and never will.
    NotExecuted,
    /// Not known yet: the call is unresolved.
    Pending,
    /// Never to be known: the server's memory was destroyed.
    Lost,
}

/// A transfer, what became of it, and how long that took.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) transfer: Transfer,
    pub(super) told: Told,
    pub(super) took: Duration,
}

/// Everything that the client knows after a run.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) records: Vec<Record>,
    pub(super) took: Duration,
    /// The longest time in which no call ended.
    pub(super) longest_gap: Duration,
}

/// What a run shares between its workers.
struct Run {
    bank: BankClient,
    dice: RefCell<Dice>,
    next: Cell<u64>,
    calls: u64,
    records: RefCell<Vec<Record>>,
    /// When a call ended last, and the longest time in which none did.
    last_end: Cell<Instant>,
    longest_gap: Cell<Duration>,
    done: watch::Sender<u64>,
}

/// Makes `calls` transfers, `concurrency` at a time; `done` counts those that have ended.
pub(super) async fn run(
    bank: BankClient,
    calls: u64,
    concurrency: u64,
    seed: u64,
    done: watch::Sender<u64>,
) -> Result<Journal, Error> {
    let dice = RefCell::new(Dice::new(seed));
    let (next, records) = (Cell::new(1), RefCell::default());
    let started = Instant::now();
    let (last_end, longest_gap) = (Cell::new(started), Cell::new(Duration::ZERO));
    let run = Run { bank, dice, next, calls, records, last_end, longest_gap, done };
    let run = Rc::new(run);
    let tasks = LocalSet::new();
    let workers: Vec<_> =
        (0..concurrency.min(calls)).map(|_| tasks.spawn_local(Rc::clone(&run).work())).collect();
    tasks.await;
    for worker in workers {
        worker.await.map_err(|e| Error::internal(format!("a worker of the demo failed: {e}")))?;
    }
    let (took, longest_gap) = (started.elapsed(), run.longest_gap.get());
    Ok(Journal { records: run.records.take(), took, longest_gap })
}

/// Asks the bank for every balance.
pub(super) async fn balances(bank: &BankClient) -> Result<BTreeMap<String, i64>, CallError> {
    let mut balances = BTreeMap::new();
    for number in 0..ledger::ACCOUNTS {
        let account = ledger::account(number);
        let reply = bank.balance(BalanceRequest { account: account.clone() }).await?;
        balances.insert(account, reply.cents);
    }
    Ok(balances)
}

impl Run {
    async fn work(self: Rc<Self>) {
        while let Some(transfer) = self.draw() {
            let started = Instant::now();
            let told = self.transfer(&transfer).await;
            let now = Instant::now();
            let (took, gap) = (now - started, now - self.last_end.replace(now));
            self.longest_gap.set(gap.max(self.longest_gap.get()));
            self.records.borrow_mut().push(Record { transfer, told, took });
            self.done.send_modify(|done| *done += 1);
        }
    }

    /// The next transfer, between two different accounts.
    fn draw(&self) -> Option<Transfer> {
        let reference = self.next.get();
        if reference > self.calls {
            return None;
        }
        self.next.set(reference + 1);
        let mut dice = self.dice.borrow_mut();
        let from = dice.below(ledger::ACCOUNTS);
        let to = (from + 1 + dice.below(ledger::ACCOUNTS - 1)) % ledger::ACCOUNTS;
        let cents = 1 + dice.below(MOST) as i64;
        Some(Transfer { reference, from: ledger::account(from), to: ledger::account(to), cents })
    }

    async fn transfer(&self, transfer: &Transfer) -> Told {
        let Transfer { reference, from, to, cents } = transfer.clone();
        let error = match self.bank.transfer(TransferRequest { from, to, cents, reference }).await {
            Ok(_) => return Told::Executed,
            Err(error) => error,
        };
        match error.into_outcome() {
            Outcome::Executed(_) => Told::Refused,
            Outcome::NotExecuted(_) => Told::NotExecuted,
            Outcome::Lost => Told::Lost,
            Outcome::Unanswered => Told::Pending,
            Outcome::Pending(id) => self.ask(id).await,
        }
    }

    /// Asks what became of a call until that is known.
    async fn ask(&self, id: stubborn::CallId) -> Told {
        for _ in 0..QUESTIONS {
            match self.bank.transfer_outcome(id).await {
                Ok(CallState::Replied(_) | CallState::ReplyNotKept | CallState::AlreadySettled) => {
                    return Told::Executed;
                }
                Ok(CallState::Executed(_)) => return Told::Refused,
                Ok(CallState::NotExecuted(_)) => return Told::NotExecuted,
                Ok(CallState::Lost) => return Told::Lost,
                Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
            }
        }
        Told::Pending
    }
}
