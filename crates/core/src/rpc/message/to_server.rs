//! What clients send.

use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::kinds::*;
use super::request::RequestPayload;
use super::words::{flag, shape, shape_byte};
use super::{Parts, Staleness};
use crate::rpc::codec::{Malformed, MessageBuffer, Reader};
use crate::rpc::stream::Part;
use crate::rpc::watch::Watch;
use crate::service::Shape;
use crate::session::{CallId, JournalSlot, SessionId, SessionSecret, SlotPosition, Succession};

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ToServer {
    Open {
        nonce: [u8; 16],
        slots: u32,
    },
    Attach {
        session: SessionId,
        secret: SessionSecret,
        /// Of a client that keeps a journal.
        succession: Option<Succession>,
    },
    Request {
        slot: u32,
        sequence: u64,
        payload: RequestPayload,
    },
    Fence {
        slot: u32,
        sequence: u64,
    },
    Release(Vec<SlotPosition>),
    ReturnSlots(Vec<SlotPosition>),
    Query {
        query: u64,
        call: CallId,
        secret: SessionSecret,
    },
    Read {
        read: u64,
        payload: RequestPayload,
    },
    /// A read of a state that may be older.
    StaleRead {
        read: u64,
        stale: Staleness,
        payload: RequestPayload,
    },
    /// Asks for what follows in a stream of reads, which the payload names each time.
    Watch {
        read: u64,
        watch: Watch,
        payload: RequestPayload,
    },
    CancelRead {
        read: u64,
    },
    Maybe(RequestPayload),
    CloseSession,
    /// To a server that drains: every number that the client has sent in the session is settled, and it
    /// sends no further one.
    Left,
    /// A request that opens a stream: `window` is what replies may count before more is granted.
    Stream {
        slot: u32,
        sequence: u64,
        shape: Shape,
        window: u64,
        payload: RequestPayload,
    },
    /// Of an open stream.
    Part(Part),
    /// As a fence; and if the call is a stream that executes, its handler is stopped.
    CancelStream {
        slot: u32,
        sequence: u64,
        overdue: bool,
    },
}

impl ToServer {
    pub(crate) fn encode(self, buffer: &mut MessageBuffer) -> Parts {
        let mut body = Rope::EMPTY;
        let mut w = buffer.writer();
        match self {
            Self::Open { nonce, slots } => {
                w.byte(OPEN).raw(&nonce).varint(slots.into());
            }
            Self::Attach { session, secret, succession } => {
                w.byte(ATTACH).session(session).raw(secret.expose());
                if let Some(Succession { holder, after, known }) = succession {
                    w.fixed64(holder).varint(after.len() as u64);
                    after.iter().for_each(|before| {
                        w.fixed64(*before);
                    });
                    if let Some(known) = known {
                        w.varint(known.len() as u64);
                        for JournalSlot { slot, sequence, answered } in known {
                            w.varint(slot.into()).varint(sequence).byte(answered.into());
                        }
                    }
                }
            }
            Self::Request { slot, sequence, payload } => {
                w.byte(REQUEST).varint(slot.into()).varint(sequence);
                body = payload.encode(&mut w);
            }
            Self::Fence { slot, sequence } => {
                w.byte(FENCE).varint(slot.into()).varint(sequence);
            }
            Self::Release(list) => {
                w.byte(RELEASE).positions(&list);
            }
            Self::ReturnSlots(list) => {
                w.byte(RETURN_SLOTS).positions(&list);
            }
            Self::Query { query, call, secret } => {
                w.byte(QUERY).varint(query).session(call.session);
                w.varint(call.slot.into()).varint(call.sequence).raw(secret.expose());
            }
            Self::Read { read, payload } => {
                w.byte(READ).varint(read);
                body = payload.encode(&mut w);
            }
            Self::StaleRead { read, stale, payload } => {
                w.byte(STALE_READ).varint(read).varint(stale.seen).duration(Some(stale.at_most));
                body = payload.encode(&mut w);
            }
            Self::Watch { read, watch, payload } => {
                let Watch { stale, position, room, hold } = watch;
                w.byte(WATCH).varint(read).varint(stale.map_or(0, |stale| stale.seen));
                w.duration(stale.map(|stale| stale.at_most)).varint(position);
                w.varint(room).duration(Some(hold));
                body = payload.encode(&mut w);
            }
            Self::CancelRead { read } => {
                w.byte(CANCEL_READ).varint(read);
            }
            Self::Maybe(payload) => {
                w.byte(MAYBE);
                body = payload.encode(&mut w);
            }
            Self::CloseSession => {
                w.byte(CLOSE_SESSION);
            }
            Self::Left => {
                w.byte(LEFT);
            }
            Self::Stream { slot, sequence, shape, window, payload } => {
                w.position(STREAM, slot, sequence);
                w.byte(shape_byte(shape)).varint(window);
                body = payload.encode(&mut w);
            }
            Self::Part(part) => return part.encode(buffer),
            Self::CancelStream { slot, sequence, overdue } => {
                w.position(CANCEL_STREAM, slot, sequence);
                w.byte(overdue.into());
            }
        }
        buffer.finish(body)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let message = match r.byte()? {
            OPEN => Self::Open { nonce: r.array()?, slots: r.varint32()? },
            ATTACH => Self::Attach {
                session: r.session()?,
                secret: SessionSecret::new(r.array()?),
                succession: succession(&mut r)?,
            },
            REQUEST => Self::Request {
                slot: r.varint32()?,
                sequence: r.varint()?,
                payload: RequestPayload::decode(&mut r)?,
            },
            FENCE => Self::Fence { slot: r.varint32()?, sequence: r.varint()? },
            RELEASE => Self::Release(r.positions()?),
            RETURN_SLOTS => Self::ReturnSlots(r.positions()?),
            QUERY => Self::Query {
                query: r.varint()?,
                call: CallId { session: r.session()?, slot: r.varint32()?, sequence: r.varint()? },
                secret: SessionSecret::new(r.array()?),
            },
            READ => Self::Read { read: r.varint()?, payload: RequestPayload::decode(&mut r)? },
            STALE_READ => Self::StaleRead {
                read: r.varint()?,
                stale: Staleness { seen: r.varint()?, at_most: r.duration()?.ok_or(Malformed)? },
                payload: RequestPayload::decode(&mut r)?,
            },
            WATCH => Self::Watch {
                read: r.varint()?,
                watch: watch(&mut r)?,
                payload: RequestPayload::decode(&mut r)?,
            },
            CANCEL_READ => Self::CancelRead { read: r.varint()? },
            MAYBE => Self::Maybe(RequestPayload::decode(&mut r)?),
            CLOSE_SESSION => Self::CloseSession,
            LEFT => Self::Left,
            STREAM => Self::Stream {
                slot: r.varint32()?,
                sequence: r.varint()?,
                shape: shape(r.byte()?).ok_or(Malformed)?,
                window: r.varint()?,
                payload: RequestPayload::decode(&mut r)?,
            },
            kind if Part::is_kind(kind) => Self::Part(Part::decode(kind, &mut r)?),
            CANCEL_STREAM => Self::CancelStream {
                slot: r.varint32()?,
                sequence: r.varint()?,
                overdue: flag(r.byte()?)?,
            },
            _ => return Err(Malformed),
        };
        r.end()?;
        Ok(message)
    }
}

/// What an ATTACH ends with if its client keeps a journal.
fn succession(r: &mut Reader) -> Result<Option<Succession>, Malformed> {
    if r.is_empty() {
        return Ok(None);
    }
    let (holder, count) = (r.fixed64()?, r.varint()?);
    if count > Succession::MAX_HOLDERS as u64 {
        return Err(Malformed);
    }
    let after = (0..count).map(|_| r.fixed64()).collect::<Result<_, _>>()?;
    let known = if r.is_empty() { None } else { Some(r.list(journal_slot)?) };
    Ok(Some(Succession { holder, after, known }))
}

fn journal_slot(r: &mut Reader) -> Result<JournalSlot, Malformed> {
    Ok(JournalSlot { slot: r.varint32()?, sequence: r.varint()?, answered: flag(r.byte()?)? })
}

fn watch(r: &mut Reader) -> Result<Watch, Malformed> {
    let (seen, at_most) = (r.varint()?, r.duration()?);
    Ok(Watch {
        stale: at_most.map(|at_most| Staleness { seen, at_most }),
        position: r.varint()?,
        room: r.varint()?,
        hold: r.duration()?.ok_or(Malformed)?,
    })
}
