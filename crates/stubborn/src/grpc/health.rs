//! How the services of a server are: gRPC's health checking protocol.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stubborn_core::service::{Call, RegisterError, Registry, ReplySender, Status};
use tokio::sync::watch;

use super::generated::grpc::health::v1::{
    Health as Questions, HealthCheckRequest, HealthCheckResponse, HealthListRequest,
    HealthListResponse, HealthServer, health_check_response::ServingStatus,
};

/// Says how the services of a server are, to load balancers and tools that ask by gRPC's protocol
/// (`grpc.health.v1.Health`). Cheap to clone; clones share it. Use one for each server.
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
    pub(super) fn know(&self, services: impl Iterator<Item = &'static str>) {
        self.0.send_modify(|known| {
            for service in services {
                known.services.entry(service.to_owned()).or_insert(true);
            }
        });
    }

    /// From now on nothing serves.
    pub(super) fn drain(&self) {
        self.0.send_modify(|known| known.draining = true);
    }

    pub(super) fn add(&self, registry: &mut Registry) -> Result<(), RegisterError> {
        registry.add(Arc::new(HealthServer::new(self.clone())))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.0.borrow().services).finish()
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl Questions for Health {
    async fn check(&self, call: Call<HealthCheckRequest>) -> Result<HealthCheckResponse, Status> {
        let status = self.0.borrow().status(&call.service);
        let status = status.ok_or_else(|| Status::not_found("this server has no such service"))?;
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
