//! The records of a journal as bytes. Numbers are big-endian; texts and bytes have their length in
//! front.

use bytes::Bytes;
use stubborn_core::node::{JournalRequest, SessionTicket};
use stubborn_core::service::{
    CallState, Code, Encoded, IncomingReply, Metadata, Method, NotExecuted, Semantics, Shape,
    Status,
};
use stubborn_core::session::{CallId, NotExecutedReason, SessionId, SessionSecret};
use stubborn_core::wire::{Malformed, Reader};

use crate::server::AUTHORIZATION;

const SESSION: u8 = 1;
const CALL: u8 = 2;
const OUTCOME: u8 = 3;
const SETTLED: u8 = 4;
const HELD: u8 = 5;
const MEMBERS: u8 = 6;

#[derive(Clone, Debug)]
pub(super) enum Record {
    /// A session, and the processes that may have it: as in
    /// [`Succession::after`](stubborn_core::session::Succession::after).
    Session(SessionTicket, Vec<u64>),
    /// This process has attached to a session.
    Held(SessionId, u64),
    /// Where the members of the group are.
    Members(Vec<String>),
    /// A number was taken; without a request it is only fenced.
    Call(CallId, Option<JournalRequest>),
    /// What became of it.
    Outcome(CallId, CallState<IncomingReply>),
    /// The application knows that.
    Settled(CallId),
}

impl Record {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 5]);
        out[start] = match self {
            Self::Session(ticket, after) => {
                put_session(out, ticket.session);
                out.extend_from_slice(ticket.secret.expose());
                after.iter().for_each(|holder| out.extend_from_slice(&holder.to_be_bytes()));
                SESSION
            }
            Self::Held(session, holder) => {
                put_session(out, *session);
                out.extend_from_slice(&holder.to_be_bytes());
                HELD
            }
            Self::Members(addresses) => {
                addresses.iter().for_each(|address| put_bytes(out, address.as_bytes()));
                MEMBERS
            }
            Self::Call(id, request) => {
                put_id(out, *id);
                if let Some(request) = request {
                    put_bytes(out, request.method.name().as_bytes());
                    out.push(semantics_number(request.method.semantics()));
                    put_metadata(out, &request.metadata);
                    put_encoded(out, &request.encoded);
                }
                CALL
            }
            Self::Outcome(id, state) => {
                put_id(out, *id);
                put_state(out, state);
                OUTCOME
            }
            Self::Settled(id) => {
                put_id(out, *id);
                SETTLED
            }
        };
        let length = (out.len() - start - 5) as u32;
        out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    }

    /// Takes all records apart.
    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut records = Vec::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let [kind] = reader.array::<1>()?;
            let mut fields = Reader::new(take(&mut reader)?);
            records.push(Self::decode(kind, &mut fields)?);
            if !fields.is_empty() {
                return Err(Malformed);
            }
        }
        Ok(records)
    }

    fn decode(kind: u8, fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match kind {
            SESSION => {
                let session = session(fields)?;
                let secret = SessionSecret::new(fields.array()?);
                let after = until_end(fields, |fields| fields.array().map(u64::from_be_bytes))?;
                Self::Session(SessionTicket { session, secret }, after)
            }
            HELD => Self::Held(session(fields)?, u64::from_be_bytes(fields.array()?)),
            MEMBERS => Self::Members(until_end(fields, text)?),
            CALL => {
                let id = id(fields)?;
                let request = if fields.is_empty() { None } else { Some(request(fields)?) };
                Self::Call(id, request)
            }
            OUTCOME => Self::Outcome(id(fields)?, state(fields)?),
            SETTLED => Self::Settled(id(fields)?),
            _ => return Err(Malformed),
        })
    }
}

fn until_end<T>(
    fields: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut found = Vec::new();
    while !fields.is_empty() {
        found.push(read(fields)?);
    }
    Ok(found)
}

fn request(fields: &mut Reader<'_>) -> Result<JournalRequest, Malformed> {
    let name = text(fields)?;
    let [semantics] = fields.array()?;
    let semantics = semantics_of(semantics)?;
    let method = Method::dynamic(name, semantics, Shape::Unary);
    Ok(JournalRequest { method, metadata: metadata(fields)?, encoded: encoded(fields)? })
}

fn put_state(out: &mut Vec<u8>, state: &CallState<IncomingReply>) {
    match state {
        CallState::Replied(reply) => {
            out.push(0);
            put_metadata(out, &reply.metadata);
            put_encoded(out, &reply.reply);
        }
        CallState::Executed(status) => {
            out.push(1);
            out.push(status.code() as u8);
            put_bytes(out, status.message().as_bytes());
            put_bytes(out, status.details());
            put_metadata(out, status.metadata());
        }
        CallState::ReplyNotKept => out.push(2),
        CallState::NotExecuted(why) => {
            out.push(3);
            out.extend_from_slice(&why.reason.to_wire().to_be_bytes());
            put_bytes(out, why.detail.as_bytes());
        }
        CallState::AlreadySettled => out.push(5),
        // The others are no outcomes, and are not written.
        CallState::Lost | CallState::Executing | CallState::NotArrived => out.push(4),
    }
}

fn state(fields: &mut Reader<'_>) -> Result<CallState<IncomingReply>, Malformed> {
    let [tag] = fields.array()?;
    Ok(match tag {
        0 => {
            let metadata = metadata(fields)?;
            CallState::Replied(IncomingReply { reply: encoded(fields)?, metadata, stream: None })
        }
        1 => {
            let [code] = fields.array()?;
            let status = Status::new(Code::from_number(code.into()), text(fields)?);
            let details = Bytes::copy_from_slice(take(fields)?);
            CallState::Executed(status.with_details(details).with_metadata(metadata(fields)?))
        }
        2 => CallState::ReplyNotKept,
        3 => {
            let reason = NotExecutedReason::from_wire(u64::from_be_bytes(fields.array()?));
            let reason = reason.unwrap_or(NotExecutedReason::Fenced);
            CallState::NotExecuted(NotExecuted::because(reason, text(fields)?))
        }
        4 => CallState::Lost,
        5 => CallState::AlreadySettled,
        _ => return Err(Malformed),
    })
}

const SEMANTICS: [Semantics; 5] = [
    Semantics::Maybe,
    Semantics::AtMostOnce,
    Semantics::Idempotent,
    Semantics::Read,
    Semantics::ExactlyOnce,
];

fn semantics_number(semantics: Semantics) -> u8 {
    SEMANTICS.iter().position(|other| *other == semantics).unwrap_or(1) as u8
}

fn semantics_of(number: u8) -> Result<Semantics, Malformed> {
    SEMANTICS.get(usize::from(number)).copied().ok_or(Malformed)
}

fn put_session(out: &mut Vec<u8>, session: SessionId) {
    out.extend_from_slice(&session.incarnation.to_be_bytes());
    out.extend_from_slice(&session.number.to_be_bytes());
}

fn session(fields: &mut Reader<'_>) -> Result<SessionId, Malformed> {
    let incarnation = u64::from_be_bytes(fields.array()?);
    Ok(SessionId { incarnation, number: u64::from_be_bytes(fields.array()?) })
}

fn put_id(out: &mut Vec<u8>, id: CallId) {
    put_session(out, id.session);
    out.extend_from_slice(&id.slot.to_be_bytes());
    out.extend_from_slice(&id.sequence.to_be_bytes());
}

fn id(fields: &mut Reader<'_>) -> Result<CallId, Malformed> {
    let session = session(fields)?;
    let slot = u32::from_be_bytes(fields.array()?);
    Ok(CallId { session, slot, sequence: u64::from_be_bytes(fields.array()?) })
}

fn put_encoded(out: &mut Vec<u8>, encoded: &Encoded) {
    out.extend_from_slice(&encoded.digest.to_be_bytes());
    out.extend_from_slice(&(encoded.body.len() as u32).to_be_bytes());
    encoded.body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
}

fn encoded(fields: &mut Reader<'_>) -> Result<Encoded, Malformed> {
    let digest = u64::from_be_bytes(fields.array()?);
    Ok(Encoded { digest, body: Bytes::copy_from_slice(take(fields)?).into() })
}

/// Without the caller's token, which is nothing to be kept in files.
fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    let kept = || metadata.iter().filter(|(key, _)| *key != AUTHORIZATION);
    out.extend_from_slice(&(kept().count() as u32).to_be_bytes());
    for (key, value) in kept() {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value);
    }
}

fn metadata(fields: &mut Reader<'_>) -> Result<Metadata, Malformed> {
    let mut metadata = Metadata::new();
    for _ in 0..u32::from_be_bytes(fields.array()?) {
        let key = text(fields)?;
        let value = Bytes::copy_from_slice(take(fields)?);
        metadata.insert(key, value).map_err(|_| Malformed)?;
    }
    Ok(metadata)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes with their length in front.
fn take<'a>(fields: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = u32::from_be_bytes(fields.array()?) as usize;
    let rest = fields.rest();
    let bytes = rest.get(..length).ok_or(Malformed)?;
    *fields = Reader::new(&rest[length..]);
    Ok(bytes)
}

fn text(fields: &mut Reader<'_>) -> Result<String, Malformed> {
    String::from_utf8(take(fields)?.to_vec()).map_err(|_| Malformed)
}
