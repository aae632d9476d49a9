//! Connections without a node on top: whoever holds them says what he likes, as a client or as a server.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use stubborn_core::datagram::{Datagram, DatagramError, DatagramsExt};
use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_core::transport::connection::{Chunk, ConnectionEvent, MessageId};
use stubborn_core::transport::crypto::ClientTls;
use stubborn_core::transport::endpoint::{
    ConnectionHandle, Ecn, Endpoint, EndpointConfig, Received,
};

use crate::world::{SimSocket, World};

/// Connections from one socket to one server, or to one socket from anywhere.
pub(super) struct Lines {
    world: World,
    socket: SimSocket,
    endpoint: Endpoint,
    /// Of a client: where to.
    server: Option<Server>,
    up: Vec<ConnectionHandle>,
    partial: BTreeMap<(ConnectionHandle, MessageId), Vec<u8>>,
    heard: VecDeque<Heard>,
}

/// A message that has come.
pub(super) struct Heard {
    pub(super) line: ConnectionHandle,
    /// The incarnation that the peer named when the connection was made; a client names none.
    pub(super) from: Option<u64>,
    pub(super) message: Vec<u8>,
}

/// Who is dialled.
struct Server {
    address: SocketAddr,
    name: String,
    tls: Arc<dyn ClientTls>,
}

impl Lines {
    /// A client's.
    pub(super) fn new(world: &World, host: &str, server: &str, mut random: Random) -> Self {
        let socket = world.socket(host);
        let state = world.state();
        let server = state.host(state.names[server]);
        let config = EndpointConfig { max_probe: 1_200, ..server.endpoint.clone() };
        let (address, name) = (server.address, server.name.clone());
        let tls = Arc::clone(&state.host(state.names[host]).tls.anonymous);
        drop(state);
        let endpoint = Endpoint::new(config, None, random.fork(), None);
        Self::over(world, socket, endpoint, Some(Server { address, name, tls }))
    }

    /// Those of a process that stands in a server's place, with the server's certificate.
    pub(super) fn in_place_of(
        world: &World,
        server: &str,
        incarnation: u64,
        replica: bool,
        mut random: Random,
    ) -> Self {
        let socket = world.take_place_of(server, incarnation);
        let (config, tls, _) = world.identity_of(server);
        let config = EndpointConfig { max_probe: 1_200, ..config };
        let mut endpoint = Endpoint::new(config, Some(tls), random.fork(), Some(incarnation));
        if replica {
            endpoint.serve_group();
        }
        Self::over(world, socket, endpoint, None)
    }

    fn over(world: &World, socket: SimSocket, endpoint: Endpoint, server: Option<Server>) -> Self {
        Self {
            world: world.clone(),
            socket,
            endpoint,
            server,
            up: Vec::new(),
            partial: BTreeMap::new(),
            heard: VecDeque::new(),
        }
    }

    /// Begins another connection; it is in [`Self::up`] once it stands.
    pub(super) fn dial(&mut self) {
        let Some(Server { address, name, tls }) = &self.server else { return };
        let now = self.world.now();
        // A name that TLS does not take, or too many connections: then there is none.
        let _ = self.endpoint.connect(now, *address, name, tls, None, None);
    }

    /// The connections that stand, the oldest first.
    pub(super) fn up(&self) -> &[ConnectionHandle] {
        &self.up
    }

    /// Closes every connection. What was said on them and is still under way is not said again.
    pub(super) fn hang_up(&mut self) {
        let now = self.world.now();
        for line in self.up.drain(..) {
            if let Some(connection) = self.endpoint.connection_mut(line) {
                connection.close(now, 0, Bytes::new());
            }
        }
        self.partial.clear();
        self.heard.clear();
    }

    /// Sends a message; false if the connection is no more.
    pub(super) fn say(&mut self, line: ConnectionHandle, message: Bytes) -> bool {
        let connection = self.endpoint.connection_mut(line);
        connection.is_some_and(|connection| connection.send(message, Bytes::new()).is_ok())
    }

    /// The next message that came.
    pub(super) fn hear(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// Keeps the connections going until a time.
    pub(super) async fn run_until(&mut self, end: Instant) {
        loop {
            self.send_all().await;
            self.take_events();
            let now = self.world.now();
            if self.endpoint.wants_to_send() {
                continue;
            }
            if now >= end {
                return;
            }
            let due = self.endpoint.poll_timeout().map_or(end, |due| due.min(end));
            let Ok(came) = receive_or(&self.world, &self.socket, due).await else {
                // Its place was taken: nothing comes there any more.
                self.world.sleep(end.since(now)).await;
                return;
            };
            let now = self.world.now();
            match came {
                Some(datagram) => self.endpoint.handle(now, received(&datagram)),
                None if self.endpoint.poll_timeout().is_some_and(|due| due <= now) => {
                    self.endpoint.handle_timeout(now);
                }
                None => {}
            }
        }
    }

    async fn send_all(&mut self) {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let now = self.world.now();
            let Some(transmit) = self.endpoint.poll_transmit(now, &mut buffer) else { return };
            let size = transmit.segment.unwrap_or(transmit.size).max(1);
            for segment in buffer[..transmit.size].chunks(size) {
                // A datagram that is refused is a datagram lost.
                let _ = self.socket.send_to(segment, transmit.to).await;
            }
        }
    }

    fn take_events(&mut self) {
        while let Some((line, event)) = self.endpoint.poll_event() {
            match event {
                ConnectionEvent::Connected => {
                    self.up.push(line);
                    let now = self.world.now();
                    if let Some(connection) = self.endpoint.connection_mut(line) {
                        connection.keep_alive(now, true);
                    }
                }
                ConnectionEvent::MessagesReadable => self.read(line),
                ConnectionEvent::Lost(_) => {
                    self.up.retain(|other| *other != line);
                    self.partial.retain(|(other, _), _| *other != line);
                }
                _ => {}
            }
        }
    }

    fn read(&mut self, line: ConnectionHandle) {
        let Self { endpoint, partial, heard, .. } = self;
        let Some(connection) = endpoint.connection_mut(line) else { return };
        let from = connection.peer_incarnation();
        while let Some(message) = connection.accept_message() {
            partial.insert((line, message), Vec::new());
        }
        let open: Vec<_> = partial.keys().filter(|(other, _)| *other == line).copied().collect();
        for key in open {
            loop {
                match connection.read(key.1) {
                    Chunk::Data { data, end } => {
                        let bytes = partial.get_mut(&key).expect("the message is open");
                        bytes.extend_from_slice(&data);
                        if end {
                            let message = partial.remove(&key).expect("the message is open");
                            heard.push_back(Heard { line, from, message });
                            break;
                        }
                    }
                    Chunk::Blocked => break,
                    _ => {
                        partial.remove(&key);
                        break;
                    }
                }
            }
        }
    }
}

/// The next datagram; none if none comes in time.
async fn receive_or(
    world: &World,
    socket: &SimSocket,
    due: Instant,
) -> Result<Option<Datagram>, DatagramError> {
    let mut receive = pin!(socket.recv_from());
    let mut timeout = pin!(world.sleep(due.since(world.now())));
    std::future::poll_fn(|cx| match receive.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.map(Some)),
        Poll::Pending => timeout.as_mut().poll(cx).map(|()| Ok(None)),
    })
    .await
}

fn received(datagram: &Datagram) -> Received {
    Received {
        from: datagram.from,
        local: None,
        ecn: Ecn::NotEct,
        data: BytesMut::from(&datagram.data[..]),
    }
}
