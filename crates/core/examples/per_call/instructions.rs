//! Instructions per call by phase, counted by callgrind, beside a committed baseline.
//!
//! The figure that is compared leaves out cryptography: which code aws-lc runs depends on the
//! processor's features, and none of it is ours.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::LEVELS;
use crate::pair::{PHASES, Phase};

/// The committed counts.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/per_call/baseline.txt");

/// The calls in flight that the baseline holds: one message in a packet, and many.
const BASELINE_LEVELS: [usize; 2] = [1, 128];

/// By how much a count may exceed its baseline, in percent.
const TOLERANCE: f64 = 5.0;

/// Instructions per call.
#[derive(Clone, Copy, Debug)]
struct Count {
    own: f64,
    cryptography: f64,
}

/// Prints the counts; returns the exit code.
pub(crate) fn print() -> i32 {
    let Some(counts) = count_all(&LEVELS) else { return 0 };
    println!("instructions per call, own + cryptography");
    print!("{:>9}", "in flight");
    PHASES.iter().for_each(|phase| print!("{:>18}", phase.name()));
    println!("{:>18}", "sum");
    for (level, row) in LEVELS.iter().zip(&counts) {
        print!("{level:>9}");
        for count in row {
            print!("{:>18}", format!("{:.0} + {:.0}", count.own, count.cryptography));
        }
        let own: f64 = row.iter().map(|count| count.own).sum();
        let cryptography: f64 = row.iter().map(|count| count.cryptography).sum();
        println!("{:>18}", format!("{own:.0} + {cryptography:.0}"));
    }
    0
}

/// Compares with the baseline; returns the exit code.
pub(crate) fn check() -> i32 {
    let text = match std::fs::read_to_string(BASELINE) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{BASELINE}: {error}");
            return 2;
        }
    };
    let expected: HashMap<&str, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.trim_end(), value.parse().ok()?))
        })
        .collect();
    let Some(counts) = count_all(&BASELINE_LEVELS) else { return 0 };
    let mut failed = false;
    for (name, count) in named(&counts) {
        let Some(&before) = expected.get(name.as_str()) else {
            println!("{name}: {:.0}, not in the baseline", count.own);
            failed = true;
            continue;
        };
        let change = (count.own / before - 1.0) * 100.0;
        let verdict = match change {
            change if change > TOLERANCE => {
                "more: find out why, or renew the baseline with --bless"
            }
            change if change < -TOLERANCE => "less: renew the baseline with --bless",
            _ => "as before",
        };
        println!("{name}: {before:.0} -> {:.0} ({change:+.1} %) {verdict}", count.own);
        failed |= change > TOLERANCE;
    }
    i32::from(failed)
}

/// Writes the baseline; returns the exit code.
pub(crate) fn bless() -> i32 {
    let Some(counts) = count_all(&BASELINE_LEVELS) else { return 1 };
    let mut text = String::from(
        "# Instructions per call without cryptography: calls in flight, phase, count. Renew with\n\
         # cargo run --release -p stubborn-core --example per_call -- --bless\n",
    );
    for (name, count) in named(&counts) {
        text += &format!("{name} {:.0}\n", count.own);
    }
    match std::fs::write(BASELINE, text) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{BASELINE}: {error}");
            2
        }
    }
}

fn named(counts: &[[Count; 4]]) -> impl Iterator<Item = (String, Count)> + '_ {
    BASELINE_LEVELS.iter().zip(counts).flat_map(|(level, row)| {
        PHASES
            .iter()
            .zip(row)
            .map(move |(phase, count)| (format!("{level} {}", phase.name()), *count))
    })
}

/// All phases at these levels; `None`, with the reason printed, where valgrind is missing.
fn count_all(levels: &[usize]) -> Option<Vec<[Count; 4]>> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("skipped: valgrind is not installed, and it is what counts instructions");
        return None;
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut counts = Vec::new();
    for &level in levels {
        let mut row = Vec::new();
        for phases in PHASES.chunks(jobs) {
            std::thread::scope(|scope| {
                let running: Vec<_> =
                    phases.iter().map(|phase| scope.spawn(move || count(level, *phase))).collect();
                row.extend(running.into_iter().map(|thread| thread.join().expect("a count")));
            });
        }
        counts.push(row.try_into().expect("four phases"));
    }
    Some(counts)
}

/// Runs this program under callgrind, which collects in the function of `phase` only.
fn count(in_flight: usize, phase: Phase) -> Count {
    let calls = in_flight.max(500) * 2;
    let name = format!("per_call.{}.{in_flight}.{}.out", std::process::id(), phase.name());
    let out: PathBuf = std::env::temp_dir().join(name);
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*Pair::counted_{}", phase.name()))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("the path of this program"))
        .args(["--only", &in_flight.to_string(), "--calls", &calls.to_string()])
        // The C library picks its copies by the processor too: the plainest everywhere.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX,-ERMS")
        .stdout(Stdio::null())
        .status()
        .expect("valgrind runs");
    assert!(status.success(), "the program under valgrind failed");
    let profile = std::fs::read_to_string(&out).expect("callgrind's profile");
    let _ = std::fs::remove_file(&out);
    let (total, cryptography) = costs(&profile);
    let per_call = |cost: u64| cost as f64 / calls as f64;
    Count { own: per_call(total - cryptography), cryptography: per_call(cryptography) }
}

/// Instructions in all, and within calls to the packet keys, of a profile in callgrind's format
/// (valgrind manual, "Callgrind Format Specification").
fn costs(profile: &str) -> (u64, u64) {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut total, mut cryptography) = (0, 0);
    let mut called: Option<bool> = None;
    for line in profile.lines() {
        if let Some(callee) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (id, name) = callee.split_once(' ').unwrap_or((callee, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if line.starts_with("cfn=") {
                let name = names.get(id).copied().unwrap_or_default();
                called = Some(name.contains("stubborn_tls::keys::"));
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost =
                line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            match called.take() {
                // Inclusive cost of a call: the callee's own lines hold it too.
                Some(true) => cryptography += cost,
                Some(false) => {}
                None => total += cost,
            }
        }
    }
    (total, cryptography)
}
