//! Spans as OpenTelemetry exports them.

mod common;

use std::future::IntoFuture;

use common::*;
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing_subscriber::layer::SubscriberExt;

#[tokio::test]
async fn exported_spans_are_one_tree_from_the_client_through_nested_servers() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let (site, other) = (Site::new(), Site::new());
    let second = other.start().await;
    let _ = site.lab.next.set(other.channel(&second).await);
    let first = site.start().await;
    let channel = site.channel(&first).await;
    {
        let outer = tracing::info_span!("the application");
        let _entered = outer.enter();
        let forward = tokio::spawn(tracing::Instrument::in_current_span(
            call(&channel, &FORWARD, &Note::default()).into_future(),
        ));
        drop(_entered);
        soon(forward).await.unwrap().unwrap();
    }
    soon(call(&channel, &REFUSE, &Note::default()).into_future()).await.unwrap_err();

    let spans = exporter.get_finished_spans().unwrap();
    let of = |name: &str, kind: SpanKind| -> SpanData {
        let same = |span: &&SpanData| span.name == name && span.span_kind == kind;
        let mut found = spans.iter().filter(same);
        let one = found.next().unwrap_or_else(|| panic!("no {kind:?} {name}: {spans:#?}"));
        assert!(found.next().is_none(), "several {kind:?} {name}: {spans:#?}");
        one.clone()
    };
    let chain = [
        of("the application", SpanKind::Internal),
        of(FORWARD.name(), SpanKind::Client),
        of(FORWARD.name(), SpanKind::Server),
        of(TIME_LEFT.name(), SpanKind::Client),
        of(TIME_LEFT.name(), SpanKind::Server),
    ];
    assert_eq!(chain[0].parent_span_id, SpanId::INVALID);
    for (outer, inner) in chain.iter().zip(&chain[1..]) {
        let name = &inner.name;
        assert_eq!(inner.parent_span_id, outer.span_context.span_id(), "{name}");
        assert_eq!(inner.span_context.trace_id(), outer.span_context.trace_id(), "{name}");
        assert_eq!(inner.parent_span_is_remote, inner.span_kind == SpanKind::Server, "{name}");
    }
    let attribute = |span: &SpanData, key: &str| {
        let same = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
        same.map(|attribute| attribute.value.as_str().into_owned())
    };
    let server = &chain[2];
    for (key, value) in
        [("rpc.system", "stubborn"), ("rpc.service", "lab.v1.Lab"), ("rpc.method", "Forward")]
    {
        assert_eq!(attribute(server, key).as_deref(), Some(value));
    }
    assert_eq!(attribute(server, "rpc.stubborn.outcome").as_deref(), Some("replied"));
    // What is in the log names what is exported.
    let id = server.span_context.span_id().to_string();
    assert_eq!(attribute(server, "span_id"), Some(id));
    let refused = of(REFUSE.name(), SpanKind::Client);
    assert!(matches!(refused.status, Status::Error { .. }), "{refused:#?}");
    assert_eq!(attribute(&refused, "error.type").as_deref(), Some("FailedPrecondition"));
}
