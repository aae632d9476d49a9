//! `stubborn bench disk`

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use stubborn_store::replication::{Durable, Entry, EntryKind, Members, NodeId, Position, Write};
use stubborn_store::{Folder, Identity, Options, Store};

use super::cpu;
use crate::error::Error;
use crate::folders;
use crate::output::Output;
use crate::remote::duration;

/// Measure how fast a disk makes writes durable: the log of a replica, beside bare loops.
///
/// Each commit is written and synced before the next. `store` is the log of a replica; `append` adds
/// the bare payload to a file, and `overwrite` puts it into a file that has its size already: what
/// the disk and its file system can do at most.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write: a folder on the disk in question. What is written there is removed.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// Bytes of an entry.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    payload: u32,

    /// Entries of a commit, one measurement each.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,16,128", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    entries: Vec<u32>,

    /// How long each measurement takes.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    time: Duration,

    /// How often each is repeated, in turn; medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
}

const KINDS: [&str; 3] = ["append", "overwrite", "store"];

/// Bytes of the file that is written over, unless a commit is larger.
const OVERWRITTEN: u64 = 16 << 20;

/// What one measurement gave.
#[derive(Clone, Copy, Debug)]
struct Figures {
    commits_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_entry: f64,
}

pub(crate) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let home = tempfile::Builder::new().prefix("stubborn-bench-").tempdir_in(&args.folder);
    let home = home.map_err(|e| Error::io("make a folder in", &args.folder, &e))?;
    let (mut rows, mut told) = (Vec::new(), Vec::new());
    for &entries in &args.entries {
        let mut measured: [Vec<Figures>; 3] = Default::default();
        for _ in 0..args.repetitions {
            for (kind, figures) in KINDS.iter().zip(&mut measured) {
                figures.push(measure(kind, home.path(), entries as usize, &args)?);
            }
        }
        for (kind, figures) in KINDS.iter().zip(measured) {
            let figures = median(figures);
            rows.push((entries, *kind, figures));
            told.push(to_json(entries, kind, &figures));
        }
    }
    out.json(&json!({ "payload": args.payload, "commits": told }));
    out.line(format_args!(
        "{:>7}  {:<9} {:>10} {:>11} {:>9} {:>9} {:>10}",
        "entries", "", "commits/s", "entries/s", "p50, µs", "p99, µs", "CPU, µs/entry"
    ));
    for (entries, kind, figures) in rows {
        let Figures { commits_per_s, p50_us, p99_us, cpu_us_per_entry } = figures;
        out.line(format_args!(
            "{entries:>7}  {kind:<9} {commits_per_s:>10.0} {:>11.0} {p50_us:>9.0} {p99_us:>9.0} \
             {cpu_us_per_entry:>13.2}",
            commits_per_s * f64::from(entries),
        ));
    }
    Ok(())
}

fn measure(kind: &str, home: &Path, entries: usize, args: &Args) -> Result<Figures, Error> {
    let path = home.join(kind);
    let payload = vec![0x5a; args.payload as usize];
    let figures = match kind {
        "store" => with_store(&path, entries, payload, args.time)?,
        _ => bare(&path, entries, &payload, kind == "overwrite", args.time)
            .map_err(|e| Error::io("write", &path, &e))?,
    };
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    removed.map_err(|e| Error::io("remove", &path, &e))?;
    Ok(figures)
}

fn with_store(
    path: &Path,
    entries: usize,
    payload: Vec<u8>,
    time: Duration,
) -> Result<Figures, Error> {
    let told = |error| folders::told(path, &error);
    let node = NodeId::new(1).expect("not 0");
    let folder = Folder::make(path).map_err(|e| Error::io("make the folder", path, &e))?;
    let identity = Identity { group: 1, node, created: 0, folder: None };
    let new = Durable::new_group(Members::of([node]));
    let mut store =
        Store::create(Arc::new(folder), identity, &new, Options::default()).map_err(told)?;
    let data = Bytes::from(payload);
    let mut index = 0;
    let commit = || {
        let entry = |index| {
            let at = Position { index, term: 1 };
            Entry { at, kind: EntryKind::Command, data: data.clone() }
        };
        let entries = (index + 1..=index + entries as u64).map(entry).collect::<Vec<_>>();
        index += entries.len() as u64;
        store.write(&[Write { entries, must_sync: true, ..Write::default() }])
    };
    let figures = figures(entries, time, commit).map_err(told)?;
    store.close().map_err(told)?;
    Ok(figures)
}

fn bare(
    path: &Path,
    entries: usize,
    payload: &[u8],
    overwrite: bool,
    time: Duration,
) -> Result<Figures, std::io::Error> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::create(path)?;
    let bytes = payload.repeat(entries);
    let size = bytes.len() as u64;
    let room = OVERWRITTEN.max(size);
    if overwrite {
        std::io::copy(&mut std::io::Read::take(std::io::repeat(0), room), &mut file)?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
    }
    let mut offset = 0;
    figures(entries, time, || {
        if overwrite && offset + size > room {
            file.seek(SeekFrom::Start(0))?;
            offset = 0;
        }
        offset += size;
        file.write_all(&bytes)?;
        file.sync_data()
    })
}

/// Commits one after the other for as long, after a few that do not count.
fn figures<E>(
    entries: usize,
    time: Duration,
    mut commit: impl FnMut() -> Result<(), E>,
) -> Result<Figures, E> {
    for _ in 0..20 {
        commit()?;
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("bounds");
    let (start, processor) = (Instant::now(), cpu::used());
    let mut last = start;
    let mut commits = 0u64;
    while last - start < time {
        commit()?;
        let now = Instant::now();
        latency.saturating_record((now - last).as_nanos() as u64);
        last = now;
        commits += 1;
    }
    let (took, processor) = (last - start, cpu::used() - processor);
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Figures {
        commits_per_s: commits as f64 / took.as_secs_f64(),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        cpu_us_per_entry: processor.as_secs_f64() * 1e6 / (commits as f64 * entries as f64),
    })
}

fn median(mut figures: Vec<Figures>) -> Figures {
    figures.sort_by(|a, b| a.commits_per_s.total_cmp(&b.commits_per_s));
    figures[figures.len() / 2]
}

fn to_json(entries: u32, kind: &str, figures: &Figures) -> Value {
    json!({
        "entries": entries,
        "kind": kind,
        "commits_per_s": figures.commits_per_s,
        "entries_per_s": figures.commits_per_s * f64::from(entries),
        "p50_us": figures.p50_us,
        "p99_us": figures.p99_us,
        "cpu_us_per_entry": figures.cpu_us_per_entry,
    })
}
