//! The thread that carries packets from one device to the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::direction::Direction;
use crate::faults::Faults;
use crate::held::Held;
use crate::stats::PathStats;

/// Packets that are taken from a device before the other one and the clock get their turn.
const BATCH: usize = 16;

/// How close to the next packet's time it is waited for without sleeping: waking up takes that long.
const SPIN: u64 = 60_000;

/// How long after the last packet the next one is waited for without sleeping.
const LINGER: u64 = 20_000;

/// What a carrier is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Begin anew with these faults and this seed. Packets on the way are forgotten.
    Set { forth: Faults, back: Faults, seed: u64 },
    /// Begin the statistics anew.
    Watch,
    /// Say what has happened since then.
    Tell(SyncSender<PathStats>),
    /// Stop.
    Stop,
}

/// The client's device is 0, the server's 1.
pub(crate) struct Carrier {
    pub(crate) devices: [File; 2],
    pub(crate) orders: Receiver<Order>,
    /// A byte arrives here after each order.
    pub(crate) bell: UnixStream,
    /// The largest packet.
    pub(crate) mtu: usize,
    /// Whether to never sleep.
    pub(crate) busy: bool,
}

/// The state of the thread.
struct State {
    start: Instant,
    /// What happens to packets of each device.
    directions: [Direction; 2],
    held: Held,
    late: Histogram<u64>,
    refused: u64,
}

impl Carrier {
    /// Carries until it is told to stop.
    pub(crate) fn run(mut self) {
        // Else timeouts are 50 us late (man prctl, PR_SET_TIMERSLACK), and whatever else runs on the
        // machine takes turns of milliseconds with a thread that spins. Where either is refused,
        // precision suffers, and the statistics say how much. On Linux this priority is the thread's.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let _ = rustix::process::setpriority_process(None, -20);
        let mut state = State::new();
        let mut buffer = vec![0; self.mtu + 64];
        let mut last_packet = 0;
        while self.obey(&mut state) {
            state.deliver(&mut self.devices);
            let mut moved = false;
            for from in 0..2 {
                moved |= state.collect(from, &mut self.devices[from], &mut buffer);
            }
            let now = state.now();
            if moved {
                last_packet = now;
                continue;
            }
            let next = state.held.next_due();
            let soon = next.is_some_and(|due| due < now + SPIN);
            if self.busy || soon || now < last_packet + LINGER {
                std::hint::spin_loop();
            } else {
                self.sleep(next.map(|due| Duration::from_nanos(due - now - SPIN)));
            }
        }
    }

    /// Sleeps until a packet or an order comes, or the time is over.
    fn sleep(&mut self, time: Option<Duration>) {
        let timeout = time.and_then(|time| Timespec::try_from(time).ok());
        let [client, server] = &self.devices;
        let mut fds = [
            PollFd::new(client, PollFlags::IN),
            PollFd::new(server, PollFlags::IN),
            PollFd::new(&self.bell, PollFlags::IN),
        ];
        let rings =
            poll(&mut fds, timeout.as_ref()).is_ok() && fds[2].revents().contains(PollFlags::IN);
        if rings {
            let _ = self.bell.read(&mut [0; 64]);
        }
    }

    /// False if it is to stop.
    fn obey(&mut self, state: &mut State) -> bool {
        match self.orders.try_recv() {
            Ok(Order::Set { forth, back, seed }) => state.set(forth, back, seed),
            Ok(Order::Watch) => state.watch(),
            Ok(Order::Tell(to)) => {
                let _ = to.try_send(state.stats());
            }
            Err(TryRecvError::Empty) => {}
            Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
        }
        true
    }
}

impl State {
    fn new() -> Self {
        let late = Histogram::new_with_bounds(1, 1_000_000_000, 2).expect("these bounds are valid");
        let direction = Direction::new(Faults::default(), 0, 0);
        Self {
            start: Instant::now(),
            directions: [direction.clone(), direction],
            held: Held::default(),
            late,
            refused: 0,
        }
    }

    /// Nanoseconds since the thread began.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn set(&mut self, forth: Faults, back: Faults, seed: u64) {
        let now = self.now();
        // The two directions must not lose the same packets.
        self.directions = [
            Direction::new(forth, seed, now),
            Direction::new(back, seed ^ 0x5bd1_e995_0000_0001, now),
        ];
        self.held.clear();
        self.watch();
    }

    /// Begins the statistics anew.
    fn watch(&mut self) {
        let now = self.now();
        for direction in &mut self.directions {
            direction.watch(now);
        }
        self.late.reset();
        self.refused = 0;
    }

    fn stats(&mut self) -> PathStats {
        let now = self.now();
        let late = |quantile| Duration::from_nanos(self.late.value_at_quantile(quantile));
        PathStats {
            late_p50: late(0.5),
            late_p99: late(0.99),
            late_max: Duration::from_nanos(self.late.max()),
            forth: self.directions[0].stats(now),
            back: self.directions[1].stats(now),
            refused: self.refused,
            unseen: 0,
        }
    }

    /// Hands over what is due.
    fn deliver(&mut self, devices: &mut [File; 2]) {
        let mut now = self.now();
        while let Some(packet) = self.held.pop(now) {
            self.late.saturating_record(now - packet.due);
            // A device takes a packet at once or refuses it: a damaged header, or no memory.
            if devices[packet.to].write(&packet.bytes).is_err() {
                self.refused += 1;
            }
            self.held.recycle(packet);
            now = self.now();
        }
    }

    /// Takes packets in. False if there were none.
    fn collect(&mut self, from: usize, device: &mut File, buffer: &mut [u8]) -> bool {
        for taken in 0..BATCH {
            let len = match device.read(buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return taken > 0,
            };
            let verdict = self.directions[from].offer(self.now(), len);
            for delivery in [verdict.first, verdict.second].into_iter().flatten() {
                let bytes = &buffer[..len];
                if !self.held.push(delivery.due, 1 - from, bytes, delivery.damage) {
                    self.refused += 1;
                }
            }
        }
        true
    }
}
