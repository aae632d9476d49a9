//! Streams of reads at a machine: what is next for a caller, as a function of the state and of how far
//! that caller is. No replica keeps anything of such a stream that another one would need to go on
//! with it.

use super::encoded::Encoded;

/// What a stream of reads has for a caller who has everything up to a position.
///
/// A position is a number of the machine's own: 0 for a caller who has nothing yet, and larger with
/// each message. A caller whose replica fails asks another one with the position that it has, so that
/// what follows a position must not depend on which replica is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<M = Encoded> {
    /// This message. Who has it has everything up to this position, which is larger than before.
    Message(M, u64),
    /// There is nothing for the caller up to this position, which is no smaller than before. If it is
    /// larger, the machine is asked again at once; if not, when the state has changed.
    Wait(u64),
    /// There is nothing more: the stream ends well.
    End,
}

impl<M> Next<M> {
    /// The same with another message.
    pub fn map<N>(self, with: impl FnOnce(M) -> N) -> Next<N> {
        match self {
            Self::Message(message, position) => Next::Message(with(message), position),
            Self::Wait(position) => Next::Wait(position),
            Self::End => Next::End,
        }
    }

    /// The same with another message, unless there is none.
    ///
    /// # Errors
    /// That of `with`.
    pub fn try_map<N, E>(self, with: impl FnOnce(M) -> Result<N, E>) -> Result<Next<N>, E> {
        Ok(match self {
            Self::Message(message, position) => Next::Message(with(message)?, position),
            Self::Wait(position) => Next::Wait(position),
            Self::End => Next::End,
        })
    }
}
