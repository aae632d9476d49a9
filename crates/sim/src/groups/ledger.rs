//! The state machine of simulated groups: it counts, and remembers in which order it was asked to.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::service::{
    Answer, Applied, Encoded, Machine, Machines, Metadata, Method, RestoreError, Semantics,
    ServiceDescriptor, Shape,
};

/// Counts one command, and answers with the count.
pub(super) const ADD: Method = Method::new("sim.Ledger/Add", Semantics::ExactlyOnce, Shape::Unary);

/// Answers with the count.
pub(super) const GET: Method = Method::new("sim.Ledger/Get", Semantics::Read, Shape::Unary);

const METHODS: &[Method] = &[ADD, GET];

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

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (client, number) = bytes.split_first_chunk()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        Some(Self { client: u64::from_be_bytes(*client), number })
    }
}

/// Which command made the count what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger(pub(super) BTreeMap<Command, u64>);

impl Ledger {
    /// The machines of a group that has this one.
    pub(super) fn machines() -> Machines {
        let mut machines = Machines::new();
        machines.add(Box::new(Self::default())).expect("a single machine collides with no other");
        machines
    }

    /// The ledger among those machines.
    pub(super) fn of(machines: &Machines) -> Self {
        let mut ledger = Self::default();
        // As `Machines::snapshot` puts it: name and bytes, each behind a length of 8 bytes.
        let snapshot = machines.snapshot();
        let bytes = &snapshot[8 + DESCRIPTOR.name.len() + 8..];
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

impl Machine for Ledger {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn apply(&mut self, _: &Applied, method: usize, request: &Encoded) -> Answer {
        let command = Command::decode(&request.body.to_vec()).expect("a command");
        let count = self.0.len() as u64 + 1;
        let before = self.0.insert(command, count);
        assert_eq!(before, None, "{command:?} runs a second time");
        answer(&METHODS[method], count)
    }

    fn query(&self, method: usize, _: &Encoded) -> Answer {
        answer(&METHODS[method], self.0.len() as u64)
    }

    fn snapshot(&self) -> Vec<u8> {
        let numbers =
            self.0.iter().flat_map(|(command, count)| [command.client, command.number, *count]);
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let (lines, rest) = snapshot.as_chunks::<24>();
        if !rest.is_empty() {
            return Err(RestoreError::new("half a line"));
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let line = |line: &[u8; 24]| {
            let command = Command { client: number(&line[..8]), number: number(&line[8..16]) };
            (command, number(&line[16..]))
        };
        self.0 = lines.iter().map(line).collect();
        Ok(())
    }
}
