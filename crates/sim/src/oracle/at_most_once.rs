//! A call with side effects runs at most once, whatever becomes of its copies, its client, its
//! server and the network.

use std::collections::BTreeMap;

use super::calls::Token;

#[derive(Default)]
pub(crate) struct AtMostOnce {
    runs: BTreeMap<Token, u32>,
}

impl AtMostOnce {
    /// The handler of a call begins.
    pub(crate) fn ran(&mut self, token: Token) -> Result<(), String> {
        let runs = self.runs.entry(token).or_default();
        *runs += 1;
        if *runs > 1 {
            return Err(format!("the call {token} ran {runs} times"));
        }
        Ok(())
    }
}
