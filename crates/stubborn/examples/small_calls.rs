//! Small calls through stubs, drivers and sockets, client and server in one process on one thread:
//! for profilers that count instructions.
//!
//! ```text
//! cargo build --release -p stubborn --example small_calls
//! valgrind --tool=callgrind --toggle-collect='*measured*' target/release/examples/small_calls 128 20000
//! ```
//!
//! With `yield` as a third argument each handler gives way once before it answers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message;
use stubborn::{
    Answer, Call, Channel, ChannelBuilder, Encoded, Handling, Identity, Metadata, Method,
    Semantics, Server, Service, ServiceDescriptor, Shape,
};
use tokio::task::LocalSet;

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

static METHODS: [Method; 1] =
    [Method::new("cost.v1.Echo/Echo", Semantics::AtMostOnce, Shape::Unary)];
static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "cost.v1.Echo", methods: &METHODS, file_descriptor_set: &[] };

struct Echo {
    yields: bool,
}

/// As a generated stub does it.
struct EchoServer(Arc<Echo>);

impl Service for EchoServer {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, _: usize, request: Call<Encoded>) -> Handling {
        let id = DESCRIPTOR.methods[0].id();
        let (encoded, context) = request.into_parts();
        let call = match encoded.into_message::<Payload>(id) {
            Ok(message) => Call::new(message, context),
            Err(error) => return Box::pin(std::future::ready(Answer::unreadable(error))),
        };
        let handler = Arc::clone(&self.0);
        Box::pin(async move {
            if handler.yields {
                tokio::task::yield_now().await;
            }
            Answer::Reply(Encoded::new(id, &call.into_message()), Metadata::new())
        })
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual| arguments.next().map_or(usual, |text| text.parse().expect("a number"));
    let (in_flight, calls) = (number(128), number(100_000));
    let yields = arguments.next().is_some();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
        let trust = identity.trust().unwrap();
        let server = Server::bind("127.0.0.1:0")
            .identity(identity)
            .service(EchoServer(Arc::new(Echo { yields })))
            .start()
            .await
            .unwrap();
        let address = server.local_addr().to_string();
        let channel = ChannelBuilder::new(address).trust(trust).connect().await.unwrap();
        run(channel.clone(), in_flight, 10_000).await;
        let began = Instant::now();
        measured(channel, in_flight, calls).await;
        println!("{:.0} ns per call", began.elapsed().as_nanos() as f64 / calls as f64);
    });
}

#[inline(never)]
async fn measured(channel: Channel, in_flight: usize, calls: usize) {
    run(channel, in_flight, calls).await;
}

async fn run(channel: Channel, in_flight: usize, calls: usize) {
    let left = Rc::new(std::cell::Cell::new(calls));
    let tasks = LocalSet::new();
    for _ in 0..in_flight {
        let (channel, left) = (channel.clone(), Rc::clone(&left));
        tasks.spawn_local(async move {
            let request = Payload { data: vec![0x5a; 64].into() };
            while left.get() > 0 {
                left.set(left.get() - 1);
                let reply: Payload = channel.unary(&METHODS[0], &request).await.unwrap();
                assert_eq!(reply.data.len(), 64);
            }
        });
    }
    tasks.await;
}
