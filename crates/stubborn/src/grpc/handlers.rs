//! The handlers of a server, for its door.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use stubborn_core::node::{Passed, PlaceRequest};
use stubborn_core::service::{
    Answer, Call, CallContext, CallError, Clock, Encoded, IncomingReply, Metadata, Method,
    MethodId, NotExecuted, NotTaken, Port, Priority, RequestKind,
};
use stubborn_core::time::Instant;
use stubborn_grpc::door::{Early, Ended, Handlers, Handling, Place, Placing};

use crate::driver::{self, NodeClock, Shared, start_handler};
use crate::metrics::{DoorBook, DoorCall, Ending, Source};
use crate::reply;
use crate::server::Services;

pub(super) struct DoorHandlers {
    services: Arc<Services>,
    clock: NodeClock,
    handle: Clock,
    book: Book,
    /// The server's workers, who have the places, and how often one was asked for one.
    nodes: Vec<Arc<Shared>>,
    asked: AtomicUsize,
}

/// What is asked how the server is gets an answer also when there is too much to do: who asks may end a
/// server that gives none.
const UNCOUNTED: &str = "grpc.health.v1.Health/";

/// Where calls are counted and traced.
type Book = Arc<Mutex<DoorBook>>;

fn open(book: &Book) -> MutexGuard<'_, DoorBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DoorHandlers {
    /// Of so many steps of calls the latest are kept. `nodes` are those of the server's workers, at least one.
    pub(super) fn new(
        services: Arc<Services>,
        source: &Source,
        steps: usize,
        nodes: Vec<Arc<Shared>>,
    ) -> Self {
        let clock = NodeClock::start();
        let book = Arc::new(Mutex::new(DoorBook::new(services.registry(), clock, steps)));
        source.set_door(book.clone());
        let (handle, asked) = (clock.handle(), AtomicUsize::new(0));
        Self { services, clock, handle, book, nodes, asked }
    }

    /// The worker whose turn it is.
    fn next_node(&self) -> &Arc<Shared> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        &self.nodes[turn % self.nodes.len()]
    }
}

/// Notes a call that does not begin.
fn note_refused(book: &Book, method: MethodId, metadata: &Metadata, answer: &Answer) {
    Measured::begin(book, method, metadata).end(Ending::of_answer(answer));
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
            note_refused(&self.book, method.id(), &context.metadata, answer);
        }
        admitted
    }

    fn place(&self, method: &'static Method, context: &CallContext, bytes: usize) -> Placing {
        if method.name().starts_with(UNCOUNTED) {
            return Box::pin(std::future::ready(Ok(Box::new(()) as Box<dyn Place>)));
        }
        let (node, book) = (self.next_node().clone(), self.book.clone());
        let metadata = context.metadata.clone();
        let (method, priority) = (method.id(), Priority::of(&metadata));
        // The worker has a clock of its own.
        let came = self.clock.now();
        let left = context.deadline.map(|at| at.since(came));
        let request = move |now: Instant| {
            let deadline = left.map(|left| now + left);
            PlaceRequest { method, priority, deadline, bytes: bytes as u64 }
        };
        Box::pin(async move {
            match node.place(request).await {
                Ok(place) => Ok(Box::new(Placed(place)) as Box<dyn Place>),
                Err(why) => {
                    note_refused(&book, method, &metadata, &Answer::NotExecuted(why.clone()));
                    Err(why)
                }
            }
        })
    }

    fn may_begin_stream(
        &self,
        method: &'static Method,
        metadata: &Metadata,
    ) -> Result<(), NotExecuted> {
        if method.name().starts_with(UNCOUNTED) {
            return Ok(());
        }
        let may = self.next_node().may_begin_stream(Priority::of(metadata));
        if let Err(why) = &may {
            note_refused(&self.book, method.id(), metadata, &Answer::NotExecuted(why.clone()));
        }
        may
    }

    fn start(
        &self,
        kind: RequestKind,
        method: MethodId,
        call: Call<Encoded>,
        port: Option<Arc<dyn Port>>,
    ) -> Result<Handling, Answer> {
        let (clock, handle) = (self.clock, &self.handle);
        let metadata = &call.context().metadata;
        let mut measured = Measured::begin(&self.book, method, metadata);
        let port = port.map(|port| measured.watch(port, metadata));
        let started = start_handler(&self.services, clock, handle, port, method, kind, call);
        let handler = match started {
            Ok(handler) => handler,
            Err(answer) => {
                measured.end(Ending::of_answer(&answer));
                return Err(answer);
            }
        };
        Ok(Box::pin(async move {
            let (answer, early) = handler.apart().await;
            measured.end(Ending::of_answer(&answer));
            Ended { early, ..Ended::of(answer) }
        }))
    }

    fn copied(&self, metadata: &Metadata) {
        open(&self.book).copied(metadata);
    }

    fn early(&self) -> Early {
        reply::take_early()
    }
}

/// A place at one of the workers.
struct Placed(driver::Place);

impl Place for Placed {
    fn answered(self: Box<Self>) {
        self.0.answered();
    }
}

/// A call that is measured, also if it is dropped.
struct Measured {
    book: Book,
    call: Option<DoorCall>,
    /// Of a stream.
    passed: Option<Arc<Counted>>,
}

/// How many messages of a stream have passed.
#[derive(Default)]
struct Counted {
    received: AtomicU64,
    sent: AtomicU64,
    half_closed: AtomicBool,
}

impl Measured {
    fn begin(book: &Book, method: MethodId, metadata: &Metadata) -> Self {
        let call = Some(open(book).begin(method, metadata));
        Self { book: book.clone(), call, passed: None }
    }

    /// Counts the messages of a stream.
    fn watch(&mut self, port: Arc<dyn Port>, metadata: &Metadata) -> Arc<dyn Port> {
        let (book, counted) = (self.book.clone(), Arc::<Counted>::default());
        self.passed = Some(counted.clone());
        Arc::new(CountingPort { port, book, counted, metadata: metadata.clone() })
    }

    fn end(&mut self, ending: Ending) {
        if let Some(call) = self.call.take() {
            let passed = self.passed.as_ref().map(|passed| Passed {
                received: passed.received.load(Ordering::Relaxed),
                sent: passed.sent.load(Ordering::Relaxed),
            });
            open(&self.book).end(call, ending, passed);
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.end(Ending::Abandoned);
    }
}

/// A stream whose messages are counted.
struct CountingPort {
    port: Arc<dyn Port>,
    book: Book,
    counted: Arc<Counted>,
    metadata: Metadata,
}

impl Port for CountingPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let polled = self.port.poll_take(cx);
        match &polled {
            Poll::Ready(Some(_)) => {
                self.counted.received.fetch_add(1, Ordering::Relaxed);
            }
            Poll::Ready(None) if !self.counted.half_closed.swap(true, Ordering::Relaxed) => {
                let received = self.counted.received.load(Ordering::Relaxed);
                open(&self.book).half_closed(&self.metadata, received);
            }
            _ => {}
        }
        polled
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        let polled = self.port.poll_send(cx, message);
        if let Poll::Ready(Ok(())) = polled {
            self.counted.sent.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn end(&self) {
        self.port.end();
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        self.port.poll_end(cx)
    }

    fn cancel(&self) {
        self.port.cancel();
    }
}
