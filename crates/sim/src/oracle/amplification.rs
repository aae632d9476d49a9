//! Nobody is sent more than three times what came from his address before the address is known to be
//! his (RFC 9000 §8.1): otherwise a node could be used to flood somebody.
//!
//! Seen from the wire an address is validated once its owner, after something from the node had
//! reached him there, has sent something that reached the node. A node cannot know earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::world::HostId;

#[derive(Default)]
pub(crate) struct Amplification {
    accounts: BTreeMap<(HostId, SocketAddr), Account>,
    /// Which host has received something from which address, and where.
    met: BTreeSet<(HostId, SocketAddr)>,
}

#[derive(Default)]
struct Account {
    received: usize,
    sent: usize,
    validated: bool,
}

impl Amplification {
    /// A node sends. Addresses that it has never heard of are its own choice: a client's.
    pub(crate) fn sent(&mut self, from: HostId, to: SocketAddr, size: usize) -> Result<(), String> {
        let fresh = Account { validated: true, ..Account::default() };
        let account = self.accounts.entry((from, to)).or_insert(fresh);
        if account.validated {
            return Ok(());
        }
        account.sent += size;
        if account.sent > 3 * account.received {
            return Err(format!(
                "{} bytes were sent to {to}, which is not validated, for {} received",
                account.sent, account.received
            ));
        }
        Ok(())
    }

    /// Whether a datagram from `source`, sent now, answers something that came from `to`.
    pub(crate) fn answers(&self, from: HostId, _source: SocketAddr, to: SocketAddr) -> bool {
        self.met.contains(&(from, to))
    }

    /// A node receives.
    pub(crate) fn received(&mut self, at: HostId, from: SocketAddr, size: usize, answers: bool) {
        self.reached(at, from);
        let account = self.accounts.entry((at, from)).or_default();
        account.received += size;
        account.validated |= answers;
    }

    /// A host is reached by somebody, at whichever of its sockets.
    pub(crate) fn reached(&mut self, at: HostId, from: SocketAddr) {
        self.met.insert((at, from));
    }

    /// A host lost its memory: for it no address is validated any more.
    pub(crate) fn forgot(&mut self, host: HostId) {
        self.accounts.retain(|(at, _), _| *at != host);
        self.met.retain(|(at, _)| *at != host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_thrice_is_too_much_until_the_owner_has_answered() {
        let mut oracle = Amplification::default();
        let (server, client) = (HostId(0), HostId(1));
        let (at_server, at_client) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
        oracle.received(server, at_client, 1_200, false);
        assert!(oracle.sent(server, at_client, 3_600).is_ok());
        assert!(oracle.sent(server, at_client, 1).is_err());
        assert!(!oracle.answers(client, at_client, at_server));
        oracle.received(client, at_server, 3_600, false);
        assert!(oracle.answers(client, at_client, at_server));
        oracle.received(server, at_client, 40, true);
        assert!(oracle.sent(server, at_client, 100_000).is_ok());
    }
}
