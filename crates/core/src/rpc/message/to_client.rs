//! What servers send.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::Parts;
use super::kinds::*;
use super::reply::ReplyPayload;
use super::words::{not_executed, reason, write_not_executed};
use crate::rpc::codec::{Malformed, MessageBuffer, Reader};
use crate::rpc::kept::Kept;
use crate::rpc::stream::Part;
use crate::service::NotExecuted;
use crate::session::{
    Attached, Opened, QueryAnswer, Refusal, SessionSecret, SlotChange, SlotReport, SlotState,
};
use crate::time::Duration;

/// What a server sends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ToClient {
    Opened {
        nonce: [u8; 16],
        opened: Opened,
    },
    Attached(Attached),
    Refused {
        reference: [u8; 16],
        refusal: Refusal,
    },
    Reply {
        slot: u32,
        sequence: u64,
        reply: ReplyPayload,
    },
    Working {
        slot: u32,
        sequence: u64,
    },
    NotExecuted {
        slot: u32,
        sequence: u64,
        why: NotExecuted,
    },
    NotKept {
        slot: u32,
        sequence: u64,
    },
    FalseRetry {
        slot: u32,
        sequence: u64,
    },
    Stale {
        slot: u32,
        sequence: u64,
    },
    Slots(SlotChange),
    Outcome {
        query: u64,
        answer: QueryAnswer<ReplyPayload>,
    },
    ReadReply {
        read: u64,
        reply: ReplyPayload,
    },
    ReadNotExecuted {
        read: u64,
        why: NotExecuted,
    },
    /// What follows in a stream of reads: the client has everything up to `position` with these
    /// messages, encoded as [`Batch`](super::watch::Batch) does.
    Watched {
        read: u64,
        position: u64,
        messages: Rope,
    },
    /// The replica cannot tell that its state is as fresh as the read asks for: another one may.
    ReadTooStale {
        read: u64,
    },
    Draining,
    /// The group's members are at these addresses (HOST:PORT) since this entry of its log.
    Members {
        version: u64,
        addresses: Vec<String>,
    },
    /// The group cannot take the number now: send it again after this time. It was not looked at.
    Busy {
        slot: u32,
        sequence: u64,
        after: Duration,
    },
    /// The same for an opening (by its nonce) or an attach.
    SessionBusy {
        reference: [u8; 16],
        after: Duration,
    },
    /// Of an open stream.
    Part(Part),
    /// Nothing of the stream of this number is kept: its messages do not come any more.
    NoStream {
        slot: u32,
        sequence: u64,
    },
}

/// Members of a group whose addresses are told at most.
const MOST_MEMBERS: u64 = 64;

impl ToClient {
    pub(crate) fn encode(self, buffer: &mut MessageBuffer) -> Parts {
        let mut body = Rope::EMPTY;
        let mut w = buffer.writer();
        match self {
            Self::Opened { nonce, opened } => {
                w.byte(OPENED).raw(&nonce).session(opened.session);
                w.raw(opened.secret.expose()).varint(opened.epoch);
                w.varint(opened.slots.into()).varint(opened.retention.as_secs());
            }
            Self::Attached(attached) => {
                w.byte(ATTACHED).session(attached.session).varint(attached.epoch);
                w.varint(attached.span.into()).varint(attached.version);
                w.varint(attached.wanted.into()).varint(attached.slots.len() as u64);
                for report in attached.slots {
                    w.varint(report.slot.into()).varint(report.sequence);
                    w.varint(report.state.to_wire());
                }
            }
            Self::Refused { reference, refusal } => {
                w.byte(REFUSED).raw(&reference).varint(refusal.to_wire());
            }
            Self::Reply { slot, sequence, reply } => {
                w.position(REPLY, slot, sequence);
                body = reply.encode(&mut w);
            }
            Self::Working { slot, sequence } => w.position(WORKING, slot, sequence),
            Self::NotExecuted { slot, sequence, why } => {
                w.position(NOT_EXECUTED, slot, sequence);
                write_not_executed(&mut w, &why);
            }
            Self::NotKept { slot, sequence } => w.position(NOT_KEPT, slot, sequence),
            Self::FalseRetry { slot, sequence } => w.position(FALSE_RETRY, slot, sequence),
            Self::Stale { slot, sequence } => w.position(STALE, slot, sequence),
            Self::Slots(change) => {
                w.byte(SLOTS).varint(change.version).varint(change.wanted.into());
                w.positions(&change.granted);
            }
            Self::Outcome { query, answer } => {
                w.byte(OUTCOME).varint(query).varint(answer.to_wire());
                match answer {
                    QueryAnswer::Done(reply) => body = reply.encode(&mut w),
                    QueryAnswer::NotExecuted(reason) => {
                        w.varint(reason.to_wire());
                    }
                    _ => {}
                }
            }
            Self::ReadReply { read, reply } => {
                w.byte(READ_REPLY).varint(read);
                body = reply.encode(&mut w);
            }
            Self::ReadNotExecuted { read, why } => {
                w.byte(READ_NOT_EXECUTED).varint(read);
                write_not_executed(&mut w, &why);
            }
            Self::Watched { read, position, messages } => {
                w.byte(WATCHED).varint(read).varint(position);
                body = messages;
            }
            Self::ReadTooStale { read } => {
                w.byte(READ_TOO_STALE).varint(read);
            }
            Self::Draining => {
                w.byte(DRAINING);
            }
            Self::Members { version, addresses } => {
                w.byte(MEMBERS).varint(version).varint(addresses.len() as u64);
                for address in &addresses {
                    w.text(address);
                }
            }
            Self::Busy { slot, sequence, after } => {
                w.position(BUSY, slot, sequence);
                w.duration(Some(after));
            }
            Self::SessionBusy { reference, after } => {
                w.byte(SESSION_BUSY).raw(&reference).duration(Some(after));
            }
            Self::Part(part) => return part.encode(buffer),
            Self::NoStream { slot, sequence } => w.position(NO_STREAM, slot, sequence),
        }
        buffer.finish(body)
    }

    /// The REPLY message of a new reply, and the reply as its slot keeps it.
    pub(crate) fn new_reply(
        slot: u32,
        sequence: u64,
        reply: ReplyPayload,
        buffer: &mut MessageBuffer,
    ) -> (Parts, Kept) {
        let mut w = buffer.writer();
        w.position(REPLY, slot, sequence);
        let start = w.len();
        reply.encode_head(&mut w);
        let head = w.len();
        if head - start + reply.body.len() <= Kept::SMALL {
            reply.body.pieces().iter().for_each(|piece| {
                w.raw(piece);
            });
            if let Some(kept) = Kept::small(&w.written()[start..]) {
                return (buffer.finish(Rope::EMPTY), kept);
            }
        }
        let kept = Kept::new(&w.written()[start..head], &reply.body);
        (buffer.finish(reply.body), kept)
    }

    /// The REPLY message of a kept reply.
    pub(crate) fn kept_reply(
        slot: u32,
        sequence: u64,
        kept: &Kept,
        buffer: &mut MessageBuffer,
    ) -> Parts {
        let mut w = buffer.writer();
        w.position(REPLY, slot, sequence);
        let body = kept.write(&mut w);
        buffer.finish(body)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let message = match r.byte()? {
            OPENED => Self::Opened {
                nonce: r.array()?,
                opened: Opened {
                    session: r.session()?,
                    secret: SessionSecret::new(r.array()?),
                    epoch: r.varint()?,
                    slots: r.varint32()?,
                    retention: Duration::from_secs(r.varint()?),
                },
            },
            ATTACHED => Self::Attached(Attached {
                session: r.session()?,
                epoch: r.varint()?,
                span: r.varint32()?,
                version: r.varint()?,
                wanted: r.varint32()?,
                slots: r.list(|r| {
                    Ok(SlotReport {
                        slot: r.varint32()?,
                        sequence: r.varint()?,
                        state: SlotState::from_wire(r.varint()?).ok_or(Malformed)?,
                    })
                })?,
            }),
            REFUSED => Self::Refused {
                reference: r.array()?,
                refusal: Refusal::from_wire(r.varint()?).ok_or(Malformed)?,
            },
            REPLY => Self::Reply {
                slot: r.varint32()?,
                sequence: r.varint()?,
                reply: ReplyPayload::decode(&mut r)?,
            },
            WORKING => Self::Working { slot: r.varint32()?, sequence: r.varint()? },
            NOT_EXECUTED => Self::NotExecuted {
                slot: r.varint32()?,
                sequence: r.varint()?,
                why: not_executed(&mut r)?,
            },
            NOT_KEPT => Self::NotKept { slot: r.varint32()?, sequence: r.varint()? },
            FALSE_RETRY => Self::FalseRetry { slot: r.varint32()?, sequence: r.varint()? },
            STALE => Self::Stale { slot: r.varint32()?, sequence: r.varint()? },
            SLOTS => Self::Slots(SlotChange {
                version: r.varint()?,
                wanted: r.varint32()?,
                granted: r.positions()?,
            }),
            OUTCOME => Self::Outcome { query: r.varint()?, answer: decode_answer(&mut r)? },
            READ_REPLY => {
                Self::ReadReply { read: r.varint()?, reply: ReplyPayload::decode(&mut r)? }
            }
            READ_NOT_EXECUTED => {
                Self::ReadNotExecuted { read: r.varint()?, why: not_executed(&mut r)? }
            }
            WATCHED => Self::Watched {
                read: r.varint()?,
                position: r.varint()?,
                messages: r.rest().into(),
            },
            READ_TOO_STALE => Self::ReadTooStale { read: r.varint()? },
            DRAINING => Self::Draining,
            MEMBERS => Self::Members { version: r.varint()?, addresses: addresses(&mut r)? },
            BUSY => Self::Busy {
                slot: r.varint32()?,
                sequence: r.varint()?,
                after: r.duration()?.ok_or(Malformed)?,
            },
            SESSION_BUSY => {
                Self::SessionBusy { reference: r.array()?, after: r.duration()?.ok_or(Malformed)? }
            }
            kind if Part::is_kind(kind) => Self::Part(Part::decode(kind, &mut r)?),
            NO_STREAM => Self::NoStream { slot: r.varint32()?, sequence: r.varint()? },
            _ => return Err(Malformed),
        };
        r.end()?;
        Ok(message)
    }
}

fn addresses(r: &mut Reader) -> Result<Vec<String>, Malformed> {
    let count = r.varint()?;
    if count > MOST_MEMBERS {
        return Err(Malformed);
    }
    (0..count).map(|_| r.text()).collect()
}

fn decode_answer(r: &mut Reader) -> Result<QueryAnswer<ReplyPayload>, Malformed> {
    Ok(match r.varint()? {
        0 => QueryAnswer::NotArrived,
        1 => QueryAnswer::Executing,
        2 => QueryAnswer::Done(ReplyPayload::decode(r)?),
        3 => QueryAnswer::NotKept,
        4 => QueryAnswer::AlreadySettled,
        5 => QueryAnswer::NotExecuted(reason(r.varint()?)),
        6 => QueryAnswer::UnknownSession,
        _ => return Err(Malformed),
    })
}
