//! The messages of a stream come in order, each once, and the end says how many were taken.

use std::collections::BTreeMap;

use super::calls::Token;

#[derive(Default)]
pub(crate) struct Streams(BTreeMap<Token, Flow>);

#[derive(Default)]
struct Flow {
    /// What the handler took.
    taken: u64,
    /// What came back to the client.
    came: u64,
}

impl Streams {
    /// The handler takes the client's message of this index, and sends it back.
    pub(crate) fn took(&mut self, token: Token, index: u64) -> Result<(), String> {
        let flow = self.0.entry(token).or_default();
        if index != flow.taken {
            let due = flow.taken;
            return Err(format!("{token}: the handler took message {index} instead of {due}"));
        }
        flow.taken += 1;
        Ok(())
    }

    /// The client takes the message of this index that the handler has sent back.
    pub(crate) fn came(&mut self, token: Token, index: u64) -> Result<(), String> {
        let flow = self.0.entry(token).or_default();
        if index != flow.came || index >= flow.taken {
            let Flow { taken, came } = flow;
            return Err(format!(
                "{token}: message {index} came back instead of {came}; the handler took {taken}"
            ));
        }
        flow.came += 1;
        Ok(())
    }

    /// The client is told that the call was executed, and that so many of its messages were taken. If it
    /// ended well, everything that was taken has come back.
    pub(crate) fn ended(&mut self, token: Token, taken: u64, well: bool) -> Result<(), String> {
        let flow = self.0.remove(&token).unwrap_or_default();
        if taken != flow.taken {
            let really = flow.taken;
            return Err(format!("{token}: {taken} messages are told to be taken, not {really}"));
        }
        if well && flow.came != taken {
            return Err(format!("{token}: only {} of {taken} messages came back", flow.came));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token(7);

    #[test]
    fn messages_in_order_and_a_true_end_are_not_accused() {
        let mut streams = Streams::default();
        for index in 0..3 {
            streams.took(TOKEN, index).unwrap();
        }
        for index in 0..3 {
            streams.came(TOKEN, index).unwrap();
        }
        streams.ended(TOKEN, 3, true).unwrap();
        streams.ended(Token(8), 0, true).unwrap();
    }

    #[test]
    fn each_broken_promise_is_seen() {
        let taken = |indices: &[u64]| {
            let mut streams = Streams::default();
            (indices.iter().try_for_each(|index| streams.took(TOKEN, *index)), streams)
        };
        assert!(taken(&[0, 0]).0.is_err(), "a message twice");
        assert!(taken(&[0, 2]).0.is_err(), "a gap");
        assert!(taken(&[0]).1.came(TOKEN, 1).is_err(), "not sent back yet");
        assert!(taken(&[0, 1]).1.came(TOKEN, 1).is_err(), "a gap on the way back");
        assert!(taken(&[0, 1]).1.ended(TOKEN, 1, false).is_err(), "too few are told");
        assert!(taken(&[0]).1.ended(TOKEN, 1, true).is_err(), "one did not come back");
    }
}
