//! Calls of stubs as calls of gRPC.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use stubborn_core::rpc::Balancing;
use stubborn_core::service::{
    BoxFuture, CallError, CallState, Caller, Encoded, IncomingReply, Metadata, Method, NotExecuted,
    Outcome, OutgoingCall, Port,
};
use stubborn_core::session::{CallId, NotExecutedReason as Reason};
use stubborn_rope::Rope;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Request;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;

use super::ClientConfig;
use super::again::{Attempts, Next, PREVIOUS_ATTEMPTS};
use super::outcome::{Attempt, Gate, failed, never_sent, unknown, unseen};
use super::pool::{NoPlace, Place, Pool, Wanted};
use super::stream::ClientPort;
use crate::codec::RawCodec;
use crate::words;

/// The way to a service of gRPC: its servers, each with a connection that is made anew when it breaks.
#[derive(Clone)]
pub struct GrpcCaller {
    pub(super) pool: Arc<Pool>,
}

impl GrpcCaller {
    /// Connects with the first call.
    ///
    /// # Errors
    /// If the authority cannot stand in a URI.
    pub fn new(config: ClientConfig) -> io::Result<Self> {
        let pool = Pool::new(config);
        origin(&pool.config).map(|_| Self { pool })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// If none can be made, unless calls wait for a server.
    pub async fn ready(&self) -> io::Result<()> {
        let waits = self.pool.config.wait_for_ready;
        let place = self.pool.acquire(Wanted::Any(None), waits).await;
        place.map(|_| ()).map_err(|none| io::Error::other(none.why))
    }

    /// What keeps its servers up to date, without keeping it.
    pub fn targets(&self) -> Targets {
        Targets { pool: Arc::downgrade(&self.pool), unanswered: self.pool.unanswered() }
    }

    /// A client of gRPC over this connection. The gate learns when the server begins to answer.
    pub(super) fn grpc(&self, place: &Place, gate: &Arc<Gate>) -> Grpc<Sending> {
        let sending = Sending { sender: place.sender(), gate: gate.clone() };
        // It was looked at when the caller was made.
        let origin = origin(&self.pool.config).unwrap_or_default();
        Grpc::with_origin(sending, origin)
            .max_decoding_message_size(self.pool.config.message)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    /// Metadata and deadline of a call as headers, its path, and when it ends at the latest.
    pub(super) fn prepare(&self, call: &OutgoingCall) -> Result<Prepared, CallError> {
        let config = &self.pool.config;
        let refuse = |why: String| never_sent(&call.method, Reason::NeverSent, why);
        let mut headers = MetadataMap::new();
        let mut metadata = call.metadata.clone();
        (config.carry)(&mut metadata);
        words::headers_of(&metadata, &mut headers)
            .map_err(|key| refuse(format!("gRPC cannot carry the metadata {key:?}")))?;
        if call.request.body.len() > config.message {
            let why = "the request is larger than this client sends";
            return Err(never_sent(&call.method, Reason::TooLarge, why));
        }
        let path = PathAndQuery::try_from(format!("/{}", call.method.name()))
            .map_err(|_| refuse("the method's name cannot stand in a path".into()))?;
        let own = self.pool.policies.of(&config.service, &call.method);
        let longest = own.and_then(|own| own.timeout);
        let asked = [call.deadline, longest].into_iter().flatten().min();
        let timeout = (config.shorten)(asked, config.deadline);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let waits = call.wait_for_ready.or(own.and_then(|own| own.wait_for_ready));
        let waits = waits.unwrap_or(config.wait_for_ready);
        let ring_key = match &config.service.balancing {
            Balancing::RingHash { header, .. } => call.metadata.get(header).map(<[u8]>::to_vec),
            _ => None,
        };
        Ok(Prepared { headers, path, deadline, waits, ring_key })
    }

    /// Waits for a connection for a call.
    ///
    /// # Errors
    /// If there is none for it before its deadline.
    pub(super) async fn place(
        &self,
        method: &Method,
        prepared: &Prepared,
        there: Option<u64>,
    ) -> Result<Place, CallError> {
        let wanted = there.map_or(Wanted::Any(prepared.ring_key.as_deref()), Wanted::This);
        match until(prepared.deadline, self.pool.acquire(wanted, prepared.waits)).await {
            Some(Ok(place)) => Ok(place),
            Some(Err(NoPlace { reason, why })) => Err(never_sent(method, reason, why)),
            None => Err(never_sent(method, Reason::Deadline, "no server was reached in time")),
        }
    }

    async fn unary(
        self,
        call: OutgoingCall,
        mut prepared: Prepared,
    ) -> Result<IncomingReply, CallError> {
        let method = &call.method;
        let config = self.pool.config.clone();
        let mut attempts = Attempts::new(method, &config.service, &self.pool.policies);
        let (began, mut there) = (Instant::now(), None);
        loop {
            let place = match self.place(method, &prepared, there).await {
                Ok(place) => place,
                Err(error) => return Err(attempts.told(error)),
            };
            let Failure { error, end } = match self.attempt(&place, &call, &prepared).await {
                Ok(reply) => {
                    self.pool.succeeded();
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            let next = match end {
                End::Unsent if attempts.after_unsent() => continue,
                End::Unseen if attempts.after_unseen() => continue,
                End::Unsent | End::Late => None,
                End::Unseen => attempts.after(&error, &MetadataMap::new(), self.pool.is_alone()),
                End::Said(headers) => attempts.after(&error, &headers, self.pool.is_alone()),
            };
            let Some(Next { pause, drawn, there: same }) = next else {
                return Err(attempts.told(error));
            };
            let pause = if drawn { self.pool.drawn(pause) } else { pause };
            let at = Instant::now() + pause;
            let refused = matches!(error.outcome(), Outcome::NotExecuted(_)) && !drawn;
            let in_time = prepared
                .deadline
                .is_none_or(|end| at < end && !(refused && is_late(at - began, end - at)));
            if !self.pool.take_token() || !in_time {
                return Err(attempts.told(error));
            }
            there = same.then(|| place.server());
            drop(place);
            let before = attempts.made() - 1;
            prepared.headers.insert(PREVIOUS_ATTEMPTS, before.into());
            tokio::time::sleep_until(at).await;
        }
    }

    /// Sends a call once, and tells its server's place how that went.
    async fn attempt(
        &self,
        place: &Place,
        call: &OutgoingCall,
        prepared: &Prepared,
    ) -> Result<IncomingReply, Failure> {
        let Prepared { headers, path, deadline, .. } = prepared;
        let method = &call.method;
        let gate = Arc::new(Gate::default());
        let message = Once { message: Some(call.request.body.clone()), gate: gate.clone() };
        let request = request(message, headers, *deadline);
        let mut grpc = self.grpc(place, &gate);
        let sent = grpc.client_streaming(request, path.clone(), RawCodec);
        let status = match until(*deadline, sent).await {
            Some(Ok(response)) => {
                place.answered(false);
                let (headers, body, _) = response.into_parts();
                let mut metadata = Metadata::new();
                // What does not fit is left out: the reply is worth more.
                let _ = words::add_metadata(&mut metadata, &headers);
                let reply = Encoded::from_body(method.id(), body);
                return Ok(IncomingReply { reply, metadata, stream: None });
            }
            Some(Err(status)) => status,
            None if gate.shut() => {
                let why = "the connection had no room for it in time";
                return Err(Failure::new(never_sent(method, Reason::Deadline, why), End::Late));
            }
            None => {
                place.unanswered();
                return Err(Failure::new(unknown(method, "the deadline has passed"), End::Late));
            }
        };
        let attempt = Attempt::of(&gate, &status);
        place.note(attempt);
        Err(match attempt {
            Attempt::Unsent => {
                let error = never_sent(method, Reason::NeverSent, innermost(&status));
                Failure::new(error, End::Unsent)
            }
            Attempt::Unseen { leaving } => Failure::new(unseen(method, leaving), End::Unseen),
            Attempt::Seen => {
                let error = failed(method, &status);
                place.said(error.outcome());
                Failure::new(error, End::Said(status.metadata().clone()))
            }
        })
    }
}

/// Whether a call has spent more than three quarters of its time: a server that is overloaded would only do
/// its work for nothing.
fn is_late(spent: Duration, left: Duration) -> bool {
    spent > left * 3
}

/// An attempt that brought no reply.
struct Failure {
    error: CallError,
    end: End,
}

enum End {
    Unsent,
    Unseen,
    Late,
    /// Perhaps with headers of the server's.
    Said(MetadataMap),
}

impl Failure {
    fn new(error: CallError, end: End) -> Self {
        Self { error, end }
    }
}

/// The URI that calls begin with.
fn origin(config: &ClientConfig) -> io::Result<http::Uri> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", config.authority).parse().map_err(io::Error::other)
}

/// Tells a channel its servers, as long as it is there.
#[derive(Clone)]
pub struct Targets {
    pool: Weak<Pool>,
    unanswered: watch::Receiver<u64>,
}

impl Targets {
    /// These are the servers now, best first; an empty list changes nothing. Calls in flight at others end
    /// there. Returns whether the channel is still there.
    pub fn set(&self, targets: &[SocketAddr]) -> bool {
        let pool = self.pool.upgrade();
        if let Some(pool) = &pool {
            pool.set_targets(targets);
        }
        pool.is_some()
    }

    /// Waits until a call finds that no server can be reached. Returns false when the channel is gone.
    pub async fn unanswered(&mut self) -> bool {
        self.unanswered.changed().await.is_ok()
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Targets").finish_non_exhaustive()
    }
}

/// A connection, as tonic sends a request on it.
pub(super) struct Sending {
    sender: hyper::client::conn::http2::SendRequest<Body>,
    gate: Arc<Gate>,
}

impl tower_service::Service<http::Request<Body>> for Sending {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        const AGENT: &str = concat!("grpc-stubborn/", env!("CARGO_PKG_VERSION"));
        let agent = request.headers_mut().entry(header::USER_AGENT);
        agent.or_insert(HeaderValue::from_static(AGENT));
        let sent = self.sender.send_request(request);
        let gate = self.gate.clone();
        Box::pin(async move {
            let answer = sent.await;
            if answer.is_ok() {
                gate.answered();
            }
            answer
        })
    }
}

/// What a call is sent with.
pub(super) struct Prepared {
    pub(super) headers: MetadataMap,
    pub(super) path: PathAndQuery,
    pub(super) deadline: Option<Instant>,
    /// Whether it waits for a server that can be reached.
    pub(super) waits: bool,
    /// What chooses its server on a ring.
    pub(super) ring_key: Option<Vec<u8>>,
}

/// A request with its headers; the time that is left is told from now.
pub(super) fn request<S>(
    stream: S,
    headers: &MetadataMap,
    deadline: Option<Instant>,
) -> Request<S> {
    let mut request = Request::new(stream);
    *request.metadata_mut() = headers.clone();
    if let Some(at) = deadline {
        request.set_timeout(at.saturating_duration_since(Instant::now()));
    }
    request
}

/// The one message of a request.
pub(super) struct Once {
    pub(super) message: Option<Rope>,
    pub(super) gate: Arc<Gate>,
}

impl tokio_stream::Stream for Once {
    type Item = Rope;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Rope>> {
        // Behind a shut gate nobody waits any more: whoever polls is about to be dropped.
        if self.gate.pass() { Poll::Ready(self.message.take()) } else { Poll::Pending }
    }
}

pub(super) async fn until<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    match deadline {
        None => Some(future.await),
        Some(at) => tokio::time::timeout_at(at, future).await.ok(),
    }
}

/// The cause of causes: what stands around it says nothing.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    chain.last().unwrap_or(error).to_string()
}

impl Caller for GrpcCaller {
    /// Dropping the future cancels the call, which a server other than ours may take as a reason to stop
    /// its handler.
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        let this = self.clone();
        let prepared = self.prepare(&call);
        Box::pin(async move { this.unary(call, prepared?).await })
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        let why = "calls over gRPC have no number: name them by the metadata stubborn-call-id";
        let error = never_sent(method, Reason::NeverSent, why);
        Box::pin(std::future::ready(Err(error)))
    }

    fn abandon(&self, _: CallId) {}

    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        let prepared = self.prepare(&call)?;
        Ok(ClientPort::open(self.clone(), call, prepared))
    }

    fn outcome(&self, _: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        let why = NotExecuted::because(Reason::NeverSent, "gRPC cannot be asked for outcomes");
        let error = CallError::new("a question for an outcome", Outcome::NotExecuted(why));
        Box::pin(std::future::ready(Err(error)))
    }
}

impl fmt::Debug for GrpcCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrpcCaller({})", self.pool.config.authority)
    }
}
