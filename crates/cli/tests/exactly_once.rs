//! Exactly once with real processes: three nodes are killed, paused and started again under load,
//! one by one and all at once; each call has run once, and each caller knows it.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use stubborn::kv::compare_and_swap_request::Expected;
use stubborn::kv::{CompareAndSwapRequest, GetRequest, KvClient};
use stubborn::{ChannelBuilder, Identity, Trust};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const NODES: usize = 3;
const CALLERS: usize = 8;

/// Calls that have to end between two misfortunes.
const PROGRESS: u64 = 100;

fn stubborn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.args(args).env_remove("STUBBORN_DATA");
    command
}

/// The nodes of a cluster; they end with the test.
struct Cluster {
    data: String,
    nodes: Vec<Child>,
    addresses: Vec<String>,
}

impl Cluster {
    fn start(data: &Path) -> Self {
        let data = data.to_str().unwrap().to_owned();
        // It makes the folders; then each node is run by itself, to be killed and started again.
        let mut up = stubborn(&["up", "--json", "--listen", "127.0.0.1:0", "--data", &data])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        signal(&up, "-INT");
        assert!(up.wait().unwrap().success());
        let addresses = told["address"].as_str().unwrap().split(',').map(str::to_owned).collect();
        let mut cluster = Self { data, nodes: Vec::new(), addresses };
        cluster.nodes = (0..NODES).map(|node| cluster.start_node(node)).collect();
        cluster
    }

    fn start_node(&self, node: usize) -> Child {
        let config = format!("{}/node-{}/node.conf", self.data, node + 1);
        let mut process = stubborn(&["node", "--child", "--config", &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), self.addresses[node], "node {}", node + 1);
        process
    }

    fn leader(&self) -> usize {
        let output = stubborn(&["status", "--json", "--data", &self.data]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        told["leader"].as_u64().map_or(0, |leader| leader as usize - 1)
    }

    fn kill(&mut self, node: usize) {
        self.nodes[node].kill().unwrap();
        self.nodes[node].wait().unwrap();
    }

    fn restart(&mut self, node: usize) {
        self.nodes[node] = self.start_node(node);
    }

    async fn client(&self) -> KvClient {
        let file = |name: &str| format!("{}/{name}", self.data);
        let channel = ChannelBuilder::new(self.addresses.join(","))
            .identity(Identity::from_pem_files(file("client.crt"), file("client.key")).unwrap())
            .trust(Trust::pem_file(file("authority.crt")).unwrap())
            .server_name("node.stubborn")
            .wait_for_ready(true);
        KvClient::new(channel.connect().await.unwrap())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

fn signal(process: &Child, signal: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// What a caller knows of its key at the end.
struct Known {
    key: String,
    changes: u64,
    revision: u64,
}

/// Counts a key of its own up, one change after another. A change that ran twice, or not at all,
/// makes a comparison fail: nobody else changes the key.
async fn count_up(
    client: KvClient,
    key: String,
    done: watch::Sender<u64>,
    stop: Arc<AtomicBool>,
) -> Known {
    let mut known = Known { key, changes: 0, revision: 0 };
    while !stop.load(Ordering::Relaxed) {
        let value = (known.changes + 1).to_string().into();
        let expected = Some(Expected::Revision(known.revision));
        let request = CompareAndSwapRequest { key: known.key.clone(), expected, swap: Some(value) };
        let reply = client.compare_and_swap(request).await;
        let reply = reply.unwrap_or_else(|error| panic!("{} is not resolved: {error}", known.key));
        assert!(reply.swapped, "{}, change {}: {reply:?}", known.key, known.changes + 1);
        known.changes += 1;
        known.revision = reply.revision;
        done.send_modify(|done| *done += 1);
    }
    known
}

/// Waits until the callers have got on.
fn progress(runtime: &Runtime, done: &mut watch::Receiver<u64>) {
    let enough = *done.borrow() + PROGRESS;
    runtime.block_on(async { done.wait_for(|done| *done >= enough).await.map(|_| ()).unwrap() });
}

#[test]
fn each_call_runs_once_though_nodes_are_killed_and_paused_one_by_one_and_all_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(&home.path().join("cluster"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(cluster.client());
    let (sender, mut done) = watch::channel(0);
    let stop = Arc::<AtomicBool>::default();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let key = format!("caller-{caller}");
            let caller = count_up(client.clone(), key, sender.clone(), Arc::clone(&stop));
            runtime.spawn(caller)
        })
        .collect();
    // Only the callers hold it now: if all of them panic, nobody waits for them.
    drop(sender);

    progress(&runtime, &mut done);
    for victim in 0..NODES + 2 {
        // Each node in turn, and the leader twice.
        let node = if victim < NODES { victim } else { cluster.leader() };
        cluster.kill(node);
        progress(&runtime, &mut done);
        cluster.restart(node);
        progress(&runtime, &mut done);
    }
    let paused = cluster.leader();
    signal(&cluster.nodes[paused], "-STOP");
    progress(&runtime, &mut done);
    signal(&cluster.nodes[paused], "-CONT");
    for node in 0..NODES {
        signal(&cluster.nodes[node], "-KILL");
    }
    for node in 0..NODES {
        cluster.kill(node);
        cluster.restart(node);
    }
    progress(&runtime, &mut done);

    stop.store(true, Ordering::Relaxed);
    let mut changes = 0;
    for caller in callers {
        let known = runtime.block_on(caller).unwrap();
        let reply = runtime.block_on(client.get(GetRequest { key: known.key }).into_future());
        let pair = reply.unwrap().pair.unwrap();
        assert_eq!(pair.value, known.changes.to_string());
        assert_eq!(pair.revision, known.revision);
        changes += known.changes;
    }
    let last = runtime.block_on(client.get(GetRequest { key: "none".into() }).into_future());
    // A revision is a change: there are as many as callers know of.
    assert_eq!(last.unwrap().revision, changes);
}
