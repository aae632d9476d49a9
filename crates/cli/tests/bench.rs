//! `stubborn bench`: two processes, briefly.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_stubborn"))
            .args(["bench", "serve", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let started: Value = serde_json::from_str(&line).unwrap();
        let address = started["address"].as_str().unwrap().to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn bench(address: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_stubborn"))
        .args(["bench", "run", address, "--json"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&text).expect(&text))
}

const BRIEF: [&str; 4] = ["--seconds", "0.3", "--warmup", "0.1"];

#[test]
fn small_and_large_calls_are_measured_over_one_connection_and_several() {
    let server = Server::start();
    let runs: [&[&str]; 3] = [
        &[],
        &["--concurrency", "16", "--connections", "3"],
        &["--payload", "100000", "--concurrency", "2"],
    ];
    for args in runs {
        let (code, report) = bench(&server.address, &[args, &BRIEF].concat());
        assert_eq!(code, Some(0), "{report}");
        assert_eq!(report["unresolved"], 0, "{report}");
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
