//! Calls of stubs as calls of gRPC.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use stubborn_core::service::{
    BoxFuture, CallError, CallState, Caller, Encoded, IncomingReply, Metadata, Method, NotExecuted,
    Outcome, OutgoingCall, Port,
};
use stubborn_core::session::{CallId, NotExecutedReason as Reason};
use stubborn_rope::Rope;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::ClientConfig;
use super::connect::Connector;
use super::outcome::{Gate, failed, never_sent, unknown};
use super::stream::ClientPort;
use crate::codec::RawCodec;
use crate::words;

/// The first pause before a call that waits for a server asks again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The way to a gRPC server: one connection, made anew when it breaks.
#[derive(Clone)]
pub struct GrpcCaller {
    pub(super) channel: Channel,
    pub(super) config: Arc<ClientConfig>,
}

impl GrpcCaller {
    /// Waits for a connection.
    ///
    /// # Errors
    /// If none can be made.
    pub async fn connect(config: ClientConfig) -> io::Result<Self> {
        let (endpoint, connector) = Self::parts(config)?;
        let config = connector.0.clone();
        let mut pause = PAUSE.0;
        loop {
            match endpoint.connect_with_connector(connector.clone()).await {
                Ok(channel) => return Ok(Self { channel, config }),
                Err(_) if config.wait_for_ready => wait(&mut pause).await,
                Err(error) => return Err(io::Error::other(innermost(&error))),
            }
        }
    }

    /// Connects with the first call.
    ///
    /// # Errors
    /// If the authority cannot stand in a URI.
    pub fn lazy(config: ClientConfig) -> io::Result<Self> {
        let (endpoint, connector) = Self::parts(config)?;
        let config = connector.0.clone();
        Ok(Self { channel: endpoint.connect_with_connector_lazy(connector), config })
    }

    fn parts(config: ClientConfig) -> io::Result<(Endpoint, Connector)> {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", config.authority));
        let endpoint = endpoint
            .map_err(io::Error::other)?
            .http2_keep_alive_interval(Duration::from_secs(60))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        Ok((endpoint, Connector(Arc::new(config))))
    }

    pub(super) fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone())
            .max_decoding_message_size(self.config.message)
            .accept_compressed(CompressionEncoding::Gzip)
    }

    /// Metadata and deadline of a call as headers, its path, and when it ends at the latest.
    pub(super) fn prepare(&self, call: &OutgoingCall) -> Result<Prepared, CallError> {
        let refuse = |why: String| never_sent(&call.method, Reason::NeverSent, why);
        let mut headers = MetadataMap::new();
        let mut metadata = call.metadata.clone();
        (self.config.carry)(&mut metadata);
        words::headers_of(&metadata, &mut headers)
            .map_err(|key| refuse(format!("gRPC cannot carry the metadata {key:?}")))?;
        if call.request.body.len() > self.config.message {
            let why = "the request is larger than this client sends";
            return Err(never_sent(&call.method, Reason::TooLarge, why));
        }
        let path = PathAndQuery::try_from(format!("/{}", call.method.name()))
            .map_err(|_| refuse("the method's name cannot stand in a path".into()))?;
        let timeout = (self.config.shorten)(call.deadline, self.config.deadline);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Prepared { headers, path, deadline })
    }

    async fn unary(
        self,
        call: OutgoingCall,
        prepared: Prepared,
    ) -> Result<IncomingReply, CallError> {
        let Prepared { headers, path, deadline } = prepared;
        let method = &call.method;
        let waits = call.wait_for_ready.unwrap_or(self.config.wait_for_ready);
        let mut pause = PAUSE.0;
        loop {
            let gate = Arc::new(Gate::default());
            let message = Once { message: Some(call.request.body.clone()), gate: gate.clone() };
            let request = request(message, &headers, deadline);
            let mut grpc = self.grpc();
            let attempt = async {
                grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
                grpc.client_streaming(request, path.clone(), RawCodec).await
            };
            let status = match until(deadline, attempt).await {
                Some(Ok(response)) => {
                    let (headers, body, _) = response.into_parts();
                    let mut metadata = Metadata::new();
                    // What does not fit is left out: the reply is worth more.
                    let _ = words::add_metadata(&mut metadata, &headers);
                    let reply = Encoded::from_body(method.id(), body);
                    return Ok(IncomingReply { reply, metadata, stream: None });
                }
                Some(Err(status)) => Some(status),
                None => None,
            };
            match (gate.shut(), status) {
                (true, None) => {
                    return Err(never_sent(
                        method,
                        Reason::Deadline,
                        "no server was reached in time",
                    ));
                }
                (true, Some(_)) if waits => {
                    if until(deadline, wait(&mut pause)).await.is_none() {
                        let why = "no server was reached in time";
                        return Err(never_sent(method, Reason::Deadline, why));
                    }
                }
                (true, Some(status)) => {
                    return Err(never_sent(method, Reason::NeverSent, innermost(&status)));
                }
                (false, None) => return Err(unknown(method, "the deadline has passed")),
                (false, Some(status)) => return Err(failed(method, &status)),
            }
        }
    }
}

/// What a call is sent with.
pub(super) struct Prepared {
    pub(super) headers: MetadataMap,
    pub(super) path: PathAndQuery,
    pub(super) deadline: Option<Instant>,
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
struct Once {
    message: Option<Rope>,
    gate: Arc<Gate>,
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

/// Waits, and the next time longer.
async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(PAUSE.1);
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
        write!(f, "GrpcCaller({})", self.config.authority)
    }
}
