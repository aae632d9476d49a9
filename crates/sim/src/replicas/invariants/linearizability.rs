//! The group behaves as one counter: an operation that begins when another has ended sees what that
//! one saw, or more.
//!
//! Each command is answered with the value that it made, so that its place in the order is known,
//! and the check is exact without a search (Herlihy and Wing, 1990).

use std::collections::BTreeSet;

use super::Broken;

#[derive(Default)]
pub(crate) struct History {
    /// The largest value that an ended operation saw.
    seen: u64,
    /// The values that commands were answered with.
    counted: BTreeSet<u64>,
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// The largest value that was seen before it began.
    before: u64,
}

impl History {
    pub(crate) fn begin(&self) -> Operation {
        Operation { before: self.seen }
    }

    pub(crate) fn on_counted(&mut self, operation: &Operation, value: u64) -> Result<(), Broken> {
        if value <= operation.before {
            let what = format!("a command made {value} after {} was seen", operation.before);
            return Err(("linearizability", what));
        }
        if !self.counted.insert(value) {
            return Err(("exactly once", format!("two commands made the value {value}")));
        }
        self.seen = self.seen.max(value);
        Ok(())
    }

    pub(crate) fn on_read(&mut self, operation: &Operation, value: u64) -> Result<(), Broken> {
        if value < operation.before {
            let what = format!("a read saw {value} after {} was seen", operation.before);
            return Err(("linearizability", what));
        }
        self.seen = self.seen.max(value);
        Ok(())
    }

    pub(super) fn at_rest(&self, value: u64) -> Result<(), Broken> {
        // Every command was answered in the end.
        let answered = self.counted.len() as u64;
        if answered == value {
            return Ok(());
        }
        Err(("exactly once", format!("{answered} commands made the counter {value}")))
    }
}
