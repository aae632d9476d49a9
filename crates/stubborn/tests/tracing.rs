//! Spans of calls, and the trace context that travels with them.

mod common;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};

use common::*;
use stubborn::trace::{TRACEPARENT, TRACESTATE};
use stubborn::{Incoming, Metadata, Method, Semantics, Server, ServerHandle, Shape};
use tokio::sync::MutexGuard;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// A span that was closed: its name and fields.
type Closed = BTreeMap<String, String>;

/// Keeps what spans have in their fields.
#[derive(Clone, Default)]
struct Capture {
    open: Arc<Mutex<BTreeMap<u64, Closed>>>,
    closed: Arc<Mutex<Vec<Closed>>>,
}

/// Lets one test after the other run. While a single subscriber is set, `tracing` asks the thread that
/// comes to a span first whether anybody looks at it, for all threads: that of a test without one says no.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ONE.lock().await
}

struct Fields<'a>(&'a mut Closed);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        self.0.insert(field.name().to_owned(), text.trim_matches('"').to_owned());
    }
}

impl Layer<Registry> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, Registry>) {
        let mut fields = Closed::new();
        attributes.record(&mut Fields(&mut fields));
        fields.insert("span".into(), attributes.metadata().name().into());
        self.open.lock().unwrap().insert(id.into_u64(), fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, Registry>) {
        let mut open = self.open.lock().unwrap();
        values.record(&mut Fields(open.get_mut(&id.into_u64()).unwrap()));
    }

    fn on_close(&self, id: Id, _: Context<'_, Registry>) {
        let span = self.open.lock().unwrap().remove(&id.into_u64()).unwrap();
        self.closed.lock().unwrap().push(span);
    }
}

impl Capture {
    /// Captures the spans of this thread, on which clients and servers of a test run.
    fn start() -> (Self, DefaultGuard) {
        let capture = Self::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        (capture, tracing::subscriber::set_default(subscriber))
    }

    /// The one span of this kind and method.
    fn of(&self, span: &str, method: &Method) -> Closed {
        let (service, name) = method.name().split_once('/').unwrap();
        let closed = self.closed.lock().unwrap();
        let same = |closed: &&Closed| {
            (closed["span"].as_str(), closed["rpc.service"].as_str()) == (span, service)
                && closed["rpc.method"] == name
        };
        let mut found = closed.iter().filter(same);
        let one = found.next().unwrap_or_else(|| panic!("no {span} of {method}: {closed:?}"));
        assert!(found.next().is_none(), "several spans {span} of {method}: {closed:?}");
        one.clone()
    }
}

/// A server that keeps the metadata of the calls that reach it.
async fn server(site: &Site, seen: &Arc<Mutex<Vec<Metadata>>>) -> ServerHandle {
    let seen = Arc::clone(seen);
    let note = move |incoming: Incoming| {
        seen.lock().unwrap().push(incoming.context().metadata.clone());
        incoming.run()
    };
    let server = Server::bind("127.0.0.1:0").identity(site.identity.clone());
    server.service(site.lab.clone()).intercept(note).start().await.unwrap()
}

/// A server whose handlers of `Forward` call another one.
struct Chain {
    site: Site,
    first: ServerHandle,
    _second: ServerHandle,
    /// The metadata that came to the first, then to the second.
    seen: Arc<Mutex<Vec<Metadata>>>,
}

impl Chain {
    async fn start() -> Self {
        let (site, other, seen) = (Site::new(), Site::new(), Arc::default());
        let second = server(&other, &seen).await;
        let _ = site.lab.next.set(other.channel(&second).await);
        let first = server(&site, &seen).await;
        Self { site, first, _second: second, seen }
    }
}

#[tokio::test]
async fn a_trace_holds_together_across_services_of_which_none_exports() {
    let _alone = alone().await;
    let (capture, _guard) = Capture::start();
    let chain = Chain::start().await;
    let channel = chain.site.channel(&chain.first).await;
    soon(call(&channel, &FORWARD, &Note::default()).into_future()).await.unwrap();

    let spans = [
        ("rpc.client", &FORWARD),
        ("rpc.server", &FORWARD),
        ("rpc.client", &TIME_LEFT),
        ("rpc.server", &TIME_LEFT),
    ];
    let spans = spans.map(|(span, method)| capture.of(span, method));
    let root = &spans[0];
    assert_eq!((root["trace_id"].len(), root["span_id"].len()), (32, 16));
    assert!(!root.contains_key("parent_span_id"));
    for (outer, inner) in spans.iter().zip(&spans[1..]) {
        assert_eq!(inner["trace_id"], root["trace_id"]);
        assert_eq!(inner["parent_span_id"], outer["span_id"]);
        assert_ne!(inner["span_id"], outer["span_id"]);
    }
    for span in &spans {
        assert_eq!(
            (&span["rpc.system"][..], &span["rpc.stubborn.outcome"][..]),
            ("stubborn", "replied")
        );
        assert!(!span.contains_key("otel.status_code"));
    }
    let seen = chain.seen.lock().unwrap();
    for (metadata, client) in seen.iter().zip([&spans[0], &spans[2]]) {
        let parent = format!("00-{}-{}-01", client["trace_id"], client["span_id"]);
        assert_eq!(metadata.get_str(TRACEPARENT), Some(parent.as_str()));
    }
}

#[tokio::test]
async fn a_service_at_which_nobody_looks_passes_a_trace_on_and_begins_none() {
    let _alone = alone().await;
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let chain = Chain::start().await;
    let channel = chain.site.channel(&chain.first).await;
    soon(call(&channel, &FORWARD, &Note::default()).into_future()).await.unwrap();
    let traced = call(&channel, &FORWARD, &Note::default())
        .metadata(TRACEPARENT, PARENT)
        .metadata(TRACESTATE, "a=1");
    soon(traced.into_future()).await.unwrap();
    let seen = chain.seen.lock().unwrap();
    let seen: Vec<_> = seen.iter().map(|metadata| metadata.get_str(TRACEPARENT)).collect();
    assert_eq!(seen, [None, None, Some(PARENT), Some(PARENT)]);
}

#[tokio::test]
async fn a_trace_that_came_is_continued_with_its_state_and_flags() {
    let _alone = alone().await;
    let (capture, _guard) = Capture::start();
    let chain = Chain::start().await;
    let channel = chain.site.channel(&chain.first).await;
    // As another system sends it, unsampled.
    let traced = call(&channel, &FORWARD, &Note::default())
        .metadata(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
        .metadata(TRACESTATE, "a=1,b=2");
    soon(traced.into_future()).await.unwrap();
    let (first, second) =
        (capture.of("rpc.server", &FORWARD), capture.of("rpc.server", &TIME_LEFT));
    assert_eq!(first["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(first["parent_span_id"], "00f067aa0ba902b7");
    assert_eq!(second["trace_id"], first["trace_id"]);
    let seen = chain.seen.lock().unwrap();
    let state = |index: usize| seen[index].get_str(TRACESTATE);
    assert_eq!((state(0), state(1)), (Some("a=1,b=2"), Some("a=1,b=2")));
    assert!(seen[1].get_str(TRACEPARENT).unwrap().ends_with("-00"));
}

#[tokio::test]
async fn spans_say_how_calls_ended() {
    let _alone = alone().await;
    let (capture, _guard) = Capture::start();
    let site = Site::new();
    let server = site.start().await;
    let channel = site.channel(&server).await;
    soon(call(&channel, &REFUSE, &Note::default()).into_future()).await.unwrap_err();
    soon(call(&channel, &PANIC, &Note::default()).into_future()).await.unwrap_err();
    let missing = Method::new("lab.v1.Lab/Missing", Semantics::AtMostOnce, Shape::Unary);
    soon(call(&channel, &missing, &Note::default()).into_future()).await.unwrap_err();
    let held = tokio::spawn(call(&channel, &HOLD_READ, &Note::default()).into_future());
    reaches(&site.lab.began, 1).await;
    held.abort();
    reaches(&site.lab.dropped, 1).await;

    let told = |span: &str, method: &Method| {
        let span = capture.of(span, method);
        let field = |name: &str| span.get(name).cloned().unwrap_or_default();
        (field("rpc.stubborn.outcome"), field("error.type"), field("otel.status_code"))
    };
    let like = |outcome: &str, kind: &str, code: &str| (outcome.into(), kind.into(), code.into());
    let refused = |code| like("executed", "FailedPrecondition", code);
    assert_eq!(told("rpc.client", &REFUSE), refused("error"));
    assert_eq!(told("rpc.server", &REFUSE), refused(""), "that is no fault of the server");
    assert_eq!(told("rpc.server", &PANIC), like("executed", "Internal", "error"));
    assert_eq!(told("rpc.client", &missing), like("not_executed", "UnknownMethod", "error"));
    for side in ["rpc.client", "rpc.server"] {
        assert_eq!(told(side, &HOLD_READ), like("abandoned", "", ""));
    }
    assert!(capture.of("rpc.server", &REFUSE).contains_key("rpc.stubborn.call_id"));
    assert!(capture.of("rpc.server", &REFUSE)["network.peer.address"].starts_with("127.0.0.1:"));
}
