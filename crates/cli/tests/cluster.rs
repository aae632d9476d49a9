//! `stubborn up` and what is used with it: real processes, killed with SIGKILL.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

fn stubborn(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
    command.args(args).stdin(Stdio::null()).env_remove("STUBBORN_DATA");
    command
}

/// How fast a node answers is not what is tested, where it is one that does.
fn patience(command: &str) -> &'static [&'static str] {
    match command {
        "backup" | "call" | "kv" | "ls" => &["--connect-timeout", "1m"],
        "health" | "trace" => &["--connect-timeout", "1m", "--wait", "1m"],
        "top" => &["--wait", "1m"],
        _ => &[],
    }
}

/// How often a cluster is asked for its leader before it is taken to have none.
const TRIES: usize = 1_000;

/// A cluster that runs until this is dropped.
struct Cluster {
    up: Child,
    told: Value,
    data: PathBuf,
}

impl Cluster {
    /// Starts the cluster that the folder holds, or a new one.
    fn up(data: &Path, more: &[&str]) -> Self {
        let folder = data.to_str().unwrap();
        let mut up = stubborn(&[&["up", "--json", "--data", folder], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).expect(&line);
        let mut cluster = Self { up, told, data: data.to_owned() };
        // An election may take longer than it is waited for.
        if cluster.told["leader"].is_null() {
            cluster.told["leader"] = cluster.status()["leader"].take();
        }
        cluster
    }

    /// The status, once a majority has told in time who leads: how fast it does is not what is tested.
    fn status(&self) -> Value {
        let ask = || {
            let told = self.run("status", &["--json"]).stdout;
            serde_json::from_slice::<Value>(&told).unwrap_or_default()
        };
        let mut asked = std::iter::repeat_with(ask).take(TRIES);
        asked.find(|told| told["leader"].is_u64()).expect("a majority that has a leader")
    }

    /// The same as a table.
    fn status_table(&self, args: &[&str]) -> String {
        let ask = || String::from_utf8(self.run("status", args).stdout).unwrap();
        let mut asked = std::iter::repeat_with(ask).take(TRIES);
        asked.find(|table| table.contains(" leads")).expect("a majority that has a leader")
    }

    fn leader(&self) -> usize {
        self.told["leader"].as_u64().unwrap() as usize
    }

    fn address(&self, node: usize) -> &str {
        self.told["nodes"][node - 1]["address"].as_str().unwrap()
    }

    fn kill(&self, node: usize) {
        let pid = self.told["nodes"][node - 1]["pid"].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    }

    /// Runs `stubborn COMMAND ARGS` with the cluster's folder.
    fn run(&self, command: &str, args: &[&str]) -> Output {
        let args = [&[command], patience(command), args].concat();
        stubborn(&args).env("STUBBORN_DATA", &self.data).output().unwrap()
    }

    fn succeed(&self, command: &str, args: &[&str]) -> String {
        let output = self.run(command, args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command} {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends it as Ctrl-C does.
    fn stop(mut self) {
        let pid = self.up.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        assert!(self.up.wait().unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Its nodes end with it.
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

#[test]
fn a_call_to_a_group_is_drawn_through_all_its_replicas() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0"]);
    let follower = (1..=3).find(|node| *node != cluster.leader()).unwrap();
    let put = r#"{"key":"a","value":"MQ=="}"#;
    let address = cluster.address(follower).to_owned();
    let made = cluster.succeed("call", &[&address, "stubborn.kv.v1.Kv/Put", put, "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["call_id"].as_str().unwrap();
    // The last replica may not have applied it yet; a copy of a forwarded command is applied, too.
    let told = loop {
        let told = cluster.succeed("trace", &[&address, id, "--json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        if told.to_string().matches("applied, entry").count() >= 3 {
            break told;
        }
    };
    let steps = told["steps"].as_array().unwrap();
    let hop = |what: &str| steps.iter().find(|step| step["what"] == what);
    let came = hop("request").expect("a request");
    let follower = format!("node {follower}");
    assert_eq!((&came["from"], &came["to"]), (&"client".into(), &follower.as_str().into()));
    let forwarded = hop("forwarded").expect("a hop to the leader");
    let leader = format!("node {} (leads)", cluster.leader());
    let ends = (&forwarded["from"], &forwarded["to"]);
    assert_eq!(ends, (&follower.as_str().into(), &leader.as_str().into()), "{told}");
    assert!(hop("reply").is_some() && told["columns"].as_array().unwrap().len() == 4, "{told}");
    cluster.stop();
}

#[test]
fn values_outlive_the_leader_and_then_all_nodes_at_once() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0", "--grpc"]);
    assert_eq!(cluster.succeed("kv", &["put", "a", "1"]), "revision 1\n");
    let port = cluster.address(1).rsplit_once(':').unwrap().1;
    let grpc = format!("grpcs://localhost:{port}");
    let told = cluster.succeed("call", &[&grpc, "stubborn.kv.v1.Kv/Get", r#"{"key":"a"}"#]);
    assert!(told.contains("MQ=="), "{told}");
    cluster.kill(cluster.leader());
    assert_eq!(cluster.succeed("kv", &["put", "a", "2"]), "revision 2\n");
    assert_eq!(cluster.succeed("kv", &["get", "a"]), "2\n");
    for node in (1..=3).filter(|node| *node != cluster.leader()) {
        cluster.kill(node);
    }
    drop(cluster);
    let cluster = Cluster::up(&data, &[]);
    assert_eq!(cluster.succeed("kv", &["get", "a"]), "2\n");
    assert_eq!(cluster.succeed("kv", &["cas", "a", "3", "--revision", "2"]), "revision 3\n");
    assert_eq!(cluster.run("kv", &["cas", "a", "4", "--revision", "2"]).status.code(), Some(1));
    assert_eq!(cluster.succeed("kv", &["list"]), "a\t3\n");
    cluster.stop();
}

/// `stubborn kv watch`, and the lines that it prints.
struct Watch {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn begin(cluster: &Cluster, args: &[&str]) -> Self {
        let args = [&["kv", "--json", "watch"], args].concat();
        let mut process = stubborn(&args)
            .env("STUBBORN_DATA", &cluster.data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("the watch goes on").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watch_goes_on_without_loss_or_repetition_while_each_node_is_killed_once() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(cluster.succeed("kv", &["put", "a/old", "0"]), "revision 1\n");
    let mut watch = Watch::begin(&cluster, &["a/", "--from", "1"]);
    assert_eq!(watch.next(), serde_json::json!({ "event": "watching", "revision": 0 }));
    assert_eq!((watch.next()["key"].as_str(), watch.next_put(&cluster)), (Some("a/old"), 2));
    // The leader is among them, and whichever node serves the watch.
    let mut again = Vec::new();
    for node in 1..=3 {
        cluster.kill(node);
        let before = watch.next_put(&cluster);
        assert_eq!(watch.next_put(&cluster), before + 1);
        let config = data.join(format!("node-{node}/node.conf"));
        let config = config.to_str().unwrap();
        let again_up = stubborn(&["node", "--config", config]).stdout(Stdio::null()).spawn();
        again.push(Killed(again_up.unwrap()));
        while !cluster.reaches(node) {}
    }
    assert_eq!(cluster.succeed("kv", &["delete", "a/old"]), "revision 9\n");
    let gone = serde_json::json!({ "event": "delete", "key": "a/old", "revision": 9 });
    assert_eq!(watch.next(), gone);
}

/// A process that ends with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watch {
    /// Puts a key that is watched, which is the next that is told; its revision.
    fn next_put(&mut self, cluster: &Cluster) -> u64 {
        let said = cluster.succeed("kv", &["put", "a/new", "1"]);
        let told = self.next();
        let revision = told["revision"].as_u64().unwrap();
        assert_eq!(said, format!("revision {revision}\n"), "{told}");
        assert_eq!((told["event"].as_str(), told["key"].as_str()), (Some("put"), Some("a/new")));
        revision
    }
}

impl Cluster {
    /// Whether a node answers.
    fn reaches(&self, node: usize) -> bool {
        let told = self.run("status", &["--json"]).stdout;
        let told: Value = serde_json::from_slice(&told).unwrap_or_default();
        told["nodes"][node - 1]["reachable"] == true
    }
}

#[test]
fn only_who_has_a_certificate_may_call_and_who_has_none_is_told_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0", "--nodes", "1"]);
    let authority = data.join("authority.crt");
    let args = ["ls", cluster.address(1), "--ca", authority.to_str().unwrap()];
    let output = stubborn(&[&args, patience("ls")].concat()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert!(errors.contains("--data DIR"), "{errors}");
    let services = cluster.succeed("ls", &[cluster.address(1)]);
    assert!(services.contains("stubborn.kv.v1.Kv"), "{services}");
    // The node has left a note for programs of its user.
    let noted = [&["ls", cluster.address(1)], patience("ls")].concat();
    assert!(stubborn(&noted).output().unwrap().status.success());
    cluster.stop();
}

#[test]
fn the_status_names_every_node_also_those_that_do_not_answer() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(&home.path().join("cluster"), &["--listen", "127.0.0.1:0"]);
    let follower = (1..=3).find(|node| *node != cluster.leader()).unwrap();
    cluster.kill(follower);
    let told = cluster.status();
    let nodes = told["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    assert_eq!(nodes[follower - 1]["reachable"], false);
    let leader = &nodes[cluster.leader() - 1];
    assert_eq!((&leader["reachable"], &leader["sessions"]), (&true.into(), &0.into()));
    let table = cluster.status_table(&[]);
    assert!(table.contains("unreachable") && table.contains("leader"), "{table}");
    let leader = cluster.address(cluster.leader());
    // One node is enough: it tells who the others are.
    let table = cluster.status_table(&[leader]);
    assert!(table.contains("unreachable"), "{table}");
    assert_eq!(cluster.succeed("health", &[leader, "stubborn.kv.v1.Kv"]), "serving\n");
    // A replica tells no changes by itself: it is asked again and again.
    let watch = ["health", leader, "--watch"];
    let mut watch = stubborn(&[&watch, patience("health")].concat());
    let watch = watch.env("STUBBORN_DATA", &cluster.data).stdout(Stdio::piped()).spawn();
    let mut watch = watch.unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(line, "serving\n");
    cluster.stop();
}

#[test]
fn top_shows_the_nodes_of_a_group_with_their_leader_and_the_calls_of_its_clients() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(&home.path().join("cluster"), &["--listen", "127.0.0.1:0"]);
    cluster.succeed("kv", &["put", "a", "1"]);
    let args = ["--once", "--interval", "50ms"];
    let told = cluster.succeed("top", &[&args[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    let servers = told["servers"].as_array().unwrap();
    let leaders = servers.iter().filter(|server| server["role"] == "leader").count();
    assert_eq!((servers.len(), leaders), (3, 1), "{told}");
    assert!(servers.iter().all(|server| server["lag"].is_u64()), "{told}");
    let methods = told["methods"].as_array().unwrap();
    let put = methods.iter().find(|calls| calls["method"] == "stubborn.kv.v1.Kv/Put").unwrap();
    assert_eq!(put["outcomes"]["replied"], 1, "{told}");
    // Those between the nodes.
    assert!(told["links"].as_array().unwrap().len() >= 3, "{told}");
    let table = cluster.succeed("top", &args);
    assert!(table.contains("leader") && table.contains("lag"), "{table}");
    cluster.stop();
}

#[test]
fn durable_puts_are_measured() {
    let home = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(&home.path().join("cluster"), &["--listen", "127.0.0.1:0"]);
    let addresses = cluster.told["address"].as_str().unwrap();
    // As long as it takes until a put ends within it.
    let mut seconds = 0.3;
    while measure_puts(&cluster, addresses, seconds) == 0 {
        seconds *= 2.0;
        assert!(seconds < 60.0, "no put ends");
    }
    cluster.stop();
}

/// Measures for some time; how many puts ended in it. Of all that were begun none fails.
fn measure_puts(cluster: &Cluster, addresses: &str, seconds: f64) -> u64 {
    let seconds = seconds.to_string();
    let args = ["kv", addresses, "--concurrency", "8", "--warmup", "0", "--seconds", &seconds];
    let told = cluster.succeed("bench", &[&args[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told["failed"].as_u64(), told["unresolved"].as_u64()), (Some(0), Some(0)));
    told["calls"].as_u64().unwrap()
}

#[test]
fn a_node_that_has_lost_its_folder_does_not_start_again_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    Cluster::up(&data, &["--listen", "127.0.0.1:0", "--nodes", "1"]).stop();
    std::fs::remove_dir_all(data.join("node-1/data")).unwrap();
    let config = data.join("node-1/node.conf");
    let output = stubborn(&["node", "--config", config.to_str().unwrap()]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("holds no node") && errors.contains("--create"), "{errors}");
}

#[test]
fn a_new_cluster_whose_port_is_taken_is_not_made_and_options_may_follow_the_command() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    // An address that no other test has.
    let taken = std::net::UdpSocket::bind("127.0.9.2:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let args = ["up", "--nodes", "1", "--data", data.to_str().unwrap(), "--listen", &listen];
    let output = stubborn(&args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("another program") && errors.contains("--listen"), "{errors}");
    assert!(!data.exists());
    drop(taken);
    let _cluster = Cluster::up(&data, &["--nodes", "1", "--listen", &listen]);
    let put = ["kv", "put", "a", "1", "--data", data.to_str().unwrap()];
    let put = stubborn(&put).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&put.stdout), "revision 1\n");
}

#[test]
fn folders_for_other_machines_are_prepared_and_not_overwritten() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let prepare = || {
        let folder = data.to_str().unwrap();
        stubborn(&["up", "--prepare", "a.example:7400,b.example:7400", "--data", folder])
            .output()
            .unwrap()
    };
    let output = prepare();
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("copy") && text.contains("stubborn node --config"), "{text}");
    assert!(data.join("node-2/data/identity").exists());
    assert_eq!(prepare().status.code(), Some(2));
}

#[test]
fn a_backup_becomes_a_new_cluster_and_damage_is_named() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0"]);
    assert_eq!(cluster.succeed("kv", &["put", "a", "1"]), "revision 1\n");
    assert_eq!(cluster.succeed("kv", &["put", "b", "2"]), "revision 2\n");
    let leader = data.join(format!("node-{}", cluster.leader()));
    // Of a node that serves, which goes on.
    let live = home.path().join("live");
    cluster.succeed("backup", &[cluster.address(cluster.leader()), live.to_str().unwrap()]);
    assert_eq!(cluster.succeed("kv", &["put", "c", "3"]), "revision 3\n");
    let third = home.path().join("third");
    let restore = ["restore", live.to_str().unwrap(), "--data", third.to_str().unwrap()];
    assert!(
        stubborn(&[&restore[..], &["--listen", "127.0.0.1:0"]].concat())
            .status()
            .unwrap()
            .success()
    );
    let restored = Cluster::up(&third, &[]);
    assert_eq!(restored.succeed("kv", &["list"]), "a\t1\nb\t2\n");
    restored.stop();
    assert_eq!(cluster.succeed("kv", &["delete", "c"]), "revision 4\n");
    let in_use = stubborn(&["verify", leader.to_str().unwrap()]).output().unwrap();
    assert_eq!(in_use.status.code(), Some(2));
    cluster.stop();

    let json = |args: &[&str]| -> Value {
        let output = stubborn(&[args, &["--json"]].concat()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let folder = leader.to_str().unwrap();
    let shown = json(&["inspect", folder]);
    assert_eq!(shown["nodes"][0]["voters"], serde_json::json!([1, 2, 3]));
    let checked = json(&["verify", data.to_str().unwrap()]);
    assert_eq!(checked["nodes"].as_array().map(Vec::len), Some(3), "{checked}");
    assert!(checked["nodes"].as_array().unwrap().iter().all(|node| node["sound"] == true));

    let file = home.path().join("backup");
    let made = json(&["backup", folder, file.to_str().unwrap()]);
    assert_eq!(made["group"], shown["nodes"][0]["group"], "{made}");
    let second = home.path().join("second");
    let (file, second_path) = (file.to_str().unwrap(), second.to_str().unwrap());
    let restored = json(&["restore", file, "--data", second_path, "--listen", "127.0.0.1:0"]);
    assert_eq!(restored["from_group"], made["group"], "{restored}");
    assert_ne!(restored["group"], made["group"]);
    let cluster = Cluster::up(&second, &[]);
    assert_eq!(cluster.succeed("kv", &["list"]), "a\t1\nb\t2\n");
    assert_eq!(cluster.succeed("kv", &["put", "b", "3"]), "revision 5\n");
    cluster.stop();

    // The second entry of the log in its first record.
    let log = leader.join("data").join("log-0000000001");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[4_096 + 200] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let output = stubborn(&["verify", folder]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("log-0000000001 is damaged at offset 4"), "{errors}");
}

/// A node that runs beside a cluster, until this is dropped.
struct Node(Child);

impl Node {
    /// Starts it, and waits until it listens.
    fn start(config: &Path, more: &[&str]) -> Self {
        let args = [&["node", "--json", "--config", config.to_str().unwrap()], more].concat();
        let mut node = stubborn(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("address"), "{line}");
        Self(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free now.
fn free_address() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

/// A client that knew the first node alone, and has one call after another in flight.
fn busy_client(cluster: &Cluster) -> std::thread::JoinHandle<u64> {
    use stubborn::kv::{KvClient, PutRequest};
    use stubborn::{ChannelBuilder, Identity, Trust};
    let (address, data) = (cluster.address(1).to_owned(), cluster.data.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let file = |name: &str| data.join(name);
            let identity = Identity::from_pem_files(file("client.crt"), file("client.key"));
            let builder = ChannelBuilder::new(address)
                .server_name("node.stubborn")
                .trust(Trust::pem_file(file("authority.crt")).unwrap())
                .identity(identity.unwrap())
                .wait_for_ready(true);
            let client = KvClient::new(builder.connect().await.unwrap());
            let mut puts = 0;
            while !file("done").exists() {
                puts += 1;
                let put = PutRequest { key: "busy".into(), value: puts.to_string().into() };
                client.put(put).await.unwrap();
            }
            puts
        })
    })
}

#[test]
fn a_node_joins_and_the_first_one_leaves_while_a_client_of_the_first_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0"]);
    let client = busy_client(&cluster);
    let address = free_address();
    let add = format!("4={address}");
    let told = cluster.succeed("members", &["--add", &add]);
    assert!(told.contains("--join") && told.contains("node 4 "), "{told}");
    let config = data.join("node-4/node.conf");
    let fourth = Node::start(&config, &["--join"]);
    let told = cluster.succeed("members", &["--add", &add, "--remove", "1", "--wait", "30s"]);
    assert_eq!(told.matches("voter").count(), 3, "{told}");
    assert!(!told.contains("node 1 "), "{told}");
    // It stops by itself when it hears that it has left, or now.
    let pid = cluster.told["nodes"][0]["pid"].to_string();
    Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status().unwrap();
    let before: u64 = cluster.succeed("kv", &["get", "busy"]).trim().parse().unwrap();
    while cluster.succeed("kv", &["get", "busy"]).trim().parse::<u64>().unwrap() < before + 20 {}
    std::fs::write(data.join("done"), "").unwrap();
    let puts = client.join().unwrap();
    let told: Value =
        serde_json::from_str(&cluster.succeed("kv", &["get", "busy", "--json"])).unwrap();
    assert_eq!(told["value"], puts.to_string());
    assert_eq!(told["revision"].as_u64(), Some(puts), "every put ran once");

    // Who has left is told so, and its number is not given again.
    let first = data.join("node-1/node.conf");
    let output = stubborn(&["node", "--config", first.to_str().unwrap()]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("has left the group"), "{errors}");
    let again = cluster.run("members", &["--add", &format!("1={}", free_address())]);
    let errors = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && errors.contains("a new number"), "{errors}");

    // A node that has lost its disk does not join again under its number.
    drop(fourth);
    std::fs::remove_dir_all(data.join("node-4/data")).unwrap();
    let output =
        stubborn(&["node", "--join", "--config", config.to_str().unwrap()]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("has lost its disk"), "{errors}");
    let output =
        stubborn(&["node", "--create", "--config", config.to_str().unwrap()]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("by another folder"), "{errors}");
    assert!(cluster.succeed("kv", &["put", "a", "1"]).contains("revision"));
    cluster.stop();
}

/// Puts a new node in the place of another one, which is killed once it has left.
fn replace(cluster: &Cluster, gone: usize, new: u64) -> Node {
    let add = format!("{new}={}", free_address());
    cluster.succeed("members", &["--add", &add]);
    let config = cluster.data.join(format!("node-{new}/node.conf"));
    let node = Node::start(&config, &["--join"]);
    let told = cluster
        .succeed("members", &["--add", &add, "--remove", &gone.to_string(), "--wait", "60s"]);
    assert!(!told.contains(&format!("node {gone} ")), "{told}");
    let pid = cluster.told["nodes"][gone - 1]["pid"].to_string();
    // It may have stopped by itself.
    Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status().unwrap();
    node
}

#[test]
fn a_client_comes_back_by_its_journal_to_a_group_that_is_nowhere_where_it_was() {
    use stubborn::kv::{KvClient, PutRequest};
    use stubborn::{ChannelBuilder, Identity, Trust};
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("cluster");
    let cluster = Cluster::up(&data, &["--listen", "127.0.0.1:0"]);
    let old: Vec<&str> = (1..=3).map(|node| cluster.address(node)).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = || {
        let file = |name: &str| data.join(name);
        let identity = Identity::from_pem_files(file("client.crt"), file("client.key"));
        let builder = ChannelBuilder::new(old.join(","))
            .server_name("node.stubborn")
            .trust(Trust::pem_file(file("authority.crt")).unwrap())
            .identity(identity.unwrap())
            .wait_for_ready(true)
            .journal(file("client.journal"));
        runtime.block_on(builder.open()).unwrap()
    };
    let put = |connection: &stubborn::Connection, value: &'static str| {
        let put = PutRequest { key: "a".into(), value: value.into() };
        let client = KvClient::new(connection.channel());
        runtime.block_on(async { client.put(put).await }).unwrap().revision
    };
    let _fourth = replace(&cluster, 1, 4);
    let first = open();
    assert_eq!(put(&first, "1"), 1);
    let ticket = first.ticket();
    // From here on it is as good as dead: it leaves its session as it is, and writes nothing.
    runtime.block_on(first.journal().unwrap().close());
    // While no process has the journal open, the others are replaced, too.
    let _fifth = replace(&cluster, 2, 5);
    let _sixth = replace(&cluster, 3, 6);
    let second = open();
    assert_eq!(put(&second, "2"), 2);
    let session = |ticket: Option<stubborn::SessionTicket>| ticket.unwrap().session;
    assert_eq!(session(second.ticket()), session(ticket), "and it has its session still");
}
