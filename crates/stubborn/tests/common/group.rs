//! A group of replicas of the store of keys and values: three of them, on sockets and disks.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use stubborn::kv::{KvReplica, Store};
use stubborn::{
    Authority, ChannelBuilder, Connection, Identity, Replica, ReplicaBuilder, ReplicaHandle,
};

use super::soon;

/// Three members of a group.
pub struct Group {
    pub authority: Authority,
    pub replicas: BTreeMap<SocketAddr, ReplicaHandle>,
    /// Where they are, by their keys.
    pub members: BTreeMap<[u8; 32], SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Group {
    /// Each member as `settings` have the one of its number.
    pub async fn start(settings: impl Fn(u64, ReplicaBuilder) -> ReplicaBuilder) -> Self {
        let (authority, folder) = (Authority::generate().unwrap(), tempfile::tempdir().unwrap());
        let held: Vec<_> = (0..3).map(|_| free_port()).collect();
        let addresses: Vec<_> = held.iter().map(|(of, _)| of.local_addr().unwrap()).collect();
        drop(held);
        let issue = |number: u64| {
            let names = [format!("node-{number}.stubborn"), "127.0.0.1".into()];
            authority.issue_node(names).unwrap()
        };
        let identities = [1, 2, 3].map(issue);
        let mut replicas = BTreeMap::new();
        for (number, address) in (1..).zip(&addresses) {
            let mut builder = Replica::open(folder.path().join(number.to_string()))
                .group(0x100)
                .node(number)
                .listen(address)
                .identity(identities[number as usize - 1].clone())
                .authority(authority.trust())
                .create(true)
                .machine(KvReplica::new(Store::new()));
            for ((member, address), identity) in (1..).zip(&addresses).zip(&identities) {
                let key = identity.fingerprint().unwrap();
                builder = builder.member(member, address.to_string(), key);
            }
            let replica = soon(settings(number, builder).start()).await.unwrap();
            replicas.insert(*address, replica);
        }
        let keys = identities.iter().map(|identity| identity.fingerprint().unwrap().0);
        let members = keys.zip(addresses).collect();
        Self { authority, replicas, members, _folder: folder }
    }

    pub fn identity(&self, name: &str) -> Identity {
        self.authority.issue_client(name).unwrap()
    }

    /// A client that knows all members.
    pub async fn open(&self, identity: &Identity) -> Connection {
        let addresses: Vec<String> = self.replicas.keys().map(ToString::to_string).collect();
        let builder = ChannelBuilder::new(format!("stubborn://{}", addresses.join(",")))
            .trust(self.authority.trust())
            .identity(identity.clone())
            .wait_for_ready(true);
        soon(builder.open()).await.unwrap()
    }

    /// A client of one member.
    pub async fn open_at(&self, member: SocketAddr, identity: &Identity) -> Connection {
        let builder = ChannelBuilder::new(member.to_string())
            .trust(self.authority.trust())
            .identity(identity.clone())
            .wait_for_ready(true);
        soon(builder.open()).await.unwrap()
    }
}

/// A port that is free for datagrams and for TCP, as long as both are held.
fn free_port() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()) {
            return (socket, listener);
        }
    }
}
