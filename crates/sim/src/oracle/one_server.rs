//! An idempotent call may run again, but at the server only where it ran before: elsewhere it could
//! undo what was written since.

use std::collections::BTreeMap;

use super::calls::Token;

#[derive(Default)]
pub(crate) struct OneServer {
    ran_at: BTreeMap<Token, String>,
}

impl OneServer {
    /// The handler of a call begins.
    pub(crate) fn ran(&mut self, token: Token, server: &str) -> Result<(), String> {
        let first = self.ran_at.entry(token).or_insert_with(|| server.to_owned());
        if first == server {
            return Ok(());
        }
        Err(format!("the call {token} ran at {first}, then at {server}"))
    }
}
