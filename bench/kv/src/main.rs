//! Durable puts beside etcd: `cargo xtask bench --kv`.
//!
//! Three nodes of each system run on this machine, their logs on one disk, with every sync done. The
//! same closed loop puts keys into one system and then into the other, in turn; then the leader of
//! each is killed (SIGKILL) under load.

mod etcd;
mod load;
mod ours;
mod ports;
mod report;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use crate::report::{Cell, Gap, Results};

/// Measures durable puts of ours and of etcd, and the longest gap when a leader is killed.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --kv")]
struct Arguments {
    #[command(subcommand)]
    load: Option<Load>,

    /// Puts in flight, one row each.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,16,128,1024")]
    concurrency: Vec<u32>,

    /// How often each is measured, in turn; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repetitions: usize,

    /// How long each is measured, after a second of warming up.
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,

    /// Bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    payload: u32,

    /// How often each leader is killed.
    #[arg(long, value_name = "N", default_value_t = 5)]
    kills: usize,

    /// On which disk: a folder. What is written there is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// The program to measure; without it, it is built.
    #[arg(long, value_name = "FILE")]
    stubborn: Option<PathBuf>,

    /// Writes all figures.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Writes the tables into docs/performance.md.
    #[arg(long)]
    write_docs: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Load {
    /// Puts keys into etcd.
    #[command(hide = true)]
    Load(load::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.load {
        Some(Load::Load(load)) => load::run(load),
        None => compare(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Three nodes of a system.
trait Cluster {
    fn name(&self) -> &'static str;

    /// Puts keys for so long, after a second, and returns what the load says of it.
    fn load(&self, puts: &Puts) -> Result<Command, String>;

    fn leader(&self) -> Result<usize, String>;
    fn kill(&mut self, node: usize);
    fn start(&mut self, node: usize) -> Result<(), String>;
}

/// What a load is to do.
struct Puts {
    concurrency: u32,
    seconds: f64,
    payload: u32,
    /// How long one try may take before another node is asked, where the client does not know itself.
    patience: Duration,
}

fn compare(arguments: &Arguments) -> Result<(), String> {
    let program = match &arguments.stubborn {
        Some(program) => program.clone(),
        None => ours::build()?,
    };
    let home = arguments.folder.join(format!("stubborn-bench-kv-{}", std::process::id()));
    std::fs::create_dir_all(&home).map_err(|e| format!("cannot make {}: {e}", home.display()))?;
    let home = Home(home.canonicalize().map_err(|e| e.to_string())?);
    let mut clusters: Vec<Box<dyn Cluster>> = vec![
        Box::new(etcd::Etcd::start(&home.0.join("etcd"))?),
        Box::new(ours::Ours::start(&home.0.join("ours"), program)?),
    ];
    let mut results = Results::new(arguments.payload, arguments.seconds, etcd::version()?);
    for &concurrency in &arguments.concurrency {
        for _ in 0..arguments.repetitions {
            for cluster in &clusters {
                let cell = measure(&**cluster, arguments, concurrency)?;
                println!("{concurrency:>5} in flight  {cell}");
                results.cells.push(cell);
            }
        }
    }
    for _ in 0..arguments.kills {
        for cluster in &mut clusters {
            let gap = kill_leader(&mut **cluster, arguments)?;
            println!("leader killed    {gap}");
            results.gaps.push(gap);
        }
    }
    drop(clusters);
    println!("\n{}", results.tables());
    if let Some(file) = &arguments.json {
        let text = format!("{:#}\n", results.to_json());
        std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if arguments.write_docs {
        report::write_docs(&results)?;
    }
    Ok(())
}

fn measure(cluster: &dyn Cluster, arguments: &Arguments, concurrency: u32) -> Result<Cell, String> {
    let Arguments { seconds, payload, .. } = *arguments;
    // Longer than any put of a system that is well: what fails is told, and fails the run.
    let puts = Puts { concurrency, seconds, payload, patience: Duration::from_secs(10) };
    let told = told_by(cluster.load(&puts)?.output())?;
    if told["failed"].as_u64() != Some(0) || told["unresolved"].as_u64() != Some(0) {
        return Err(format!("puts into {} failed: {told}", cluster.name()));
    }
    Cell::of(cluster.name(), concurrency, &told)
}

/// Kills the leader in the midst of a load of 16 in flight.
fn kill_leader(cluster: &mut dyn Cluster, arguments: &Arguments) -> Result<Gap, String> {
    let payload = arguments.payload;
    let patience = Duration::from_millis(300);
    let puts = Puts { concurrency: 16, seconds: 8.0, payload, patience };
    let leader = cluster.leader()?;
    let mut load = cluster.load(&puts)?;
    let load = load.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let load = load.spawn().map_err(|e| format!("cannot start the load: {e}"))?;
    std::thread::sleep(Duration::from_secs(3));
    cluster.kill(leader);
    let told = told_by(load.wait_with_output());
    cluster.start(leader)?;
    std::thread::sleep(Duration::from_secs(1));
    Gap::of(cluster.name(), &told?)
}

/// What a load printed.
fn told_by(output: std::io::Result<std::process::Output>) -> Result<Value, String> {
    let output = output.map_err(|e| format!("cannot start the load: {e}"))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("the load has failed: {}", complaint.trim())
    })
}

/// A folder that goes with the run.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
