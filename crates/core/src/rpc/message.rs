//! The messages of sessions and calls: `docs/protocol.md` section 4.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use stubborn_rope::Rope;

use super::codec::{COPIED, Malformed, MessageBuffer, Reader, Writer, duration_number};
use super::kept::Kept;
use super::stream::Part;
use super::watch::Watch;
use crate::service::{Code, Metadata, MethodId, NotExecuted, Shape, Status, StreamEnd};
use crate::session::{
    Attached, CallId, JournalSlot, NotExecutedReason, Opened, QueryAnswer, Refusal, SessionId,
    SessionSecret, SlotChange, SlotPosition, SlotReport, SlotState, Succession,
};
use crate::time::Duration;
use crate::wire::fields::{Fields, Head};
use crate::wire::varint;

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

/// How old the state may be that a read is answered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    /// It holds everything up to this entry of the group's log: what the caller has seen already.
    pub seen: u64,
    /// It holds everything that was committed so long ago.
    pub at_most: Duration,
}

/// What every request carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestPayload {
    pub(crate) method: MethodId,
    /// Time left when it was sent.
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    pub(crate) metadata: Metadata,
    pub(crate) body: Rope,
}

/// The same in the hands of its call: sent without a copy of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PayloadRef<'a> {
    pub(crate) method: MethodId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    pub(crate) metadata: &'a Metadata,
    pub(crate) body: &'a Rope,
}

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

/// What every reply carries: a status, or (no status) the reply's body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplyPayload {
    pub(crate) digest: u64,
    pub(crate) status: Option<Status>,
    pub(crate) metadata: Metadata,
    pub(crate) body: Rope,
    /// Of a stream: how it ended.
    pub(crate) stream: Option<Box<StreamEnd>>,
}

/// The first bytes of an encoded message, and the body that follows them uncopied. A short body is
/// copied to the first bytes instead.
pub(crate) type Parts = (Vec<u8>, Rope);

const OPEN: u8 = 0x01;
const ATTACH: u8 = 0x02;
const REQUEST: u8 = 0x03;
const FENCE: u8 = 0x04;
const RELEASE: u8 = 0x05;
const RETURN_SLOTS: u8 = 0x06;
const QUERY: u8 = 0x07;
const READ: u8 = 0x08;
const CANCEL_READ: u8 = 0x09;
const MAYBE: u8 = 0x0a;
const CLOSE_SESSION: u8 = 0x0b;
const STALE_READ: u8 = 0x0c;
const STREAM: u8 = 0x0d;
const CANCEL_STREAM: u8 = 0x0e;
const WATCH: u8 = 0x0f;
const LEFT: u8 = 0x10;

const OPENED: u8 = 0x41;
const ATTACHED: u8 = 0x42;
const REFUSED: u8 = 0x43;
const REPLY: u8 = 0x44;
const WORKING: u8 = 0x45;
const NOT_EXECUTED: u8 = 0x46;
const NOT_KEPT: u8 = 0x47;
const FALSE_RETRY: u8 = 0x48;
const STALE: u8 = 0x49;
const SLOTS: u8 = 0x4a;
const OUTCOME: u8 = 0x4b;
const READ_REPLY: u8 = 0x4c;
const DRAINING: u8 = 0x4d;
const READ_NOT_EXECUTED: u8 = 0x4e;
const BUSY: u8 = 0x4f;
const SESSION_BUSY: u8 = 0x50;
const READ_TOO_STALE: u8 = 0x51;
const AS_OF: u8 = 0x52;
const MEMBERS: u8 = 0x53;
const WATCHED: u8 = 0x54;
const NO_STREAM: u8 = 0x60;

/// Added to the number of a status in the reply of a stream, which has its end behind it.
const OF_STREAM: u64 = 32;

/// Members of a group whose addresses are told at most.
const MOST_MEMBERS: u64 = 64;

fn addresses(r: &mut Reader) -> Result<Vec<String>, Malformed> {
    let count = r.varint()?;
    if count > MOST_MEMBERS {
        return Err(Malformed);
    }
    (0..count).map(|_| r.text()).collect()
}

/// Puts the place in the group's log in front of what a replica says to a client: what it says is
/// true once this entry is applied.
pub(crate) fn as_of(index: u64, (written, body): Parts) -> Parts {
    let mut out = Vec::with_capacity(written.len() + 9);
    out.push(AS_OF);
    varint::encode(index.min(varint::MAX), &mut out);
    out.extend_from_slice(&written);
    (out, body)
}

/// Takes off the place in the group's log that stands in front of a message, if one does.
#[inline]
pub(crate) fn take_as_of(message: &mut Bytes) -> Option<u64> {
    let (index, rest) = message.strip_prefix(&[AS_OF]).and_then(varint::decode)?;
    let at = message.len() - rest.len();
    message.advance(at);
    Some(index)
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

/// The fields of a REPLY without a status and without metadata, which nearly all are. They are few, so
/// that they are read much faster than a message of any kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainReply {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
    /// Where its body begins.
    pub(crate) body: usize,
}

/// The same of a REQUEST without metadata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRequest {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) method: MethodId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) digest: u64,
    /// Where its body begins.
    pub(crate) body: usize,
}

impl PlainReply {
    /// `None` for any other message, and for one that is malformed.
    #[inline]
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (slot, sequence, rest) = position(message, REPLY)?;
        let (digest, rest) = rest.split_first_chunk()?;
        // The code of the status, and the number of pairs.
        let rest = rest.strip_prefix(&[0, 0])?;
        let body = message.len() - rest.len();
        Some(Self { slot, sequence, digest: u64::from_be_bytes(*digest), body })
    }
}

impl PlainRequest {
    /// `None` for any other message, and for one that is malformed.
    #[inline]
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (slot, sequence, rest) = position(message, REQUEST)?;
        let (method, rest) = rest.split_first_chunk()?;
        let (micros, rest) = varint::decode(rest)?;
        let (digest, rest) = rest.split_first_chunk()?;
        // The number of pairs.
        let rest = rest.strip_prefix(&[0])?;
        Some(Self {
            slot,
            sequence,
            method: MethodId(u64::from_be_bytes(*method)),
            deadline: micros.checked_sub(1).map(Duration::from_micros),
            digest: u64::from_be_bytes(*digest),
            body: message.len() - rest.len(),
        })
    }
}

/// Slot and sequence number at the front of a message of this kind, and what follows them.
#[inline]
fn position(message: &[u8], kind: u8) -> Option<(u32, u64, &[u8])> {
    let rest = message.strip_prefix(&[kind])?;
    let (slot, rest) = varint::decode(rest)?;
    let (sequence, rest) = varint::decode(rest)?;
    Some((u32::try_from(slot).ok()?, sequence, rest))
}

/// Which number of a slot a REQUEST or FENCE is about, and whether it is a FENCE.
pub(crate) fn about(message: &[u8]) -> Option<(u32, u64, bool)> {
    let request = position(message, REQUEST).map(|(slot, sequence, _)| (slot, sequence, false));
    request.or_else(|| position(message, FENCE).map(|(slot, sequence, _)| (slot, sequence, true)))
}

impl PayloadRef<'_> {
    /// The REQUEST message.
    pub(crate) fn encode_request(
        self,
        slot: u32,
        sequence: u64,
        buffer: &mut MessageBuffer,
    ) -> Parts {
        let mut w = buffer.writer();
        w.position(REQUEST, slot, sequence);
        self.encode_head(&mut w);
        buffer.finish_ref(self.body)
    }

    /// The same in two parts, if it is what nearly all are: short, and without metadata.
    #[inline(always)]
    pub(crate) fn short_request(&self, slot: u32, sequence: u64) -> Option<(RequestHead, &[u8])> {
        let [body] = self.body.pieces() else { return None };
        if body.len() > COPIED || !self.metadata.is_empty() {
            return None;
        }
        let deadline = duration_number(self.deadline);
        let head =
            RequestHead { slot, sequence, method: self.method, deadline, digest: self.digest };
        Some((head, body))
    }

    /// The STREAM message.
    pub(crate) fn encode_stream(
        self,
        id: CallId,
        shape: Shape,
        window: u64,
        buffer: &mut MessageBuffer,
    ) -> Parts {
        let mut w = buffer.writer();
        w.position(STREAM, id.slot, id.sequence);
        w.byte(shape_byte(shape)).varint(window);
        self.encode_head(&mut w);
        buffer.finish_ref(self.body)
    }

    pub(crate) fn to_owned(self) -> RequestPayload {
        RequestPayload {
            method: self.method,
            deadline: self.deadline,
            digest: self.digest,
            metadata: self.metadata.clone(),
            body: self.body.clone(),
        }
    }

    fn encode_head(self, w: &mut Writer<'_>) {
        w.fixed64(self.method.0).duration(self.deadline).fixed64(self.digest);
        w.metadata(self.metadata);
    }
}

/// The first fields of the REQUEST message of a [short request](PayloadRef::short_request).
pub(crate) struct RequestHead {
    slot: u32,
    sequence: u64,
    method: MethodId,
    /// As [`duration_number`] writes it.
    deadline: u64,
    digest: u64,
}

impl Head for RequestHead {
    #[inline]
    fn size(&self) -> usize {
        position_size(self.slot, self.sequence) + 8 + varint::size(self.deadline) + 8 + 1
    }

    #[inline]
    fn write(&self, fields: &mut Fields<'_>) {
        fields.byte(REQUEST).varint(self.slot.into()).varint(self.sequence);
        fields.fixed64(self.method.0).varint(self.deadline);
        // The number of pairs.
        fields.fixed64(self.digest).byte(0);
    }
}

/// The first fields of the REPLY message of a [short reply](super::kept::ShortReply).
pub(crate) struct ReplyHead {
    pub(crate) slot: u32,
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
}

impl Head for ReplyHead {
    #[inline]
    fn size(&self) -> usize {
        position_size(self.slot, self.sequence) + 8 + 2
    }

    #[inline]
    fn write(&self, fields: &mut Fields<'_>) {
        fields.byte(REPLY).varint(self.slot.into()).varint(self.sequence);
        // The code of the status and the number of pairs.
        fields.fixed64(self.digest).byte(0).byte(0);
    }
}

/// Bytes of a kind, a slot and a number.
#[inline]
fn position_size(slot: u32, sequence: u64) -> usize {
    1 + varint::size(slot.into()) + varint::size(sequence)
}

impl RequestPayload {
    fn encode(self, w: &mut Writer<'_>) -> Rope {
        self.borrow().encode_head(w);
        self.body
    }

    fn borrow(&self) -> PayloadRef<'_> {
        PayloadRef {
            method: self.method,
            deadline: self.deadline,
            digest: self.digest,
            metadata: &self.metadata,
            body: &self.body,
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            method: MethodId(r.fixed64()?),
            deadline: r.duration()?,
            digest: r.fixed64()?,
            metadata: r.metadata()?,
            body: r.rest().into(),
        })
    }
}

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

    /// The REPLY message of a new reply, and the reply as its slot keeps it: in memory of its own if it
    /// has at most `owned` bytes.
    pub(crate) fn new_reply(
        slot: u32,
        sequence: u64,
        reply: ReplyPayload,
        owned: usize,
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
        let kept = Kept::new(&w.written()[start..head], &reply.body, owned);
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

impl ReplyPayload {
    fn encode(self, w: &mut Writer<'_>) -> Rope {
        self.encode_head(w);
        self.body
    }

    /// Everything but the body.
    pub(crate) fn encode_head(&self, w: &mut Writer<'_>) {
        w.fixed64(self.digest);
        let code = self.status.as_ref().map_or(0, status_number);
        match &self.stream {
            None => w.varint(code),
            Some(end) => w.varint(code + OF_STREAM).varint(end.taken).varint(end.sent),
        };
        if let Some(status) = &self.status {
            w.text(status.message()).sized(status.details());
        }
        w.metadata(&self.metadata);
    }

    /// The reply of what a slot kept.
    pub(crate) fn from_kept(kept: &Kept) -> Result<Self, Malformed> {
        let (head, body) = kept.parts();
        let mut reply = Self::decode(&mut Reader::new(head))?;
        if reply.body.is_empty() {
            reply.body = body;
        }
        Ok(reply)
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let digest = r.fixed64()?;
        let mut code = r.varint()?;
        let mut stream = None;
        if code >= OF_STREAM {
            code -= OF_STREAM;
            stream = Some(Box::new(StreamEnd { taken: r.varint()?, sent: r.varint()? }));
        }
        let said = if code == 0 { None } else { Some((r.text()?, r.sized()?)) };
        let metadata = r.metadata()?;
        let status = said.map(|(message, details)| {
            Status::new(Code::from_number(code), message)
                .with_details(details)
                .with_metadata(metadata.clone())
        });
        Ok(Self { digest, status, metadata, body: r.rest().into(), stream })
    }
}

/// A handler's status says that it failed, even if it was made with the code `Ok`.
fn status_number(status: &Status) -> u64 {
    match status.code() {
        Code::Ok => Code::Unknown as u64,
        code => code as u64,
    }
}

/// Bit 0: the client streams; bit 1: the server does.
fn shape_byte(shape: Shape) -> u8 {
    u8::from(shape.client_streams()) | u8::from(shape.server_streams()) << 1
}

fn shape(byte: u8) -> Option<Shape> {
    [Shape::ClientStreaming, Shape::ServerStreaming, Shape::BidiStreaming]
        .into_iter()
        .find(|shape| shape_byte(*shape) == byte)
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

fn flag(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed),
    }
}

fn reason(number: u64) -> NotExecutedReason {
    // A newer server may know more reasons; the call is not executed either way.
    NotExecutedReason::from_wire(number).unwrap_or(NotExecutedReason::Fenced)
}

pub(crate) fn write_not_executed(w: &mut Writer<'_>, why: &NotExecuted) {
    w.varint(why.reason.to_wire()).text(&why.detail);
    if let Some(pause) = why.retry_after() {
        w.duration(Some(pause));
    }
}

/// What ends a message.
pub(crate) fn not_executed(r: &mut Reader) -> Result<NotExecuted, Malformed> {
    let why = NotExecuted::because(reason(r.varint()?), Cow::Owned(r.text()?));
    let pause = if r.is_empty() { None } else { r.duration()? };
    Ok(match pause {
        Some(pause) => why.with_retry_after(pause),
        None => why,
    })
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

/// The 16 bytes by which REFUSED refers to a session.
pub(crate) fn session_reference(session: SessionId) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&session.incarnation.to_be_bytes());
    out[8..].copy_from_slice(&session.number.to_be_bytes());
    out
}

/// Joins the parts of a message, for a DATAGRAM frame and for tests.
pub(crate) fn join((mut whole, body): Parts) -> Bytes {
    whole.reserve_exact(body.len());
    body.pieces().iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.into()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
