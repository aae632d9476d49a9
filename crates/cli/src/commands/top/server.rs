//! A server that is watched.

use std::time::{Duration, Instant};

use stubborn::group::{GroupClient, StatusReply, StatusRequest};
use stubborn::metrics::{MetricsClient, SnapshotReply, SnapshotRequest};
use stubborn::{CallError, NotExecutedReason, Outcome};

use crate::error::{Error, Exit};
use crate::remote::{Access, Link};
use crate::schema;

/// The service that replicas have.
const GROUP: &str = "stubborn.group.v1.Group";

/// A server, the way to it, and what it told the last two times.
pub(super) struct Server {
    pub(super) address: String,
    access: Access,
    link: Option<Link>,
    /// Whether it is a replica, once it has said so.
    replica: Option<bool>,
    pub(super) now: Option<Sample>,
    pub(super) before: Option<Sample>,
    /// Why it told nothing the last time.
    pub(super) failure: Option<Error>,
}

/// What a server told.
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) told: SnapshotReply,
    pub(super) status: Option<StatusReply>,
}

impl Server {
    pub(super) fn new(address: String, access: Access) -> Self {
        Self { address, access, link: None, replica: None, now: None, before: None, failure: None }
    }

    /// Asks the server.
    pub(super) async fn look(&mut self, links: u32, wait: Duration) {
        let silent = || Err(Error::new(Exit::Connect, format!("no answer for {wait:?}")));
        // Without a grace a call could take a little longer than its deadline.
        let asked = tokio::time::timeout(wait + wait / 10, self.ask(links, wait)).await;
        match asked.unwrap_or_else(|_| silent()) {
            Ok(sample) => {
                // A server that was started anew counts from the beginning.
                let goes_on = |before: &Sample| before.told.uptime_ns <= sample.told.uptime_ns;
                self.before = self.now.take().filter(goes_on);
                self.now = Some(sample);
                self.failure = None;
            }
            Err(error) => {
                (self.before, self.now, self.failure) = (None, None, Some(error));
                self.link = None;
            }
        }
    }

    async fn ask(&mut self, links: u32, wait: Duration) -> Result<Sample, Error> {
        if self.link.is_none() {
            let settings = |builder: stubborn::ChannelBuilder| builder.reads_only();
            let address = self.address.as_str();
            self.link = Some(self.access.connect_with(address, settings).await?);
        }
        let Some(link) = &self.link else { unreachable!("it was connected a line ago") };
        let channel = link.channel();
        let request = SnapshotRequest { links };
        let metrics = MetricsClient::new(channel.clone());
        let told = metrics.snapshot(request).deadline(wait).await.map_err(|error| {
            let unknown = is_unknown(&error);
            let error = Error::from(error);
            if unknown {
                return error.with_hint(
                    "the server does not tell what it counts: it was built without \
                     stubborn.metrics.v1.Metrics",
                );
            }
            error
        })?;
        let at = Instant::now();
        if self.replica.is_none() {
            let services = schema::list(link).await.unwrap_or_default();
            self.replica = Some(services.iter().any(|service| service == GROUP));
        }
        let mut status = None;
        if self.replica == Some(true) {
            let asked = GroupClient::new(channel).status(StatusRequest {}).deadline(wait).await;
            status = Some(asked?);
        }
        Ok(Sample { at, told, status })
    }

    /// Takes leave of the server.
    pub(super) async fn leave(self) {
        if let Some(link) = self.link {
            link.close().await;
        }
    }
}

/// The server does not have the method.
fn is_unknown(error: &CallError) -> bool {
    matches!(error.outcome(), Outcome::NotExecuted(why)
        if why.reason == NotExecutedReason::UnknownMethod)
}
