//! Connections: taken, secured, served with HTTP/2, and let go.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use stubborn_core::service::Peer;
use stubborn_tls::{peer_identity, rustls::ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::call::{Caller, serve};
use super::lingering::Lingering;
use super::traffic::Open;
use super::{Inner, Security, Stage};
use crate::noticed::Noticed;

/// How long a connection may take to be secured.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(60);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection may take to say its first byte once the door drains.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The pause after the system gave no connection: most likely it has no descriptor left.
const NONE_LEFT: Duration = Duration::from_millis(50);
/// Calls of one connection at once.
const STREAMS: u32 = 1_024;
/// Bytes that a call, and a connection, may have sent that were not taken.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of the headers of a request.
const HEADERS: u32 = 32 << 10;

/// Takes connections until the door drains, and then sees those that are there to their end.
///
/// They are told (GOAWAY) once the port is closed: whoever comes back at once is refused by the system,
/// which proves that nothing of its calls ran, instead of waiting there for nobody.
pub(super) async fn accept(listener: TcpListener, security: Security, door: Arc<Inner>) {
    let (leave, leaving) = watch::channel(false);
    let mut taken = Taken {
        room: Arc::new(Semaphore::new(door.limits.connections.min(Semaphore::MAX_PERMITS))),
        connections: JoinSet::new(),
        security,
        leaving,
        door,
    };
    let mut stage = taken.door.stage.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = taken.connections.join_next() => continue,
            _ = stage.wait_for(|stage| *stage > Stage::Open) => break,
        };
        match accepted {
            Ok((stream, peer)) => taken.take(stream, peer),
            Err(_) => tokio::time::sleep(NONE_LEFT).await,
        }
    }
    // Those who are connected as far as they know have sent their calls already.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                taken.take(stream, peer);
            }
        }
    }
    leave.send_replace(true);
    while taken.connections.join_next().await.is_some() {}
}

/// The connections of a door.
struct Taken {
    room: Arc<Semaphore>,
    connections: JoinSet<()>,
    security: Security,
    leaving: watch::Receiver<bool>,
    door: Arc<Inner>,
}

impl Taken {
    /// Where there is no room the connection is closed at once.
    fn take(&mut self, stream: TcpStream, peer: SocketAddr) {
        let door = self.door.clone();
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return door.counts.refused();
        };
        let stream = Noticed::new(Lingering::new(stream), Open::count(door.counts.clone()));
        let (security, leaving) = (self.security.clone(), self.leaving.clone());
        let connection = connection(stream, peer, security, leaving, door);
        self.connections.spawn(async move {
            // How it ended is for its calls to say.
            let _ = connection.await;
            drop(permit);
        });
    }
}

async fn connection(
    stream: Noticed<Lingering<TcpStream>, Open>,
    peer: SocketAddr,
    security: Security,
    mut leaving: watch::Receiver<bool>,
    door: Arc<Inner>,
) -> io::Result<()> {
    let socket = stream.get_ref().get_ref();
    socket.set_nodelay(true)?;
    let silent = async {
        let _ = leaving.wait_for(|leaving| *leaving).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    let config = tokio::select! {
        config = tokio::time::timeout(HANDSHAKE, config_for(socket, security)) => config??,
        () = silent => return Ok(()),
    };
    let Some(config) = config else {
        let peer = Peer { address: Some(peer), ..Peer::default() };
        return http(stream, peer, leaving, door).await;
    };
    let secured = TlsAcceptor::from(config).accept(stream);
    let secured = tokio::time::timeout(HANDSHAKE, secured).await??;
    let mut peer = Peer { address: Some(peer), ..Peer::default() };
    if let Some(shown) = secured.get_ref().1.peer_certificates().and_then(peer_identity) {
        (peer.identity, peer.owner) = (Some(shown.key_digest), Some(shown.owner));
        peer.names = shown.names;
    }
    http(secured, peer, leaving, door).await
}

/// The configuration of TLS for a connection; `None` if it is to be plain.
async fn config_for(
    stream: &TcpStream,
    security: Security,
) -> io::Result<Option<Arc<ServerConfig>>> {
    /// The type of a record with a ClientHello (RFC 8446 §5.1). HTTP/2 begins with "PRI".
    const HANDSHAKE_RECORD: u8 = 22;
    match security {
        Security::Tls(config) => Ok(Some(config)),
        Security::Plain => Ok(None),
        Security::Either(config) => {
            let mut first = [0];
            let found = stream.peek(&mut first).await?;
            Ok((found == 1 && first[0] == HANDSHAKE_RECORD).then_some(config))
        }
    }
}

async fn http<S>(
    stream: S,
    peer: Peer,
    mut leaving: watch::Receiver<bool>,
    door: Arc<Inner>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stage = door.stage.clone();
    let caller = Caller { door, peer: Arc::new(peer) };
    let answer = service_fn(move |request| {
        let caller = caller.clone();
        async move { Ok::<_, std::convert::Infallible>(serve(caller, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        _ = leaving.wait_for(|leaving| *leaving) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => ended.map_err(io::Error::other),
        _ = stage.wait_for(|stage| *stage == Stage::Closed) => Ok(()),
    }
}
