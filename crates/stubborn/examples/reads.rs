//! What a read at a group of three replicas takes, one after another: with a question to a majority,
//! with a leader's lease, and from a state that may be a second old.
//!
//! `cargo run --release -p stubborn --features replica --example reads`

use std::error::Error;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use stubborn::kv::{GetRequest, KvClient, KvReplica, PutRequest, Store};
use stubborn::{Authority, Channel, ChannelBuilder, Replica, ReplicaHandle};

const NODES: u64 = 3;
const READS: usize = 3_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    for _ in 0..3 {
        for lease in [false, true] {
            let group = Group::start(lease).await?;
            let client = KvClient::new(group.channel().await?);
            client.put(PutRequest { key: "a".into(), value: "b".into() }).await?;
            let now = measure(&client, None).await?;
            let stale = measure(&client, Some(Duration::from_secs(1))).await?;
            rows.push((lease, now, stale));
        }
    }
    for (lease, now, stale) in rows {
        println!("lease {lease}: {now:.1?} p50 of now, {stale:.1?} p50 of a state a second old");
    }
    Ok(())
}

/// The median of reads that come one after another.
async fn measure(client: &KvClient, stale: Option<Duration>) -> Result<Duration, Box<dyn Error>> {
    let mut took = Vec::with_capacity(READS);
    for _ in 0..READS {
        let mut call = client.get(GetRequest { key: "a".into() });
        if let Some(stale) = stale {
            call = call.max_staleness(stale);
        }
        let began = Instant::now();
        call.await?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took[READS / 2])
}

struct Group {
    authority: Authority,
    addresses: Vec<String>,
    _replicas: Vec<ReplicaHandle>,
    _folder: tempfile::TempDir,
}

impl Group {
    async fn start(lease: bool) -> Result<Self, Box<dyn Error>> {
        let authority = Authority::generate()?;
        let folder = tempfile::tempdir()?;
        let sockets: Result<Vec<_>, _> =
            (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
        let addresses: Result<Vec<String>, std::io::Error> =
            sockets?.iter().map(|socket| Ok(socket.local_addr()?.to_string())).collect();
        let addresses = addresses?;
        let mut identities = Vec::new();
        for node in 1..=NODES {
            let names = [format!("node-{node}.stubborn"), "127.0.0.1".into()];
            identities.push(authority.issue_node(names)?);
        }
        let mut replicas = Vec::new();
        for (node, identity) in (1..).zip(&identities) {
            let mut builder = Replica::open(folder.path().join(node.to_string()))
                .group(0x100)
                .node(node)
                .listen(&addresses[node as usize - 1])
                .identity(identity.clone())
                .authority(authority.trust())
                .lease_reads(lease)
                .create(true)
                .machine(KvReplica::new(Store::new()));
            for (member, identity) in (1..).zip(&identities) {
                let address = addresses[member as usize - 1].clone();
                builder = builder.member(member, address, identity.fingerprint()?);
            }
            replicas.push(builder.start().await?);
        }
        Ok(Self { authority, addresses, _replicas: replicas, _folder: folder })
    }

    async fn channel(&self) -> Result<Channel, Box<dyn Error>> {
        let target = format!("stubborn://{}", self.addresses.join(","));
        let builder = ChannelBuilder::new(&target)
            .trust(self.authority.trust())
            .identity(self.authority.issue_client("client")?);
        Ok(builder.connect().await?)
    }
}
