//! Three nodes of ours.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Cluster, Puts, ports};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Ours {
    program: PathBuf,
    data: PathBuf,
    addresses: Vec<String>,
    nodes: Vec<Child>,
}

/// Builds the program as it ships.
pub(crate) fn build() -> Result<PathBuf, String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(&repository)
        .args(["build", "--release", "--locked", "--package", "stubborn-cli"])
        .status()
        .map_err(|e| format!("cannot start cargo: {e}"))?;
    if !status.success() {
        return Err("cargo could not build stubborn".into());
    }
    Ok(repository.join("target/release/stubborn"))
}

impl Ours {
    pub(crate) fn start(data: &Path, program: PathBuf) -> Result<Self, String> {
        let ports = ports::free(3)?;
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let made = Command::new(&program)
            .args(["up", "--prepare", &addresses.join(","), "--data"])
            .arg(data)
            .output()
            .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let data = data.to_owned();
        let mut ours = Self { program, data, addresses, nodes: Vec::new() };
        for node in 0..3 {
            let process = ours.spawn(node)?;
            ours.nodes.push(process);
        }
        ours.leader()?;
        Ok(ours)
    }

    /// Starts a node, and waits until it listens.
    fn spawn(&self, node: usize) -> Result<Child, String> {
        let config = self.data.join(format!("node-{}/node.conf", node + 1));
        let failed = |e: std::io::Error| format!("cannot start a node: {e}");
        let mut process = Command::new(&self.program)
            .args(["node", "--child", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        Ok(process)
    }
}

impl Cluster for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn load(&self, puts: &Puts) -> Result<Command, String> {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(self.leader()?);
        let mut command = Command::new(&self.program);
        command.args(["bench", "kv", &addresses.join(","), "--json", "--warmup", "1", "--data"]);
        command.arg(&self.data);
        command.args(["--concurrency", &puts.concurrency.to_string()]);
        command.args(["--payload", &puts.payload.to_string()]);
        command.args(["--seconds", &puts.seconds.to_string()]);
        Ok(command)
    }

    fn leader(&self) -> Result<usize, String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let asked = Command::new(&self.program)
                .args(["status", "--json", "--data"])
                .arg(&self.data)
                .output()
                .map_err(|e| e.to_string())?;
            let told: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
            if let Some(leader) = told["leader"].as_u64() {
                return Ok(leader as usize - 1);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("the nodes agreed on no leader".into())
    }

    fn kill(&mut self, node: usize) {
        let _ = self.nodes[node].kill();
        let _ = self.nodes[node].wait();
    }

    fn start(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node] = self.spawn(node)?;
        Ok(())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}
