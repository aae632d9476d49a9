//! Certificates and keys that are renewed while servers and channels run.

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use stubborn::{
    Authority, Channel, ChannelBuilder, Connection, Fingerprint, Identity, IdentityFiles, Server,
    ServerBuilder, ServerHandle,
};
use tokio::sync::watch;

struct World {
    authority: Authority,
    lab: Lab,
}

impl World {
    fn new() -> Self {
        Self { authority: Authority::generate().unwrap(), lab: Lab::new() }
    }

    fn issue(&self) -> Identity {
        self.authority.issue_node(["localhost"]).unwrap()
    }

    fn server(&self) -> ServerBuilder {
        Server::bind("127.0.0.1:0")
            .optional_client_roots(self.authority.trust())
            .service(self.lab.clone())
    }

    fn to(&self, server: &ServerHandle) -> ChannelBuilder {
        let address = format!("{}?name=localhost", server.local_addr());
        ChannelBuilder::new(address).trust(self.authority.trust())
    }

    /// A connection of its own, and the key that the server has proved.
    async fn connect(&self, server: &ServerHandle) -> (Connection, Fingerprint) {
        let connection = soon(self.to(server).open()).await.unwrap();
        let (key, _) = connection.server_identity().unwrap();
        (connection, key)
    }
}

fn key(identity: &Identity) -> Fingerprint {
    identity.fingerprint().unwrap()
}

async fn who(channel: &Channel) -> Vec<u8> {
    use std::future::IntoFuture;
    soon(call(channel, &WHO, &Note::default()).into_future()).await.unwrap().data.to_vec()
}

async fn a_server_is_renewed(workers: usize) {
    let world = World::new();
    let [first, second] = [world.issue(), world.issue()];
    let server = world.server().workers(workers).identity(first.clone());
    let server = server.start().await.unwrap();
    let (old, proved) = world.connect(&server).await;
    assert_eq!(proved, key(&first));
    server.reload(&second).unwrap();
    for _ in 0..2 * workers {
        assert_eq!(world.connect(&server).await.1, key(&second));
    }
    let broken = Identity::from_pem(first.certificate_pem(), second.key_pem()).unwrap();
    let error = server.reload(&broken).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert_eq!(world.connect(&server).await.1, key(&second));
    // The connection of before goes on.
    assert_eq!(number(&old.channel(), &COUNT).await.unwrap(), 1);
    assert_eq!(old.server_identity().unwrap().0, key(&first));
}

#[tokio::test]
async fn a_server_proves_its_new_certificate_from_the_next_handshake_on_and_connections_stay() {
    a_server_is_renewed(1).await;
}

#[tokio::test]
async fn every_worker_of_a_server_is_renewed() {
    a_server_is_renewed(3).await;
}

#[tokio::test]
async fn files_that_are_renewed_are_used_and_broken_ones_are_told_and_not_used() {
    let world = World::new();
    let [first, second] = [world.issue(), world.issue()];
    let folder = tempfile::tempdir().unwrap();
    let (crt, private) = (folder.path().join("crt"), folder.path().join("key"));
    let write = |identity: &Identity| {
        fs::write(&crt, identity.certificate_pem()).unwrap();
        fs::write(&private, identity.key_pem()).unwrap();
    };
    write(&first);
    let told = Arc::new(watch::Sender::new(Vec::new()));
    let tell = told.clone();
    let files = IdentityFiles::new(&crt, &private)
        .every(Duration::from_millis(5))
        .tell(move |result| tell.send_modify(|told: &mut Vec<bool>| told.push(result.is_ok())));
    let server = world.server().identity_files(files).start().await.unwrap();
    let (_, proved) = world.connect(&server).await;
    assert_eq!(proved, key(&first));
    fs::write(&crt, "nothing of use").unwrap();
    soon(told.subscribe().wait_for(|told| told.last() == Some(&false))).await.unwrap();
    assert_eq!(world.connect(&server).await.1, key(&first));
    write(&second);
    soon(told.subscribe().wait_for(|told| told.last() == Some(&true))).await.unwrap();
    assert_eq!(world.connect(&server).await.1, key(&second));
}

#[tokio::test]
async fn a_client_shows_its_new_certificate_from_the_next_handshake_on() {
    let world = World::new();
    let issue = || world.authority.issue_client("spiffe://lab.example/teller").unwrap();
    let [first, second] = [issue(), issue()];
    let server = world.server().identity(world.issue()).start().await.unwrap();
    let address = server.local_addr();
    let connection = soon(world.to(&server).identity(first.clone()).open()).await.unwrap();
    let channel = connection.channel();
    assert_eq!(who(&channel).await, key(&first).0);
    connection.reload(&second).unwrap();
    assert_eq!(who(&channel).await, key(&first).0, "the connection of before");
    // What is opened next by this client shows the new one.
    server.stop().await;
    let server = Server::bind(address).identity(world.issue()).service(world.lab.clone());
    let server = server.optional_client_roots(world.authority.trust()).start().await.unwrap();
    // Calls that meet the connection of before are lost with its server.
    let shown = async {
        loop {
            if let Ok(shown) = call(&channel, &WHO, &Note::default()).await {
                break shown.data;
            }
        }
    };
    assert_eq!(soon(shown).await, key(&second).0[..]);
    drop(server);
}
