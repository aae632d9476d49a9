//! How often a small call allocates, once buffers have grown: counted over client and server, which
//! run in this process.
#![allow(unsafe_code)] // A global allocator is unsafe to implement; this one only counts.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::{ECHO, Note, Site, soon};
use stubborn::{
    Answer, Call, Channel, ChannelBuilder, Encoded, Handling, Metadata, Method, Semantics, Server,
    Service, ServiceDescriptor, Shape,
};
use tokio::task::LocalSet;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IN_FLIGHT: usize = 64;
const CALLS: usize = 20_000;

/// What a datagram allocates is shared by the calls in it, and what grows does so ever more rarely.
const SHARED: f64 = 1.0;

static METHODS: [Method; 1] = [Method::new("raw.v1.Raw/Back", Semantics::AtMostOnce, Shape::Unary)];
static RAW: ServiceDescriptor =
    ServiceDescriptor { name: "raw.v1.Raw", methods: &METHODS, file_descriptor_set: &[] };

/// Answers without a stub, so that what a call allocates is this library's alone.
struct Raw;

impl Service for Raw {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &RAW
    }

    fn call(&self, method: usize, _: Call<Encoded>) -> Handling {
        let body = Bytes::from_static(&[7; 64]);
        let reply = Encoded::from_body(METHODS[method].id(), body);
        Box::pin(async move { Answer::Reply(reply, Metadata::new()) })
    }
}

/// Allocations per call while `IN_FLIGHT` tasks make one call after another.
async fn per_call<F: Future<Output = ()> + 'static>(call: impl Fn() -> F + 'static) -> f64 {
    let call = Rc::new(call);
    let mut counted = 0;
    // The second run counts: by then buffers and tables have their size.
    for _ in 0..2 {
        let left = Rc::new(Cell::new(CALLS));
        let tasks = LocalSet::new();
        for _ in 0..IN_FLIGHT {
            let (call, left) = (Rc::clone(&call), Rc::clone(&left));
            tasks.spawn_local(async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    call().await;
                }
            });
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        soon(tasks).await;
        counted = ALLOCATIONS.load(Ordering::Relaxed) - before;
    }
    counted as f64 / CALLS as f64
}

/// One test, as other tests of this process would allocate meanwhile.
#[tokio::test]
async fn a_small_call_allocates_only_for_its_handler_and_in_its_stubs() {
    let site = Site::new();
    let server = Server::bind("127.0.0.1:0")
        .identity(site.identity.clone())
        .service(site.lab.clone())
        .service(Raw)
        .start()
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    let channel: Channel =
        soon(ChannelBuilder::new(address).trust(site.trust()).connect()).await.unwrap();

    let raw = channel.clone();
    let request = Encoded::from_body(METHODS[0].id(), Bytes::from_static(&[5; 64]));
    let without_stubs = per_call(move || {
        let call = raw.raw_unary::<Note>(&METHODS[0], request.clone());
        async move {
            assert_eq!(call.raw().await.unwrap().reply.body.len(), 64);
        }
    })
    .await;
    // The handler's future is on the heap; nothing else is.
    assert!(without_stubs < 1.0 + SHARED, "{without_stubs} allocations per call without stubs");

    let note = Arc::new(Note::data(vec![5; 64]));
    let with_stubs = per_call(move || {
        let (channel, note) = (channel.clone(), Arc::clone(&note));
        async move {
            let reply: Note = channel.unary(&ECHO, &*note).await.unwrap();
            assert_eq!(reply.data.len(), 64);
        }
    })
    .await;
    // The handler's future, the encoded request and the encoded reply. Decoding shares the datagram,
    // as `Note` has its bytes so.
    assert!(with_stubs < 3.0 + SHARED, "{with_stubs} allocations per call with stubs");
}
