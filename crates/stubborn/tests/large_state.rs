//! A state of 256 MiB is frozen, written, sent and restored with a few MiB held beside it: counted by
//! the allocator. How long nothing else is done follows from the size of a piece.
#![allow(unsafe_code)] // A global allocator is unsafe to implement; this one only counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use stubborn::kv::{KvMachine, KvReplica, PutRequest, Store as Pairs};
use stubborn::{Applied, Image};
use stubborn_core::service::Machines;
use stubborn_core::time::{Duration, Instant};
use stubborn_group::replica::{Replica, Settings};
use stubborn_group::replication::{Durable, MemberChange, Members, NodeId};
use stubborn_store::{Folder, Identity, Options, Store};

struct Counting;

/// Bytes that are allocated now, and the most there were since it was last asked.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    fn count(freed: usize, taken: usize) {
        HELD.fetch_sub(freed, Ordering::Relaxed);
        let held = HELD.fetch_add(taken, Ordering::Relaxed) + taken;
        MOST.fetch_max(held, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(0, layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Self::count(layout.size(), 0);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(layout.size(), size);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const STATE: usize = 256 << 20;
const VALUE: usize = 16 << 10;

/// What may be held beside states: a few pieces, and buffers of files.
const BESIDE: usize = 4 << 20;

/// What was held at the most while something was done, beyond what was held before or after it.
fn beside<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let done = work();
    let stays = HELD.load(Ordering::Relaxed).max(before);
    (done, MOST.load(Ordering::Relaxed) - stays)
}

fn node(number: u64) -> NodeId {
    NodeId::new(number).unwrap()
}

fn machines(pairs: Pairs) -> Machines {
    let mut machines = Machines::new();
    machines.add(Box::new(KvReplica::new(pairs))).unwrap();
    machines
}

fn full() -> Pairs {
    let mut pairs = Pairs::new();
    for number in 0..STATE / VALUE {
        let value = Bytes::from(vec![number as u8; VALUE]);
        let request = PutRequest { key: format!("key-{number:06}"), value };
        pairs.put(&Applied::default(), request).unwrap();
    }
    pairs
}

/// A replica of a group in which only the first node votes, and where its log is not kept.
fn replica(id: NodeId, durable: Durable, pairs: Pairs) -> Replica {
    let mut settings = Settings { snapshot_entries: 4, ..Settings::default() };
    settings.consensus.keep = 0;
    Replica::new(Instant::ZERO, (1, id), settings, durable, machines(pairs), [id.get() as u8; 32])
        .unwrap()
}

fn folder(path: &Path, id: NodeId) -> (Store, Durable) {
    let folder = Arc::new(Folder::make(path).unwrap());
    let identity = Identity { group: 1, node: id, created: 0, folder: None };
    let new = Durable::new_group(Members::of([node(1)]));
    (Store::create(folder, identity, &new, Options::default()).unwrap(), new)
}

/// Lets a replica work; snapshots of its own are written to the store. Returns what was beside.
fn work(replica: &mut Replica, store: &mut Store, now: Instant) -> usize {
    if replica.poll_timeout() <= now {
        replica.handle_timeout(now);
    }
    let mut most = 0;
    loop {
        replica.flush(now);
        assert_eq!(replica.fault(), None);
        let Some((number, write)) = replica.poll_write() else { break most };
        most = most.max(beside(|| store.write(&[write]).unwrap()).1);
        replica.written(number);
    }
}

#[test]
fn a_large_state_is_written_sent_and_restored_in_pieces() {
    let home = tempfile::tempdir().unwrap();
    let (mut leaders, new) = folder(&home.path().join("1"), node(1));
    let mut leader = replica(node(1), new, full());
    let (mut laggards, new) = folder(&home.path().join("2"), node(2));
    let mut laggard = replica(node(2), new, Pairs::new());

    // The log grows until a snapshot is due; the new member then has to be sent one.
    let (mut now, mut written, mut asked) = (Instant::ZERO, 0, false);
    let mut sent = None;
    for _ in 0..1_000 {
        now += Duration::from_millis(10);
        written = written.max(work(&mut leader, &mut leaders, now));
        if leader.leader() == Some(node(1)) {
            let learners = if asked { [].into() } else { [node(2)].into() };
            let change = MemberChange { learners, ..MemberChange::default() };
            asked |= leader.change_members(&change).is_ok();
        }
        while let Some(packet) = leader.poll_packet() {
            if packet.state.is_some() {
                sent = Some(packet);
            } else {
                laggard.receive(now, node(1), &packet.bytes).unwrap();
            }
        }
        work(&mut laggard, &mut laggards, now);
        while let Some(packet) = laggard.poll_packet() {
            leader.receive(now, node(2), &packet.bytes).unwrap();
        }
        if sent.is_some() && leader.standing().snapshot > 0 {
            break;
        }
    }
    assert!(leader.standing().snapshot > 0);
    assert!(written < BESIDE, "{written} bytes were held to write a snapshot");

    let packet = sent.expect("a snapshot for the laggard");
    let state = packet.state.unwrap();
    laggard.begin_snapshot(node(1), &packet.bytes).unwrap();
    let mut longest = 0;
    let ((), held) = beside(|| {
        for piece in state.pieces() {
            let piece = piece.unwrap();
            longest = longest.max(piece.len());
            laggard.snapshot_piece(node(1), &piece);
        }
    });
    assert!(longest <= Image::PIECE + 2 * VALUE, "a piece has {longest} bytes");
    assert!(held < BESIDE, "{held} bytes were held to send and take a state");
    let ((), held) = beside(|| {
        laggard.end_snapshot(now, node(1)).unwrap();
        work(&mut laggard, &mut laggards, now);
    });
    assert!(held < BESIDE, "{held} bytes were held to install a snapshot");
    assert!(laggard.applied() > 0 && laggard.freeze() == state, "the states differ");

    // From its disk it starts with the same state.
    drop((leader, leaders, state));
    let expected = laggard.freeze();
    let at = laggard.applied_at();
    laggards.close().unwrap();
    drop(laggard);
    let folder = Arc::new(Folder::make(home.path().join("2")).unwrap());
    let (again, held) = beside(|| {
        let (store, recovered) = Store::open(folder, Options::default()).unwrap();
        let durable = store.durable(recovered).unwrap();
        replica(node(2), durable, Pairs::new())
    });
    assert!(held < BESIDE, "{held} bytes were held to start");
    let mut again = again;
    assert_eq!(again.applied_at().index, at.index);
    assert!(again.freeze() == expected, "the states differ");
}
