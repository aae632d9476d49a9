//! The state machine of the replicas: a counter. Each command raises it by one and is answered with
//! its new value, the same however often the command is sent: a history of answers then tells
//! whether the group behaved as one machine.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// A client's command: its number counts on from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Command {
    pub(super) client: u64,
    pub(super) number: u64,
}

impl Command {
    pub(super) fn encode(self) -> Bytes {
        let mut out = self.client.to_be_bytes().to_vec();
        out.extend_from_slice(&self.number.to_be_bytes());
        out.into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (client, rest) = bytes.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some(Self { client: u64::from_be_bytes(*client), number: u64::from_be_bytes(*number) })
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counter {
    value: u64,
    /// Over all commands that counted, in order.
    hash: u64,
    /// Of each client the last command's number and answer.
    answers: BTreeMap<u64, (u64, u64)>,
}

impl Counter {
    /// Applies a command, once. The answer, unless the client has gone on since.
    pub(super) fn apply(&mut self, command: Command, forgetful: bool) -> Option<u64> {
        let (last, answer) = self.answers.get(&command.client).copied().unwrap_or_default();
        if !forgetful && command.number <= last {
            return (command.number == last).then_some(answer);
        }
        self.value += 1;
        let mut chained = self.hash.to_be_bytes().to_vec();
        chained.extend_from_slice(&command.encode());
        self.hash = xxh3_64(&chained);
        self.answers.insert(command.client, (command.number, self.value));
        Some(self.value)
    }

    pub(super) fn value(&self) -> u64 {
        self.value
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = self.value.to_be_bytes().to_vec();
        out.extend_from_slice(&self.hash.to_be_bytes());
        for (client, (number, answer)) in &self.answers {
            for word in [client, number, answer] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        out.into()
    }

    /// The empty one where there is nothing.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(word.try_into().expect("chunks of eight")));
        let mut counter = Self {
            value: words.next().unwrap_or_default(),
            hash: words.next().unwrap_or_default(),
            answers: BTreeMap::new(),
        };
        while let (Some(client), Some(number), Some(answer)) =
            (words.next(), words.next(), words.next())
        {
            counter.answers.insert(client, (number, answer));
        }
        counter
    }
}
