//! `stubborn bench`: two processes, briefly.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Server {
    process: Child,
    address: String,
    /// Where the server leaves its key.
    runtime: tempfile::TempDir,
}

/// As a user's runtime directory is.
fn private_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory.path(), private).unwrap();
    }
    directory
}

impl Server {
    fn start() -> Self {
        let runtime = private_directory();
        let mut process = Command::new(env!("CARGO_BIN_EXE_stubborn"))
            .args(["bench", "serve", "127.0.0.1:0", "--json"])
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        let address = started["address"].as_str().unwrap().to_owned();
        Self { process, address, runtime }
    }

    /// The address as somebody types it who was told the port.
    #[cfg(unix)]
    fn plain_address(&self) -> &str {
        let end = self.address.find('?').unwrap();
        &self.address["stubborn://".len()..end]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bench(address: &str, args: &[&str]) -> (Option<i32>, Value) {
    bench_in(&private_directory(), address, args)
}

/// The same for a user whose runtime directory this is.
fn bench_in(runtime: &tempfile::TempDir, address: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .args(["bench", "run", address, "--json"])
        .args(args)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&text).expect(&text))
}

#[cfg(unix)]
#[test]
fn a_local_server_is_reached_by_its_plain_address_by_the_same_user_and_nobody_else() {
    let mut server = Server::start();
    let args = ["--payload", "64", "--concurrency", "16"];
    let (code, report) =
        bench_in(&server.runtime, server.plain_address(), &[&args[..], &BRIEF].concat());
    assert_eq!((code, &report["unresolved"]), (Some(0), &0.into()), "{report}");

    let (code, refused) = bench(server.plain_address(), &BRIEF);
    assert_eq!(code, Some(5), "{refused}");
    let told = |key: &str| refused["error"][key].as_str().unwrap().to_owned();
    assert!(told("message").contains("certificate is not trusted"), "{refused}");
    assert!(told("hint").contains("?pin="), "{refused}");

    let keys = || std::fs::read_dir(server.runtime.path().join("stubborn")).unwrap().count();
    assert_eq!(keys(), 1);
    let id = rustix::process::Pid::from_child(&server.process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(server.process.wait().unwrap().success());
    assert_eq!(keys(), 0, "the key is taken away at the end");
}

const BRIEF: [&str; 4] = ["--seconds", "0.3", "--warmup", "0.1"];

/// Measures for as long as it takes until a call ends in that time. None is unresolved.
fn measure(address: &str, args: &[&str]) -> Value {
    let mut seconds = 0.3_f64;
    loop {
        let lasts = ["--warmup", "0.1", "--seconds", &seconds.to_string()];
        let (code, report) = bench(address, &[args, &lasts].concat());
        assert_eq!((code, &report["unresolved"]), (Some(0), &0.into()), "{report}");
        if report["calls"].as_u64() > Some(0) {
            return report;
        }
        seconds *= 2.0;
        assert!(seconds < 60.0, "no call ends: {report}");
    }
}

#[test]
fn small_and_large_calls_are_measured_over_one_connection_and_several() {
    let server = Server::start();
    let runs: [&[&str]; 4] = [
        &[],
        &["--concurrency", "16", "--connections", "3", "--threads", "2"],
        &["--payload", "10", "--reply", "5000"],
        &["--payload", "100000", "--concurrency", "2"],
    ];
    for args in runs {
        let report = measure(&server.address, args);
        let at = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
        assert!(at("calls_per_s") > 0.0, "{report}");
        let latency = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(at);
        assert!(latency[0] > 0.0 && latency.is_sorted(), "{report}");
        if cfg!(unix) {
            assert!(at("cpu_us_per_call") > 0.0, "{report}");
        }
    }
}

#[test]
fn idle_connections_are_opened_and_answer_afterwards() {
    let server = Server::start();
    let output = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .args(["bench", "idle", &server.address, "--json", "--connections", "40", "--settle", "0"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["connections"], 40, "{report}");
    if cfg!(target_os = "linux") {
        assert!(report["resident_after"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn a_server_with_another_key_is_not_measured() {
    let (one, other) = (Server::start(), Server::start());
    let pin = one.address.split_once('?').unwrap().1;
    let host = other.address.split_once('?').unwrap().0;
    let (code, report) = bench(&format!("{host}?{pin}"), &BRIEF);
    assert_eq!(code, Some(5), "{report}");
}

#[test]
fn more_connections_than_calls_are_refused() {
    let (code, report) = bench("127.0.0.1:1", &["--connections", "2"]);
    assert_eq!(code, Some(2), "{report}");
}

#[test]
fn top_shows_the_calls_links_and_sessions_of_a_running_server() {
    let server = Server::start();
    let (_, report) = bench(&server.address, &BRIEF);
    let top = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stubborn"))
            .args(["top", &server.address, "--once", "--interval", "50ms", "--wait", "1m"])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let told: Value = serde_json::from_str(&top(&["--json"])).unwrap();
    let methods = told["methods"].as_array().unwrap();
    let own = methods.iter().all(|calls| calls["method"].as_str().unwrap().starts_with("bench."));
    assert!(own, "questions of this program are not shown: {told}");
    let echo = |calls: &&Value| calls["method"] == "bench.v1.Echo/Echo";
    let calls = methods.iter().find(echo).unwrap();
    // Those of the warm-up are not in the report.
    assert!(calls["outcomes"]["replied"].as_u64() >= report["calls"].as_u64(), "{told}");
    assert_eq!((&calls["side"], &calls["in_flight"]), (&"server".into(), &0.into()), "{told}");
    let link = &told["links"][0];
    assert!(link["rtt_us"].as_u64() > Some(0) && link["window_bytes"].as_u64() > Some(0), "{told}");
    assert!(link["packets_sent"].as_u64() > Some(0) && link["loss_percent"].is_number(), "{told}");
    assert_eq!(told["servers"][0]["reachable"], true, "{told}");
    let all: Value = serde_json::from_str(&top(&["--json", "--all"])).unwrap();
    assert!(all["methods"].as_array().unwrap().len() > methods.len(), "{all}");
    let table = top(&[]);
    assert!(table.contains("calls/s") && table.contains("replied"), "{table}");
}

#[test]
fn top_says_why_no_server_tells_anything() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .args(["top", &nobody.to_string(), "--insecure", "--once", "--json", "--wait", "200ms"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["error"]["kind"], "connect", "{told}");
}

fn overload(deadline_ms: u64) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .args(["bench", "overload", "--json", "--seconds", "0.4", "--warmup", "0.4"])
        .args(["--places", "4", "--takes", "5000", "--connections", "2"])
        .args(["--deadline", &deadline_ms.to_string()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(0), "{report}");
    report
}

#[test]
fn a_server_that_is_asked_for_too_much_still_does_something_in_time_and_says_what_it_refused() {
    // In time is what this machine can do, which may have other things to do.
    let mut deadline = 200;
    let report = loop {
        let report = overload(deadline);
        if report["goodput_per_s"].as_f64().unwrap() > 0.0 {
            break report;
        }
        deadline *= 2;
        assert!(deadline < 60_000, "nothing is in time: {report}");
    };
    let not_run = ["refused", "never_sent"].map(|key| report[key].as_u64().unwrap());
    assert!(not_run.iter().sum::<u64>() > 0, "{report}");
    assert!(report["shed"]["standing"].is_u64() && report["limit"].is_u64(), "{report}");
}
