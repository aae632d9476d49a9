//! The commands that talk to a server, as programs, against a server of this process.

use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use stubborn::kv::{
    CompareAndSwapReply, CompareAndSwapRequest, DeleteReply, DeleteRequest, GetReply, GetRequest,
    Kv, KvServer, ListReply, ListRequest, PutReply, PutRequest, WatchReply, WatchRequest,
};
use stubborn::{
    Call, Identity, ReplySender, Requests, Server, ServerBuilder, ServerHandle, Status,
};
use tokio::sync::Semaphore;

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

/// What the generator makes of `examples/bank/bank.proto`.
mod bank {
    include!("../../build/tests/golden/bank/mod.rs");
}

use bank::bank::v1::*;

#[path = "remote/grpc.rs"]
mod grpc;

/// What a file of qlog may hold.
#[path = "../../qlog/tests/schema/mod.rs"]
mod schema;

/// Transfers of 13 cents wait until they are let through.
struct Ledger {
    cents: Mutex<i64>,
    gate: Arc<Semaphore>,
}

impl Bank for Ledger {
    async fn transfer(&self, call: Call<TransferRequest>) -> Result<TransferReply, Status> {
        if call.cents == 13 {
            self.gate.acquire().await.expect("never closed").forget();
        }
        let mut cents = self.cents.lock().unwrap();
        if *cents < call.cents {
            return Err(Status::failed_precondition("not enough"));
        }
        *cents -= call.cents;
        Ok(TransferReply { from_cents: *cents })
    }

    async fn balance(&self, _: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        Ok(BalanceReply { cents: *self.cents.lock().unwrap() })
    }

    async fn history(
        &self,
        call: Call<HistoryRequest>,
        mut replies: ReplySender<Entry>,
    ) -> Result<(), Status> {
        for n in 1..=3 {
            replies.send(&Entry { reference: n, cents: 10, balance_cents: 10 * n as i64 }).await?;
        }
        if call.account == "nobody" { Err(Status::not_found("no such account")) } else { Ok(()) }
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}

/// A server in a runtime of its own, and a home for the program's files.
/// A service without a `.proto` file.
#[stubborn::service(package = "time.v1")]
trait Clock {
    /// Hours since midnight.
    async fn hour(&self) -> Result<u8, Status>;
}

struct Noon;

impl Clock for Noon {
    async fn hour(&self) -> Result<u8, Status> {
        Ok(12)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Item {
    name: String,
    price: Option<u32>,
}

/// A service without a `.proto` file, whose messages are JSON.
#[stubborn::service(package = "shop.v1", codec = stubborn::codec::Json)]
trait Shop {
    /// What so many of an item cost.
    #[no_side_effects]
    async fn cost(&self, item: Item, count: u32) -> Result<u32, Status>;

    /// Takes items one after the other.
    async fn take(&self, requests: Requests<Item>) -> Result<Vec<Item>, Status>;

    /// Tells items.
    async fn tell(&self, first: String, replies: ReplySender<Item>) -> Result<(), Status>;
}

struct Counter;

impl Shop for Counter {
    async fn cost(&self, item: Item, count: u32) -> Result<u32, Status> {
        let price = item.price.ok_or_else(|| Status::not_found("it has no price"))?;
        Ok(price * count)
    }

    async fn take(&self, mut requests: Requests<Item>) -> Result<Vec<Item>, Status> {
        let mut all = Vec::new();
        while let Some(item) = requests.message().await? {
            all.push(item);
        }
        Ok(all)
    }

    async fn tell(&self, first: String, mut replies: ReplySender<Item>) -> Result<(), Status> {
        for name in [first, "pear".into()] {
            replies.send(&Item { name, price: None }).await?;
        }
        Ok(())
    }
}

struct World {
    runtime: tokio::runtime::Runtime,
    server: ServerHandle,
    address: String,
    pin: String,
    gate: Arc<Semaphore>,
    home: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|server| server)
    }

    /// With all the services, and what is chosen beside them.
    fn with(choose: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::start(|server, ledger| {
            let server = server.service(BankServer::new(ledger)).service(ClockServer::new(Noon));
            choose(server.service(ShopServer::new(Counter)))
        })
    }

    fn start(choose: impl FnOnce(ServerBuilder, Ledger) -> ServerBuilder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let identity = Identity::self_signed(["localhost", "127.0.0.1"]).unwrap();
        let gate = Arc::new(Semaphore::new(0));
        let ledger = Ledger { cents: Mutex::new(1_000), gate: Arc::clone(&gate) };
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.pem"), identity.certificate_pem()).unwrap();
        let server = runtime.block_on(async {
            let server = Server::bind("127.0.0.1:0").identity(identity.clone());
            choose(server, ledger).start().await.unwrap()
        });
        let address = server.local_addr().to_string();
        let pin = identity.fingerprint().unwrap().to_string();
        Self { runtime, server, address, pin, gate, home }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
        command.env("XDG_STATE_HOME", self.home.path()).env("STUBBORN_PIN", &self.pin);
        command.env_remove("STUBBORN_CA").stdin(Stdio::null());
        command
    }

    /// `stubborn COMMAND ADDR`, which waits long for a server that is slow.
    fn patient(&self, command: &str) -> Command {
        let mut program = self.command();
        program.arg(command).arg(&self.address).args(patience(command));
        program
    }

    /// Runs `stubborn COMMAND ADDR ARGUMENTS`.
    fn run(&self, command: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.patient(command).args(arguments).output().unwrap())
    }

    /// Makes a call that is still executing when its deadline is over. One that its server came to later
    /// than that did not run.
    fn leave_pending(&self, more: &[&str]) -> Ran {
        let arguments = [&[TRANSFER, r#"{"cents": 13}"#, "--deadline", "100ms"], more].concat();
        loop {
            let ran = self.run("call", &arguments);
            match ran.code {
                3 => {}
                code => {
                    assert_eq!(code, 4, "{ran:?}");
                    return ran;
                }
            }
        }
    }

    fn json(&self, command: &str, arguments: &[&str]) -> (i32, Value) {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(command, &all);
        (ran.code, serde_json::from_str(&ran.out).expect(&ran.out))
    }
}

/// How fast a server answers is not what is tested.
fn patience(command: &str) -> &'static [&'static str] {
    match command {
        "health" | "ping" | "trace" => &["--connect-timeout", "1m", "--wait", "1m"],
        _ => &["--connect-timeout", "1m"],
    }
}

#[test]
fn keys_are_logged_where_the_environment_says() {
    let world = World::new();
    let file = world.home.path().join("keys.log");
    let balance = ["bank.v1.Bank/Balance"];
    assert_eq!(world.run("call", &balance).code, 0);
    let mut command = world.patient("call");
    command.env("SSLKEYLOGFILE", &file).args(balance);
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("whoever reads it can read what is sent"), "{ran:?}");
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.matches("CLIENT_TRAFFIC_SECRET_0").count(), 1, "{lines}");
    command.env("SSLKEYLOGFILE", world.home.path().join("no/such/folder"));
    assert_eq!(Ran::from(command.output().unwrap()).code, 2);
}

#[test]
fn connections_are_logged_where_the_environment_says() {
    let world = World::new();
    let folder = world.home.path().join("qlog");
    let mut command = world.patient("call");
    command.env("QLOGDIR", &folder).arg("bank.v1.Bank/Balance");
    assert_eq!(Ran::from(command.output().unwrap()).code, 0);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 1);
    assert!(files[0].file_name().to_str().unwrap().ends_with("_client.sqlog"));
    let text = std::fs::read_to_string(files[0].path()).unwrap();
    assert!(schema::checked(&text).len() > 20, "{text}");
    assert!(text.contains("transport:packet_sent") && text.contains("connection_closed"), "{text}");
}

#[test]
fn a_call_is_drawn_in_time_with_its_request_and_reply() {
    let world = World::new();
    let made = world.run("call", &[TRANSFER, r#"{"cents":"5"}"#, "--id"]);
    assert_eq!(made.code, 0, "{made:?}");
    let id =
        made.err.lines().find_map(|line| line.strip_prefix("call ")).expect("an id").to_owned();
    // The last call, and the same by its id.
    let mut last = world.command();
    last.arg("trace").args(patience("trace")).args(["--color", "never"]);
    let last = Ran::from(last.output().unwrap());
    assert_eq!(last.code, 0, "{last:?}");
    let (code, told) = world.json("trace", &[&id]);
    assert_eq!((code, &told["call_id"]), (0, &Value::from(id.as_str())), "{told}");
    let steps: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|s| s["what"].as_str().unwrap()).collect();
    assert_eq!(steps, ["call made", "request", "reply", "replied"], "{told}");
    for word in ["call made", "request", "▶", "◀", "replied", "half the round trip"] {
        assert!(last.out.contains(word), "no {word} in {}", last.out);
    }
    let svg = world.home.path().join("call.svg");
    assert_eq!(world.run("trace", &[&id, "--svg", svg.to_str().unwrap()]).code, 0);
    let drawn = std::fs::read_to_string(svg).unwrap();
    assert!(
        drawn.starts_with("<svg") && drawn.contains(">request<") && drawn.ends_with("</svg>\n")
    );
}

#[test]
fn a_call_that_still_runs_is_drawn_as_that_and_one_that_nobody_knows_is_not() {
    let world = World::new();
    let made = world.leave_pending(&["--id"]);
    let id =
        made.err.lines().find_map(|line| line.strip_prefix("call ")).expect("an id").to_owned();
    let (code, told) = world.json("trace", &[&id]);
    assert_eq!(code, 0, "{told}");
    let text = told["steps"].to_string();
    assert!(text.contains("executing") && text.contains("given up: pending"), "{told}");
    world.gate.add_permits(1);
    let unknown = format!("{}9", id);
    let (code, told) = world.json("trace", &[&unknown]);
    assert_eq!((code, &told["error"]["kind"]), (1, &"failed".into()), "{told}");
}

#[test]
fn reads_and_streams_are_drawn_by_the_trace_that_the_call_was_given() {
    let world = World::new();
    for (method, end) in [("Balance", "reply"), ("History", "end, 0 in, ")] {
        let made = world.run("call", &[&format!("bank.v1.Bank/{method}"), "--id"]);
        assert_eq!(made.code, 0, "{made:?}");
        let id = made.err.lines().find_map(|line| line.strip_prefix("call ")).expect("an id");
        assert_eq!(id.len(), 32, "{id}");
        let (code, told) = world.json("trace", &[id]);
        assert_eq!(code, 0, "{told}");
        let steps = told["steps"].as_array().unwrap();
        let steps: Vec<&str> = steps.iter().map(|step| step["what"].as_str().unwrap()).collect();
        let [made, request, answer, outcome] = steps[..] else { panic!("{told}") };
        assert_eq!([made, request, outcome], ["call made", "request", "replied"]);
        assert!(answer.starts_with(end), "{told}");
    }
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

const TRANSFER: &str = "bank.v1.Bank/Transfer";

#[cfg(unix)]
#[test]
fn a_note_that_a_killed_node_left_for_the_address_does_not_outrank_what_is_chosen() {
    use std::os::unix::fs::DirBuilderExt;

    let world = World::new();
    let place = world.home.path().join("run");
    let cluster = world.home.path().join("cluster");
    for directory in [&place, &place.join("stubborn"), &cluster] {
        std::fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    }
    let port = world.server.local_addr().port();
    let note = place.join(format!("stubborn/127.0.0.1-{port}.cluster"));
    std::fs::write(&note, cluster.to_str().unwrap()).unwrap();
    std::fs::set_permissions(&note, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ran = Ran::from(world.patient("ls").env("XDG_RUNTIME_DIR", &place).output().unwrap());
    assert_eq!(ran.out, "bank.v1.Bank\nshop.v1.Shop\ntime.v1.Clock\n", "{ran:?}");
}

#[test]
fn a_server_is_listed_described_called_and_pinged() {
    let world = World::new();
    assert_eq!(world.run("ls", &[]).out, "bank.v1.Bank\nshop.v1.Shop\ntime.v1.Clock\n");
    assert!(world.run("ls", &["--all"]).out.contains("stubborn.v1.Reflection"));
    let described = world.run("describe", &["bank.v1.Bank"]).out;
    let line = "rpc Transfer(bank.v1.TransferRequest) returns (bank.v1.TransferReply);  // exactly \
                once";
    assert!(described.contains(line), "{described}");
    let message = world.run("describe", &["bank.v1.TransferRequest"]).out;
    assert!(message.contains("int64 cents = 3;"), "{message}");
    assert_eq!(world.run("call", &["bank.v1.Bank/Balance"]).out, "{\"cents\":\"1000\"}\n");
    let called = world.run("call", &[TRANSFER, r#"{"cents": 30}"#]);
    assert_eq!((called.code, called.out.as_str()), (0, "{\"fromCents\":\"970\"}\n"), "{called:?}");
    let beat = world.run("call", &["bank.v1.Bank/Beat", r#"{"teller": "a"}"#]);
    assert_eq!(beat.code, 0, "{beat:?}");
    let (code, ping) = world.json("ping", &["-c", "3", "-i", "1ms"]);
    assert_eq!((code, &ping["probes"], &ping["lost"]), (0, &3.into(), &0.into()));
    assert_eq!(ping["fingerprint"], world.pin.as_str());
    assert!(ping["certificate"]["subject"].as_str().unwrap().contains("CN="));
}

#[test]
fn the_health_of_a_server_is_told_by_a_word_and_an_exit_code() {
    let world = World::new();
    let health = |arguments: &[&str]| world.run("health", arguments);
    let all = health(&[]);
    assert_eq!((all.code, all.out.as_str()), (0, "serving\n"), "{all:?}");
    assert_eq!(health(&["bank.v1.Bank"]).out, "serving\n");
    world.server.health().set("bank.v1.Bank", false);
    let bank = health(&["bank.v1.Bank"]);
    assert_eq!((bank.code, bank.out.as_str()), (1, ""), "{bank:?}");
    assert!(bank.err.contains("the service bank.v1.Bank is not serving"), "{bank:?}");
    assert_eq!(health(&[]).code, 0);
    let (code, told) = world.json("health", &["bank.v1.Bank"]);
    assert_eq!((code, &told["error"]["status"]), (1, &"NOT_SERVING".into()));
    let listed = health(&["--all"]);
    assert!(listed.code == 1 && listed.out.contains("not serving   bank.v1.Bank"), "{listed:?}");
    let unknown = health(&["no.Such"]);
    assert!(unknown.code == 1 && unknown.err.contains("not known"), "{unknown:?}");
    let mut watch = world.patient("health");
    watch.args(["bank.v1.Bank", "--watch"]).stdout(Stdio::piped());
    let mut watch = watch.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "not serving");
    world.server.health().set("bank.v1.Bank", true);
    assert_eq!(lines.next().unwrap().unwrap(), "serving");
    let World { runtime, server, .. } = world;
    runtime.block_on(server.drain());
    assert_eq!(lines.next().unwrap().unwrap(), "not serving");
    assert_eq!(watch.wait().unwrap().code(), Some(1));
}

#[test]
fn a_service_that_is_a_trait_is_listed_and_described_with_what_serde_tells_of_its_types() {
    let world = World::new();
    assert!(world.run("ls", &[]).out.contains("time.v1.Clock\n"));
    let all = world.run("describe", &[]);
    assert!(all.out.contains("service time.v1.Clock {  // a Rust trait\n"), "{all:?}");
    assert!(all.out.contains("rpc Transfer"), "{all:?}");
    let shop = world.run("describe", &["shop.v1.Shop"]);
    assert_eq!(
        shop.out,
        "service shop.v1.Shop {  // a Rust trait\n  \
         rpc Cost(item: Item, count: u32) returns (u32);  // read, json\n  \
         rpc Take(stream Item) returns (Vec<Item>);  // at most once, json\n  \
         rpc Tell(first: String) returns (stream Item);  // at most once, json\n}\n\n\
         struct Item { name: String, price: Option<u32> }\n"
    );
    let hour = world.run("describe", &["time.v1.Clock/Hour"]);
    assert_eq!(hour.out, "rpc Hour() returns (u8);  // at most once, postcard\n", "{hour:?}");
    let (code, cost) = world.json("describe", &["shop.v1.Shop/Cost"]);
    assert_eq!((code, &cost["arguments"][1]["type"]), (0, &"u32".into()), "{cost}");
    let unknown = world.run("describe", &["time.v1.Clock/Minute"]);
    assert!(unknown.code == 2 && unknown.err.contains("it has: Hour"), "{unknown:?}");
}

#[test]
fn a_trait_whose_messages_are_json_is_called_by_the_names_of_its_arguments() {
    let world = World::new();
    let call = |method: &str, json: &str| world.run("call", &[method, json]);
    let cost = call("shop.v1.Shop/Cost", r#"{"count": 3, "item": {"name": "fig", "price": 5}}"#);
    assert_eq!((cost.code, cost.out.as_str()), (0, "15\n"), "{cost:?}");
    let none = call("shop.v1.Shop/Cost", r#"[{"name": "fig"}, 3]"#);
    assert!(none.code == 1 && none.err.contains("it has no price"), "{none:?}");
    let typo = call("shop.v1.Shop/Cost", r#"{"counts": 3}"#);
    assert!(typo.err.contains("no argument counts; it has: item, count"), "{typo:?}");
    let unfit = call("shop.v1.Shop/Cost", r#"{"count": "three"}"#);
    assert!(unfit.code != 0 && unfit.err.contains("malformed"), "{unfit:?}");
    let taken = call("shop.v1.Shop/Take", r#"{"name": "a"} {"name": "b", "price": 1}"#);
    let both = r#"[{"name":"a","price":null},{"name":"b","price":1}]"#;
    assert_eq!((taken.code, taken.out.trim()), (0, both), "{taken:?}");
    let told = call("shop.v1.Shop/Tell", r#"{"first": "fig"}"#);
    assert_eq!(told.out.lines().count(), 2, "{told:?}");
    assert_eq!(told.out.lines().next(), Some(r#"{"name":"fig","price":null}"#), "{told:?}");
    // Postcard has no names: the shell cannot write it, and says what to do.
    let hour = call("time.v1.Clock/Hour", "{}");
    assert_eq!(hour.code, 2, "{hour:?}");
    assert!(hour.err.contains("whose messages are postcard"), "{hour:?}");
    assert!(hour.err.contains("codec = stubborn::codec::Json"), "{hour:?}");
}

#[test]
fn requests_come_from_the_argument_a_file_or_standard_input_and_types_from_proto_files() {
    let world = World::new();
    let file = world.home.path().join("transfer.json");
    std::fs::write(&file, r#"{"cents": 1}"#).unwrap();
    let from_file = world.run("call", &[TRANSFER, &format!("@{}", file.display())]);
    assert_eq!(from_file.out, "{\"fromCents\":\"999\"}\n", "{from_file:?}");

    let mut command = world.patient("call");
    command.args([TRANSFER, "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"cents": 1}"#).unwrap();
    let from_stdin = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(from_stdin.out, "{\"fromCents\":\"998\"}\n");

    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bank/bank.proto");
    let by_proto = world.run("call", &[TRANSFER, "{}", "--proto", proto.to_str().unwrap()]);
    assert_eq!(by_proto.out, "{\"fromCents\":\"998\"}\n", "{by_proto:?}");
}

#[test]
fn exit_codes_tell_what_became_of_a_call() {
    let world = World::new();
    let (code, error) = world.json("call", &[TRANSFER, r#"{"cents": 5000}"#]);
    assert_eq!((code, &error["error"]["status"]), (1, &9.into()), "{error}");
    assert_eq!(world.run("call", &["bank.v1.Bank/No"]).code, 2);
    assert_eq!(world.run("call", &["no.Such/Method"]).code, 2);
    assert_eq!(world.run("call", &["nonsense"]).code, 2);
    assert_eq!(world.run("call", &[TRANSFER, "{\"cent\": 1}"]).code, 2);
    assert_eq!(world.run("call", &[TRANSFER, "{"]).code, 2);
}

#[test]
fn a_stream_prints_a_line_for_each_message_and_then_what_became_of_it() {
    let world = World::new();
    let history = world.run("call", &["bank.v1.Bank/History", r#"{"account": "alice"}"#]);
    let lines: Vec<_> = history.out.lines().collect();
    assert_eq!((history.code, lines.len()), (0, 3), "{history:?}");
    assert!(lines[2].contains(r#""reference":"3""#), "{history:?}");
    let refused = world.run("call", &["bank.v1.Bank/History", r#"{"account": "nobody"}"#]);
    assert_eq!((refused.code, refused.out.lines().count()), (1, 3), "{refused:?}");
    assert!(refused.err.contains("no such account"), "{refused:?}");
}

#[test]
fn a_call_that_is_pending_is_asked_for_again_in_a_new_process() {
    let world = World::new();
    let slow = world.leave_pending(&[]);
    let advice = slow.err.split("ask again with: stubborn ").nth(1).expect(&slow.err).trim();
    let words: Vec<&str> = advice.split(' ').collect();
    assert_eq!(words[..2], ["outcome", &world.address]);

    let early = world.run("outcome", &[words[2]]);
    assert!(early.code == 4 && early.err.contains("still executing"), "{early:?}");
    world.gate.add_permits(1);
    // The handler goes on when it gets its turn.
    let late = loop {
        let late = world.run("outcome", &[words[2]]);
        if !late.err.contains("still executing") {
            break late;
        }
    };
    assert_eq!((late.code, late.out.as_str()), (0, "executed: {\"fromCents\":\"987\"}\n"));
    let (code, value) = world.json("outcome", &[words[2], "--final"]);
    assert_eq!((code, &value["reply"]["fromCents"]), (0, &"987".into()), "{value}");
}

/// Puts last as long as the gate is shut; nothing else is answered.
struct Store {
    begun: SyncSender<()>,
    gate: Arc<Semaphore>,
}

impl Kv for Store {
    async fn put(&self, _: Call<PutRequest>) -> Result<PutReply, Status> {
        self.begun.send(()).expect("somebody waits for it");
        self.gate.acquire().await.expect("never closed").forget();
        Ok(PutReply { revision: 7, ..PutReply::default() })
    }

    async fn get(&self, _: Call<GetRequest>) -> Result<GetReply, Status> {
        Err(Status::not_found("get"))
    }

    async fn delete(&self, _: Call<DeleteRequest>) -> Result<DeleteReply, Status> {
        Err(Status::not_found("delete"))
    }

    async fn compare_and_swap(
        &self,
        _: Call<CompareAndSwapRequest>,
    ) -> Result<CompareAndSwapReply, Status> {
        Err(Status::not_found("compare_and_swap"))
    }

    async fn list(&self, _: Call<ListRequest>) -> Result<ListReply, Status> {
        Err(Status::not_found("list"))
    }

    async fn watch(&self, _: Call<WatchRequest>, _: ReplySender<WatchReply>) -> Result<(), Status> {
        Err(Status::not_found("watch"))
    }
}

#[cfg(unix)]
#[test]
fn a_put_that_is_interrupted_is_asked_for_in_a_new_process() {
    let (begun, has_begun) = sync_channel(1);
    let gate = Arc::new(Semaphore::new(0));
    let store = Store { begun, gate: Arc::clone(&gate) };
    let world = World::with(|server| server.service(KvServer::new(store)));
    let mut put = world.command();
    put.args(["kv", "--addr", &world.address, "put", "a", "b"]).stderr(Stdio::piped());
    let put = put.stdout(Stdio::piped()).spawn().unwrap();
    has_begun.recv().unwrap();
    let pid = put.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let put = Ran::from(put.wait_with_output().unwrap());
    assert_eq!(put.code, 4, "{put:?}");
    let advice = put.err.split("ask again with: stubborn ").nth(1).expect(&put.err).trim();
    let words: Vec<&str> = advice.split(' ').collect();
    assert_eq!(words[..2], ["outcome", &world.address]);
    let early = world.run("outcome", &[words[2]]);
    assert!(early.code == 4 && early.err.contains("still executing"), "{early:?}");
    gate.add_permits(1);
}

#[cfg(unix)]
#[test]
fn a_call_that_is_interrupted_before_it_has_a_session_was_not_sent() {
    let world = World::new();
    let calls: [&[&str]; 2] = [&["kv", "put", "a", "b", "--addr"], &["call"]];
    for args in calls {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut call = world.command();
        call.args(args).arg(nobody.local_addr().unwrap().to_string());
        if args[0] == "call" {
            call.arg(TRANSFER);
        }
        let call = call.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It has begun to ask for a session.
        nobody.recv(&mut [0; 2_000]).unwrap();
        let pid = call.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let call = Ran::from(call.wait_with_output().unwrap());
        assert_eq!(call.code, 3, "{call:?}");
        assert!(call.err.contains("not executed: interrupted before it was sent"), "{call:?}");
    }
}

#[test]
fn commands_leave_no_sessions_behind() {
    let world = World::new();
    for _ in 0..3 {
        assert_eq!(world.run("ls", &[]).code, 0);
        assert_eq!(world.run("call", &[TRANSFER, r#"{"cents": 1}"#]).code, 0);
        assert_eq!(world.run("call", &[TRANSFER, r#"{"cents": 5000}"#]).code, 1);
        assert_eq!(world.run("call", &["bank.v1.Bank/Balance"]).code, 0);
    }
    // The last goodbye may still be under way; a connection after it is behind it.
    assert_eq!(world.run("ls", &[]).code, 0);
    assert!(world.server.sessions() <= 1, "{}", world.server.sessions());
}

#[test]
fn a_call_of_somebody_else_is_not_told() {
    let world = World::new();
    let (_, called) = world.json("call", &[TRANSFER, r#"{"cents": 1}"#]);
    let asked = world.run("outcome", &[called["call_id"].as_str().unwrap()]);
    assert!(asked.code != 0 && !asked.out.contains("fromCents"), "{asked:?}");
}

#[test]
fn a_server_that_is_not_trusted_or_not_there_is_told_with_advice() {
    let world = World::new();
    let ca = world.home.path().join("ca.pem");
    assert_eq!(world.run("ls", &["--ca", ca.to_str().unwrap()]).code, 0);
    let stranger = "0".repeat(64);
    let refused = world.run("ls", &["--pin", &stranger]);
    assert!(refused.code == 5 && refused.err.contains("key"), "{refused:?}");
    let insecure = world.run("ls", &["--insecure"]);
    assert!(insecure.code == 0 && insecure.err.contains("WARNING"), "{insecure:?}");
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    let mut command = world.command();
    let absent = command.args(["ls", &address, "--connect-timeout", "100ms"]).output().unwrap();
    let absent = Ran::from(absent);
    assert!(absent.code == 5 && absent.err.contains(&address), "{absent:?}");
    let untrusted = world.patient("ls").env_remove("STUBBORN_PIN").output();
    let untrusted = Ran::from(untrusted.unwrap());
    assert!(untrusted.code != 0 && !untrusted.err.is_empty(), "{untrusted:?}");
}

#[test]
fn plain_datagrams_are_sent_echoed_and_missed() {
    let world = World::new();
    let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 100];
        let (size, from) = plain.recv_from(&mut buffer).unwrap();
        plain.send_to(&buffer[..size].to_ascii_uppercase(), from).unwrap();
        plain
    });
    let sent = Ran::from(
        world.command().args(["udp", "send", &address, "hi", "--wait", "1m"]).output().unwrap(),
    );
    assert_eq!((sent.code, sent.out.as_str()), (0, "HI\n"), "{sent:?}");
    let _silent = echo.join().unwrap();
    let mut command = world.command();
    let missed = command.args(["udp", "send", &address, "hi", "--wait", "50ms"]).output().unwrap();
    let missed = Ran::from(missed);
    assert!(missed.code == 1 && missed.err.contains("no reply"), "{missed:?}");
}

#[test]
fn a_listener_says_where_it_listens_and_answers_with_echo() {
    use std::io::{BufRead, BufReader};
    let world = World::new();
    let mut command = world.command();
    command.args(["udp", "listen", "127.0.0.1:0", "--echo", "--count", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let sent = Ran::from(
        world.command().args(["udp", "send", address, "x", "--wait", "1m"]).output().unwrap(),
    );
    assert_eq!(sent.out, "x\n", "{sent:?}");
    let listened = Ran::from(child.wait_with_output().unwrap());
    assert!(listened.code == 0 && listened.out.ends_with(": x\n"), "{listened:?}");
}

/// The handlers of the generated trait are plain async functions: their futures are `Send`.
#[test]
fn handlers_can_run_anywhere() {
    fn sendable(_: impl Future + Send) {}
    let world = World::new();
    let ledger = Ledger { cents: Mutex::new(0), gate: Arc::clone(&world.gate) };
    sendable(ledger.balance(Call::new(BalanceRequest::default(), Default::default())));
    drop(world.runtime);
}
