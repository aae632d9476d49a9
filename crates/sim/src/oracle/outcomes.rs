//! What a client is told is true, and stays true: what was reported executed ran, what was reported
//! not executed did not and never will, and what was lost does not run later.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::{Token, Verdict};

#[derive(Default)]
pub(crate) struct Outcomes {
    ran: BTreeSet<Token>,
    told: BTreeMap<Token, Verdict>,
}

impl Outcomes {
    /// The handler of a call begins.
    pub(crate) fn ran(&mut self, token: Token) -> Result<(), String> {
        self.ran.insert(token);
        match self.told.get(&token) {
            Some(verdict @ (Verdict::NotExecuted | Verdict::Lost)) => {
                Err(format!("the call {token} ran after it was reported {verdict}"))
            }
            _ => Ok(()),
        }
    }

    /// A client is told how its call ended.
    pub(crate) fn told(&mut self, token: Token, verdict: Verdict) -> Result<(), String> {
        let ran = self.ran.contains(&token);
        if let Some(before) = self.told.insert(token, verdict)
            && before != verdict
        {
            return Err(format!("the call {token} was reported {before}, then {verdict}"));
        }
        match verdict {
            Verdict::Executed if !ran => {
                Err(format!("the call {token} was reported executed, but it did not run"))
            }
            Verdict::NotExecuted if ran => {
                Err(format!("the call {token} was reported not executed, but it ran"))
            }
            Verdict::Executed | Verdict::NotExecuted | Verdict::Lost => Ok(()),
        }
    }
}
