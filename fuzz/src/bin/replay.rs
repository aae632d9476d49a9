//! Replays the corpus of each target, then mutates it at random for a bounded time. Needs no nightly
//! toolchain: this is what CI runs.
//!
//! `replay [--seconds N] [--seed N] [TARGET...]`, or `replay --input FILE TARGET` for one input. Exits
//! with 1 when an input panics, hangs or allocates without measure; the input is then in `artifacts/`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use stubborn_fuzz::{TARGETS, Target};

/// The longest input that is made.
const MAX_INPUT: usize = 4_096;
/// One input may take this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// One input may hold this much memory at once.
const MAX_LIVE: usize = 64 << 20;

fn main() {
    let options = Options::parse();
    if let (Some(file), [target]) = (&options.input, &options.targets[..]) {
        let input = fs::read(file).unwrap_or_else(|e| usage(&format!("{}: {e}", file.display())));
        println!("{}: {} bytes", target.0, input.len());
        return target.1(&input);
    }
    thread::spawn(watch);
    let each = Duration::from_secs(options.seconds) / options.targets.len() as u32;
    let failures = options.targets.iter().filter(|target| !run(target, each, options.seed)).count();
    exit(i32::from(failures > 0));
}

struct Options {
    seconds: u64,
    seed: u64,
    input: Option<PathBuf>,
    targets: Vec<Target>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { seconds: 0, seed: 1, input: None, targets: Vec::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage("a value is missing"));
            let number =
                |text: String| text.parse().unwrap_or_else(|_| usage("a number is expected"));
            match arg.as_str() {
                "--seconds" => options.seconds = number(value()),
                "--seed" => options.seed = number(value()),
                "--input" => options.input = Some(value().into()),
                name => match TARGETS.iter().find(|(target, _)| *target == name) {
                    Some(target) => options.targets.push(*target),
                    None => usage(&format!("unknown target {name}")),
                },
            }
        }
        if options.targets.is_empty() {
            options.targets = TARGETS.to_vec();
        }
        options
    }
}

fn usage(problem: &str) -> ! {
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    eprintln!("error: {problem}");
    eprintln!("usage: replay [--seconds N] [--seed N] [TARGET...] | --input FILE TARGET");
    eprintln!("targets: {}", names.join(" "));
    exit(2)
}

/// Runs one target; false when an input failed.
fn run(&(name, body): &Target, time: Duration, seed: u64) -> bool {
    let mut corpus = read_corpus(name);
    let committed = corpus.len();
    let start = Instant::now();
    for input in &corpus {
        if !survives(name, body, input) {
            return false;
        }
    }
    if corpus.is_empty() {
        corpus.push(Vec::new());
    }
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    let mut made = 0u64;
    while start.elapsed() < time {
        for _ in 0..256 {
            let input = mutate(&corpus, &mut random);
            if !survives(name, body, &input) {
                eprintln!("found with --seed {seed}");
                return false;
            }
            made += 1;
        }
    }
    println!("{name}: {committed} committed and {made} random inputs (seed {seed})");
    true
}

fn read_corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("{}: no corpus", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// The input that is being tried, and since when (milliseconds since the start; 0 for none).
static CURRENT: Mutex<(&str, Vec<u8>)> = Mutex::new(("", Vec::new()));
static SINCE: AtomicU64 = AtomicU64::new(0);

fn survives(name: &'static str, body: fn(&[u8]), input: &[u8]) -> bool {
    {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        current.0 = name;
        current.1.clear();
        current.1.extend_from_slice(input);
    }
    SINCE.store(millis().max(1), Ordering::Relaxed);
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let panicked = catch_unwind(|| body(input)).is_err();
    let held = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    SINCE.store(0, Ordering::Relaxed);
    if panicked {
        report(name, input, "panicked");
    } else if held > MAX_LIVE {
        report(name, input, &format!("held {held} bytes"));
    }
    !panicked && held <= MAX_LIVE
}

fn report(name: &str, input: &[u8], what: &str) {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let file = folder.join(format!("{name}-{hash:016x}"));
    let _ = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
    eprintln!("{name}: an input of {} bytes {what}; replay it with", input.len());
    eprintln!(
        "  cargo run --manifest-path fuzz/Cargo.toml --bin replay -- --input {} {name}",
        file.display()
    );
}

/// Ends the program when one input takes too long.
fn watch() {
    loop {
        thread::park_timeout(Duration::from_secs(1));
        let since = SINCE.load(Ordering::Relaxed);
        if since != 0 && millis().saturating_sub(since) > PATIENCE.as_millis() as u64 {
            let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
            report(current.0, &current.1, "hangs");
            exit(1);
        }
    }
}

fn millis() -> u64 {
    static START: Mutex<Option<Instant>> = Mutex::new(None);
    let mut start = START.lock().unwrap_or_else(PoisonError::into_inner);
    start.get_or_insert_with(Instant::now).elapsed().as_millis() as u64
}

/// An input from the corpus with one to eight changes.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => input.truncate(at),
            1 => input.insert(at, random.next() as u8),
            2 => {
                let other = &corpus[random.below(corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            3 => {
                let copy = input[at..].to_vec();
                input.extend_from_slice(&copy);
            }
            4 => input.extend((0..random.below(32)).map(|_| random.next() as u8)),
            _ if at == input.len() => {}
            5 => drop(input.remove(at)),
            6 => input[at] ^= 1 << random.below(8),
            _ => {
                const TELLING: [u8; 8] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff];
                input[at] = TELLING[random.below(8)];
            }
        }
        input.truncate(MAX_INPUT);
    }
    input
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the promises that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
