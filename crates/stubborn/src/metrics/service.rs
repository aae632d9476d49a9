//! The services through which a server tells what it has counted, and what happened to a call.

use std::sync::Arc;

use stubborn_core::service::{Call, Peer, RegisterError, Registry, Status};

use crate::steps::TraceServer;

use super::{
    MOST_LINKS, Metrics, MetricsServer, SnapshotReply, SnapshotRequest, Source, USUAL_LINKS,
};

/// Who may ask a server what it has counted (`stubborn.metrics.v1.Metrics`): it tells which methods are
/// called how often, and the addresses of those who call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsFor {
    /// Nobody: the server does not have the service.
    Nobody,
    /// Who shows a certificate that the server's authorities signed, and who calls from an address of
    /// the same machine (a proxy there makes its users the same).
    #[default]
    Known,
    /// Whoever can call; where the server has permissions by method, whom they let call it.
    Anybody,
}

/// The method by which the service is asked.
#[cfg(feature = "replica")]
pub(crate) const METHOD: &str = "stubborn.metrics.v1.Metrics/Snapshot";

/// What answers.
#[derive(Clone)]
pub(crate) struct Board {
    pub(crate) source: Arc<Source>,
    pub(crate) who: MetricsFor,
}

/// Adds the services, if somebody may ask.
pub(crate) fn add(
    registry: &mut Registry,
    source: &Arc<Source>,
    who: MetricsFor,
) -> Result<(), RegisterError> {
    if who == MetricsFor::Nobody {
        return Ok(());
    }
    let board = Board { source: Arc::clone(source), who };
    registry.add(Arc::new(MetricsServer::new(board.clone())))?;
    registry.add(Arc::new(TraceServer::new(board)))
}

impl MetricsFor {
    /// # Errors
    /// If this caller is not to know.
    pub(crate) fn admit(self, peer: &Peer) -> Result<(), Status> {
        let here = || peer.address.is_some_and(|address| address.ip().to_canonical().is_loopback());
        let may = match self {
            Self::Nobody => false,
            Self::Known => peer.identity.is_some() || here(),
            Self::Anybody => true,
        };
        let why = "this server tells what it counts to callers with a certificate and to those on its \
                   own machine";
        if may { Ok(()) } else { Err(Status::permission_denied(why)) }
    }
}

/// How many links a request asks for.
pub(crate) fn links_of(request: &SnapshotRequest) -> usize {
    match request.links as usize {
        0 => USUAL_LINKS,
        links => links.min(MOST_LINKS),
    }
}

impl Metrics for Board {
    async fn snapshot(&self, call: Call<SnapshotRequest>) -> Result<SnapshotReply, Status> {
        self.who.admit(&call.context().peer)?;
        Ok(self.source.snapshot(links_of(&call)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_machine_and_those_with_certificates_may_ask() {
        let peer = |address: &str, identity| Peer {
            address: Some(address.parse().unwrap()),
            identity,
            ..Peer::default()
        };
        for (address, identity, may) in [
            ("127.0.0.1:9", None, true),
            ("[::1]:9", None, true),
            ("[::ffff:127.0.0.1]:9", None, true),
            ("10.0.0.1:9", None, false),
            ("10.0.0.1:9", Some([1; 32]), true),
        ] {
            let peer = peer(address, identity);
            assert_eq!(MetricsFor::Known.admit(&peer).is_ok(), may, "{address}");
            assert!(MetricsFor::Anybody.admit(&peer).is_ok());
            assert!(MetricsFor::Nobody.admit(&peer).is_err());
        }
        assert!(MetricsFor::Known.admit(&Peer::default()).is_err());
    }
}
