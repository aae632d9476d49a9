//! An outbox and an inbox joined by a channel that loses, reorders and duplicates packets.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{MessageId, SentFrame};
use crate::limits::Limits;
use crate::transport::TransportError;
use crate::transport::receive::{Chunk, Inbox};
use crate::transport::send::{MIN_ROOM, Outbox, OutboxEvent};
use crate::wire::frame::{Frame, Frames};
use crate::wire::{PacketType, Side};

/// The frames of a packet.
fn decode(packet: &Bytes) -> impl Iterator<Item = Frame<'_>> {
    Frames::new(packet, PacketType::OneRtt, Side::Client).map(Result::unwrap)
}

/// The bytes of the `n`th message from `from` on.
fn content(n: u64, from: u64) -> impl Iterator<Item = u8> {
    (from..).map(move |i| (n * 37 + i * 11 + i / 251) as u8)
}

struct Packet {
    bytes: Bytes,
    record: Vec<SentFrame>,
    /// The sender has heard of its fate, or given up waiting.
    settled: bool,
    delivered: bool,
}

/// What the reader has of a message.
#[derive(Clone, Default)]
struct Taken {
    bytes: u64,
    accepted: bool,
    ended: bool,
    reset: bool,
}

struct World {
    outbox: Outbox,
    inbox: Inbox,
    forth: Vec<Packet>,
    back: Vec<Packet>,
    sizes: Vec<usize>,
    given_up: Vec<bool>,
    acked: Vec<bool>,
    stopped: Vec<bool>,
    taken: Vec<Taken>,
    readable: Vec<MessageId>,
    limits: Limits,
}

impl World {
    fn new(limits: Limits) -> Self {
        let mut outbox = Outbox::new(&limits);
        let inbox = Inbox::new(&limits);
        outbox.on_peer_credit(inbox.initial_credit());
        Self {
            outbox,
            inbox,
            forth: vec![],
            back: vec![],
            sizes: vec![],
            given_up: vec![],
            acked: vec![],
            stopped: vec![],
            taken: vec![],
            readable: vec![],
            limits,
        }
    }

    fn queue(&mut self, head: usize, body: usize) {
        let n = self.sizes.len() as u64;
        let bytes: Bytes = content(n, 0).take(head + body).collect();
        let id = self.outbox.queue(bytes.slice(..head), bytes.slice(head..)).unwrap();
        assert_eq!(id, MessageId(n), "ids count up");
        self.outbox.tell_acked(id);
        self.sizes.push(head + body);
        self.given_up.push(false);
        self.acked.push(false);
        self.stopped.push(false);
        self.taken.push(Taken::default());
    }

    /// Writes a packet each way; false if there was nothing to write.
    fn write(&mut self, room: usize) -> bool {
        let mut wrote = false;
        for forth in [true, false] {
            let (mut bytes, mut record) = (Vec::new(), Vec::new());
            let pending = if forth {
                let pending = self.outbox.has_pending();
                self.outbox.write(&mut bytes, room, &mut record);
                pending
            } else {
                let pending = self.inbox.has_pending();
                self.inbox.write(&mut bytes, room, &mut record);
                pending
            };
            assert!(bytes.len() <= room);
            assert_eq!(bytes.is_empty(), record.is_empty());
            if room >= MIN_ROOM {
                assert_eq!(pending, !bytes.is_empty(), "pending is what is written");
            }
            if !bytes.is_empty() {
                wrote = true;
                let packets = if forth { &mut self.forth } else { &mut self.back };
                packets.push(Packet {
                    bytes: bytes.into(),
                    record,
                    settled: false,
                    delivered: false,
                });
            }
        }
        wrote
    }

    fn deliver_forth(&mut self, n: usize) {
        self.forth[n].delivered = true;
        let packet = self.forth[n].bytes.clone();
        for frame in decode(&packet) {
            match frame {
                Frame::Message(m) => {
                    let data = packet.slice_ref(m.data);
                    self.inbox.on_message(m.id, m.offset, data, m.end).unwrap();
                }
                Frame::ResetMessage { id, code, final_size } => {
                    self.inbox.on_reset(id, code, final_size).unwrap();
                }
                Frame::DataBlocked(_) | Frame::MessagesBlocked(_) => {}
                other => panic!("the wrong way: {other:?}"),
            }
        }
    }

    fn deliver_back(&mut self, n: usize) {
        self.back[n].delivered = true;
        let packet = self.back[n].bytes.clone();
        for frame in decode(&packet) {
            match frame {
                Frame::StopMessage { id, code } => self.outbox.on_stop(id, code).unwrap(),
                Frame::MaxData(value) => self.outbox.on_max_data(value),
                Frame::MaxMessageData { id, limit } => {
                    self.outbox.on_max_message_data(id, limit).unwrap();
                }
                Frame::MaxMessages(value) => self.outbox.on_max_messages(value),
                other => panic!("the wrong way: {other:?}"),
            }
        }
        self.events();
    }

    /// Tells the senders of a packet's fate, once.
    fn settle(&mut self, forth: bool, n: usize, acked: bool) {
        let packet = if forth { &mut self.forth[n] } else { &mut self.back[n] };
        if core::mem::replace(&mut packet.settled, true) {
            return;
        }
        for frame in core::mem::take(&mut packet.record) {
            match (forth, acked) {
                (true, true) => self.outbox.on_acked(&frame),
                (true, false) => self.outbox.on_lost(&frame),
                (false, true) => {}
                (false, false) => self.inbox.on_lost(&frame),
            }
        }
        self.events();
    }

    fn events(&mut self) {
        while let Some(event) = self.outbox.poll_event() {
            match event {
                OutboxEvent::Acked(id) => {
                    let n = id.0 as usize;
                    assert!(!self.acked[n] && !self.stopped[n] && !self.given_up[n]);
                    self.acked[n] = true;
                }
                OutboxEvent::Stopped { id, code } => {
                    assert_eq!(code, 9);
                    let n = id.0 as usize;
                    assert!(!self.acked[n] && !self.stopped[n] && !self.given_up[n]);
                    (self.stopped[n], self.given_up[n]) = (true, true);
                }
                OutboxEvent::Writable => panic!("never full"),
            }
        }
    }

    /// Takes up to `chunks` chunks of what can be read.
    fn read(&mut self, mut chunks: usize) {
        while chunks > 0
            && let Some((id, data)) = self.inbox.take_whole()
        {
            chunks -= 1;
            let taken = &mut self.taken[id.0 as usize];
            assert!(!taken.accepted && !taken.ended && !taken.reset);
            assert!(content(id.0, 0).zip(&data).all(|(sent, came)| sent == *came));
            *taken = Taken { bytes: data.len() as u64, ended: true, ..Taken::default() };
            assert_eq!(data.len(), self.sizes[id.0 as usize]);
        }
        while let Some(id) = self.inbox.accept() {
            assert!(!core::mem::replace(&mut self.taken[id.0 as usize].accepted, true));
            self.readable.push(id);
        }
        while let Some(id) = self.inbox.next_readable() {
            self.readable.push(id);
        }
        while chunks > 0
            && let Some(&id) = self.readable.last()
        {
            chunks -= 1;
            let size = self.sizes[id.0 as usize];
            let taken = &mut self.taken[id.0 as usize];
            match self.inbox.read(id) {
                Chunk::Data { data, end } => {
                    assert!(!taken.ended && !taken.reset);
                    assert!(
                        content(id.0, taken.bytes).zip(&data).all(|(sent, came)| sent == *came)
                    );
                    taken.bytes += data.len() as u64;
                    taken.ended = end;
                    assert_eq!(end, taken.bytes == size as u64);
                }
                Chunk::Blocked => {
                    self.readable.pop();
                }
                Chunk::Reset(code) => {
                    assert!(code == 8 && !taken.ended && !taken.reset);
                    taken.reset = true;
                }
                Chunk::Ended => {
                    self.readable.pop();
                }
            }
        }
    }

    fn check_bounds(&self) {
        assert!(self.inbox.bytes_waiting() <= self.limits.receive_window);
        assert!(self.inbox.open() as u64 <= self.limits.open_messages);
        assert!(self.outbox.in_flight() <= self.limits.send_window);
    }

    /// From here on nothing is lost: everything has to come to its end.
    fn heal(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it never comes to rest");
            for n in 0..self.forth.len() {
                if !self.forth[n].settled {
                    self.deliver_forth(n);
                    self.settle(true, n, true);
                }
            }
            for n in 0..self.back.len() {
                if !self.back[n].settled {
                    self.deliver_back(n);
                    self.settle(false, n, true);
                }
            }
            self.forth.clear();
            self.back.clear();
            self.read(usize::MAX);
            self.check_bounds();
            if !self.write(300) {
                return;
            }
        }
    }

    fn check_outcome(&self) {
        assert!(self.outbox.is_empty() && !self.outbox.has_pending());
        assert_eq!(self.outbox.in_flight(), 0);
        assert_eq!(self.inbox.bytes_waiting(), 0);
        assert_eq!(self.inbox.pieces(), 0);
        assert_eq!(self.inbox.open(), 0);
        assert_eq!(self.inbox.received(), self.outbox.data_sent(), "both accounts agree");
        for (n, taken) in self.taken.iter().enumerate() {
            assert!(self.acked[n] || self.given_up[n], "message {n} has an end for its sender");
            assert!(!(taken.ended && taken.reset));
            let read = taken.ended || taken.reset;
            assert!(read || self.given_up[n], "message {n} has an end for its reader");
            assert!(read || !taken.accepted, "who began to read message {n} learnt its end");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Queue(usize, usize),
    Write(usize),
    Deliver(bool, Index),
    Settle(bool, Index, bool),
    Read(usize),
    Reset(Index),
    Stop(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..40, prop_oneof![0usize..60, 0usize..3000]).prop_map(|(h, b)| Step::Queue(h, b)),
        8 => prop_oneof![0usize..80, 64usize..1500].prop_map(Step::Write),
        10 => (any::<bool>(), any::<Index>()).prop_map(|(way, n)| Step::Deliver(way, n)),
        8 => (any::<bool>(), any::<Index>(), any::<bool>()).prop_map(|(w, n, a)| Step::Settle(w, n, a)),
        4 => (0usize..6).prop_map(Step::Read),
        1 => any::<Index>().prop_map(Step::Reset),
        1 => any::<Index>().prop_map(Step::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_message_is_delivered_whole_once_unaltered_or_its_sender_is_told(
        steps in prop::collection::vec(step(), 1..250),
        receive_window in 16u64..6000,
        send_window in 16u64..6000,
        open_messages in 1u64..12,
    ) {
        let limits = Limits { receive_window, send_window, open_messages, ..Limits::default() };
        let mut world = World::new(limits);
        for step in steps {
            match step {
                Step::Queue(head, body) => world.queue(head, body),
                Step::Write(room) => drop(world.write(room)),
                Step::Deliver(true, n) if !world.forth.is_empty() => {
                    world.deliver_forth(n.index(world.forth.len()));
                }
                Step::Deliver(false, n) if !world.back.is_empty() => {
                    world.deliver_back(n.index(world.back.len()));
                }
                Step::Settle(forth, n, acked) => {
                    let packets = if forth { &world.forth } else { &world.back };
                    if !packets.is_empty() {
                        let n = n.index(packets.len());
                        // Only what was delivered can be acknowledged; anything can be thought lost.
                        let acked = acked && packets[n].delivered;
                        world.settle(forth, n, acked);
                    }
                }
                Step::Read(chunks) => world.read(chunks),
                Step::Reset(n) if !world.sizes.is_empty() => {
                    let n = n.index(world.sizes.len());
                    if !world.acked[n] {
                        let id = MessageId(n as u64);
                        let whole = world.outbox.ever_fully_sent(id);
                        world.given_up[n] = true;
                        prop_assert_eq!(world.outbox.reset(id, 8), whole);
                        prop_assert!(whole || !world.taken[n].ended);
                    }
                }
                Step::Stop(n) if !world.sizes.is_empty() => {
                    let n = n.index(world.sizes.len());
                    if world.taken[n].accepted && !world.taken[n].ended {
                        world.inbox.stop(MessageId(n as u64), 9);
                        world.taken[n].reset = true;
                        world.readable.retain(|id| id.0 != n as u64);
                    }
                }
                _ => {}
            }
            world.check_bounds();
        }
        world.heal();
        world.check_outcome();
    }
}

#[test]
fn a_message_of_many_windows_passes_in_bounded_memory() -> Result<(), TransportError> {
    let limits = Limits { receive_window: 64 << 10, send_window: 32 << 10, ..Limits::default() };
    let mut world = World::new(limits);
    world.queue(0, 5 << 20);
    let mut random = crate::random::Random::from_seed([3; 32]);
    let mut most = 0;
    while !world.taken[0].ended {
        while world.write(1300) {}
        for n in 0..world.forth.len() {
            if random.chance(0.8) {
                world.deliver_forth(n);
            }
            let acked = world.forth[n].delivered;
            world.settle(true, n, acked);
        }
        for n in 0..world.back.len() {
            if random.chance(0.8) {
                world.deliver_back(n);
            }
            let acked = world.back[n].delivered;
            world.settle(false, n, acked);
        }
        world.forth.clear();
        world.back.clear();
        most = most.max(world.inbox.bytes_waiting());
        world.read(usize::MAX);
        world.check_bounds();
    }
    assert!(most > 0, "the window was used");
    world.heal();
    world.check_outcome();
    Ok(())
}

#[test]
fn a_gibibyte_passes_a_window_of_16_mebibytes() {
    static PATTERN: [u8; 1 << 16] = [0xa5; 1 << 16];
    // The real bytes need not exist twice: the sender's body is one allocation of zeroes, which the
    // system maps lazily, and the receiver's chunks are dropped as they are read.
    let limits = Limits::default();
    let size = 1usize << 30;
    let body = Bytes::from(vec![0u8; size]);
    let (mut outbox, mut inbox) = (Outbox::new(&limits), Inbox::new(&limits));
    outbox.on_peer_credit(inbox.initial_credit());
    let id = outbox.queue(Bytes::from_static(&PATTERN), body).unwrap();
    outbox.tell_acked(id);
    let (mut buf, mut record) = (Vec::new(), Vec::new());
    let mut read = 0u64;
    'all: loop {
        while outbox.has_pending() {
            buf.clear();
            outbox.write(&mut buf, 60_000, &mut record);
            let packet = Bytes::from(core::mem::take(&mut buf));
            for frame in decode(&packet) {
                let Frame::Message(m) = frame else { continue };
                inbox.on_message(m.id, m.offset, packet.slice_ref(m.data), m.end).unwrap();
            }
            assert!(inbox.bytes_waiting() <= limits.receive_window);
            record.drain(..).for_each(|frame| outbox.on_acked(&frame));
        }
        while inbox.accept().is_some() {}
        while let Chunk::Data { data, end } = inbox.read(id) {
            read += data.len() as u64;
            if end {
                break 'all;
            }
        }
        inbox.write(&mut buf, 1000, &mut record);
        assert!(!record.is_empty(), "reading gives credit back");
        record.clear();
        let packet = Bytes::from(core::mem::take(&mut buf));
        for frame in decode(&packet) {
            match frame {
                Frame::MaxData(value) => outbox.on_max_data(value),
                Frame::MaxMessageData { id, limit } => {
                    outbox.on_max_message_data(id, limit).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(read, (size + PATTERN.len()) as u64);
    assert_eq!(outbox.poll_event(), Some(OutboxEvent::Acked(id)));
}
