//! A service written by hand, whose handlers tests can hold and watch, and servers for it.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

#[cfg(feature = "replica")]
pub mod group;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;
use stubborn::{
    Answer, Call, CallError, Channel, ChannelBuilder, Encoded, Handling, Identity, Limits,
    Metadata, Method, MethodId, Semantics, Server, ServerHandle, Service, ServiceDescriptor, Shape,
    Status, Trust, UnaryCall,
};
use tokio::sync::{Semaphore, watch};

/// The longest that anything here may take; nothing waits for it unless it fails.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Request and reply of every method.
#[derive(Clone, PartialEq, Message)]
pub struct Note {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
    #[prost(uint64, tag = "2")]
    pub number: u64,
}

impl Note {
    pub fn number(number: u64) -> Self {
        Self { number, data: bytes::Bytes::new() }
    }

    pub fn data(data: impl Into<bytes::Bytes>) -> Self {
        Self { number: 0, data: data.into() }
    }
}

const fn method(name: &'static str, semantics: Semantics) -> Method {
    Method::new(name, semantics, Shape::Unary)
}

pub const ECHO: Method = method("lab.v1.Lab/Echo", Semantics::AtMostOnce);
pub const COUNT: Method = method("lab.v1.Lab/Count", Semantics::AtMostOnce);
pub const LOOK: Method = method("lab.v1.Lab/Look", Semantics::Read);
pub const TELL: Method = method("lab.v1.Lab/Tell", Semantics::Maybe);
pub const HOLD: Method = method("lab.v1.Lab/Hold", Semantics::AtMostOnce);
pub const HOLD_READ: Method = method("lab.v1.Lab/HoldRead", Semantics::Read);
pub const PANIC: Method = method("lab.v1.Lab/Panic", Semantics::AtMostOnce);
pub const REFUSE: Method = method("lab.v1.Lab/Refuse", Semantics::AtMostOnce);
pub const TIME_LEFT: Method = method("lab.v1.Lab/TimeLeft", Semantics::Read);
pub const FORWARD: Method = method("lab.v1.Lab/Forward", Semantics::AtMostOnce);
pub const SIZE: Method = method("lab.v1.Lab/Size", Semantics::AtMostOnce);
pub const WHO: Method = method("lab.v1.Lab/Who", Semantics::AtMostOnce);
/// Answers with the name of the thread that runs the handler.
pub const WHERE: Method = method("lab.v1.Lab/Where", Semantics::AtMostOnce);

static DESCRIPTOR: ServiceDescriptor = ServiceDescriptor {
    name: "lab.v1.Lab",
    methods: &[
        ECHO, COUNT, LOOK, TELL, HOLD, HOLD_READ, PANIC, REFUSE, TIME_LEFT, FORWARD, WHO, SIZE,
        WHERE,
    ],
    file_descriptor_set: &[],
};

/// What tests see of the service. It survives the server.
#[derive(Clone)]
pub struct Lab(Arc<State>);

pub struct State {
    pub counted: AtomicU64,
    pub told: watch::Sender<u64>,
    /// Handlers of `Hold` and `HoldRead` that began, ended with a reply, and were dropped.
    pub began: watch::Sender<u64>,
    pub ended: watch::Sender<u64>,
    pub dropped: watch::Sender<u64>,
    /// Each permit lets one held handler go on.
    pub gate: Semaphore,
    /// Where `Forward` forwards to.
    pub next: std::sync::OnceLock<Channel>,
}

impl std::ops::Deref for Lab {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl Lab {
    pub fn new() -> Self {
        Self(Arc::new(State {
            counted: AtomicU64::new(0),
            told: watch::Sender::new(0),
            began: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            dropped: watch::Sender::new(0),
            gate: Semaphore::new(0),
            next: std::sync::OnceLock::new(),
        }))
    }

    pub fn counted(&self) -> u64 {
        self.0.counted.load(Ordering::SeqCst)
    }

    async fn hold(&self, note: Note) -> Result<Note, Status> {
        struct Dropped<'a>(&'a Lab, bool);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                let counter = if self.1 { &self.0.ended } else { &self.0.dropped };
                counter.send_modify(|n| *n += 1);
            }
        }
        let mut guard = Dropped(self, false);
        self.began.send_modify(|n| *n += 1);
        self.gate.acquire().await.expect("the gate is never closed").forget();
        guard.1 = true;
        Ok(note)
    }

    async fn handle(self, method: usize, call: Call<Note>) -> Result<Note, Status> {
        let (note, context) = call.into_parts();
        match DESCRIPTOR.methods[method].name() {
            "lab.v1.Lab/Echo" => Ok(note),
            "lab.v1.Lab/Count" => {
                Ok(Note::number(self.0.counted.fetch_add(1, Ordering::SeqCst) + 1))
            }
            "lab.v1.Lab/Look" => Ok(Note::number(self.counted())),
            "lab.v1.Lab/Tell" => {
                self.told.send_modify(|told| *told += note.number);
                Ok(Note::default())
            }
            "lab.v1.Lab/Hold" | "lab.v1.Lab/HoldRead" => self.hold(note).await,
            "lab.v1.Lab/Panic" => panic!("this handler panics, as its test wants"),
            "lab.v1.Lab/Refuse" => Err(Status::failed_precondition("no such luck")),
            "lab.v1.Lab/TimeLeft" => {
                let left = context.time_left().map_or(u64::MAX, |left| left.as_millis() as u64);
                Ok(Note::number(left))
            }
            "lab.v1.Lab/Forward" => {
                let next = self.next.get().expect("the test sets the next server");
                let reply = next.unary::<Note, Note>(&TIME_LEFT, &note).await;
                reply.map_err(|error| Status::internal(error.to_string()))
            }
            "lab.v1.Lab/Who" => {
                Ok(Note::data(context.peer.identity.map(|id| id.to_vec()).unwrap_or_default()))
            }
            "lab.v1.Lab/Size" => Ok(Note::number(note.data.len() as u64)),
            "lab.v1.Lab/Where" => {
                let thread = std::thread::current();
                Ok(Note::data(thread.name().unwrap_or_default().to_owned()))
            }
            other => unreachable!("{other}"),
        }
    }
}

impl Service for Lab {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, method: usize, request: Call<Encoded>) -> Handling {
        let lab = self.clone();
        Box::pin(async move {
            let id: MethodId = DESCRIPTOR.methods[method].id();
            let (encoded, context) = request.into_parts();
            let call = match encoded.decode::<Note>(id) {
                Ok(note) => Call::new(note, context),
                Err(error) => return Answer::unreadable(error),
            };
            match lab.handle(method, call).await {
                Ok(note) => Answer::Reply(Encoded::new(id, &note), Metadata::new()),
                Err(status) => Answer::Status(status),
            }
        })
    }
}

/// A server's lasting part: what a restarted server has in common with the one before.
#[derive(Clone)]
pub struct Site {
    pub identity: Identity,
    pub lab: Lab,
    pub limits: Limits,
    pub drain: Duration,
}

impl Site {
    pub fn new() -> Self {
        let identity = Identity::self_signed(["localhost", "127.0.0.1", "10.99.0.1"]).unwrap();
        Self { identity, lab: Lab::new(), limits: Limits::default(), drain: LIMIT }
    }

    pub async fn start(&self) -> ServerHandle {
        self.start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(&self, address: SocketAddr) -> ServerHandle {
        Server::bind(address)
            .identity(self.identity.clone())
            .service(self.lab.clone())
            .limits(self.limits.clone())
            .drain_timeout(self.drain)
            .start()
            .await
            .unwrap()
    }

    pub fn trust(&self) -> Trust {
        self.identity.trust().unwrap()
    }

    pub fn to(&self, server: &ServerHandle) -> ChannelBuilder {
        ChannelBuilder::new(server.local_addr().to_string()).trust(self.trust())
    }

    pub async fn channel(&self, server: &ServerHandle) -> Channel {
        soon(self.to(server).connect()).await.unwrap()
    }
}

/// A unary call of the lab.
pub fn call(channel: &Channel, method: &Method, note: &Note) -> UnaryCall<Note> {
    channel.unary(method, note)
}

pub async fn number(channel: &Channel, method: &Method) -> Result<u64, CallError> {
    soon(call(channel, method, &Note::default()).into_future()).await.map(|note| note.number)
}

/// Fails the test instead of hanging it.
pub async fn soon<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("nothing happened for {LIMIT:?}"),
    }
}

/// Waits until a counter has reached `n`.
pub async fn reaches(counter: &watch::Sender<u64>, n: u64) {
    soon(counter.subscribe().wait_for(|value| *value >= n)).await.unwrap();
}

/// What comes back over TCP for these bytes, until the server closes.
pub async fn http_ask(address: SocketAddr, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // A request that is refused early is not read to its end.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The answer to a request for this path.
pub async fn http_get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    soon(http_ask(address, request.as_bytes())).await
}
