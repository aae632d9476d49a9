//! Connections to a gRPC server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::body::Body;

use super::ClientConfig;
use crate::noticed::{Notice, Noticed};

/// How long a connection may be silent before its server is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(60);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that a call, and a connection, may have sent that were not taken.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection that its server has answered.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    /// Ends when it takes no more requests.
    pub(super) end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Connects to one address, and waits until the server has begun HTTP/2 as well: what is sent before is
/// lost where a server that is leaving never took the connection from the system.
pub(super) async fn connect(
    config: &ClientConfig,
    address: SocketAddr,
) -> Result<Connection, String> {
    match tokio::time::timeout(config.attempt_timeout, attempt(config, address)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address} does not answer")),
    }
}

async fn attempt(config: &ClientConfig, address: SocketAddr) -> io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match &config.tls {
        None => begin(stream).await,
        Some((tls, name)) => {
            begin(TlsConnector::from(tls.now()).connect(name.clone(), stream).await?).await
        }
    }
}

async fn begin<S>(stream: S) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (first, heard) = oneshot::channel();
    let stream = TokioIo::new(Noticed::new(stream, First(Some(first))));
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let mut end: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        // How it ended is for its calls to say.
        let _ = connection.await;
    });
    tokio::select! {
        Ok(()) = heard => Ok(Connection { sender, end }),
        () = &mut end => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

/// Is told when the first bytes come.
struct First(Option<oneshot::Sender<()>>);

impl Notice for First {
    fn received(&mut self, _: usize) {
        if let Some(first) = self.0.take() {
            // An error means that nobody waits any more: it took too long.
            let _ = first.send(());
        }
    }
}
