//! What clients of simulated groups may not do, and that differs from node to node.

use stubborn_core::service::{CallContext, Encoded, MethodId, NotExecuted};
use stubborn_core::session::NotExecutedReason;
use stubborn_group::node::Gate;
use stubborn_group::replication::NodeId;

use super::ledger::{ADD, Command};

/// The client that may count at no node, where there are permissions.
pub(super) const OUTSIDER: u64 = 1;

/// The permissions of one node: they do not let the [`OUTSIDER`] count, and nodes of an even number not
/// let anybody count for every third time, as if those of some had not been renewed yet.
pub(super) struct Permissions {
    pub(super) node: NodeId,
}

impl Gate for Permissions {
    fn admit(
        &self,
        method: MethodId,
        request: &Encoded,
        _: &mut CallContext,
    ) -> Result<(), NotExecuted> {
        let Some(Command { client, number }) = Command::decode(&request.body.to_vec()) else {
            return Ok(());
        };
        let counts = method == ADD.id();
        let here = self.node.get().is_multiple_of(2) && number.is_multiple_of(3);
        if counts && (client == OUTSIDER || here) {
            return Err(NotExecuted::new(NotExecutedReason::PermissionDenied));
        }
        Ok(())
    }
}
