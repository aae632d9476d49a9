//! Metrics over plain HTTP/1.1, for Prometheus.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use stubborn_core::service::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::PROMETHEUS_TYPE;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 16;

/// How long a connection may take, for one request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD: usize = 8 << 10;

/// Where the numbers are.
const PATH: &str = "/metrics";

/// Gives the text; `None` once there is nothing to tell any more.
pub(crate) type Telling = Arc<dyn Fn() -> BoxFuture<Option<String>> + Send + Sync>;

/// An open port, closed when this is dropped.
pub(crate) struct Exporter {
    local: SocketAddr,
    task: AbortHandle,
}

/// A port that is bound, and not answered yet.
pub(crate) struct Bound(TcpListener, SocketAddr);

impl Bound {
    pub(crate) async fn at(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok(Self(listener, local))
    }

    /// Answers from now on, on the runtime of the caller.
    pub(crate) fn open(self, telling: Telling) -> Exporter {
        let task = tokio::spawn(accept(self.0, telling)).abort_handle();
        Exporter { local: self.1, task }
    }
}

impl Exporter {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, telling: Telling) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, Arc::clone(&telling), permit))),
            // Of the connection, or for want of descriptors: others may come through.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, telling: Telling, _permit: OwnedSemaphorePermit) {
    let service = service_fn(|request| answer(request, Arc::clone(&telling)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // An error concerns that client, which sees it itself.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

async fn answer(
    request: Request<Incoming>,
    telling: Telling,
) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let refusal = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, PATH) => None,
        (_, PATH) => Some(StatusCode::METHOD_NOT_ALLOWED),
        _ => Some(StatusCode::NOT_FOUND),
    };
    if let Some(status) = refusal {
        *response.status_mut() = status;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    match telling().await {
        Some(text) => {
            let kind = HeaderValue::from_static(PROMETHEUS_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            *response.body_mut() = Full::from(text);
        }
        None => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}
