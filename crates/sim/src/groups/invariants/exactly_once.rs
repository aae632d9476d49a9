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
}

impl ExactlyOnce {
    pub(super) fn counted(&mut self, command: Command, count: u64) -> Result<(), Broken> {
        self.settle(command, Fate::Counted(count))
    }

    pub(super) fn not_executed(&mut self, command: Command) -> Result<(), Broken> {
        self.settle(command, Fate::NotExecuted)
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
            let fact =
                ledger.0.get(command).map_or(Fate::NotExecuted, |count| Fate::Counted(*count));
            if fact != *fate {
                let promise = match fate {
                    Fate::Counted(_) => "acknowledged is true",
                    Fate::NotExecuted => "fenced stays fenced",
                };
                return Err((promise, format!("{command:?} was told {fate:?}, and is {fact:?}")));
            }
        }
        Ok(())
    }
}
