//! Sessions that an application's database keeps: what a client's message asks of them, and what the
//! client is told. The server that has them decides by [`Slot`](crate::session::Slot) on the row of the
//! slot, in a transaction of the database.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::codec::{MessageBuffer, Writer};
use super::desk::{Verdict, larger_than, repeat};
use super::group::{Attaching, ClientMessage, Content, Deadline, Said, SessionCommand};
use super::kept::Kept;
use super::message::{ReplyPayload, ToClient, ToServer, session_reference};
use crate::service::{Answer, Call, CallContext, Clock, Encoded, MethodId, NotExecuted, Peer};
use crate::session::{
    self, Attached, CallId, Claim, NotExecutedReason, Opened, Refusal, SessionId, SessionSecret,
    SlotPosition, Succession,
};
use crate::time::Instant;

/// A client's message as a question to sessions.
#[derive(Debug)]
pub struct Ask {
    /// The session that its connection speaks for, and the epoch of that; `None` before it has one.
    pub attached: Option<(SessionId, u64)>,
    /// Who asks.
    pub peer: Arc<Peer>,
    /// What.
    pub asked: Asked,
}

/// What a client's message asks of sessions.
#[derive(Debug)]
pub enum Asked {
    /// A new session, or the one that an opening with this nonce has opened.
    Open {
        /// Drawn by the client.
        nonce: [u8; 16],
        /// How many slots it wants.
        slots: u32,
        /// The secret of the session if it is anonymous and new: fresh and random.
        secret: SessionSecret,
    },
    /// To speak for a session from now on.
    Attach {
        /// Which.
        session: SessionId,
        /// What proves the right to it.
        claim: Claim,
        /// After whom, if the client keeps a journal.
        succession: Option<Succession>,
    },
    /// To run a call.
    Run {
        /// Its number.
        id: CallId,
        /// Its method.
        method: MethodId,
        /// The digest of the request.
        digest: u64,
        /// For the handler. Its deadline is set; its clock stands.
        call: Call<Encoded>,
    },
    /// That a number never runs.
    Fence {
        /// Which.
        id: CallId,
        /// What to tell of a number that had not run.
        why: NotExecuted,
    },
    /// To let go of replies.
    Release {
        /// Of which session.
        session: SessionId,
        /// Up to which numbers.
        list: Vec<SlotPosition>,
    },
    /// To forget the session.
    Close {
        /// Which.
        session: SessionId,
    },
}

impl SessionCommand {
    /// What the message asks, as it came at `now`.
    ///
    /// # Errors
    /// What to tell a client of which it is no correct message.
    pub fn ask(&self, now: Instant) -> Result<Ask, ClientMessage> {
        let (bytes, limit) = match &self.said {
            Said::Message(bytes) => (bytes, None),
            Said::TooLarge { start, limit } => (start, Some(*limit)),
            Said::Refused { slot, sequence, why } => {
                let none = "a call came before a session was opened or attached";
                let Attaching { session, epoch } =
                    self.attached.ok_or(ClientMessage::violation(none))?;
                let id = CallId { session, slot: *slot, sequence: *sequence };
                let asked = Asked::Fence { id, why: why.clone() };
                return Ok(Ask {
                    attached: Some((session, epoch)),
                    peer: Arc::clone(&self.peer),
                    asked,
                });
            }
        };
        let message = ToServer::decode(bytes.clone())
            .map_err(|_| ClientMessage::violation("malformed message"))?;
        let attached = self.attached.map(|attaching| (attaching.session, attaching.epoch));
        let session = || {
            let none = "a call came before a session was opened or attached";
            attached.map(|(session, _)| session).ok_or(ClientMessage::violation(none))
        };
        let asked = match message {
            ToServer::Open { nonce, slots } => {
                let secret = self.fresh_secret.clone();
                let none = "an opening on a connection that has a session";
                Asked::Open { nonce, slots, secret: secret.ok_or(ClientMessage::violation(none))? }
            }
            ToServer::Attach { session, secret, succession } => {
                let claim = Claim { certificate: self.peer.owner(), secret };
                Asked::Attach { session, claim, succession }
            }
            ToServer::Request { slot, sequence, payload } => {
                let id = CallId { session: session()?, slot, sequence };
                match limit {
                    Some(limit) => Asked::Fence { id, why: larger_than(limit) },
                    None => {
                        let context = CallContext {
                            id: Some(id),
                            peer: Arc::clone(&self.peer),
                            metadata: payload.metadata,
                            deadline: self.deadline_from(now),
                            clock: Clock::standing(now),
                        };
                        let digest = payload.digest;
                        let call = Call::new(Encoded { body: payload.body, digest }, context);
                        Asked::Run { id, method: payload.method, digest, call }
                    }
                }
            }
            // Keepers run no streams: they are refused, for good.
            ToServer::Fence { slot, sequence }
            | ToServer::Stream { slot, sequence, .. }
            | ToServer::CancelStream { slot, sequence, .. } => Asked::Fence {
                id: CallId { session: session()?, slot, sequence },
                why: NotExecuted::new(NotExecutedReason::Fenced),
            },
            ToServer::Release(list) => Asked::Release { session: session()?, list },
            ToServer::CloseSession => Asked::Close { session: session()? },
            ToServer::ReturnSlots(_) => {
                return Err(ClientMessage::violation("slots came back that were not asked for"));
            }
            ToServer::Query { .. }
            | ToServer::Read { .. }
            | ToServer::StaleRead { .. }
            | ToServer::Watch { .. }
            | ToServer::CancelRead { .. }
            | ToServer::Part(_)
            | ToServer::Left
            | ToServer::Maybe(_) => {
                return Err(ClientMessage::violation("a message that changes no session"));
            }
        };
        Ok(Ask { attached, peer: Arc::clone(&self.peer), asked })
    }

    fn deadline_from(&self, now: Instant) -> Option<Instant> {
        match self.deadline {
            Deadline::None => None,
            Deadline::Left(left) => Some(now + left),
            Deadline::At(at) => Some(at),
        }
    }
}

impl ClientMessage {
    /// A session was opened: the connection speaks for it from now on.
    pub fn opened(nonce: [u8; 16], opened: Opened) -> Self {
        let attaching = Attaching { session: opened.session, epoch: opened.epoch };
        Self::attaches(attaching, ToClient::Opened { nonce, opened })
    }

    /// A session was attached: the connection speaks for it from now on.
    pub fn attached(attached: Attached) -> Self {
        let attaching = Attaching { session: attached.session, epoch: attached.epoch };
        Self::attaches(attaching, ToClient::Attached(attached))
    }

    /// No session is opened.
    pub fn refused_opening(nonce: [u8; 16], refusal: Refusal) -> Self {
        Self::answer(ToClient::Refused { reference: nonce, refusal })
    }

    /// The client has no right to the session, or there is none.
    pub fn refused(session: SessionId, refusal: Refusal) -> Self {
        Self::answer(ToClient::Refused { reference: session_reference(session), refusal })
    }

    /// What is known of a number.
    pub fn known(id: CallId, answer: session::Answer<Bytes>) -> Self {
        let answer = match answer {
            session::Answer::Reply(reply) => match Kept::recorded(reply) {
                Some(kept) => session::Answer::Reply(kept),
                None => session::Answer::NotKept,
            },
            session::Answer::Working => session::Answer::Working,
            session::Answer::NotKept => session::Answer::NotKept,
            session::Answer::NotExecuted(reason) => session::Answer::NotExecuted(reason),
            session::Answer::Stale => session::Answer::Stale,
        };
        Self::of_verdict(repeat(id.slot, id.sequence, answer))
    }

    /// A number was not executed and never will be.
    pub fn not_executed(id: CallId, why: NotExecuted) -> Self {
        Self::answer(ToClient::NotExecuted { slot: id.slot, sequence: id.sequence, why })
    }

    /// A number is taken by another request.
    pub fn false_retry(id: CallId) -> Self {
        Self::answer(ToClient::FalseRetry { slot: id.slot, sequence: id.sequence })
    }

    /// No correct client sends what this one sent: its connection is closed.
    pub const fn violation(reason: &'static str) -> Self {
        Self(Content::Close(reason))
    }

    fn attaches(attaching: Attaching, message: ToClient) -> Self {
        Self(Content::Attached(attaching, message.encode(&mut MessageBuffer::default())))
    }

    fn answer(message: ToClient) -> Self {
        Self::of_verdict(Verdict::Say(message))
    }

    fn of_verdict(verdict: Verdict) -> Self {
        match verdict.encode(&mut MessageBuffer::default()) {
            Some(parts) => Self(Content::Answer(parts)),
            None => unreachable!("something is said"),
        }
    }
}

/// A handler's answer as the bytes that a slot's row keeps.
///
/// # Errors
/// Why the call was not executed, if that is the answer.
pub fn record_of(answer: Answer) -> Result<Bytes, NotExecuted> {
    let reply = ReplyPayload::of(answer)?;
    let mut out = Vec::new();
    reply.encode_head(&mut Writer::new(&mut out));
    reply.body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    Ok(out.into())
}

impl Kept {
    /// The reply of a row; `None` if its bytes are none.
    pub(crate) fn recorded(reply: Bytes) -> Option<Self> {
        let kept = Self::Large { head: reply, body: Rope::EMPTY };
        ReplyPayload::from_kept(&kept).is_ok().then_some(kept)
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
