//! Calls of its own clients that a node has answered, for those who count them.

use std::collections::VecDeque;

use stubborn_core::service::{Answer, Code, MethodId};
use stubborn_core::session::NotExecutedReason;
use stubborn_core::time::Duration;

/// Calls that wait to be fetched, at most: further ones are not told.
const MOST: usize = 65_536;

/// A call of a client of this node that was answered here. Copies that were answered from memory are
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The method.
    pub method: MethodId,
    /// How it ended.
    pub ending: Ending,
    /// From when it came to when it was applied, or read.
    pub took: Duration,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a reply.
    Replied,
    /// The machine said this.
    Status(Code),
    /// The machine was not asked: its deadline had passed, or the session's table refused it.
    NotExecuted(NotExecutedReason),
}

impl Ending {
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Reply(..) => Self::Replied,
            Answer::Status(status) => Self::Status(status.code()),
            Answer::NotExecuted(why) => Self::NotExecuted(why.reason),
        }
    }
}

/// What was served and not fetched yet; nothing, unless somebody counts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    counts: bool,
    served: VecDeque<Served>,
}

impl Ledger {
    pub(crate) fn start(&mut self) {
        self.counts = true;
    }

    pub(crate) fn note(&mut self, method: MethodId, ending: Ending, took: Duration) {
        if self.counts && self.served.len() < MOST {
            self.served.push_back(Served { method, ending, took });
        }
    }

    pub(crate) fn take(&mut self) -> Option<Served> {
        self.served.pop_front()
    }
}
