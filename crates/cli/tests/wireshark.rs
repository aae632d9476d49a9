//! `stubborn pcap` and the dissector of `packaging/wireshark`, with tshark. Without it these tests do
//! nothing, unless STUBBORN_NEEDS_TSHARK is set.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use stubborn::{Call, Identity, ReplySender, Server, ServerHandle, Status};

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

/// What the generator makes of `examples/bank/bank.proto`.
mod bank {
    include!("../../build/tests/golden/bank/mod.rs");
}

use bank::bank::v1::*;

struct Ledger;

impl Bank for Ledger {
    async fn transfer(&self, _: Call<TransferRequest>) -> Result<TransferReply, Status> {
        Ok(TransferReply { from_cents: 7 })
    }

    async fn balance(&self, _: Call<BalanceRequest>) -> Result<BalanceReply, Status> {
        Err(Status::not_found("no such account"))
    }

    async fn history(&self, _: Call<HistoryRequest>, _: ReplySender<Entry>) -> Result<(), Status> {
        Ok(())
    }

    async fn beat(&self, _: Call<Heartbeat>) -> Result<(), Status> {
        Ok(())
    }
}

/// A server and a folder for files.
struct World {
    runtime: tokio::runtime::Runtime,
    server: Option<ServerHandle>,
    address: SocketAddr,
    pin: String,
    home: tempfile::TempDir,
}

impl World {
    /// None without tshark.
    fn new() -> Option<Self> {
        let found = Command::new("tshark").arg("--version").output().is_ok();
        if !found {
            let needed = std::env::var_os("STUBBORN_NEEDS_TSHARK").is_some();
            assert!(!needed, "there is no tshark");
            eprintln!("skipped: there is no tshark");
            return None;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let identity = Identity::self_signed(["127.0.0.1"]).unwrap();
        let pin = identity.fingerprint().unwrap().to_string();
        let server = runtime.block_on(async {
            let server = Server::bind("127.0.0.1:0").identity(identity);
            server.service(BankServer::new(Ledger)).start().await.unwrap()
        });
        let address = server.local_addr();
        let home = tempfile::tempdir().unwrap();
        Some(Self { runtime, server: Some(server), address, pin, home })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn stubborn(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stubborn"));
        command.env("XDG_STATE_HOME", self.home.path()).env("STUBBORN_PIN", &self.pin);
        command.env("SSLKEYLOGFILE", self.file("keys.log")).stdin(Stdio::null());
        command
    }

    /// Calls both methods; the second one fails.
    fn call(&self, address: SocketAddr) {
        let address = address.to_string();
        let transfer = r#"{"from":"a","to":"b","cents":"5"}"#;
        let mut command = self.stubborn();
        command.args(["call", &address, "bank.v1.Bank/Transfer", transfer]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut command = self.stubborn();
        command.args(["call", &address, "bank.v1.Bank/Balance"]);
        assert_eq!(command.output().unwrap().status.code(), Some(1));
    }

    /// Makes a call whose request takes several packets.
    fn call_with_much(&self, address: SocketAddr) {
        let transfer = format!(r#"{{"from":"{}","to":"the end"}}"#, "long ".repeat(2_000));
        let mut command = self.stubborn();
        command.args(["call", &address.to_string(), "bank.v1.Bank/Transfer", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(transfer.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Opens a capture.
    fn open(&self, capture: &Path) -> (PathBuf, serde_json::Value) {
        let opened = self.file("opened.pcapng");
        let mut command = self.stubborn();
        let output = command.args(["--json", "pcap"]).args([capture, &opened]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        (opened, serde_json::from_slice(&output.stdout).unwrap())
    }

    /// What tshark says of a capture.
    fn shark(&self, capture: &Path, arguments: &[&str]) -> String {
        let script = self.file("stubborn.lua");
        let dissector = self.stubborn().args(["pcap", "--dissector"]).output().unwrap();
        std::fs::write(&script, dissector.stdout).unwrap();
        let mut command = Command::new("tshark");
        command.env("HOME", self.home.path());
        command.arg("-X").arg(format!("lua_script:{}", script.display())).arg("-r").arg(capture);
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(!text.contains("Lua Error") && !said.contains("Lua"), "{said}\n{text}");
        text
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// What the path behind a relay carries: less than the long request, whatever discovery of the
/// path's limit has found by then.
const CARRIED: usize = 1_472;

/// Hands datagrams on, and remembers them: (from, to, bytes), with the time in microseconds.
type Seen = Vec<(u64, SocketAddr, SocketAddr, Vec<u8>)>;

struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let (front, back) =
            (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = front.local_addr().unwrap();
        let (seen, client) = (Arc::new(Mutex::new(Seen::new())), Arc::new(Mutex::new(server)));
        let note = |seen: &Mutex<Seen>, from, to, bytes: &[u8]| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
            seen.lock().unwrap().push((now, from, to, bytes.to_vec()));
        };
        let (front_too, back_too) = (front.try_clone().unwrap(), back.try_clone().unwrap());
        let (seen_too, client_too) = (Arc::clone(&seen), Arc::clone(&client));
        // They end with the program.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = front.recv_from(&mut buffer) {
                *client.lock().unwrap() = from;
                if length > CARRIED {
                    continue;
                }
                note(&seen_too, from, address, &buffer[..length]);
                let _ = back.send_to(&buffer[..length], server);
            }
        });
        let seen_by_back = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, _)) = back_too.recv_from(&mut buffer) {
                if length > CARRIED {
                    continue;
                }
                let to = *client_too.lock().unwrap();
                note(&seen_by_back, address, to, &buffer[..length]);
                let _ = front_too.send_to(&buffer[..length], to);
            }
        });
        Self { address, seen }
    }

    /// A pcap file of raw IPv4.
    fn write(&self, path: &Path) {
        let mut file =
            [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 262_144, 101].map(u32::to_be_bytes).concat();
        for (time, from, to, payload) in self.seen.lock().unwrap().iter() {
            let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!() };
            let length = payload.len() as u32 + 28;
            let header = [(time / 1_000_000) as u32, (time % 1_000_000) as u32, length, length];
            file.extend(header.map(u32::to_be_bytes).concat());
            file.extend([0x45, 0]);
            file.extend((length as u16).to_be_bytes());
            file.extend([0, 0, 0, 0, 64, 17, 0, 0]);
            file.extend([from.ip().octets(), to.ip().octets()].concat());
            file.extend(
                [from.port(), to.port(), length as u16 - 20, 0].map(u16::to_be_bytes).concat(),
            );
            file.extend(payload);
        }
        std::fs::write(path, file).unwrap();
    }
}

#[test]
fn tshark_shows_the_calls_of_a_capture_with_session_slot_and_number() {
    let Some(world) = World::new() else { return };
    let relay = Relay::to(world.address);
    world.call(relay.address);
    let capture = world.file("capture.pcap");
    relay.write(&capture);

    // Without keys: headers, and nothing of what they guard.
    let clear = world.shark(&capture, &["-V"]);
    assert!(clear.contains("Initial packet") && clear.contains("Version: 0x53545201"), "{clear}");
    assert!(clear.contains("1-RTT packet") && !clear.contains("REQUEST"), "{clear}");

    let (opened, told) = world.open(&capture);
    assert_eq!((&told["connections"], &told["sealed"]), (&2.into(), &0.into()), "{told}");
    let list = world.shark(&opened, &[]);
    for kind in ["OPEN", "OPENED", "REQUEST 0-1", "REPLY 0-1", "READ_REPLY", "CLOSE_SESSION"] {
        assert!(list.contains(kind), "no {kind} in:\n{list}");
    }
    let fields = ["-T", "fields", "-Y", "stubborn.kind == 0x44", "-e", "stubborn.slot"];
    let reply = world.shark(&opened, &[&fields[..], &["-e", "stubborn.sequence"]].concat());
    assert!(reply.starts_with("0\t1"), "{reply}");
    let tied = world.shark(&opened, &["-Y", "stubborn.reply_to && stubborn.reply_time", "-V"]);
    assert!(tied.contains("REPLY"), "{tied}");
    let details = world.shark(&opened, &["-V"]);
    for field in ["Incarnation: ", "Slots granted: ", "Message of the status: no such account"] {
        assert!(details.contains(field), "no {field} in:\n{details}");
    }
    assert!(!details.contains("Cut short") && !details.contains("Unknown type"), "{details}");
}

#[test]
fn a_message_in_several_packets_is_shown_whole_in_the_one_that_completes_it() {
    let Some(world) = World::new() else { return };
    let relay = Relay::to(world.address);
    world.call_with_much(relay.address);
    let capture = world.file("capture.pcap");
    relay.write(&capture);
    let (opened, told) = world.open(&capture);
    assert!(told["messages"].as_u64() >= Some(1), "{told}");

    let list = world.shark(&opened, &[]);
    assert!(list.contains("REQUEST begins in message"), "{list}");
    assert!(list.contains("REQUEST 0-1 whole, of "), "{list}");
    let requests = ["-Y", "stubborn.kind == 0x03", "-T", "fields", "-e", "stubborn.body"];
    let requests = world.shark(&opened, &requests);
    // A packet whose acknowledgement is late has copies, which are shown, too.
    let bodies: BTreeSet<_> = requests.lines().collect();
    let body = bodies.first().expect("it is shown");
    assert_eq!(bodies.len(), 1, "it is shown whole:\n{requests}");
    let end: String = b"the end".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(body.len() > 2 * 10_000 && body.contains(&end), "{body}");
    // Its parts lead to it, and its reply is tied to it.
    let parts = world.shark(&opened, &["-2", "-Y", "stubborn.whole_in && stubborn.begins == 0x03"]);
    // One, or several where it was sent again.
    assert!(parts.lines().count() >= 1, "{parts}");
    let tied = world.shark(&opened, &["-Y", "stubborn.reply_to && stubborn.kind == 0x44"]);
    assert!(tied.lines().count() >= 1, "{tied}");
    let details = world.shark(&opened, &["-V"]);
    assert!(
        details.contains("Message put together") && !details.contains("Cut short"),
        "{details}"
    );
}

#[test]
fn no_bytes_break_the_dissector() {
    let Some(world) = World::new() else { return };
    let relay = Relay::to(world.address);
    world.call(relay.address);
    world.call_with_much(relay.address);
    let capture = world.file("capture.pcap");
    relay.write(&capture);
    let (opened, _) = world.open(&capture);
    let original = std::fs::read(&opened).unwrap();
    let name = b"stubborn_opened";
    let starts: Vec<usize> = (0..original.len() - name.len())
        .filter(|at| original[*at..].starts_with(name))
        // Behind the name: two addresses, the kind of ports, two ports, the end.
        .map(|at| at + 16 + 5 * 8 + 4)
        .collect();
    assert!(starts.len() > 10);
    let mut state = 0x5eed_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    // A section of the file for each time.
    let mut all = Vec::new();
    for _ in 0..30 {
        let mut altered = original.clone();
        for (at, start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).map_or(original.len(), |next| next - 100) - 4;
            // Mostly behind the fields that say what is where.
            let from = if draw(8) == 0 { *start } else { (start + 18).min(end - 1) };
            for _ in 0..1 + draw(6) {
                let place = from + draw((end - from).min(120));
                let any = draw(256) as u8;
                altered[place] = [0, 1, 2, 3, 8, 0x40, 0x44, 0x52, 0xc0, 0xff, any][draw(11)];
            }
        }
        all.extend(altered);
    }
    let file = world.file("altered.pcapng");
    std::fs::write(&file, all).unwrap();
    let details = world.shark(&file, &["-V"]);
    assert!(details.contains("Cut short") && details.contains("Unknown type"));
    // The same of what was captured.
    let mut raw = std::fs::read(&capture).unwrap();
    let mut at = 24;
    while at + 16 < raw.len() {
        let length = u32::from_be_bytes(raw[at + 8..at + 12].try_into().unwrap()) as usize;
        for _ in 0..draw(4) {
            // From the connection ids on: the version makes it ours.
            raw[at + 16 + 28 + 5 + draw((length - 28 - 5).min(40))] = draw(256) as u8;
        }
        at += 16 + length;
    }
    std::fs::write(&capture, raw).unwrap();
    world.shark(&capture, &["-V"]);
}

#[test]
fn a_live_capture_of_the_loopback_is_opened() {
    let Some(world) = World::new() else { return };
    let capture = world.file("live.pcapng");
    let Some(mut shark) = listen(world.address, &capture) else {
        eprintln!("skipped: tshark may not capture here");
        return;
    };
    // It ends by itself when it has seen several calls, and their searches for the path's limit.
    while shark.try_wait().unwrap().is_none() {
        world.call(world.address);
    }
    let (opened, told) = world.open(&capture);
    assert!(told["opened"].as_u64() > Some(20), "{told}");
    let list = world.shark(&opened, &[]);
    assert!(list.contains("REQUEST 0-1") && list.contains("REPLY 0-1"), "{list}");
}

#[test]
fn the_dissector_knows_every_message_and_frame_of_the_protocol() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let protocol = std::fs::read_to_string(repository.join("docs/protocol.md")).unwrap();
    let script = repository.join("packaging/wireshark/stubborn.lua");
    let script = std::fs::read_to_string(script).unwrap();
    let mut rows = 0;
    for row in protocol.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // Of frames, of messages: a number, a name in capitals.
        let &[_, number, name, ..] = &cells[..] else { continue };
        let word = name.split(' ').next().unwrap_or_default();
        let is_name = word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        if let Some(first) = number.split([',', '.']).next().filter(|_| is_name)
            && first.starts_with("0x")
        {
            rows += 1;
            // MESSAGE is written there as a range.
            let entry = format!("[{first}] = \"{word}\"");
            assert!(script.contains(&entry) || word == "MESSAGE", "no {entry} in the dissector");
        }
    }
    assert!(rows > 50, "the tables have another form now: {rows} rows were read");
}

/// tshark that listens; none if it is not allowed to.
fn listen(address: SocketAddr, capture: &Path) -> Option<Child> {
    let mut command = Command::new("tshark");
    command.args(["-i", "lo", "-c", "400", "-f", &format!("udp port {}", address.port()), "-w"]);
    command.arg(capture).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut lines = BufReader::new(child.stderr.take()?).lines().map_while(Result::ok);
    let began = lines.by_ref().any(|line| line.contains("Capturing on"));
    // What it says later must not block it.
    std::thread::spawn(move || lines.for_each(drop));
    if !began {
        child.wait().unwrap();
        return None;
    }
    Some(child)
}
