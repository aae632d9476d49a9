//! What a client may do at no node is never done, whichever of them it asked and however often.

use super::super::gate::OUTSIDER;
use super::super::ledger::Ledger;
use crate::nodes::Broken;

/// All is quiet, and this is the ledger of a group with permissions.
pub(in super::super) fn at_rest(ledger: &Ledger) -> Result<(), Broken> {
    match ledger.lines.iter().find(|(command, _)| command.client == OUTSIDER) {
        Some((command, line)) => {
            Err(("permissions", format!("{command:?} is not permitted, and is {line:?}")))
        }
        None => Ok(()),
    }
}
