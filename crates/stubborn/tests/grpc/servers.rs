//! A client of several servers of gRPC: calls are spread, servers come and go, and what no server has
//! looked at is sent again.

use std::io;
use std::net::SocketAddr;

use stubborn::naming::{Resolver, Resolving};
use stubborn::service_config::Balancing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn uri(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("grpc://{}", addresses.join(","))
}

async fn client(builder: ChannelBuilder) -> KindsClient {
    KindsClient::new(soon(builder.connect()).await.unwrap())
}

impl World {
    async fn plain() -> Self {
        Self::new(Grpc::new().plain()).await
    }

    fn local(&self) -> SocketAddr {
        self.server.local_addr()
    }
}

/// Calls until each of these has run one more, and returns how many it took.
async fn until_each_runs(client: &KindsClient, worlds: &[&World]) -> u64 {
    let before: Vec<_> = worlds.iter().map(|world| world.ran()).collect();
    let mut calls = 0;
    soon(async {
        while worlds.iter().zip(&before).any(|(world, before)| world.ran() == *before) {
            client.look(text("x")).await.unwrap();
            calls += 1;
        }
    })
    .await;
    calls
}

#[tokio::test]
async fn calls_over_grpc_take_turns_among_servers_and_a_dead_one_is_left_until_it_is_back() {
    let [first, second, third] = [World::plain().await, World::plain().await, World::plain().await];
    let addresses = [first.local(), second.local(), third.local()];
    let builder = ChannelBuilder::new(uri(&addresses)).balancing(Balancing::RoundRobin);
    let client = client(builder.backoff(Duration::from_millis(1), Duration::from_millis(5))).await;
    until_each_runs(&client, &[&first, &second, &third]).await;
    let before = [first.ran(), second.ran(), third.ran()];
    for _ in 0..9 {
        soon(client.plain(text("x"))).await.unwrap();
    }
    let ran = [first.ran() - before[0], second.ran() - before[1], third.ran() - before[2]];
    assert_eq!(ran, [3, 3, 3]);
    let dead = addresses[1];
    soon(second.server.kill()).await;
    for _ in 0..9 {
        // One that meets the connection of before is made again.
        soon(client.look(text("x"))).await.unwrap();
    }
    let back = World::at(dead, Grpc::new().plain(), |server| server).await;
    until_each_runs(&client, &[&back, &first, &third]).await;
}

/// Tells the lists that it is given.
struct Told(watch::Receiver<Vec<SocketAddr>>);

impl Resolver for Told {
    fn next(&mut self) -> Resolving<'_> {
        Box::pin(async {
            self.0.changed().await.map_err(io::Error::other)?;
            Ok(self.0.borrow_and_update().clone())
        })
    }
}

#[tokio::test]
async fn a_server_that_a_resolver_tells_of_is_used_and_one_that_it_strikes_off_is_not() {
    let [old, new] = [World::plain().await, World::plain().await];
    let list = watch::Sender::new(vec![old.local()]);
    let mut told = list.subscribe();
    told.mark_changed();
    let builder = ChannelBuilder::new("grpc://service.test").resolver(Told(told));
    let client = client(builder).await;
    soon(client.plain(text("x"))).await.unwrap();
    assert_eq!((old.ran(), new.ran()), (1, 0));
    list.send_replace(vec![new.local()]);
    until_each_runs(&client, &[&new]).await;
    let before = old.ran();
    soon(client.plain(text("x"))).await.unwrap();
    assert_eq!(old.ran(), before);
}

// --- what no server has looked at ----------------------------------------------------------------

/// What a server that is none does with a connection, once a request has come.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Closes it before it has begun.
    Hang,
    /// Says that it looks at no stream any more.
    GoAway,
    /// Refuses each stream.
    Refuse,
    /// Closes it without a word.
    Break,
}

/// Does as it is told with one connection after the other, and passes further ones on to a server.
struct Fake {
    address: SocketAddr,
    /// Connections, and streams on those that it did not pass on.
    seen: Arc<watch::Sender<(usize, usize)>>,
}

impl Fake {
    async fn new(acts: &'static [Act], server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(watch::Sender::new((0, 0)));
        let counts = seen.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let connection = counts.borrow().0;
                counts.send_modify(|seen| seen.0 += 1);
                let counts = counts.clone();
                tokio::spawn(async move {
                    // How a connection ends is no matter here.
                    let _ = match acts.get(connection) {
                        Some(act) => perform(stream, *act, &counts).await,
                        None => {
                            let mut on = TcpStream::connect(server).await.unwrap();
                            tokio::io::copy_bidirectional(&mut stream, &mut on).await.map(drop)
                        }
                    };
                });
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> (usize, usize) {
        *self.seen.borrow()
    }

    async fn client(&self) -> KindsClient {
        client(ChannelBuilder::new(uri(&[self.address])).retry(None)).await
    }
}

async fn perform(
    mut stream: TcpStream,
    act: Act,
    seen: &watch::Sender<(usize, usize)>,
) -> io::Result<()> {
    /// RFC 9113 §4.1 and §6.
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    if let Act::Hang = act {
        return Ok(());
    }
    stream.write_all(&frame(SETTINGS, 0, &[])).await?;
    stream.read_exact(&mut [0; 24]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] != HEADERS {
            continue;
        }
        seen.send_modify(|seen| seen.1 += 1);
        match act {
            Act::Refuse => stream.write_all(&frame(RST_STREAM, id, &[0, 0, 0, 7])).await?,
            Act::GoAway => {
                stream.write_all(&frame(GOAWAY, 0, &[0; 8])).await?;
                // Until the client has gone.
                while stream.read(&mut [0; 100]).await? > 0 {}
            }
            Act::Break | Act::Hang => return Ok(()),
        }
    }
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u8;
    let mut frame = vec![0, 0, length, kind, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn a_call_above_the_last_stream_of_a_goaway_runs_once_over_the_next_connection() {
    let world = World::plain().await;
    let fake = Fake::new(&[Act::GoAway], world.local()).await;
    let client = fake.client().await;
    assert_eq!(soon(client.plain(text("x"))).await.unwrap().text, "1");
    assert_eq!(fake.seen(), (2, 1));
    let fake = Fake::new(&[Act::GoAway], world.local()).await;
    let mut down = fake.client().await.down(text("2")).await.unwrap();
    assert_eq!(soon(down.message()).await.unwrap(), Some(text(0)));
    assert_eq!(fake.seen(), (2, 1));
}

#[tokio::test]
async fn a_call_that_servers_refuse_unseen_is_sent_again_once_and_then_known_not_to_have_run() {
    let world = World::plain().await;
    let fake = Fake::new(&[Act::Refuse], world.local()).await;
    let client = fake.client().await;
    let error = soon(client.plain(text("x"))).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::Overloaded), "{error}");
    assert_eq!(fake.seen(), (1, 2), "over one connection");
    let fake = Fake::new(&[Act::GoAway, Act::GoAway], world.local()).await;
    let error = soon(fake.client().await.plain(text("x"))).await.unwrap_err();
    assert_eq!(not_executed(&error), Some(NotExecutedReason::Draining), "{error}");
    assert_eq!(fake.seen().1, 2);
    assert_eq!(world.ran(), 0);
}

#[tokio::test]
async fn a_call_whose_connection_breaks_is_lost_and_not_sent_again() {
    let world = World::plain().await;
    let fake = Fake::new(&[Act::Break], world.local()).await;
    let client = fake.client().await;
    let error = soon(client.plain(text("x"))).await.unwrap_err();
    assert_eq!(*error.outcome(), Outcome::Lost, "{error}");
    assert_eq!(fake.seen(), (1, 1));
    assert_eq!(soon(client.plain(text("x"))).await.unwrap().text, "1");
}

#[tokio::test]
async fn a_read_whose_connection_breaks_is_made_again_by_the_policy() {
    let world = World::plain().await;
    let fake = Fake::new(&[Act::Break, Act::Break], world.local()).await;
    let client = client(ChannelBuilder::new(uri(&[fake.address]))).await;
    assert_eq!(soon(client.look(text("x"))).await.unwrap().text, "1");
    assert_eq!(fake.seen(), (3, 2));
}

#[tokio::test]
async fn a_connection_that_does_not_begin_gets_no_call() {
    let world = World::plain().await;
    let fake = Fake::new(&[Act::Hang; 1_000], world.local()).await;
    let builder = ChannelBuilder::new(uri(&[fake.address, world.local()])).retry(None);
    let client = client(builder).await;
    assert_eq!(soon(client.plain(text("x"))).await.unwrap().text, "1");
    assert_eq!(fake.seen(), (1, 0));
}
