//! The handlers of a server, for its door.

use std::sync::Arc;

use stubborn_core::service::{
    Answer, Call, Clock, Encoded, Method, MethodId, Port, Registry, RequestKind,
};
use stubborn_core::time::Instant;
use stubborn_grpc::door::{Early, Ended, Handlers, Handling};

use crate::driver::{NodeClock, start_handler};
use crate::reply;

pub(super) struct DoorHandlers {
    registry: Registry,
    clock: NodeClock,
    handle: Clock,
}

impl DoorHandlers {
    pub(super) fn new(registry: Registry) -> Self {
        let clock = NodeClock::start();
        Self { registry, clock, handle: clock.handle() }
    }
}

impl Handlers for DoorHandlers {
    fn method(&self, id: MethodId) -> Option<&'static Method> {
        self.registry.method(id)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn start(
        &self,
        kind: RequestKind,
        method: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        let (clock, handle) = (self.clock, &self.handle);
        let handler = start_handler(&self.registry, clock, handle, port, method, kind, call)?;
        let mut handler = handler.apart();
        Ok(Box::pin(async move {
            let answer = (&mut handler).await;
            let (metadata, compress) = handler.take_beside().into_early();
            Ended { answer, early: Early { metadata, compress } }
        }))
    }

    fn early(&self) -> Early {
        let (metadata, compress) = reply::take_early();
        Early { metadata, compress }
    }
}
