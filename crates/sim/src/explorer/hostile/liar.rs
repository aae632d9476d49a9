//! A server that does not keep to the protocol: in place of an honest one, with its certificate, it opens
//! sessions, acknowledges what it is sent, and then says nothing, or anything. Written from
//! `docs/protocol.md`, without core's encoders.
//!
//! Nothing that it says may make a client panic, hang or forget what other servers have promised.

use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::ConnectionHandle;
use stubborn_core::wire::varint;

use super::line::{Heard, Lines};
use crate::world::World;

/// What a liar does most of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// It opens no session.
    Deaf,
    /// It opens sessions and answers no call.
    Hanging,
    /// It says that every call is executing.
    Working,
    /// It answers every call with an error.
    Failing,
    /// It says of every call that it did not run.
    Refusing,
    /// It says whatever comes to its mind.
    Raving,
}

/// A process in a server's place.
struct Liar {
    world: World,
    random: Random,
    lines: Lines,
    habit: Habit,
    incarnation: u64,
    /// What it remembers of what it was asked: kind, slot or id of a read, number.
    asked: Vec<(u8, u64, u64)>,
    sessions: u64,
}

/// Questions remembered at most.
const MEMORY: usize = 64;

/// Takes the place of a server until `end`, or until the server is started again.
pub(in crate::explorer) async fn lie(
    world: World,
    server: String,
    mut random: Random,
    end: Instant,
) {
    let habit = match random.below(8) {
        0 => Habit::Deaf,
        1 => Habit::Hanging,
        2 => Habit::Working,
        3 => Habit::Failing,
        4 => Habit::Refusing,
        _ => Habit::Raving,
    };
    let (incarnation, replica) = (random.u64(), random.chance(0.15));
    let lines = Lines::in_place_of(&world, &server, incarnation, replica, random.fork());
    world.state().note(incarnation, || format!("{server} lies: {habit:?}, replica: {replica}"));
    let mut liar = Liar {
        world: world.clone(),
        random,
        lines,
        habit,
        incarnation,
        asked: Vec::new(),
        sessions: 0,
    };
    while world.now() < end && !world.is_alive(&server) {
        liar.turn().await;
    }
}

impl Liar {
    async fn turn(&mut self) {
        let pause = Duration::from_micros(1 + self.random.below(20_000));
        let end = self.world.now() + pause;
        self.lines.run_until(end).await;
        while let Some(Heard { line, message, .. }) = self.lines.hear() {
            self.hear(line, &message);
        }
        if self.habit == Habit::Raving && self.random.chance(0.2) {
            let up = self.lines.up();
            if !up.is_empty() {
                let line = up[self.random.below(up.len() as u64) as usize];
                self.rave(line);
            }
        }
        if self.random.chance(0.001) {
            self.lines.hang_up();
        }
    }

    fn hear(&mut self, line: ConnectionHandle, message: &[u8]) {
        let Some((kind, rest)) = message.split_first() else { return };
        match kind {
            0x01 | 0x02 if self.habit == Habit::Deaf => {}
            0x01 => self.open(line, rest),
            0x02 => self.attach(line, rest),
            0x03..=0x0f => {
                let Some((first, rest)) = varint::decode(rest) else { return };
                let second = varint::decode(rest).map_or(0, |(second, _)| second);
                if self.asked.len() == MEMORY {
                    self.asked.remove(0);
                }
                self.asked.push((*kind, first, second));
                self.answer(line, *kind, first, second);
            }
            _ => {}
        }
    }

    fn open(&mut self, line: ConnectionHandle, rest: &[u8]) {
        let Some(nonce) = rest.first_chunk::<16>() else { return };
        self.sessions += 1;
        let raves = self.habit == Habit::Raving && self.random.chance(0.2);
        let slots = if raves { self.any_number() } else { 1 + self.random.below(32) };
        let epoch = if raves { self.any_number() } else { 1 };
        // Somebody else's session is not to be had here.
        let others = raves && self.random.chance(0.3);
        let incarnation = if others { self.random.u64() } else { self.incarnation };
        let mut said = vec![0x41];
        said.extend(nonce);
        said.extend(incarnation.to_be_bytes());
        said.extend(self.sessions.to_be_bytes());
        said.extend([7; 32]);
        numbers(&mut said, &[epoch, slots, 3_600]);
        self.say(line, said);
    }

    fn attach(&mut self, line: ConnectionHandle, rest: &[u8]) {
        let Some(session) = rest.first_chunk::<16>() else { return };
        let session = *session;
        if self.random.chance(0.3) {
            let mut said = vec![0x43];
            said.extend(session);
            said.push(self.random.below(8) as u8);
            return self.say(line, said);
        }
        let mut said = vec![0x42];
        said.extend(session);
        let epoch = 2 + self.random.below(100);
        let span = 1 + self.random.below(40);
        let count = self.random.below(6);
        numbers(&mut said, &[epoch, span, self.random.below(5), self.random.below(64), count]);
        for _ in 0..count {
            let (slot, sequence) = self.any_slot();
            numbers(&mut said, &[slot, sequence, self.random.below(8)]);
        }
        self.say(line, said);
    }

    /// A call, fence or question has come.
    fn answer(&mut self, line: ConnectionHandle, kind: u8, first: u64, second: u64) {
        let read = matches!(kind, 0x08 | 0x0c | 0x0f);
        let call = matches!(kind, 0x03 | 0x04 | 0x0d | 0x0e);
        match self.habit {
            Habit::Raving => self.rave(line),
            Habit::Working if call => self.say_numbers(line, 0x45, &[first, second]),
            Habit::Failing if call => self.fail(line, 0x44, &[first, second]),
            Habit::Failing if read => self.fail(line, 0x4c, &[first]),
            Habit::Refusing if call => self.refuse(line, 0x46, &[first, second]),
            Habit::Refusing if read => self.refuse(line, 0x4e, &[first]),
            _ => {}
        }
    }

    /// A reply with an error of some kind.
    fn fail(&mut self, line: ConnectionHandle, kind: u8, call: &[u64]) {
        let mut said = vec![kind];
        numbers(&mut said, call);
        said.extend([0; 8]);
        numbers(&mut said, &[1 + self.random.below(20), 3]);
        said.extend(b"no!");
        numbers(&mut said, &[0, 0]);
        self.say(line, said);
    }

    /// That the call did not run, for some reason.
    fn refuse(&mut self, line: ConnectionHandle, kind: u8, call: &[u64]) {
        let mut said = vec![kind];
        numbers(&mut said, call);
        numbers(&mut said, &[self.random.below(14), 2]);
        said.extend(b"no");
        if self.random.chance(0.2) {
            numbers(&mut said, &[1 + self.any_number() % 10_000_000]);
        }
        self.say(line, said);
    }

    /// Anything at all: well formed or not, about calls that there are or not.
    fn rave(&mut self, line: ConnectionHandle) {
        let (slot, sequence) = self.any_slot();
        match self.random.below(24) {
            0..4 => self.fail(line, 0x44, &[slot, sequence]),
            4 => self.fail(line, 0x4c, &[slot]),
            5 | 6 => self.refuse(line, 0x46, &[slot, sequence]),
            7 => self.refuse(line, 0x4e, &[slot]),
            8 => self.reply_with_anything(line, slot, sequence),
            9..13 => {
                let kind = [0x45, 0x47, 0x48, 0x49, 0x60][self.random.below(5) as usize];
                self.say_numbers(line, kind, &[slot, sequence]);
            }
            13 => {
                let after = self.any_number();
                self.say_numbers(line, 0x4f, &[slot, sequence, after]);
            }
            14 => {
                let (version, wanted) = (self.random.below(9), self.random.below(99));
                self.say_numbers(line, 0x4a, &[version, wanted, 1, slot, sequence]);
            }
            15 => {
                let state = self.random.below(8);
                self.say_numbers(line, 0x4b, &[slot, state, 0]);
            }
            16 => self.say(line, vec![0x4d]),
            17 => self.part_of_a_stream(line, slot, sequence),
            18 => {
                let (received, taken) = (self.any_number(), self.any_number());
                let limit = self.any_number();
                self.say_numbers(line, 0x22, &[slot, sequence, received, taken, limit]);
            }
            19 => self.say_numbers(line, 0x51, &[slot]),
            20 => self.say_numbers(line, 0x52, &[u64::MAX >> 2]),
            _ => {
                let mut noise = vec![0x40 + self.random.below(0x24) as u8];
                let length = self.random.below(80);
                noise.extend((0..length).map(|_| self.random.below(256) as u8));
                self.say(line, noise);
            }
        }
    }

    /// A reply whose body and digest are made up.
    fn reply_with_anything(&mut self, line: ConnectionHandle, slot: u64, sequence: u64) {
        let mut said = vec![0x44];
        numbers(&mut said, &[slot, sequence]);
        said.extend(self.random.u64().to_be_bytes());
        numbers(&mut said, &[0, 0]);
        let large = self.random.chance(0.05);
        let length = self.random.below(if large { 2_000_000 } else { 300 });
        said.extend(std::iter::repeat_n(0xab, length as usize));
        self.say(line, said);
    }

    fn part_of_a_stream(&mut self, line: ConnectionHandle, slot: u64, sequence: u64) {
        let mut said = vec![0x20];
        numbers(&mut said, &[slot, sequence, self.random.below(6)]);
        said.extend(self.random.u64().to_be_bytes());
        let length = self.random.below(100);
        said.extend(std::iter::repeat_n(0xcd, length as usize));
        self.say(line, said);
    }

    /// A call that it was asked for, or nearly.
    fn any_slot(&mut self) -> (u64, u64) {
        if self.asked.is_empty() || self.random.chance(0.05) {
            return (self.any_number(), self.any_number());
        }
        // Mostly the latest.
        let far = self.random.chance(0.3);
        let back = self.random.below(if far { 64 } else { 2 }) as usize;
        let index = (self.asked.len() - 1).saturating_sub(back);
        let (_, first, second) = self.asked[index];
        match self.random.below(20) {
            0 => (first, second.saturating_add(1)),
            1 => (first, second.saturating_sub(1)),
            2 => (first.saturating_add(1), second),
            _ => (first, second),
        }
    }

    /// Mostly small; sometimes the largest that there is.
    fn any_number(&mut self) -> u64 {
        match self.random.below(6) {
            0 => varint::MAX,
            1 => 0,
            2 => {
                let any = self.random.u64();
                any >> (2 + self.random.below(60))
            }
            _ => self.random.below(40),
        }
    }

    fn say_numbers(&mut self, line: ConnectionHandle, kind: u8, said: &[u64]) {
        let mut message = vec![kind];
        numbers(&mut message, said);
        self.say(line, message);
    }

    fn say(&mut self, line: ConnectionHandle, message: Vec<u8>) {
        self.lines.say(line, message.into());
    }
}

fn numbers(message: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        varint::encode((*number).min(varint::MAX), message);
    }
}
