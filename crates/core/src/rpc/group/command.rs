//! A client's message on its way through the log.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use super::message::{ClientMessage, Content};
use crate::rpc::codec::{Malformed, MessageBuffer, Reader, Writer};
use crate::rpc::message::{
    ToClient, ToServer, about, join, not_executed, session_reference, write_not_executed,
};
use crate::service::{Call, CallContext, Clock, Encoded, MethodId, NotExecuted, Peer};
use crate::session::{CallId, SessionId, SessionSecret, SlotPosition};
use crate::time::{Duration, Instant};

/// The form of an encoded command that every program reads.
const FORM: u8 = 1;

/// The form of one that says more of its client, or was refused: see [`SessionCommand::as_of`].
const LATER_FORM: u8 = 2;

/// The version of a group from which its members read the later form of commands.
pub const OWNERS_SINCE: u32 = 2;

/// The version of a group from which its table keeps ids of calls.
pub const IDS_SINCE: u32 = 3;

/// A message of a client that changes sessions, with what the table must know of its connection.
///
/// A replica gets it from its node as [`Event::Command`](crate::node::Event::Command), has it put
/// into the log, and applies it with [`SessionTable::apply`](super::SessionTable::apply). Copies of
/// it in the log do no harm: the slot table tells them.
#[derive(Clone, PartialEq)]
pub struct SessionCommand {
    pub(crate) client: u64,
    pub(crate) attached: Option<Attaching>,
    pub(crate) peer: Arc<Peer>,
    /// Becomes the secret of a session that this opens.
    pub(crate) fresh_secret: Option<SessionSecret>,
    pub(crate) deadline: Deadline,
    pub(crate) said: Said,
    /// Its call names itself. Known to the replica that has the client alone: it is not encoded.
    pub(crate) has_id: bool,
}

/// The session that a connection speaks for, since which attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attaching {
    pub(crate) session: SessionId,
    pub(crate) epoch: u64,
}

/// Until when a call may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    None,
    /// Not yet in the log.
    Left(Duration),
    /// By the log's time.
    At(Instant),
}

/// What the client said.
#[derive(Clone, PartialEq)]
pub(crate) enum Said {
    Message(Bytes),
    /// A request of which this is the beginning, larger than the limit.
    TooLarge {
        start: Bytes,
        limit: u64,
    },
    /// A call that its replica did not let in: its number is fenced for this reason.
    Refused {
        slot: u32,
        sequence: u64,
        why: NotExecuted,
    },
}

impl SessionCommand {
    /// The node's name for the connection that it came on. No other connection of this or of an
    /// earlier life of the replica has it.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The call that the message makes or fences, and whether it fences it; `None` for another message.
    pub fn call(&self) -> Option<(CallId, bool)> {
        let session = self.attached?.session;
        let (slot, sequence, fence) = match &self.said {
            Said::Message(bytes) | Said::TooLarge { start: bytes, .. } => about(bytes)?,
            Said::Refused { slot, sequence, .. } => (*slot, *sequence, true),
        };
        Some((CallId { session, slot, sequence }, fence))
    }

    /// The method of the call that the message makes, for those who count; `None` for another message.
    /// Reads the whole message.
    pub fn method(&self) -> Option<MethodId> {
        let (Said::Message(bytes) | Said::TooLarge { start: bytes, .. }) = &self.said else {
            return None;
        };
        match ToServer::decode(bytes.clone()).ok()? {
            ToServer::Request { payload, .. } => Some(payload.method),
            _ => None,
        }
    }

    /// The call that it is to run, and its method. `None` for any other message, and for a call that can
    /// only be fenced.
    pub fn asks(&self) -> Option<(MethodId, Call<Encoded>)> {
        let Said::Message(bytes) = &self.said else { return None };
        let session = self.attached?.session;
        let Ok(ToServer::Request { slot, sequence, payload }) = ToServer::decode(bytes.clone())
        else {
            return None;
        };
        let context = CallContext {
            id: Some(CallId { session, slot, sequence }),
            peer: Arc::clone(&self.peer),
            metadata: payload.metadata,
            deadline: None,
            clock: Clock::default(),
        };
        let request = Encoded { body: payload.body, digest: payload.digest };
        Some((payload.method, Call::new(request, context)))
    }

    /// Its call was let in, as one of this client.
    pub fn admitted(&mut self, peer: Arc<Peer>) {
        self.peer = peer;
    }

    /// Its call is not let in. What goes to the log in its place fences its number for this reason: what
    /// the client is told then is true whatever becomes of copies of the call, at replicas that may let
    /// it in. If a copy was there first, the answer is what became of that. No effect on a command that
    /// makes no call.
    pub fn refuse(&mut self, why: NotExecuted) {
        if let Some((CallId { slot, sequence, .. }, false)) = self.call() {
            self.deadline = Deadline::None;
            self.said = Said::Refused { slot, sequence, why };
            self.has_id = false;
        }
    }

    /// Whether its call names itself (metadata [`CALL_ID`](crate::service::CALL_ID)). The replica that has
    /// the client pushes it back while a member of the group may know no ids, which would run a copy.
    pub fn has_id(&self) -> bool {
        self.has_id
    }

    /// The command as members of a group read it whose sessions have this version: an earlier one knows a
    /// client by the key of its certificate alone, and fences without reasons.
    #[must_use]
    pub fn as_of(mut self, version: u32) -> Self {
        if version >= OWNERS_SINCE {
            return self;
        }
        if self.peer.owner.is_some() || self.peer.subject.is_some() {
            let peer = Peer { owner: None, subject: None, ..Peer::clone(&self.peer) };
            self.peer = Arc::new(peer);
        }
        if let Said::Refused { slot, sequence, .. } = self.said {
            let fence = ToServer::Fence { slot, sequence };
            self.said = Said::Message(join(fence.encode(&mut MessageBuffer::default())));
        }
        self
    }

    /// Whether its client was known by a certificate of which only the key is told.
    pub(super) fn is_of_earlier_form(&self) -> bool {
        self.peer.identity.is_some() && self.peer.owner.is_none()
    }

    /// Bytes of the message, which are most of the encoded command.
    pub fn size(&self) -> usize {
        match &self.said {
            Said::Message(bytes) => bytes.len(),
            Said::TooLarge { start, .. } => start.len(),
            Said::Refused { why, .. } => why.detail.len() + 16,
        }
    }

    /// The command has waited this long in one place on its way to the log.
    pub fn waited(&mut self, time: Duration) {
        if let Deadline::Left(left) = &mut self.deadline {
            *left = left.saturating_sub(time);
        }
    }

    /// The leader takes the command at this time of the log: the time that its call has left counts
    /// from now. Without effect on a command that was taken before.
    pub fn taken_at(&mut self, log_time: Instant) {
        if let Deadline::Left(left) = self.deadline {
            self.deadline = Deadline::At(log_time + left);
        }
    }

    /// What to tell the client if the command cannot be taken now: that it is to send it again after
    /// this time, to whichever replica. `None` for a message that the client does not repeat: a replica
    /// holds those that [free memory](Self::only_frees) beyond its bound for others.
    pub fn push_back(&self, after: Duration) -> Option<ClientMessage> {
        let bytes = match &self.said {
            Said::Message(bytes) | Said::TooLarge { start: bytes, .. } => bytes,
            Said::Refused { slot, sequence, .. } => {
                let busy = ToClient::Busy { slot: *slot, sequence: *sequence, after };
                let parts = busy.encode(&mut MessageBuffer::default());
                return Some(ClientMessage(Content::Answer(parts)));
            }
        };
        let busy = match ToServer::decode(bytes.clone()).ok()? {
            ToServer::Request { slot, sequence, .. }
            | ToServer::Stream { slot, sequence, .. }
            | ToServer::CancelStream { slot, sequence, .. }
            | ToServer::Fence { slot, sequence } => ToClient::Busy { slot, sequence, after },
            ToServer::Open { nonce, .. } => ToClient::SessionBusy { reference: nonce, after },
            ToServer::Attach { session, .. } => {
                ToClient::SessionBusy { reference: session_reference(session), after }
            }
            _ => return None,
        };
        let parts = busy.encode(&mut MessageBuffer::default());
        Some(ClientMessage(Content::Answer(parts)))
    }

    /// Whether the command only frees memory: its client waits for no answer, and does not send it
    /// again.
    pub fn only_frees(&self) -> bool {
        let Said::Message(bytes) = &self.said else { return false };
        matches!(
            ToServer::decode(bytes.clone()),
            Ok(ToServer::Release(_) | ToServer::ReturnSlots(_) | ToServer::CloseSession)
        )
    }

    /// Takes over what a later command of the same connection says, if both only free memory, so that
    /// this one does what both would have done. Returns whether it did.
    pub fn absorb(&mut self, later: &Self) -> bool {
        let (Said::Message(own), Said::Message(other)) = (&self.said, &later.said) else {
            return false;
        };
        if (self.client, self.attached) != (later.client, later.attached) {
            return false;
        }
        let read = |bytes: &Bytes| ToServer::decode(bytes.clone());
        let (Ok(own), Ok(other)) = (read(own), read(other)) else { return false };
        let both = match (own, other) {
            (ToServer::CloseSession, _) if later.only_frees() => return true,
            (_, ToServer::CloseSession) if self.only_frees() => ToServer::CloseSession,
            (ToServer::Release(own), ToServer::Release(other)) => {
                ToServer::Release(latest(own, other))
            }
            (ToServer::ReturnSlots(own), ToServer::ReturnSlots(other)) => {
                ToServer::ReturnSlots(latest(own, other))
            }
            _ => return false,
        };
        // None of them has a body.
        let (message, _) = both.encode(&mut MessageBuffer::default());
        self.said = Said::Message(message.into());
        true
    }

    /// Appends the command as it is stored in the log and forwarded between replicas.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        let later = self.peer.owner.is_some()
            || self.peer.subject.is_some()
            || matches!(self.said, Said::Refused { .. });
        w.byte(if later { LATER_FORM } else { FORM }).fixed64(self.client);
        match self.attached {
            Some(Attaching { session, epoch }) => w.byte(1).session(session).varint(epoch),
            None => w.byte(0),
        };
        match self.peer.address {
            Some(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let family = if address.is_ipv4() { 4 } else { 6 };
                w.byte(family).raw(&ip.octets()).varint(address.port().into())
            }
            None => w.byte(0),
        };
        match &self.peer.identity {
            Some(identity) => w.byte(1).raw(identity),
            None => w.byte(0),
        };
        if later {
            match &self.peer.owner {
                Some(owner) if self.peer.identity.as_ref() == Some(owner) => w.byte(2),
                Some(owner) => w.byte(1).raw(owner),
                None => w.byte(0),
            };
            match &self.peer.subject {
                Some(subject) => w.byte(1).text(subject),
                None => w.byte(0),
            };
        }
        match &self.fresh_secret {
            Some(secret) => w.byte(1).raw(secret.expose()),
            None => w.byte(0),
        };
        match self.deadline {
            Deadline::None => w.byte(0),
            Deadline::Left(left) => w.byte(1).duration(Some(left)),
            Deadline::At(at) => w.byte(2).fixed64(at.as_nanos()),
        };
        match &self.said {
            Said::Message(bytes) => w.byte(0).raw(bytes),
            Said::TooLarge { start, limit } => w.byte(1).fixed64(*limit).raw(start),
            Said::Refused { slot, sequence, why } => {
                w.byte(2).varint((*slot).into()).varint(*sequence);
                write_not_executed(&mut w, why);
                &mut w
            }
        };
    }

    /// The command of these bytes, which it goes on referring to.
    ///
    /// # Errors
    /// If they are none.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let later = match r.byte()? {
            FORM => false,
            LATER_FORM => true,
            _ => return Err(Malformed),
        };
        let client = r.fixed64()?;
        let attached =
            optional(&mut r, |r| Ok(Attaching { session: r.session()?, epoch: r.varint()? }))?;
        let address = match r.byte()? {
            0 => None,
            family @ (4 | 6) => {
                let ip = Ipv6Addr::from(r.array::<16>()?);
                let port = u16::try_from(r.varint()?).map_err(|_| Malformed)?;
                let ip = match (family, ip.to_ipv4_mapped()) {
                    (4, Some(ip)) => IpAddr::V4(ip),
                    (4, None) => return Err(Malformed),
                    _ => IpAddr::V6(ip),
                };
                Some(SocketAddr::new(ip, port))
            }
            _ => return Err(Malformed),
        };
        let identity = optional(&mut r, Reader::array)?;
        let (owner, subject) = match later {
            true => (owner(&mut r, identity)?, optional(&mut r, Reader::text)?),
            false => (None, None),
        };
        let fresh_secret = optional(&mut r, |r| r.array().map(SessionSecret::new))?;
        let deadline = match r.byte()? {
            0 => Deadline::None,
            1 => Deadline::Left(r.duration()?.ok_or(Malformed)?),
            2 => Deadline::At(Instant::from_nanos(r.fixed64()?)),
            _ => return Err(Malformed),
        };
        let said = match r.byte()? {
            0 => Said::Message(r.rest()),
            1 => Said::TooLarge { limit: r.fixed64()?, start: r.rest() },
            2 if later => Said::Refused {
                slot: r.varint32()?,
                sequence: r.varint()?,
                why: not_executed(&mut r)?,
            },
            _ => return Err(Malformed),
        };
        let subject = subject.map(Into::into);
        let peer = Arc::new(Peer { address, identity, owner, subject, ..Peer::default() });
        Ok(Self { client, attached, peer, fresh_secret, deadline, said, has_id: false })
    }

    /// When its caller stops waiting, by the log's time.
    pub(super) fn deadline_at(&self) -> Option<Instant> {
        match self.deadline {
            Deadline::At(at) => Some(at),
            Deadline::None | Deadline::Left(_) => None,
        }
    }

    /// Whether its call may not start any more.
    pub(super) fn is_late(&self, log_time: Instant) -> bool {
        match self.deadline {
            Deadline::None => false,
            // It was put into the log untaken, so all that is known is what was left then.
            Deadline::Left(left) => left.is_zero(),
            Deadline::At(at) => at <= log_time,
        }
    }
}

/// The latest number of each slot.
fn latest(own: Vec<SlotPosition>, other: Vec<SlotPosition>) -> Vec<SlotPosition> {
    let mut numbers = BTreeMap::<u32, u64>::new();
    for SlotPosition { slot, sequence } in own.into_iter().chain(other) {
        let number = numbers.entry(slot).or_default();
        *number = sequence.max(*number);
    }
    numbers.into_iter().map(|(slot, sequence)| SlotPosition { slot, sequence }).collect()
}

/// To whom the client's sessions belong: to the key as such, or to another name.
fn owner(r: &mut Reader, key: Option<[u8; 32]>) -> Result<Option<[u8; 32]>, Malformed> {
    match (r.byte()?, key) {
        (0, _) => Ok(None),
        (1, Some(_)) => r.array().map(Some),
        (2, Some(key)) => Ok(Some(key)),
        _ => Err(Malformed),
    }
}

fn optional<T>(
    r: &mut Reader,
    read: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match r.byte()? {
        0 => Ok(None),
        1 => read(r).map(Some),
        _ => Err(Malformed),
    }
}

// The message may hold a secret.
impl fmt::Debug for SessionCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCommand")
            .field("client", &self.client)
            .field("attached", &self.attached)
            .field("bytes", &self.size())
            .finish_non_exhaustive()
    }
}
