//! Servers that etcd knows, with a real etcd on this machine (Debian: `etcd-server`, `etcd-client`).
//! Where it is not installed the test says so and is skipped, unless `STUBBORN_NEEDS_ETCD` is set.

mod common;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;

use stubborn::{ChannelBuilder, Connection, Trust};

/// An etcd of one member, which ends with its value.
struct Etcd {
    process: Child,
    client: String,
    peer: String,
    data: tempfile::TempDir,
}

impl Etcd {
    /// Starts one; `None` if none is installed.
    fn start() -> Option<Self> {
        if Command::new("etcdctl").arg("version").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("STUBBORN_NEEDS_ETCD").is_none(), "etcd is not installed");
            eprintln!("skipped: there is no etcd (Debian: apt install etcd-server etcd-client)");
            return None;
        }
        let [client, peer] = free_addresses();
        let data = tempfile::tempdir().unwrap();
        let process = spawn(&client, &peer, &data);
        Some(Self { process, client, peer, data })
    }

    /// Retries until it answers: `etcdctl` waits for it by itself.
    fn ctl(&self, arguments: &[&str]) {
        let status = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args([
                "--endpoints",
                &self.client,
                "--dial-timeout",
                "20s",
                "--command-timeout",
                "20s",
            ])
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "etcdctl {arguments:?}");
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = spawn(&self.client, &self.peer, &self.data);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(client: &str, peer: &str, data: &tempfile::TempDir) -> Child {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    Command::new("etcd")
        .args(["--name", "m", "--initial-cluster", &format!("m={peer}")])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--log-level", "error", "--logger", "zap"])
        .arg("--data-dir")
        .arg(data.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn free_addresses<const N: usize>() -> [String; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_come_and_go_as_etcd_has_them_and_stay_while_it_is_away() {
    let Some(mut etcd) = Etcd::start() else { return };
    let site = Site::new();
    let (first, second) = (site.start().await, site.start().await);
    etcd.ctl(&["put", "services/bank/1", &first.local_addr().to_string()]);
    // The name of another service begins alike.
    etcd.ctl(&["put", "services/bank2/1", "127.0.0.1:1"]);

    let address = format!("etcd://{}/services/bank?name=localhost", etcd.client);
    let trust = Trust::pem(site.identity.certificate_pem()).unwrap();
    let builder = ChannelBuilder::new(address).trust(trust);
    let connection = tokio::time::timeout(Duration::from_secs(60), builder.open());
    let connection = connection.await.unwrap().unwrap();
    assert_eq!(number(&connection.channel(), &COUNT).await.unwrap(), 1);
    assert_eq!(server(&connection), Some(first.local_addr()));

    let json = format!(r#"{{"Op":0,"Addr":"{}"}}"#, second.local_addr());
    etcd.ctl(&["put", "services/bank/2", &json]);
    etcd.ctl(&["del", "services/bank/1"]);
    moved_to(&connection, second.local_addr()).await;

    // An etcd that is away changes nothing; once it is back, its watch goes on.
    etcd.kill();
    let before = number(&connection.channel(), &COUNT).await.unwrap();
    assert_eq!(number(&connection.channel(), &COUNT).await.unwrap(), before + 1);
    etcd.start_again();
    etcd.ctl(&["put", "services/bank/1", &first.local_addr().to_string()]);
    etcd.ctl(&["del", "services/bank/2"]);
    moved_to(&connection, first.local_addr()).await;
}

fn server(connection: &Connection) -> Option<std::net::SocketAddr> {
    connection.stats().map(|(address, _)| address)
}

/// Calls until the calls go there; each must succeed.
async fn moved_to(connection: &Connection, to: std::net::SocketAddr) {
    let moving = async {
        while server(connection) != Some(to) {
            number(&connection.channel(), &COUNT).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moving).await.expect("the channel follows etcd");
}
