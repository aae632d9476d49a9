//! What sessions make of each message for them. A server's own sessions and the replicated table of
//! a group both stand on it, so that a client is told the same by either.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use stubborn_rope::Rope;

use super::borrowed::{Borrowed, Position};
use super::codec::MessageBuffer;
use super::kept::Kept;
use super::message::{Parts, ReplyPayload, ToClient, session_reference};
use crate::limits::Limits;
use crate::service::{Answer, NotExecuted, Status, StreamEnd};
use crate::session::{
    self, Attachment, CallId, Claim, Decision, Keep, NotExecutedReason, OpenRequest, QueryAnswer,
    Refusal, Refused, SessionId, SessionSecret, Sessions, SlotChange, SlotPosition, Succession,
};
use crate::time::Instant;

/// Sessions, and what is said about them. `C` names a connection.
#[derive(Clone, Debug)]
pub(crate) struct Desk<C = u64> {
    pub(crate) sessions: Sessions<Kept, C>,
    /// Without it each reply gets memory of its own at once.
    pub(crate) borrowed: Option<Borrowed>,
}

/// A connection on which a message came.
#[derive(Clone, Debug)]
pub(crate) struct Caller<C> {
    pub(crate) connection: C,
    /// SHA-256 of the public key info of the certificate that it authenticated, if any.
    pub(crate) identity: Option<[u8; 32]>,
    pub(crate) address: IpAddr,
}

/// What of a message went wrong so far that the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// What a message comes to.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// Nothing is to be said.
    Nothing,
    /// To be told to the connection.
    Say(ToClient),
    /// The kept reply of a number.
    Repeat { slot: u32, sequence: u64, kept: Kept },
    /// A new call: run it, then [`Desk::finish`].
    Execute,
}

impl<C: Copy + Eq> Desk<C> {
    /// Opens a session, or finds the one that the first copy of the opening opened. Returns the
    /// attachment that the connection has from now on. `attached` is the one it has.
    pub(crate) fn open(
        &mut self,
        caller: &Caller<C>,
        attached: Option<&Attachment>,
        nonce: [u8; 16],
        slots_wanted: u32,
        fresh_secret: SessionSecret,
    ) -> Result<(Verdict, Option<Attachment>), Violation> {
        let request = OpenRequest {
            nonce,
            certificate: caller.identity,
            address: caller.address,
            slots_wanted,
            fresh_secret,
            connection: caller.connection,
        };
        match self.sessions.open(&request) {
            Ok((opened, attachment)) => {
                one_session(attached, attachment.session())?;
                Ok((Verdict::Say(ToClient::Opened { nonce, opened }), Some(attachment)))
            }
            Err(refusal) => {
                Ok((Verdict::Say(ToClient::Refused { reference: nonce, refusal }), None))
            }
        }
    }

    /// Gives a session to the connection. Returns the attachment that it has from now on.
    pub(crate) fn attach(
        &mut self,
        caller: &Caller<C>,
        attached: Option<&Attachment>,
        session: SessionId,
        secret: SessionSecret,
        succession: Option<&Succession>,
    ) -> Result<(Verdict, Option<Attachment>), Violation> {
        one_session(attached, session)?;
        let claim = Claim { certificate: caller.identity, secret };
        Ok(match self.sessions.attach_after(session, &claim, succession, caller.connection) {
            Ok((attached, attachment)) => {
                (Verdict::Say(ToClient::Attached(attached)), Some(attachment))
            }
            Err(refusal) => (refused(session, refusal), None),
        })
    }

    /// A whole request has come.
    #[inline]
    pub(crate) fn request(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        digest: u64,
    ) -> Result<Verdict, Violation> {
        let decision = self.sessions.request(attachment, slot, sequence, digest);
        decided(attachment, (slot, sequence), decision)
    }

    /// The same while the server drains, of a client that has not said that it has left.
    pub(crate) fn late_request(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        digest: u64,
    ) -> Result<Verdict, Violation> {
        let decision = self.sessions.late_request(attachment, slot, sequence, digest);
        decided(attachment, (slot, sequence), decision)
    }

    /// A request that is larger than the `limit` allows never runs: its number is fenced.
    pub(crate) fn too_large(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        limit: u64,
    ) -> Result<Verdict, Violation> {
        Ok(match self.fence(attachment, slot, sequence)? {
            Verdict::Say(ToClient::NotExecuted { slot, sequence, .. }) => {
                Verdict::Say(ToClient::NotExecuted { slot, sequence, why: larger_than(limit) })
            }
            other => other,
        })
    }

    /// A call that its server does not let in never runs: its number is fenced, for this reason.
    pub(crate) fn refuse(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        why: &NotExecuted,
    ) -> Result<Verdict, Violation> {
        Ok(match self.sessions.refuse(attachment, slot, sequence, why.reason) {
            Ok(session::Answer::NotExecuted(reason)) if reason == why.reason => {
                Verdict::Say(ToClient::NotExecuted { slot, sequence, why: why.clone() })
            }
            Ok(answer) => repeat(slot, sequence, answer),
            Err(error) => return refusal(attachment, error),
        })
    }

    pub(crate) fn fence(
        &mut self,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
    ) -> Result<Verdict, Violation> {
        match self.sessions.fence(attachment, slot, sequence) {
            Ok(answer) => Ok(repeat(slot, sequence, answer)),
            Err(error) => refusal(attachment, error),
        }
    }

    pub(crate) fn release(
        &mut self,
        attachment: &Attachment,
        list: &[SlotPosition],
    ) -> Result<Verdict, Violation> {
        for position in list {
            let released = self.sessions.release(attachment, position.slot, position.sequence);
            if let Err(error) = released {
                return refusal(attachment, error);
            }
        }
        Ok(Verdict::Nothing)
    }

    pub(crate) fn return_slots(
        &mut self,
        attachment: &Attachment,
        list: &[SlotPosition],
    ) -> Result<Verdict, Violation> {
        match self.sessions.return_slots(attachment, list) {
            Ok(Some(change)) => Ok(Verdict::Say(ToClient::Slots(change))),
            Ok(None) => Ok(Verdict::Nothing),
            Err(error) => refusal(attachment, error),
        }
    }

    /// The client is done with its session. Closing what is gone already is no error.
    pub(crate) fn close(&mut self, now: Instant, attachment: &Attachment) {
        let _ = self.sessions.close(now, attachment);
    }

    /// An executing call has ended, or was never started: returns whom to tell, and what.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        answer: Answer,
        buffer: &mut MessageBuffer,
    ) -> Option<(C, Parts)> {
        self.finish_as(now, attachment, slot, sequence, answer, None, buffer)
    }

    /// The same of a call that may be a stream.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn finish_as(
        &mut self,
        now: Instant,
        attachment: &Attachment,
        slot: u32,
        sequence: u64,
        answer: Answer,
        stream: Option<StreamEnd>,
        buffer: &mut MessageBuffer,
    ) -> Option<(C, Parts)> {
        let mut reply = match ReplyPayload::of(answer) {
            Ok(reply) => reply,
            Err(why) => {
                let connection =
                    self.sessions.give_up(now, attachment, slot, sequence, why.reason)??;
                let message = ToClient::NotExecuted { slot, sequence, why };
                return Some((connection, message.encode(buffer)));
            }
        };
        reply.stream = stream.map(Box::new);
        let (parts, kept) = ToClient::new_reply(slot, sequence, reply, buffer);
        let borrowed = kept.is_borrowed();
        let completion = self.sessions.complete(now, attachment, slot, sequence, kept)?;
        if borrowed && completion.keep == Some(Keep::Session) {
            self.borrowed(now, Position { attachment: *attachment, slot, sequence });
        }
        Some((completion.connection?, parts))
    }

    /// A reply is kept in memory that is not its own.
    fn borrowed(&mut self, now: Instant, reply: Position) {
        let own = match &mut self.borrowed {
            Some(borrowed) => borrowed.push(now, reply),
            None => Some(reply),
        };
        if let Some(Position { attachment, slot, sequence }) = own {
            self.sessions.own(&attachment, slot, sequence);
        }
    }

    /// When replies have to get memory of their own.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.borrowed.as_ref().and_then(Borrowed::next_timeout)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for Position { attachment, slot, sequence } in
            self.borrowed.iter_mut().flat_map(|borrowed| borrowed.due(now))
        {
            self.sessions.own(&attachment, slot, sequence);
        }
    }

    /// What to tell a connection that does not speak for its session any more.
    pub(crate) fn refusal(&self, attachment: &Attachment) -> Option<Verdict> {
        let refusal = self.sessions.check_attached(attachment).err()?;
        Some(refused(attachment.session(), refusal))
    }

    /// What is known of a call, for whoever proves that the session is its own.
    pub(crate) fn query(&self, call: CallId, claim: &Claim) -> Result<QueryAnswer<Kept>, Refusal> {
        self.sessions.query(call, claim)
    }

    /// When nearly all slots are granted, sessions that have more than their share give some back.
    /// Returns what to tell whom.
    pub(crate) fn share_slots(&mut self, limits: &Limits) -> Vec<(C, SlotChange)> {
        let all = limits.slots_in_all;
        if self.sessions.slots_held() <= all - all / 8 {
            return Vec::new();
        }
        let share = all / (self.sessions.len() as u64).max(1);
        self.sessions.limit_slots(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl Verdict {
    /// The message to send; `None` if there is none.
    pub(crate) fn encode(self, buffer: &mut MessageBuffer) -> Option<Parts> {
        match self {
            Self::Nothing | Self::Execute => None,
            Self::Say(message) => Some(message.encode(buffer)),
            Self::Repeat { slot, sequence, kept } => {
                Some(ToClient::kept_reply(slot, sequence, &kept, buffer))
            }
        }
    }
}

impl ReplyPayload {
    /// What an answer says to the caller; else why the call was not executed.
    #[inline]
    pub(crate) fn of(answer: Answer) -> Result<Self, NotExecuted> {
        match answer {
            Answer::NotExecuted(why) => Err(why),
            Answer::Reply(encoded, metadata) => Ok(Self {
                digest: encoded.digest,
                status: None,
                metadata,
                body: encoded.body,
                stream: None,
            }),
            Answer::Status(status) => Ok(Self::of_status(status)),
        }
    }

    fn of_status(status: Status) -> Self {
        let metadata = status.metadata().clone();
        Self { digest: 0, status: Some(status), metadata, body: Rope::EMPTY, stream: None }
    }
}

/// Why a request is too large.
pub(crate) fn larger_than(limit: u64) -> NotExecuted {
    NotExecuted::because(
        NotExecutedReason::TooLarge,
        crate::service::text(format_args!(
            "the request is larger than the {limit} bytes that the server takes"
        )),
    )
}

/// A connection speaks for one session in its life: else a late request could run after its session
/// was lost to the client.
fn one_session(attached: Option<&Attachment>, session: SessionId) -> Result<(), Violation> {
    match attached {
        Some(attachment) if attachment.session() != session => {
            Err(Violation("a second session on one connection"))
        }
        _ => Ok(()),
    }
}

/// The answer to a copy, or to a fence, from the slot's memory.
pub(crate) fn repeat(slot: u32, sequence: u64, answer: session::Answer<Kept>) -> Verdict {
    Verdict::Say(match answer {
        session::Answer::Reply(kept) => return Verdict::Repeat { slot, sequence, kept },
        session::Answer::Working => ToClient::Working { slot, sequence },
        session::Answer::NotKept => ToClient::NotKept { slot, sequence },
        session::Answer::Stale => ToClient::Stale { slot, sequence },
        session::Answer::NotExecuted(reason) => {
            ToClient::NotExecuted { slot, sequence, why: NotExecuted::new(reason) }
        }
    })
}

/// A refusal is told to the client, a violation closes the connection.
#[inline]
fn decided(
    attachment: &Attachment,
    (slot, sequence): (u32, u64),
    decision: Result<Decision<Kept>, Refused>,
) -> Result<Verdict, Violation> {
    match decision {
        Ok(Decision::Execute) => Ok(Verdict::Execute),
        Ok(Decision::Answer(answer)) => Ok(repeat(slot, sequence, answer)),
        Ok(Decision::FalseRetry) => Ok(Verdict::Say(ToClient::FalseRetry { slot, sequence })),
        Err(error) => refusal(attachment, error),
    }
}

fn refusal(attachment: &Attachment, error: Refused) -> Result<Verdict, Violation> {
    match error {
        Refused::Session(refusal) => Ok(refused(attachment.session(), refusal)),
        Refused::Violation(violation) => Err(Violation(violation.as_str())),
    }
}

fn refused(session: SessionId, refusal: Refusal) -> Verdict {
    Verdict::Say(ToClient::Refused { reference: session_reference(session), refusal })
}
