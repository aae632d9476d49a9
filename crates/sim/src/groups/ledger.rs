//! The state machine of simulated groups: it counts, and remembers in which order it was asked to.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use stubborn_core::service::{
    Answer, Applied, Encoded, Image, Machine, Machines, Metadata, Method, Next, Piece,
    RestoreError, Semantics, ServiceDescriptor, Shape,
};

/// Counts one command, and answers with the count.
pub(super) const ADD: Method = Method::new("sim.Ledger/Add", Semantics::ExactlyOnce, Shape::Unary);

/// Answers with the count.
pub(super) const GET: Method = Method::new("sim.Ledger/Get", Semantics::Read, Shape::Unary);

/// Writes a register, or exchanges its value for another; answers whether it did.
pub(super) const PUT: Method = Method::new("sim.Ledger/Put", Semantics::ExactlyOnce, Shape::Unary);

/// Answers with the value of a register.
pub(super) const LOOK: Method = Method::new("sim.Ledger/Look", Semantics::Read, Shape::Unary);

/// Tells every command, with its count.
pub(super) const WATCH: Method =
    Method::new("sim.Ledger/Watch", Semantics::Read, Shape::ServerStreaming);

const METHODS: &[Method] = &[ADD, GET, PUT, LOOK, WATCH];

static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "sim.Ledger", methods: METHODS, file_descriptor_set: &[] };

/// A command, named by its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Command {
    pub(super) client: u64,
    pub(super) number: u64,
}

impl Command {
    pub(super) fn encode(self) -> Encoded {
        let body = [self.client.to_be_bytes(), self.number.to_be_bytes()].concat();
        Encoded::from_body(ADD.id(), body.into())
    }

    /// The command of a request.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [client, number] = words(bytes)?;
        Some(Self { client, number })
    }
}

/// What who watches is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) command: Command,
    pub(super) count: u64,
}

impl Told {
    fn encode(self) -> Encoded {
        let Self { command: Command { client, number }, count } = self;
        let body: Vec<u8> =
            [client, number, count].into_iter().flat_map(u64::to_be_bytes).collect();
        Encoded::from_body(WATCH.id(), body.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [client, number, count] = words(bytes)?;
        Some(Self { command: Command { client, number }, count })
    }
}

/// What is done to a register. One that nobody wrote is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) key: u64,
    /// Only if it has this value.
    pub(super) expected: Option<u64>,
    pub(super) value: u64,
}

impl Put {
    pub(super) fn encode(self) -> Encoded {
        let words =
            [self.key, u64::from(self.expected.is_some()), self.expected.unwrap_or(0), self.value];
        let body: Vec<u8> = words.into_iter().flat_map(u64::to_be_bytes).collect();
        Encoded::from_body(PUT.id(), body.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [key, expects, expected, value] = words(bytes)?;
        Some(Self { key, expected: (expects != 0).then_some(expected), value })
    }
}

/// Asks for a register.
pub(super) fn look(key: u64) -> Encoded {
    Encoded::from_body(LOOK.id(), Bytes::copy_from_slice(&key.to_be_bytes()))
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, rest) = bytes.as_chunks::<8>();
    let words: &[[u8; 8]; N] = words.try_into().ok().filter(|_| rest.is_empty())?;
    Some(words.map(u64::from_be_bytes))
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The count that it made.
    pub(super) count: u64,
    /// The entry of the log that ran it.
    pub(super) index: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) lines: BTreeMap<Command, Line>,
    registers: BTreeMap<u64, u64>,
    /// The commands in the order of their counts.
    order: Vec<Command>,
}

impl Ledger {
    /// The machines of a group that has this one, as a program has them that supports its commands up
    /// to version `most`.
    pub(super) fn machines(most: u32) -> Machines {
        let mut machines = Machines::new();
        let evolving =
            Evolving { ledger: Self::default(), version: 1, newer: 0, most, restoring: Vec::new() };
        machines.add(Box::new(evolving)).expect("a single machine collides with no other");
        machines
    }

    /// The ledger among those machines.
    pub(super) fn of(machines: &Machines) -> Self {
        let mut ledger = Self::default();
        let snapshot = machines.snapshot()[0].to_bytes().expect("it is in memory");
        let mut bytes = &snapshot[..];
        if machines.active() == [NEWER] {
            bytes = &bytes[8..];
        }
        ledger.restore(bytes).expect("a ledger's own snapshot");
        ledger
    }
}

pub(super) fn count(reply: &Encoded) -> u64 {
    u64::from_be_bytes(reply.body.to_vec().try_into().expect("the ledger answers with a number"))
}

fn answer(method: &Method, count: u64) -> Answer {
    let body = Bytes::copy_from_slice(&count.to_be_bytes());
    Answer::Reply(Encoded::from_body(method.id(), body), Metadata::new())
}

/// The version that programs get to know while the group runs.
pub(super) const NEWER: u32 = 2;

/// The ledger as programs of two versions have it. From the newer one on it also counts the commands
/// that ran under it, and its snapshots begin with their number: replicas that apply an entry under
/// different versions have different states.
struct Evolving {
    ledger: Ledger,
    version: u32,
    newer: u64,
    /// The newest version that this program supports.
    most: u32,
    /// A snapshot of which not all pieces are there.
    restoring: Vec<u8>,
}

/// Bytes of a piece of a snapshot.
const PIECE: usize = 500;

impl Machine for Evolving {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn versions(&self) -> RangeInclusive<u32> {
        1..=self.most
    }

    fn activate(&mut self, version: u32) {
        self.version = version;
    }

    fn apply(&mut self, at: &Applied, method: usize, request: &Encoded) -> Answer {
        assert_eq!(at.version, self.version, "a machine is told which version is active");
        self.newer += u64::from(at.version == NEWER);
        self.ledger.apply(at, method, request)
    }

    fn query(&self, method: usize, request: &Encoded) -> Answer {
        self.ledger.query(method, request)
    }

    fn next(&self, _: usize, _: &Encoded, position: u64) -> Result<Next, Answer> {
        Ok(self.ledger.next(position))
    }

    fn snapshot(&self) -> Image {
        let ledger = self.ledger.snapshot();
        let state = match self.version {
            NEWER => [&self.newer.to_be_bytes()[..], &ledger].concat(),
            _ => ledger,
        };
        let pieces: Vec<_> = state.chunks(PIECE).map(Bytes::copy_from_slice).collect();
        Image::in_pieces(pieces.into_iter())
    }

    fn restore(&mut self, piece: Piece<'_>) -> Result<(), RestoreError> {
        if piece.is_first() {
            self.restoring.clear();
        }
        self.restoring.extend_from_slice(&piece);
        if !piece.is_last() {
            return Ok(());
        }
        let state = std::mem::take(&mut self.restoring);
        let mut rest = &state[..];
        if self.version == NEWER {
            let (newer, ledger) =
                rest.split_first_chunk().ok_or(RestoreError::new("it is of the older version"))?;
            (self.newer, rest) = (u64::from_be_bytes(*newer), ledger);
        }
        self.ledger.restore(rest)
    }
}

impl Ledger {
    fn apply(&mut self, at: &Applied, method: usize, request: &Encoded) -> Answer {
        let body = request.body.to_vec();
        if METHODS[method] == PUT {
            let Put { key, expected, value } = Put::decode(&body).expect("a change of a register");
            let register = self.registers.entry(key).or_default();
            let changes = expected.is_none_or(|expected| expected == *register);
            *register = if changes { value } else { *register };
            return answer(&PUT, u64::from(changes));
        }
        let command = Command::decode(&body).expect("a command");
        let count = self.lines.len() as u64 + 1;
        let before = self.lines.insert(command, Line { count, index: at.index });
        assert_eq!(before, None, "{command:?} runs a second time");
        self.order.push(command);
        answer(&ADD, count)
    }

    fn query(&self, method: usize, request: &Encoded) -> Answer {
        if METHODS[method] == LOOK {
            let [key] = words(&request.body.to_vec()).expect("a register");
            return answer(&LOOK, self.registers.get(&key).copied().unwrap_or_default());
        }
        answer(&GET, self.lines.len() as u64)
    }

    /// A position is the count of the last command that was told.
    fn next(&self, position: u64) -> Next {
        let Some(command) = self.order.get(position as usize) else { return Next::Wait(position) };
        let count = position + 1;
        Next::Message(Told { command: *command, count }.encode(), count)
    }

    fn snapshot(&self) -> Vec<u8> {
        let lines = self.lines.iter();
        let lines = lines.flat_map(|(c, line)| [c.client, c.number, line.count, line.index]);
        let registers = self.registers.iter().flat_map(|(key, value)| [*key, *value]);
        let words = [self.lines.len() as u64].into_iter().chain(lines).chain(registers);
        words.flat_map(u64::to_be_bytes).collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let torn = || RestoreError::new("it ends too early");
        let (words, rest) = snapshot.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let (lines, words) = words.split_first().filter(|_| rest.is_empty()).ok_or_else(torn)?;
        let (lines, registers) = words.split_at_checked(4 * *lines as usize).ok_or_else(torn)?;
        let line = |line: &[u64; 4]| {
            let [client, number, count, index] = *line;
            (Command { client, number }, Line { count, index })
        };
        self.lines = lines.as_chunks().0.iter().map(line).collect();
        let mut order: Vec<_> =
            self.lines.iter().map(|(command, line)| (line.count, *command)).collect();
        order.sort_unstable();
        self.order = order.into_iter().map(|(_, command)| command).collect();
        self.registers =
            registers.as_chunks().0.iter().map(|[key, value]| (*key, *value)).collect();
        Ok(())
    }
}
