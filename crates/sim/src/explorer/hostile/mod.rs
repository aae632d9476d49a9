//! A client that does not keep to the protocol: it sends whole requests again, minutes later, on
//! other connections of the same session, before and after fences, with other bodies under old
//! numbers, and with numbers that nobody may use. Written from `docs/protocol.md`, without core's
//! encoders.

mod liar;
mod line;

use std::time::Duration;

use bytes::Bytes;
use stubborn_core::random::Random;
use stubborn_core::transport::endpoint::ConnectionHandle;
use stubborn_core::wire::varint;

pub(super) use self::liar::lie;
use self::line::{Heard, Lines};
use super::probe::{Errand, Kind};
use crate::oracle::calls::{Token, Verdict};
use crate::world::World;

/// A client of bad manners.
pub(super) struct Hostile {
    world: World,
    random: Random,
    lines: Lines,
    session: Option<Session>,
    nonce: [u8; 16],
}

struct Session {
    id: [u8; 16],
    secret: [u8; 32],
    slots: Vec<Slot>,
    /// Requests that were made under each number.
    requests: Vec<Request>,
}

impl Session {
    /// The memory that opened it.
    fn incarnation(&self) -> u64 {
        u64::from_be_bytes(*self.id.first_chunk().expect("16 bytes"))
    }
}

#[derive(Clone, Copy, Default)]
struct Slot {
    last: u64,
    /// Whether the outcome of the last number is known.
    settled: bool,
}

#[derive(Clone)]
struct Request {
    slot: u32,
    sequence: u64,
    token: Token,
    message: Bytes,
    /// It was told to run, or not to.
    verdict: Option<Verdict>,
}

const SLOTS: u64 = 3;

impl Hostile {
    pub(super) fn new(world: &World, host: &str, server: &str, mut random: Random) -> Self {
        let lines = Lines::new(world, host, server, random.fork());
        let nonce = random.bytes();
        Self { world: world.clone(), random, lines, session: None, nonce }
    }

    /// Misbehaves for as long as the world exists.
    pub(super) async fn run(mut self) {
        loop {
            self.act();
            let pause = self.pause();
            let end = self.world.now() + pause;
            self.lines.run_until(end).await;
            while let Some(heard) = self.lines.hear() {
                self.understand(&heard);
            }
        }
    }

    fn pause(&mut self) -> Duration {
        let limit = match self.random.below(100) {
            0 => 600_000_000,
            1..5 => 20_000_000,
            5..30 => 500_000,
            _ => 5_000,
        };
        Duration::from_micros(self.random.below(limit))
    }

    fn act(&mut self) {
        if self.lines.up().len() < 2 && self.random.chance(0.3) {
            return self.lines.dial();
        }
        let Some(line) = self.any_line() else { return };
        if self.session.is_none() {
            let open = [&[0x01][..], &self.nonce, &number(SLOTS)].concat();
            self.lines.say(line, open.into());
            return;
        }
        match self.random.below(20) {
            0..5 => self.attach(line),
            5..9 => self.new_request(line),
            9..14 => self.repeat(line),
            14..17 => self.fence(line),
            17 => self.false_retry(line),
            18 => self.fence_before_the_request(line),
            _ => self.leave_a_gap(line),
        }
    }

    fn any_line(&mut self) -> Option<ConnectionHandle> {
        let up = self.lines.up();
        if up.is_empty() {
            return None;
        }
        Some(up[self.random.below(up.len() as u64) as usize])
    }

    fn attach(&mut self, line: ConnectionHandle) {
        let Some(session) = &self.session else { return };
        let attach = [&[0x02][..], &session.id, &session.secret].concat();
        self.lines.say(line, attach.into());
    }

    /// A request under a slot's next number, on the connection that has the session if need be twice.
    fn new_request(&mut self, line: ConnectionHandle) {
        if let Some(request) = self.make_request() {
            self.lines.say(line, request.message);
        }
    }

    fn make_request(&mut self) -> Option<Request> {
        let slot = self.random.below(SLOTS) as usize;
        let entry = self.session.as_ref()?.slots[slot];
        if entry.last > 0 && !entry.settled {
            return None;
        }
        let sequence = entry.last + 1;
        let request = self.request(slot as u32, sequence);
        let session = self.session.as_mut()?;
        session.slots[slot] = Slot { last: sequence, settled: false };
        session.requests.push(request.clone());
        Some(request)
    }

    fn request(&mut self, slot: u32, sequence: u64) -> Request {
        let token = self.world.state().calls.token();
        let takes = if self.random.chance(0.3) { self.random.below(300_000) } else { 0 };
        let errand =
            Errand { token, takes: Duration::from_micros(takes), reply: 20, refuse: false };
        let encoded = errand.encode(Kind::Once, 10);
        let mut message = vec![0x03];
        varint::encode(slot.into(), &mut message);
        varint::encode(sequence, &mut message);
        message.extend(Kind::Once.method().id().0.to_be_bytes());
        message.push(0); // no deadline
        message.extend(encoded.digest.to_be_bytes());
        message.push(0); // no metadata
        message.extend_from_slice(&encoded.body.into_bytes());
        Request { slot, sequence, token, message: message.into(), verdict: None }
    }

    fn any_request(&mut self) -> Option<Request> {
        let requests = &self.session.as_ref()?.requests;
        // Mostly recent ones: old numbers are all refused for the same reason.
        let back = if self.random.chance(0.8) { 4 } else { u64::MAX };
        let choice = self.random.below((requests.len() as u64).min(back).max(1));
        requests.iter().rev().nth(choice as usize).cloned()
    }

    /// An old request again, byte for byte.
    fn repeat(&mut self, line: ConnectionHandle) {
        if let Some(request) = self.any_request() {
            self.lines.say(line, request.message);
        }
    }

    fn fence(&mut self, line: ConnectionHandle) {
        if let Some(request) = self.any_request() {
            self.lines.say(line, fence(&request));
        }
    }

    /// A fence, and then the request that it is for: it must not run.
    fn fence_before_the_request(&mut self, line: ConnectionHandle) {
        let Some(request) = self.make_request() else { return };
        self.lines.say(line, fence(&request));
        self.lines.say(line, request.message);
    }

    /// Another request under a number whose outcome is known: it must never run.
    fn false_retry(&mut self, line: ConnectionHandle) {
        let Some(old) = self.any_request().filter(|request| request.verdict.is_some()) else {
            return;
        };
        let new = self.request(old.slot, old.sequence);
        self.must_not_run(&new);
        self.lines.say(line, new.message);
    }

    /// A number that is further than the next: the connection is closed for it.
    fn leave_a_gap(&mut self, line: ConnectionHandle) {
        if !self.random.chance(0.2) {
            return;
        }
        let slot = self.random.below(SLOTS) as u32;
        let Some(session) = &self.session else { return };
        // So far that it is not the next number when it comes late.
        let beyond = session.slots[slot as usize].last + 1_000_000;
        let request = self.request(slot, beyond);
        self.must_not_run(&request);
        self.lines.say(line, request.message);
    }

    fn must_not_run(&self, request: &Request) {
        let mut state = self.world.state();
        let now = state.now;
        state.calls.told(request.token, Verdict::NotExecuted, now);
    }

    fn understand(&mut self, heard: &Heard) {
        let Some((kind, rest)) = heard.message.split_first() else { return };
        match kind {
            0x41 => self.opened(rest),
            0x43 => self.refused(rest),
            0x44 | 0x47 => self.answered(heard.from, rest, Verdict::Executed),
            0x46 => self.answered(heard.from, rest, Verdict::NotExecuted),
            _ => {}
        }
    }

    fn opened(&mut self, rest: &[u8]) {
        let Some((head, _)) = rest.split_at_checked(64) else { return };
        if self.session.is_some() || head[..16] != self.nonce {
            return;
        }
        self.session = Some(Session {
            id: head[16..32].try_into().expect("16 bytes"),
            secret: head[32..].try_into().expect("32 bytes"),
            slots: vec![Slot::default(); SLOTS as usize],
            requests: Vec::new(),
        });
    }

    /// The session is gone with its server's memory: begin anew.
    fn refused(&mut self, rest: &[u8]) {
        const UNKNOWN: u8 = 0;
        const EXPIRED: u8 = 1;
        let Some(session) = &self.session else { return };
        if rest.len() >= 17 && rest[..16] == session.id && [UNKNOWN, EXPIRED].contains(&rest[16]) {
            self.session = None;
            self.nonce = self.random.bytes();
            // A request names no session: a late one would be a new call in the next session.
            self.lines.hang_up();
        }
    }

    fn answered(&mut self, from: Option<u64>, rest: &[u8], verdict: Verdict) {
        let Some(session) = &mut self.session else { return };
        let incarnation = session.incarnation();
        // It asks whoever is at the server's address; nobody else knows what became of its requests.
        if from != Some(incarnation) {
            return;
        }
        let Some((slot, rest)) = varint::decode(rest) else { return };
        let Some((sequence, _)) = varint::decode(rest) else { return };
        let found = session
            .requests
            .iter_mut()
            .find(|request| u64::from(request.slot) == slot && request.sequence == sequence);
        let Some(request) = found else { return };
        request.verdict = Some(verdict);
        let entry = &mut session.slots[request.slot as usize];
        if entry.last == sequence {
            entry.settled = true;
        }
        let token = request.token;
        let mut state = self.world.state();
        let now = state.now;
        if !state.lies.is_of_one(incarnation) {
            state.calls.told(token, verdict, now);
        }
    }
}

fn fence(request: &Request) -> Bytes {
    let mut message = vec![0x04];
    varint::encode(request.slot.into(), &mut message);
    varint::encode(request.sequence, &mut message);
    message.into()
}

fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint::encode(value, &mut out);
    out
}
