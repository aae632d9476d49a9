//! What stands between callers and handlers, as the application wants it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use stubborn_core::service::{
    Answer, Call, CallContext, Encoded, Handling, Method, Port, RequestKind,
};

use super::services::Services;

/// A call on its way to its handler, as an interceptor has it ([`ServerBuilder::intercept`]).
///
/// [`ServerBuilder::intercept`]: crate::ServerBuilder::intercept
pub struct Incoming {
    method: &'static Method,
    kind: RequestKind,
    request: Encoded,
    context: CallContext,
    port: Option<Arc<dyn Port>>,
    services: Arc<Services>,
    /// Interceptors that have it behind them.
    passed: usize,
    /// Told when it goes on to the handler.
    #[cfg(feature = "tower")]
    begun: Option<Arc<std::sync::atomic::AtomicBool>>,
}

/// An interceptor as a server keeps it.
pub(crate) trait Interceptor: Send + Sync + 'static {
    fn intercept(&self, incoming: Incoming) -> Handling;
}

impl<F, R> Interceptor for F
where
    F: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    fn intercept(&self, incoming: Incoming) -> Handling {
        Box::pin(self(incoming))
    }
}

impl Incoming {
    pub(super) fn new(
        services: &Arc<Services>,
        method: &'static Method,
        kind: RequestKind,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Self {
        let (request, context) = call.into_parts();
        Self {
            method,
            kind,
            request,
            context,
            port,
            services: Arc::clone(services),
            passed: 0,
            #[cfg(feature = "tower")]
            begun: None,
        }
    }

    /// Sets this when it is handed on.
    #[cfg(feature = "tower")]
    pub(crate) fn tell_when_begun(&mut self, begun: &Arc<std::sync::atomic::AtomicBool>) {
        self.begun = Some(Arc::clone(begun));
    }

    /// The method that is called.
    pub fn method(&self) -> &'static Method {
        self.method
    }

    /// The encoded request; of a stream of the client it is empty.
    pub fn request(&self) -> &Encoded {
        &self.request
    }

    /// What is known of the call.
    pub fn context(&self) -> &CallContext {
        &self.context
    }

    /// The same, to be changed: metadata that the handler is to see, for example.
    pub fn context_mut(&mut self) -> &mut CallContext {
        &mut self.context
    }

    /// Hands the call on: to the next interceptor, at last to the handler. An interceptor that does not
    /// answers itself; [`Answer::NotExecuted`] says that the handler never ran, and is true then.
    pub fn run(mut self) -> Handling {
        #[cfg(feature = "tower")]
        if let Some(begun) = self.begun.take() {
            begun.store(true, std::sync::atomic::Ordering::Release);
        }
        let services = Arc::clone(&self.services);
        match services.interceptor(self.passed) {
            Some(interceptor) => {
                self.passed += 1;
                interceptor.intercept(self)
            }
            None => {
                let call = Call::new(self.request, self.context);
                let id = self.method.id();
                match services.handler(id, self.kind, call, self.port) {
                    Ok(handling) => handling,
                    Err(answer) => Box::pin(std::future::ready(answer)),
                }
            }
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({})", self.method)
    }
}
