//! s2n-quic: QUIC with a stream for each call, as its documentation does requests and replies.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bench_driver::protocol::{Ready, ServerOptions, Work};
use bench_driver::{Announce, Result, System, Target, certificate, echo_or_count, run, runtime};
use bytes::{Bytes, BytesMut};
use s2n_quic::client::Connect;
use s2n_quic::connection::Handle;
use s2n_quic::provider::io::tokio as io;
use s2n_quic::provider::limits::Limits;
use s2n_quic::stream::ReceiveStream;
use s2n_quic::{Client, Connection, Server};

/// Flow control that is never what limits.
const WINDOW: u64 = 64 << 20;

/// Calls in flight; 100 by default.
const STREAMS: u64 = 4_096;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

fn main() {
    run::<S2n>()
}

#[derive(Clone, Copy)]
struct S2n;

fn limits() -> Result<Limits> {
    Ok(Limits::default()
        .with_data_window(WINDOW)?
        .with_bidirectional_local_data_window(WINDOW)?
        .with_bidirectional_remote_data_window(WINDOW)?
        .with_max_send_buffer_size(16 << 20)?
        .with_max_open_local_bidirectional_streams(STREAMS)?
        .with_max_open_remote_bidirectional_streams(STREAMS)?
        .with_max_keep_alive_period(KEEP_ALIVE)?)
}

/// Packets as large as the path carries, which its users would have to tell it.
fn socket(address: SocketAddr) -> Result<io::Provider> {
    let path = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap_or_default();
    let mtu = path.trim().parse::<u32>().unwrap_or(1_500).clamp(1_500, LARGEST) as u16;
    Ok(io::Provider::builder().with_receive_address(address)?.with_max_mtu(mtu)?.build()?)
}

/// Jumbo frames, which its documentation speaks of. Larger packets are slower; with 65,535 the server
/// of s2n-quic 1.91.0 ends with a segmentation fault at 1,024 calls in flight.
const LARGEST: u32 = 9_000;

impl System for S2n {
    type Client = Streams;

    fn variant(name: &str) -> Option<Self> {
        (name == "s2n-quic").then_some(Self)
    }

    fn serve(&self, options: ServerOptions, announce: Announce) -> Result {
        runtime(options.workers)?.block_on(async {
            let made = certificate::make()?;
            let mut server = Server::builder()
                .with_tls((made.certificate_pem.as_str(), made.key_pem.as_str()))?
                .with_io(socket((options.bind, 0).into())?)?
                .with_limits(limits()?)?
                .start()?;
            announce.ready(&Ready { address: server.local_addr()?, trust: made.certificate_pem });
            while let Some(connection) = server.accept().await {
                tokio::spawn(serve_connection(connection, options.work));
            }
            Ok(())
        })
    }

    async fn connect(&self, target: &Target) -> Result<Streams> {
        let connect = Connect::new(target.server.address).with_server_name(certificate::NAME);
        let mut connection = client(target)?.connect(connect).await?;
        connection.keep_alive(true)?;
        Ok(Streams(connection.handle()))
    }
}

/// The endpoint that the connections of this thread share.
fn client(target: &Target) -> Result<Client> {
    thread_local!(static CLIENT: OnceCell<Client> = const { OnceCell::new() });
    CLIENT.with(|cell| {
        if let Some(client) = cell.get() {
            return Ok(client.clone());
        }
        let any: IpAddr = match target.server.address.is_ipv4() {
            true => [0; 4].into(),
            false => [0; 16].into(),
        };
        let client = Client::builder()
            .with_tls(target.server.trust.as_str())?
            .with_io(socket((any, 0).into())?)?
            .with_limits(limits()?)?
            .start()?;
        Ok(cell.get_or_init(|| client).clone())
    })
}

async fn serve_connection(mut connection: Connection, work: Work) {
    while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
        tokio::spawn(async move {
            let (mut receive, mut send) = stream.split();
            let Ok(request) = read(&mut receive).await else { return };
            if send.send(echo_or_count(work, request)).await.is_ok() {
                let _ = send.finish();
            }
        });
    }
}

/// All that comes on a stream. What comes in one piece is not copied.
async fn read(stream: &mut ReceiveStream) -> Result<Bytes> {
    let Some(first) = stream.receive().await? else { return Ok(Bytes::new()) };
    let mut all = BytesMut::new();
    while let Some(more) = stream.receive().await? {
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&more);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

struct Streams(Handle);

impl Streams {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let stream = self.0.clone().open_bidirectional_stream().await?;
        let (mut receive, mut send) = stream.split();
        send.send(payload).await?;
        send.finish()?;
        read(&mut receive).await
    }
}

impl bench_driver::Client for Streams {
    async fn echo(&self, payload: Bytes) -> Result<usize> {
        Ok(self.call(payload).await?.len())
    }

    async fn upload(&self, payload: Bytes) -> Result<usize> {
        let reply = self.call(payload).await?;
        Ok(u64::from_le_bytes(reply.as_ref().try_into()?) as usize)
    }
}
