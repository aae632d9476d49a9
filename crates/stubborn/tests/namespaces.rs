//! Two network namespaces with a cable between them: a network of its own for this test, whose
//! cable can be pulled. Linux, and only where the machine lets us make namespaces.
#![cfg(target_os = "linux")]

mod common;

use std::future::IntoFuture;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{COUNT, ECHO, Note, Site, call, number, reaches, soon};
use stubborn::{ChannelBuilder, Identity};

const ADDRESS: &str = "10.99.0.1:7400";
const KEY: &str = "STUBBORN_TEST_KEY";
const CERTIFICATE: &str = "STUBBORN_TEST_CERTIFICATE";

/// Two namespaces; gone when dropped.
struct Network {
    left: String,
    right: String,
}

impl Network {
    /// # Errors
    /// What the system says where this is not allowed.
    fn new(mtu: &str) -> Result<Self, String> {
        let id = std::process::id();
        let network = Self { left: format!("stub{id}a"), right: format!("stub{id}b") };
        ip(&["netns", "add", &network.left])?;
        ip(&["netns", "add", &network.right])?;
        let ends = ["netns", &network.left, "peer", "name", "cable", "netns", &network.right];
        let link = [&["link", "add", "cable", "mtu", mtu][..], &ends[..2], &["type", "veth"]];
        ip(&[&link.concat()[..], &ends[2..]].concat())?;
        for (namespace, address) in
            [(&network.left, "10.99.0.1/24"), (&network.right, "10.99.0.2/24")]
        {
            ip(&["-n", namespace, "addr", "add", address, "dev", "cable"])?;
            ip(&["-n", namespace, "link", "set", "cable", "mtu", mtu, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    fn cable(&self, state: &str) {
        ip(&["-n", &self.left, "link", "set", "cable", state]).unwrap();
    }

    /// Runs one of the tests below, which are no tests, inside a namespace.
    fn run(&self, namespace: &str, role: &str, identity: &Identity) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(CERTIFICATE, identity.certificate_pem()).env(KEY, identity.key_pem());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.left, &self.right] {
            let _ = ip(&["netns", "del", namespace]);
        }
    }
}

/// A process that is ended, it alone, when dropped.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Reads until a line that ends with this; the test harness prints around it.
    fn says(&mut self, wanted: &str) {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "ended after: {seen}");
            if line.trim_end().ends_with(wanted) {
                return;
            }
            seen += &line;
        }
    }

    fn tell(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn calls_cross_a_narrow_cable_and_survive_that_it_is_pulled() {
    // Narrower than the packets that the transport would like: the path MTU has to be found.
    let network = match Network::new("1300") {
        Ok(network) => network,
        Err(why) => {
            println!("skipped: no network namespaces here ({why})");
            return;
        }
    };
    let identity = Identity::self_signed(["10.99.0.1"]).unwrap();
    let mut server = Running::start(network.run(&network.left, "the_server", &identity));
    server.says("serving");
    let mut client = Running::start(network.run(&network.right, "the_client", &identity));
    client.says("called");
    network.cable("down");
    client.tell("call over the pulled cable");
    client.says("calling");
    network.cable("up");
    client.says("settled");
}

/// `None` when this is not a process that the test above started.
fn identity() -> Option<Identity> {
    let read = |name| std::env::var(name).ok();
    Some(Identity::from_pem(read(CERTIFICATE)?, read(KEY)?).unwrap())
}

#[tokio::test]
#[ignore = "a process of the test above"]
async fn the_server() {
    let Some(identity) = identity() else { return };
    let site = Site { identity, ..Site::new() };
    let _server = site.start_at(ADDRESS.parse().unwrap()).await;
    println!("serving");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the test above"]
async fn the_client() {
    let Some(identity) = identity() else { return };
    let builder = ChannelBuilder::new(ADDRESS).trust(identity.trust().unwrap());
    let connection = soon(builder.open()).await.unwrap();
    let channel = connection.channel();
    let large = Note::data(vec![9; 1 << 20]);
    assert_eq!(soon(call(&channel, &ECHO, &large).into_future()).await.unwrap(), large);
    assert!(connection.stats().unwrap().1.mtu <= 1300 - 28);
    println!("called");

    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let began = tokio::sync::watch::Sender::new(0);
    let counting = tokio::spawn({
        let (channel, began) = (channel.clone(), began.clone());
        async move {
            began.send_replace(1);
            number(&channel, &COUNT).await
        }
    });
    reaches(&began, 1).await;
    println!("calling");
    assert_eq!(soon(counting).await.unwrap().unwrap(), 1);
    println!("settled");
}
