//! Three members of etcd, with its defaults.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tonic::transport::Channel;

use crate::load::proto::StatusRequest;
use crate::load::proto::maintenance_client::MaintenanceClient;
use crate::{Cluster, Puts, ports};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Etcd {
    data: PathBuf,
    clients: Vec<String>,
    peers: Vec<String>,
    members: Vec<Child>,
}

/// What the program calls itself.
pub(crate) fn version() -> Result<String, String> {
    let output = Command::new("etcd").arg("--version").output();
    let output = output.map_err(|e| format!("no etcd (Debian: apt install etcd-server): {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().replace("etcd Version: ", "etcd "))
}

impl Etcd {
    pub(crate) fn start(data: &Path) -> Result<Self, String> {
        let ports = ports::free(6)?;
        let urls: Vec<_> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let (clients, peers) = (urls[..3].to_vec(), urls[3..].to_vec());
        let mut etcd = Self { data: data.to_owned(), clients, peers, members: Vec::new() };
        std::fs::create_dir_all(data).map_err(|e| e.to_string())?;
        for member in 0..3 {
            let process = etcd.spawn(member)?;
            etcd.members.push(process);
        }
        etcd.leader()?;
        Ok(etcd)
    }

    fn spawn(&self, member: usize) -> Result<Child, String> {
        let name = |member: usize| format!("m{member}");
        let all = self.peers.iter().enumerate();
        let all: Vec<_> = all.map(|(at, peer)| format!("{}={peer}", name(at))).collect();
        let (client, peer) = (&self.clients[member], &self.peers[member]);
        Command::new("etcd")
            .args(["--name", &name(member), "--log-level", "error", "--logger", "zap"])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .args(["--listen-client-urls", client, "--advertise-client-urls", client])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .arg("--data-dir")
            .arg(self.data.join(name(member)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start etcd: {e}"))
    }
}

impl Cluster for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn load(&self, puts: &Puts) -> Result<Command, String> {
        let mut clients = self.clients.clone();
        clients.rotate_left(self.leader()?);
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = Command::new(program);
        command.args(["load", &clients.join(","), "--warmup", "1"]);
        command.args(["--concurrency", &puts.concurrency.to_string()]);
        command.args(["--payload", &puts.payload.to_string()]);
        command.args(["--seconds", &puts.seconds.to_string()]);
        command.args(["--patience", &puts.patience.as_secs_f64().to_string()]);
        Ok(command)
    }

    fn leader(&self) -> Result<usize, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            for (member, client) in self.clients.iter().enumerate() {
                let leads = runtime.block_on(async {
                    tokio::time::timeout(Duration::from_secs(1), leads(client)).await
                });
                if leads == Ok(Some(true)) {
                    return Ok(member);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("etcd has no leader".into())
    }

    fn kill(&mut self, node: usize) {
        let _ = self.members[node].kill();
        let _ = self.members[node].wait();
    }

    fn start(&mut self, node: usize) -> Result<(), String> {
        self.members[node] = self.spawn(node)?;
        Ok(())
    }
}

async fn leads(url: &str) -> Option<bool> {
    let channel = Channel::from_shared(url.to_owned()).ok()?.connect().await.ok()?;
    let told = MaintenanceClient::new(channel).status(StatusRequest {}).await.ok()?.into_inner();
    Some(told.leader != 0 && told.header?.member_id == told.leader)
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}
