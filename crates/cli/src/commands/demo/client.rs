//! The client: makes the transfers and writes down what it was told of each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use stubborn::journal::{Journal, Unfinished};
use stubborn::{CallError, CallId, CallState, Outcome};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::answers::{Answer, Answers};
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

impl Told {
    const NAMES: [(Self, &'static str); 5] = [
        (Self::Executed, "executed"),
        (Self::Refused, "refused"),
        (Self::NotExecuted, "not-executed"),
        (Self::Pending, "pending"),
        (Self::Lost, "lost"),
    ];

    /// One word without spaces.
    pub(super) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(told, _)| *told == self);
        named.map_or("", |(_, name)| name)
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(told, _)| *told)
    }

    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Executed(_) => Self::Refused,
            Outcome::NotExecuted(_) => Self::NotExecuted,
            Outcome::Lost => Self::Lost,
            Outcome::Unanswered | Outcome::Pending(_) => Self::Pending,
        }
    }
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
pub(super) struct Notes {
    pub(super) records: Vec<Record>,
    pub(super) took: Duration,
}

/// The transfers of a run, each between two different accounts: the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Transfers {
    dice: Dice,
    next: u64,
    calls: u64,
}

impl Transfers {
    pub(super) fn new(seed: u64, calls: u64) -> Self {
        Self { dice: Dice::new(seed), next: 1, calls }
    }
}

impl Iterator for Transfers {
    type Item = Transfer;

    fn next(&mut self) -> Option<Transfer> {
        let reference = self.next;
        if reference > self.calls {
            return None;
        }
        self.next += 1;
        let from = self.dice.below(ledger::ACCOUNTS);
        let to = (from + 1 + self.dice.below(ledger::ACCOUNTS - 1)) % ledger::ACCOUNTS;
        let cents = 1 + self.dice.below(MOST) as i64;
        Some(Transfer { reference, from: ledger::account(from), to: ledger::account(to), cents })
    }
}

/// What is to be done next.
pub(super) enum Task {
    Make(Transfer),
    /// A call that an earlier process has left in the journal, and the caller's number of it.
    Settle(u64, Unfinished),
}

/// What a client that may crash writes: what it was told goes into a file of its own, and only then
/// may the journal forget the call.
pub(super) struct Memory {
    pub(super) journal: Journal,
    pub(super) answers: Answers,
}

/// What a run shares between its workers.
struct Run<T> {
    bank: BankClient,
    tasks: RefCell<T>,
    memory: Option<RefCell<Memory>>,
    answers: RefCell<Vec<Answer>>,
    failed: RefCell<Option<std::io::Error>>,
    done: watch::Sender<u64>,
}

/// Does these tasks, `concurrency` at a time; `done` counts those that have ended.
pub(super) async fn run(
    bank: BankClient,
    tasks: impl Iterator<Item = Task> + 'static,
    memory: Option<Memory>,
    concurrency: u64,
    done: watch::Sender<u64>,
) -> Result<Vec<Answer>, Error> {
    let (tasks, memory) = (RefCell::new(tasks), memory.map(RefCell::new));
    let (answers, failed) = (RefCell::default(), RefCell::default());
    let run = Rc::new(Run { bank, tasks, memory, answers, failed, done });
    let local = LocalSet::new();
    let workers: Vec<_> =
        (0..concurrency).map(|_| local.spawn_local(Rc::clone(&run).work())).collect();
    local.await;
    for worker in workers {
        worker.await.map_err(|e| Error::internal(format!("a worker of the demo failed: {e}")))?;
    }
    match run.failed.take() {
        Some(error) => Err(Error::internal(format!("cannot write down what was told: {error}"))),
        None => Ok(run.answers.take()),
    }
}

/// What the client knows: `answers` are those of these transfers.
pub(super) fn records(transfers: Transfers, answers: &[Answer]) -> Vec<Record> {
    let answers: BTreeMap<u64, &Answer> = answers.iter().map(|a| (a.reference, a)).collect();
    let record = |transfer: Transfer| {
        let answer = answers.get(&transfer.reference);
        let told = answer.map_or(Told::Pending, |answer| answer.told);
        Record { transfer, told, took: answer.map_or(Duration::ZERO, |answer| answer.took) }
    };
    transfers.map(record).collect()
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

impl<T: Iterator<Item = Task>> Run<T> {
    async fn work(self: Rc<Self>) {
        while self.failed.borrow().is_none() {
            let Some(task) = self.tasks.borrow_mut().next() else { return };
            let started = Instant::now();
            let (reference, told, id) = match task {
                Task::Make(transfer) => self.make(transfer).await,
                Task::Settle(reference, call) => {
                    let id = call.id();
                    (reference, self.settle(call).await, Some(id))
                }
            };
            self.note(Answer::now(reference, told, started.elapsed()), id);
        }
    }

    fn note(&self, answer: Answer, id: Option<CallId>) {
        if let Some(memory) = &self.memory {
            let Memory { journal, answers } = &mut *memory.borrow_mut();
            if let Err(error) = answers.append(answer) {
                self.failed.replace(Some(error));
                return;
            }
            if let Some(id) = id {
                journal.settle(id);
            }
        }
        self.answers.borrow_mut().push(answer);
        self.done.send_modify(|done| *done += 1);
    }

    async fn make(&self, transfer: Transfer) -> (u64, Told, Option<CallId>) {
        let Transfer { reference, from, to, cents } = transfer;
        let mut call = self.bank.transfer(TransferRequest { from, to, cents, reference });
        // Only who settles calls by hand has to know their numbers.
        let id = match self.memory {
            Some(_) => call.id().await.ok(),
            None => None,
        };
        let told = match call.await {
            Ok(_) => Told::Executed,
            Err(error) => self.find_out(error.into_outcome()).await,
        };
        (reference, told, id)
    }

    async fn settle(&self, call: Unfinished) -> Told {
        match call.resend().await {
            Ok(_) => Told::Executed,
            Err(error) => self.find_out(error.into_outcome()).await,
        }
    }

    async fn find_out(&self, outcome: Outcome) -> Told {
        match outcome {
            Outcome::Pending(id) => self.ask(id).await,
            outcome => Told::of(&outcome),
        }
    }

    /// Asks what became of a call until that is known.
    async fn ask(&self, id: CallId) -> Told {
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
