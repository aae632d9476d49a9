//! What the processes of a group world say to one another: datagrams, bare.

use bytes::Bytes;
use stubborn_group::replication::Frame;

use super::counter::Command;

/// A datagram of a group world.
#[derive(Clone, Debug)]
pub(super) enum Datagram {
    /// Between replicas.
    Peer(Frame),
    /// A client asks for a command to be counted, or what the counter is.
    Ask(Ask),
    /// The answer: the value.
    Answer(Ask, u64),
}

/// What a client asks; it is told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Count(Command),
    Read(Command),
}

impl Datagram {
    pub(super) fn encode(&self) -> Bytes {
        let (kind, command, value) = match self {
            Self::Peer(frame) => {
                let mut out = vec![0];
                out.extend_from_slice(&frame.encode());
                return out.into();
            }
            Self::Ask(Ask::Count(command)) => (1, command, None),
            Self::Ask(Ask::Read(command)) => (2, command, None),
            Self::Answer(Ask::Count(command), value) => (3, command, Some(value)),
            Self::Answer(Ask::Read(command), value) => (4, command, Some(value)),
        };
        let mut out = vec![kind];
        out.extend_from_slice(&command.encode());
        value.iter().for_each(|value| out.extend_from_slice(&value.to_be_bytes()));
        out.into()
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let kind = *bytes.first()?;
        let body = bytes.slice(1..);
        if kind == 0 {
            return Frame::decode(&body).ok().map(Self::Peer);
        }
        let command = Command::decode(&body)?;
        let value = || body.get(16..)?.first_chunk().map(|value| u64::from_be_bytes(*value));
        Some(match kind {
            1 => Self::Ask(Ask::Count(command)),
            2 => Self::Ask(Ask::Read(command)),
            3 => Self::Answer(Ask::Count(command), value()?),
            4 => Self::Answer(Ask::Read(command), value()?),
            _ => return None,
        })
    }
}
