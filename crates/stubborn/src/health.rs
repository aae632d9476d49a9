//! How the services of a server are, by gRPC's health checking protocol (`grpc.health.v1.Health`), over
//! datagrams as at the door for gRPC.
//!
//! Every server and replica has the service, unless it is [turned off](crate::ServerBuilder::health). Its
//! services serve from the start, unless the application [says otherwise](Health::set), and until the
//! server drains. Those of a replica serve while it knows of a leader and has applied what it knows to be
//! committed, but for 1,024 entries.
//!
//! `stubborn health ADDR [SERVICE]` asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
#[cfg(feature = "replica")]
use std::time::Duration;

use stubborn_core::service::{Call, RegisterError, Registry, ReplySender, Status};
use tokio::sync::watch;

pub use crate::generated::grpc::health::v1::health_check_response::ServingStatus;
pub use crate::generated::grpc::health::v1::{
    HEALTH_DESCRIPTOR, HealthCalls, HealthCheckRequest, HealthCheckResponse, HealthClient,
    HealthListRequest, HealthListResponse,
};
use crate::generated::grpc::health::v1::{Health as Questions, HealthServer};

/// Says how the services of a server are, to load balancers and tools that ask by gRPC's protocol
/// (`grpc.health.v1.Health`). Cheap to clone; clones share it. Use one for each server.
///
/// ```
/// use stubborn::health::Health;
///
/// let health = Health::new(); // also: ServerHandle::health
/// health.set("bank.v1.Bank", false); // until its ledger is read
/// # let _ = stubborn::Server::bind("127.0.0.1:0").health(health.clone());
/// health.set("bank.v1.Bank", true);
/// ```
#[derive(Clone)]
pub struct Health(Arc<watch::Sender<Known>>);

#[derive(Clone, Default)]
struct Known {
    services: BTreeMap<String, bool>,
    draining: bool,
}

impl Known {
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let serving = *self.services.get(service)?;
        let serving = serving && !self.draining;
        Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// The server as a whole serves; a server adds its services when it starts.
    pub fn new() -> Self {
        let services = BTreeMap::from([(String::new(), true)]);
        Self(Arc::new(watch::Sender::new(Known { services, draining: false })))
    }

    /// From now on the service of this full name serves, or does not; the empty name stands for the
    /// server as a whole. Calls are taken all the same: callers are to go elsewhere by themselves.
    pub fn set(&self, service: impl Into<String>, serving: bool) {
        self.0.send_modify(|known| {
            known.services.insert(service.into(), serving);
        });
    }

    /// Adds services that nothing was said of.
    pub(crate) fn know(&self, services: impl Iterator<Item = &'static str>) {
        self.0.send_modify(|known| {
            for service in services {
                known.services.entry(service.to_owned()).or_insert(true);
            }
        });
    }

    /// From now on nothing serves.
    pub(crate) fn drain(&self) {
        self.0.send_modify(|known| known.draining = true);
    }

    /// Whether a service serves, as far as the application and the server have said; `None` if it is
    /// none of the server's.
    pub fn is_serving(&self, service: &str) -> Option<bool> {
        self.0.borrow().status(service).map(|status| status == ServingStatus::Serving)
    }

    /// Adds the service that tells it, and what it is to tell of the others. One that the application
    /// has itself stands.
    pub(crate) fn add(&self, registry: &mut Registry) -> Result<(), RegisterError> {
        self.know(registry.descriptors().map(|descriptor| descriptor.name));
        if registry.descriptors().any(|descriptor| descriptor.name == HEALTH_DESCRIPTOR.name) {
            return Ok(());
        }
        registry.add(Arc::new(HealthServer::new(self.clone())))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0.borrow().services).finish()
    }
}

fn no_such_service() -> Status {
    Status::not_found("this server has no such service")
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl Questions for Health {
    async fn check(&self, call: Call<HealthCheckRequest>) -> Result<HealthCheckResponse, Status> {
        let status = self.0.borrow().status(&call.service);
        let status = status.ok_or_else(no_such_service)?;
        Ok(response(status))
    }

    async fn list(&self, _: Call<HealthListRequest>) -> Result<HealthListResponse, Status> {
        let known = self.0.borrow();
        let status = |service: &String| known.status(service).map(response).unwrap_or_default();
        let names = known.services.keys();
        Ok(HealthListResponse { statuses: names.map(|n| (n.clone(), status(n))).collect() })
    }

    async fn watch(
        &self,
        call: Call<HealthCheckRequest>,
        mut replies: ReplySender<HealthCheckResponse>,
    ) -> Result<(), Status> {
        let mut known = self.0.subscribe();
        let mut told = None;
        loop {
            let (status, draining) = {
                let known = known.borrow_and_update();
                let status = known.status(&call.service);
                (status.unwrap_or(ServingStatus::ServiceUnknown), known.draining)
            };
            if told.replace(status) != Some(status) {
                replies.send(&response(status)).await?;
            }
            if draining {
                return Err(Status::unavailable("the server is draining"));
            }
            // The sender lives in `self`.
            let _ = known.changed().await;
        }
    }
}

#[cfg(feature = "replica")]
mod of_replica {
    use super::*;
    use crate::generated::stubborn::group::v1::StatusReply;

    /// Entries that a replica may lag behind what it knows to be committed.
    const LAG: u64 = 1_024;

    /// How often it is looked how a replica stands, for those who watch.
    const LOOK_EVERY: Duration = Duration::from_millis(100);

    /// The service at a replica. Its statuses are those of `health` while the replica is of use.
    pub(crate) struct ReplicaHealth<F> {
        pub(crate) health: Health,
        pub(crate) standing: F,
    }

    impl<F: Fn() -> StatusReply + Send + Sync + 'static> ReplicaHealth<F> {
        pub(crate) fn add(self, registry: &mut Registry) -> Result<(), RegisterError> {
            registry.add(Arc::new(HealthServer::new(self)))
        }

        fn is_of_use(&self) -> bool {
            let standing = (self.standing)();
            standing.leader != 0 && standing.applied + LAG >= standing.committed
        }

        fn status(&self, service: &str) -> Option<ServingStatus> {
            let serving = self.health.is_serving(service)? && self.is_of_use();
            Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
        }
    }

    impl<F: Fn() -> StatusReply + Send + Sync + 'static> Questions for ReplicaHealth<F> {
        async fn check(
            &self,
            call: Call<HealthCheckRequest>,
        ) -> Result<HealthCheckResponse, Status> {
            self.status(&call.service).map(response).ok_or_else(no_such_service)
        }

        async fn list(&self, _: Call<HealthListRequest>) -> Result<HealthListResponse, Status> {
            let names: Vec<String> = self.health.0.borrow().services.keys().cloned().collect();
            let status = |name: String| Some((name.clone(), response(self.status(&name)?)));
            Ok(HealthListResponse { statuses: names.into_iter().filter_map(status).collect() })
        }

        /// Over gRPC alone: over datagrams a replica runs no such streams, and who asks for one is told that
        /// it was not executed.
        async fn watch(
            &self,
            call: Call<HealthCheckRequest>,
            mut replies: ReplySender<HealthCheckResponse>,
        ) -> Result<(), Status> {
            let mut known = self.health.0.subscribe();
            let mut told = None;
            loop {
                let draining = known.borrow_and_update().draining;
                let status = self.status(&call.service);
                let status = status.unwrap_or(ServingStatus::ServiceUnknown);
                if told.replace(status) != Some(status) {
                    replies.send(&response(status)).await?;
                }
                if draining {
                    return Err(Status::unavailable("the replica is stopping"));
                }
                // How the replica stands changes without a word.
                let _ = tokio::time::timeout(LOOK_EVERY, known.changed()).await;
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn a_replica_serves_while_it_is_led_and_has_applied_nearly_all() {
            let health = Health::new();
            health.know(["a.B"].into_iter());
            let standing = Arc::new(std::sync::Mutex::new(StatusReply::default()));
            let told = standing.clone();
            let standing_now = move || told.lock().unwrap().clone();
            let replica = ReplicaHealth { health: health.clone(), standing: standing_now };
            let ask = async |service: &str| {
                let request = HealthCheckRequest { service: service.into() };
                let reply = replica.check(Call::new(request, Default::default())).await;
                reply.map(|reply| reply.status())
            };
            assert_eq!(ask("a.B").await, Ok(ServingStatus::NotServing), "nobody leads");
            *standing.lock().unwrap() =
                StatusReply { leader: 1, committed: 5_000, applied: 4_500, ..Default::default() };
            assert_eq!(ask("a.B").await, Ok(ServingStatus::Serving));
            assert!(ask("no.Such").await.is_err());
            standing.lock().unwrap().applied = 100;
            assert_eq!(ask("").await, Ok(ServingStatus::NotServing), "it catches up");
            standing.lock().unwrap().applied = 5_000;
            health.set("a.B", false);
            assert_eq!(ask("a.B").await, Ok(ServingStatus::NotServing));
            assert_eq!(ask("").await, Ok(ServingStatus::Serving));
        }
    }
}
#[cfg(feature = "replica")]
pub(crate) use of_replica::ReplicaHealth;
