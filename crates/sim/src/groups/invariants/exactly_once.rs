//! Every command runs once or never, and what clients were told of it is true: of the replicas' state
//! at the end, and of the log. What was fenced stays fenced.

use std::collections::BTreeMap;

use super::super::ledger::{Command, Ledger};
use crate::nodes::Broken;

/// What clients were told last.
#[derive(Default)]
pub(super) struct ExactlyOnce(BTreeMap<Command, Fate>);

/// What a client was told of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Counted(u64),
    NotExecuted,
    /// Its session is gone, and it did not run after this entry of the log.
    Lost(u64),
}

impl ExactlyOnce {
    pub(super) fn counted(&mut self, command: Command, count: u64) -> Result<(), Broken> {
        self.settle(command, Fate::Counted(count))
    }

    pub(super) fn not_executed(&mut self, command: Command) -> Result<(), Broken> {
        self.settle(command, Fate::NotExecuted)
    }

    pub(super) fn lost(&mut self, command: Command, at: u64) -> Result<(), Broken> {
        self.settle(command, Fate::Lost(at))
    }

    fn settle(&mut self, command: Command, fate: Fate) -> Result<(), Broken> {
        match self.0.insert(command, fate) {
            Some(before) if before != fate => {
                let what = format!("{command:?} ended as {before:?}, then as {fate:?}");
                Err(("outcomes", what))
            }
            _ => Ok(()),
        }
    }

    /// All is quiet, and this is the ledger.
    pub(super) fn at_rest(&self, ledger: &Ledger) -> Result<(), Broken> {
        for (command, fate) in &self.0 {
            let fact = ledger.lines.get(command);
            let (promise, is_true) = match *fate {
                Fate::Counted(count) => {
                    ("acknowledged is true", fact.is_some_and(|line| line.count == count))
                }
                Fate::NotExecuted => ("fenced stays fenced", fact.is_none()),
                Fate::Lost(at) => {
                    ("expired stays expired", fact.is_none_or(|line| line.index <= at))
                }
            };
            if !is_true {
                return Err((promise, format!("{command:?} was told {fate:?}, and is {fact:?}")));
            }
        }
        Ok(())
    }
}
