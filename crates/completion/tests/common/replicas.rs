//! A bank as a group of three replicas in this process, on folders of their own.

use std::net::UdpSocket;

use stubborn::{
    Answer, Applied, Authority, Encoded, Image, Machine, Metadata, Method, Piece, Replica,
    ReplicaHandle, RestoreError, Semantics, ServiceDescriptor, Shape, Status,
};
use tempfile::TempDir;

use super::{note, soon};

pub const CHARGE: Method = Method::new("bank.v1.Bank/Charge", Semantics::ExactlyOnce, Shape::Unary);
static BANK: ServiceDescriptor =
    ServiceDescriptor { name: "bank.v1.Bank", methods: &[CHARGE], file_descriptor_set: &[] };

/// Every charge that runs counts, and is answered with the count.
#[derive(Default)]
struct Charges(i64);

impl Machine for Charges {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &BANK
    }

    fn apply(&mut self, _: &Applied, _: usize, _: &Encoded) -> Answer {
        self.0 += 1;
        Answer::Reply(Encoded::new(CHARGE.id(), &note(self.0)), Metadata::new())
    }

    fn query(&self, _: usize, _: &Encoded) -> Answer {
        Answer::Status(Status::internal("nobody asks"))
    }

    fn snapshot(&self) -> Image {
        self.0.to_be_bytes().to_vec().into()
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        let bytes = piece.first_chunk().ok_or(RestoreError::new("it ends too early"))?;
        self.0 = i64::from_be_bytes(*bytes);
        Ok(())
    }
}

pub struct Replicas {
    pub handles: Vec<ReplicaHandle>,
    _folder: TempDir,
}

impl Replicas {
    pub async fn start(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Taken for a moment, to learn of free ports.
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let address = |at: usize| sockets[at].local_addr().unwrap().to_string();
        let addresses: Vec<String> = (0..3).map(address).collect();
        let identity = |node: usize| {
            let names = [format!("node-{node}.stubborn"), "127.0.0.1".into()];
            authority.issue_node(names).unwrap()
        };
        let identities: Vec<_> = (1..=3).map(identity).collect();
        let keys: Vec<_> = identities.iter().map(|it| it.fingerprint().unwrap()).collect();
        drop(sockets);
        let mut handles = Vec::new();
        for (at, identity) in identities.into_iter().enumerate() {
            let mut replica = Replica::open(folder.path().join(format!("{at}")))
                .group(0x100)
                .node(at as u64 + 1)
                .listen(&addresses[at])
                .identity(identity)
                .authority(authority.trust())
                .create(true)
                .machine(Charges::default());
            for (at, address) in addresses.iter().enumerate() {
                replica = replica.member(at as u64 + 1, address, keys[at]);
            }
            handles.push(soon(replica.start()).await.unwrap());
        }
        Self { handles, _folder: folder }
    }

    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.handles.iter().map(|it| it.local_addr().to_string()).collect();
        addresses.join(",")
    }

    /// Stops whoever leads.
    pub async fn stop_leader(&mut self) {
        let mut leaders = self.handles.iter().map(|it| it.status().leader);
        let leader = leaders.find(|leader| *leader != 0).expect("somebody leads");
        let at = self.handles.iter().position(|it| it.status().node == leader).expect("a member");
        soon(self.handles.remove(at).stop()).await.unwrap();
    }
}
