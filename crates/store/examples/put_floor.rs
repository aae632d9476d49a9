//! What a durable put costs without anything of ours: the syncs and the datagrams alone.
//!
//! A client, a leader and two followers, a thread each, speak plain UDP over loopback: a put goes to
//! the leader, from there to both followers, each of which writes 512 bytes over zeros and syncs, and
//! the answer goes back when so many of them (`needs`) have. All stay awake, or all sleep in their
//! receive. The leader's own log is not written, or is by a thread of its own at the same time.
//!
//! `cargo run --release -p stubborn-store --example put_floor -- FOLDER [SECONDS]`

use std::fs::OpenOptions;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const RECORD: usize = 4_096;
const LENGTH: u64 = 64 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    None,
    /// `pwrite` and `fdatasync`.
    Data,
    /// `O_DIRECT | O_DSYNC`.
    Direct,
}

#[derive(Clone, Copy)]
struct Plan {
    awake: bool,
    sync: Sync,
    needs: u8,
    leader_writes: bool,
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("a folder"));
    let seconds: f64 = arguments.next().map_or(1.0, |s| s.parse().expect("seconds"));
    let plan = Plan { awake: true, sync: Sync::Data, needs: 2, leader_writes: false };
    let plans = [
        ("hops alone, asleep", Plan { awake: false, sync: Sync::None, ..plan }),
        ("hops alone, awake", Plan { sync: Sync::None, ..plan }),
        ("fdatasync, two at once, both needed", plan),
        (
            "fdatasync, three at once, one of two needed",
            Plan { needs: 1, leader_writes: true, ..plan },
        ),
        ("fdatasync, three at once, both needed", Plan { leader_writes: true, ..plan }),
        ("fdatasync, two at once, asleep", Plan { awake: false, ..plan }),
        ("direct, two at once, both needed", Plan { sync: Sync::Direct, ..plan }),
    ];
    println!("{:45} {:>8} {:>8} {:>8} {:>8}", "", "puts/s", "mean", "p50", "p99");
    for (name, plan) in plans {
        let mut took = run(&folder, plan, Duration::from_secs_f64(seconds))?;
        took.sort_unstable();
        let mean = took.iter().sum::<Duration>().as_secs_f64() / took.len() as f64;
        let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e6;
        let (rate, mean) = (1.0 / mean, mean * 1e6);
        println!("{name:45} {rate:8.0} {mean:8.0} {:8.0} {:8.0}", at(50), at(99));
    }
    Ok(())
}

fn run(folder: &Path, plan: Plan, time: Duration) -> io::Result<Vec<Duration>> {
    let bind = || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(plan.awake)?;
        socket.set_read_timeout((!plan.awake).then_some(Duration::from_millis(100)))?;
        Ok::<_, io::Error>(socket)
    };
    let (client, leader) = (bind()?, bind()?);
    let followers = [bind()?, bind()?];
    let to_leader = leader.local_addr()?;
    let to: Vec<SocketAddr> =
        followers.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?;
    let over = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for (number, socket) in followers.into_iter().enumerate() {
        let mut log = Log::open(folder, number, plan.sync)?;
        let over = Arc::clone(&over);
        threads.push(thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Some((size, from)) = receive(&socket, &mut buffer, &over) {
                log.write();
                let _ = socket.send_to(&buffer[..size], from);
            }
        }));
    }
    let mut own = Log::open(folder, 2, plan.sync)?;
    let (write, writes) = channel();
    threads.push(thread::spawn(move || writes.into_iter().for_each(|()| own.write())));
    let told = Arc::clone(&over);
    threads.push(thread::spawn(move || {
        let (mut buffer, mut asks, mut acks, mut current) = ([0; 256], to_leader, 0, 0);
        while let Some((size, from)) = receive(&leader, &mut buffer, &told) {
            let number = u64::from_be_bytes(*buffer.first_chunk().expect("100 bytes"));
            if to.contains(&from) {
                acks += u8::from(number == current);
                if acks == plan.needs && number == current {
                    let _ = leader.send_to(&buffer[..size], asks);
                }
                continue;
            }
            (asks, acks, current) = (from, 0, number);
            to.iter().for_each(|follower| drop(leader.send_to(&buffer[..size], follower)));
            if plan.leader_writes {
                let _ = write.send(());
            }
        }
    }));
    let (mut took, mut buffer, started) = (Vec::new(), [0; 256], Instant::now());
    for number in 1_u64.. {
        let sent = Instant::now();
        if sent - started > time {
            break;
        }
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        client.send_to(&buffer[..100], to_leader)?;
        receive(&client, &mut buffer, &over);
        if number > 100 {
            took.push(sent.elapsed());
        }
    }
    over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
    Ok(took)
}

fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    over: &AtomicBool,
) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(_) if over.load(Ordering::Relaxed) => return None,
            Err(_) => std::hint::spin_loop(),
        }
    }
}

struct Log {
    file: std::fs::File,
    path: PathBuf,
    sync: Sync,
    /// Aligned as direct writes need it.
    record: Box<Record>,
    offset: u64,
}

#[repr(align(4096))]
struct Record([u8; RECORD]);

impl Log {
    fn open(folder: &Path, number: usize, sync: Sync) -> io::Result<Self> {
        let path = folder.join(format!("put-floor-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        std::fs::write(&path, vec![0; LENGTH as usize])?;
        #[cfg(target_os = "linux")]
        if sync == Sync::Direct {
            use std::os::unix::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
            options.custom_flags(flags.bits() as i32);
        }
        let file = options.write(true).open(&path)?;
        file.sync_all()?;
        Ok(Self { file, path, sync, record: Box::new(Record([1; RECORD])), offset: 0 })
    }

    fn write(&mut self) {
        #[cfg(unix)]
        use std::os::unix::fs::FileExt;
        let size = if self.sync == Sync::Direct { RECORD } else { 512 };
        if self.sync == Sync::None {
            return;
        }
        #[cfg(unix)]
        self.file.write_all_at(&self.record.0[..size], self.offset).expect("cannot write");
        if self.sync == Sync::Data {
            self.file.sync_data().expect("cannot sync");
        }
        self.offset = (self.offset + size as u64) % LENGTH;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
