//! Who watches is told every command once, in the order in which they were counted, and all who watch
//! are told the same.

use std::collections::BTreeMap;

use crate::groups::ledger::{Command, Told};
use crate::nodes::Broken;

/// What those who watch were told.
#[derive(Debug, Default)]
pub(in crate::groups) struct Watched {
    by_count: BTreeMap<u64, Command>,
}

impl Watched {
    /// The message with this number came in a stream that began with the first command.
    pub(in crate::groups) fn on_told(
        &mut self,
        number: u64,
        told: Option<Told>,
    ) -> Result<(), Broken> {
        let broken = |what: String| Err(("watches go on", what));
        let Some(Told { command, count }) = told else {
            return broken(format!("message {number} cannot be read"));
        };
        if count != number {
            return broken(format!("message {number} tells the command with count {count}"));
        }
        let before = *self.by_count.entry(count).or_insert(command);
        if before != command {
            return broken(format!("the count {count} was {before:?}, and is {command:?}"));
        }
        Ok(())
    }

    /// All that was told stands in the group's final state.
    pub(super) fn at_rest(
        &self,
        mut counted: impl FnMut(&Command) -> Option<u64>,
    ) -> Result<(), Broken> {
        for (count, command) in &self.by_count {
            if counted(command) != Some(*count) {
                let what = format!("{command:?} was told with count {count}, which it has not");
                return Err(("watches go on", what));
            }
        }
        Ok(())
    }
}
