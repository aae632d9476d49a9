//! The nodes of a cluster, each a process.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use stubborn::kv::KvClient;
use stubborn::{ChannelBuilder, Identity, Trust};
use tokio::runtime::Handle;

use crate::network::Network;

/// The first of so many ports that belong to this test: below those that the system hands out, or one
/// of them could be taken while its node is dead.
fn ports(count: usize) -> u32 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    10_000 + std::process::id() % 300 * 64 + TAKEN.fetch_add(count as u32, Ordering::Relaxed)
}

fn stubborn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.args(args).env_remove("STUBBORN_DATA");
    command
}

/// The nodes of a cluster; they end with the test.
pub(crate) struct Cluster {
    data: String,
    nodes: Vec<Child>,
    /// Where the nodes listen.
    listens: Vec<SocketAddr>,
    /// Where clients reach them.
    addresses: Vec<SocketAddr>,
    pub(crate) network: Network,
    _home: Home,
}

/// The folder of a cluster, which is kept if the test fails.
struct Home(Option<tempfile::TempDir>);

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(home) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("the nodes' folders are in {}", home.keep().display());
        }
    }
}

impl Cluster {
    pub(crate) fn start(count: usize, runtime: &Handle) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("cluster").to_str().unwrap().to_owned();
        let home = Home(Some(home));
        // It makes the folders; then each node is run by itself, to be killed and started again.
        let (number, listen) = (count.to_string(), format!("127.0.0.1:{}", ports(count)));
        let up = ["up", "--json", "--nodes", &number, "--listen", &listen, "--data", &data];
        let mut up = stubborn(&up).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        signal(&up, "-INT");
        assert!(up.wait().unwrap().success());
        let listens = told["address"].as_str().unwrap().split(',');
        let listens: Vec<SocketAddr> = listens.map(|address| address.parse().unwrap()).collect();
        let network = Network::default();
        let client_to = |node| network.wire(runtime, [None, Some(node)], listens[node]);
        let addresses = (0..count).map(client_to).collect();
        let nodes = Vec::new();
        let mut cluster = Self { data, nodes, listens, addresses, network, _home: home };
        (0..count).for_each(|node| cluster.route(node, runtime));
        cluster.nodes =
            (0..count).map(|node| cluster.start_node(node, cluster.program(node))).collect();
        cluster
    }

    /// Has a node reach each of the others by a wire of its own.
    fn route(&self, node: usize, runtime: &Handle) {
        let path = self.config(node);
        let mut text = fs::read_to_string(&path).unwrap();
        for (other, to) in self.listens.iter().enumerate().filter(|(other, _)| *other != node) {
            let by = self.network.wire(runtime, [Some(node), Some(other)], *to);
            let routed = text.replacen(&to.to_string(), &by.to_string(), 1);
            assert_ne!(text, routed, "{text}");
            text = routed;
        }
        fs::write(&path, text).unwrap();
    }

    fn config(&self, node: usize) -> String {
        format!("{}/node-{}/node.conf", self.data, node + 1)
    }

    fn log(&self, node: usize) -> String {
        format!("{}/node-{}/stderr.log", self.data, node + 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn program(&self, node: usize) -> Command {
        stubborn(&["node", "--child", "--config", &self.config(node)])
    }

    fn spawn(&self, node: usize, mut program: Command) -> Child {
        let log = File::options().create(true).append(true).open(self.log(node)).unwrap();
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap()
    }

    fn start_node(&self, node: usize, program: Command) -> Child {
        let mut process = self.spawn(node, program);
        let listens = self.listens[node].to_string();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.trim() == listens);
        assert!(ready, "node {} does not start\n{}", node + 1, self.evidence());
        process
    }

    /// What the nodes say of themselves, past the wires.
    fn status(&self) -> Value {
        let nodes: Vec<_> = self.listens.iter().map(ToString::to_string).collect();
        let args = ["status", "--json", "--data", &self.data, &nodes.join(",")];
        let output = stubborn(&args).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// All that helps to see why a cluster does not get on.
    pub(crate) fn evidence(&self) -> String {
        let mut out = format!("{}{:#}\n", self.network, self.status());
        for node in 0..self.listens.len() {
            let log = fs::read_to_string(self.log(node)).unwrap_or_default();
            let _ = writeln!(out, "  node {} has said: {}", node + 1, log.trim());
        }
        out
    }

    /// The node that leads, or one of them if nobody knows.
    pub(crate) fn leader(&self) -> usize {
        self.status()["leader"].as_u64().map_or(0, |leader| leader as usize - 1)
    }

    pub(crate) fn signal(&self, node: usize, name: &str) {
        signal(&self.nodes[node], name);
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill().unwrap();
        self.nodes[node].wait().unwrap();
    }

    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node] = self.start_node(node, self.program(node));
    }

    /// Starts a node again with another program, which says on standard output where it listens, after
    /// whatever else it has to say.
    pub(crate) fn restart_with(&mut self, node: usize, mut program: Command) {
        program.env("STUBBORN_TEST_NODE", self.config(node));
        self.nodes[node] = self.start_node(node, program);
    }

    /// Starts a node again, waits until it has ended by itself, and returns what it has said then.
    pub(crate) fn restart_in_vain(&mut self, node: usize) -> String {
        let before = fs::read_to_string(self.log(node)).unwrap().len();
        self.nodes[node] = self.spawn(node, self.program(node));
        // To wait closes a child's standard input, at which a node stops as it does with its parent.
        let input = self.nodes[node].stdin.take();
        assert!(!self.nodes[node].wait().unwrap().success());
        drop(input);
        fs::read_to_string(self.log(node)).unwrap().split_off(before)
    }

    /// Starts those that are dead.
    pub(crate) fn revive(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].try_wait().unwrap().is_some() {
                self.restart(node);
            }
        }
    }

    /// Kills all of them before the first one is started again.
    pub(crate) fn kill_all(&mut self) {
        self.nodes.iter().for_each(|node| signal(node, "-KILL"));
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
        for node in 0..self.nodes.len() {
            self.restart(node);
        }
    }

    pub(crate) async fn client(&self) -> KvClient {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        self.client_of(addresses.join(",")).await
    }

    /// A client that knows this node alone, whose reads are answered from its state.
    pub(crate) async fn client_at(&self, node: usize) -> KvClient {
        self.client_of(self.listens[node].to_string()).await
    }

    async fn client_of(&self, addresses: String) -> KvClient {
        let file = |name: &str| format!("{}/{name}", self.data);
        let channel = ChannelBuilder::new(addresses)
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
