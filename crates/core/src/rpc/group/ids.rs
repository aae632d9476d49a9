//! Calls that name themselves (metadata `stubborn-call-id`), in the table of a group: a copy is answered
//! as the first was, whichever session it comes from.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::command::SessionCommand;
use crate::limits::Limits;
use crate::rpc::codec::Writer;
use crate::rpc::kept::Kept;
use crate::rpc::message::ReplyPayload;
use crate::service::{Answer, CALL_ID, Encoded, Image, NotExecuted, text};
use crate::session::{
    Begin, ImageOf, KeyLimits, KeyReader, Keys, LONGEST_KEY, NotExecutedReason as Reason, Unsound,
    key_of,
};
use crate::time::Instant;

/// What is known of calls with ids. Each begins and ends while its command is applied, so that no copy
/// ever waits.
#[derive(Clone, Debug)]
pub(super) struct Ids(Keys<(), Answer>);

/// Reads [`Ids`] from the pieces of their image.
pub(super) type IdReader = KeyReader<(), Answer>;

impl Ids {
    /// None yet. All replicas have the same limits, since they are those of the table.
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Keys::new(KeyLimits::of(limits)))
    }

    pub(super) fn read(reader: IdReader, limits: &Limits) -> Result<Self, Unsound> {
        reader.finish(KeyLimits::of(limits)).map(Self)
    }

    /// It is now `now`, by the log's time.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.expire(now);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn freeze(&self) -> Image {
        Image::in_pieces(self.0.freeze(Image::PIECE))
    }

    /// Runs the call of this command with `run`, unless it has run before.
    pub(super) fn run_once(
        &mut self,
        now: Instant,
        command: &SessionCommand,
        key: &[u8],
        digest: u64,
        run: impl FnOnce() -> Answer,
    ) -> Answer {
        let Some(key) = key_of(key) else {
            let why =
                text(format_args!("{CALL_ID} is 1 to {LONGEST_KEY} visible ASCII characters"));
            return refuse(Reason::Malformed, why);
        };
        let address = command.peer.address.map(|address| address.ip());
        match self.0.begin(now, command.peer.key_account(), address, key, digest, ()) {
            Begin::Run(ticket) => {
                let answer = run();
                self.0.finish(now, ticket, &answer);
                answer
            }
            Begin::Known(answer) => answer,
            Begin::Wait(()) => unreachable!("a call is in one entry of the log"),
            Begin::Other => {
                let why = text(format_args!("this {CALL_ID} is taken by another request"));
                refuse(Reason::FalseRetry, why)
            }
            Begin::Full => {
                refuse(Reason::Overloaded, "too many calls with ids are remembered".into())
            }
        }
    }
}

fn refuse(reason: Reason, why: Cow<'static, str>) -> Answer {
    Answer::NotExecuted(NotExecuted::because(reason, why))
}

impl ImageOf for Answer {
    fn write(&self, out: &mut Vec<u8>) {
        let reply = ReplyPayload::of(self.clone()).expect("only what ran is kept");
        reply.encode_head(&mut Writer::new(out));
        reply.body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let kept = Kept::Large { head: Bytes::copy_from_slice(bytes), body: Rope::EMPTY };
        let ReplyPayload { digest, status, metadata, body, stream } =
            ReplyPayload::from_kept(&kept).ok()?;
        match (status, stream) {
            (_, Some(_)) => None,
            (Some(status), None) => Some(Self::Status(status)),
            (None, None) => Some(Self::Reply(Encoded { body, digest }, metadata)),
        }
    }
}
