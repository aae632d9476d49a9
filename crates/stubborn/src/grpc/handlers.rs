//! The handlers of a server, for its door.

use std::sync::Arc;

use stubborn_core::service::{
    Answer, Call, CallContext, Clock, Encoded, Method, MethodId, Port, RequestKind,
};
use stubborn_core::time::Instant;
use stubborn_grpc::door::{Early, Ended, Handlers, Handling};

use crate::driver::{NodeClock, start_handler};
use crate::metrics::{Begun, Ending, Meter, Source};
use crate::reply;
use crate::server::Services;

pub(super) struct DoorHandlers {
    services: Arc<Services>,
    clock: NodeClock,
    handle: Clock,
    source: Arc<Source>,
}

impl DoorHandlers {
    pub(super) fn new(services: Arc<Services>, source: Arc<Source>) -> Self {
        let clock = NodeClock::start();
        *source.door() = Meter::of(services.registry());
        Self { services, clock, handle: clock.handle(), source }
    }
}

impl Handlers for DoorHandlers {
    fn method(&self, id: MethodId) -> Option<&'static Method> {
        self.services.method(id)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn admit(&self, method: &'static Method, context: &mut CallContext) -> Result<(), Answer> {
        let admitted = self.services.admit(method, context);
        if let Err(answer) = &admitted {
            let mut measured = Measured::begin(&self.source, self.clock, method.id());
            measured.end(Ending::of_answer(answer));
        }
        admitted
    }

    fn start(
        &self,
        kind: RequestKind,
        method: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        let (clock, handle) = (self.clock, &self.handle);
        let mut measured = Measured::begin(&self.source, clock, method);
        let started = start_handler(&self.services, clock, handle, port, method, kind, call);
        let mut handler = match started {
            Ok(handler) => handler.apart(),
            Err(answer) => {
                measured.end(Ending::of_answer(&answer));
                return Err(answer);
            }
        };
        Ok(Box::pin(async move {
            let answer = (&mut handler).await;
            measured.end(Ending::of_answer(&answer));
            let (metadata, compress) = handler.take_beside().into_early();
            Ended { answer, early: Early { metadata, compress } }
        }))
    }

    fn early(&self) -> Early {
        let (metadata, compress) = reply::take_early();
        Early { metadata, compress }
    }
}

/// A call that is measured, also if it is dropped.
struct Measured {
    source: Arc<Source>,
    clock: NodeClock,
    begun: Option<Begun>,
}

impl Measured {
    fn begin(source: &Arc<Source>, clock: NodeClock, method: MethodId) -> Self {
        let begun = Some(source.door().begin(method, clock.now()));
        Self { source: Arc::clone(source), clock, begun }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(begun) = self.begun.take() {
            self.source.door().end(begun, self.clock.now(), ending);
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.end(Ending::Abandoned);
    }
}
