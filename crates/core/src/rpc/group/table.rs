//! The sessions of a group: every replica applies the same commands and has the same table.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use stubborn_rope::Rope;

use super::command::{Attaching, IDS_SINCE, OWNERS_SINCE, Said, SessionCommand};
use super::ids::{IdReader, Ids};
use super::message::{ClientMessage, Content};
use crate::limits::{Limits, RENEW_SESSIONS_EVERY};
use crate::rpc::codec::MessageBuffer;
use crate::rpc::desk::{Caller, Desk, Verdict, Violation};
use crate::rpc::kept::Kept;
use crate::rpc::message::{ReplyPayload, RequestPayload, ToClient, ToServer, session_reference};
use crate::rpc::server::{Finding, IncomingQuery};
use crate::service::{
    Answer, CALL_ID, Call, CallContext, Clock, Encoded, Image, MethodId, NotExecuted,
};
use crate::session::{
    Attachment, CallId, Footprint, ImageOf, ImageReader, NotExecutedReason, Races, Refusal,
    SessionId, SessionSecret, Sessions, Succession, Unsound,
};
use crate::time::{Duration, Instant};

/// The replicated slot table: sessions, what became of each of their numbers, and the kept replies.
///
/// It is part of the state machine of a group. What it answers follows from the log alone: the
/// commands and the log's time, neither a clock nor which replica has which connection. A call that
/// it decides to run is run while its command is applied, so that the record of its end is as
/// durable as what it changed.
#[derive(Clone, Debug)]
pub struct SessionTable {
    desk: Desk<Origin>,
    /// What is known of calls that name themselves; `None` as long as a member may know none of that.
    ids: Option<Ids>,
    limits: Limits,
    buffer: MessageBuffer,
    /// The version of the group: no part of the image, which its owner keeps beside it.
    version: u32,
}

/// How soon a client is asked to attach again whose replica was behind.
const SOON: Duration = Duration::from_millis(50);

/// A connection of a client to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    replica: u64,
    client: u64,
}

/// What a client is to be told, by the replica that it is connected to. Other replicas drop it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The number of that replica.
    pub replica: u64,
    /// Its node's name for the client, for [`Node::tell`](crate::node::Node::tell).
    pub client: u64,
    /// What to tell.
    pub message: ClientMessage,
}

/// A call that the table has ended, or refused, without running it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrun {
    /// Its method.
    pub method: MethodId,
    /// Why it did not run.
    pub reason: NotExecutedReason,
}

/// Reads a table from the pieces of an [image](SessionTable::freeze) as they come.
#[derive(Debug, Default)]
pub struct TableReader {
    sessions: ImageReader<Kept, Origin>,
    ids: Option<IdReader>,
}

impl TableReader {
    /// Takes the next piece, to which it does not refer.
    ///
    /// # Errors
    /// If it is none of a table.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), Unsound> {
        self.sessions.take(piece)
    }

    /// Takes the next piece of the [ids](SessionTable::freeze_ids), if there are any.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn take_ids(&mut self, piece: &[u8]) -> Result<(), Unsound> {
        self.ids.get_or_insert_default().take(piece)
    }

    /// The table, when all pieces were taken.
    ///
    /// # Errors
    /// If some are missing.
    pub fn finish(self) -> Result<SessionTable, Unsound> {
        let mut table = SessionTable::with(self.sessions.finish()?);
        table.ids = self.ids.map(|reader| Ids::read(reader, &table.limits)).transpose()?;
        Ok(table)
    }
}

impl SessionTable {
    /// The table of a new group. Of `limits` those of sessions count. All replicas must begin with the
    /// same: put [`encode`](Self::encode) of the new table where they all find it, in the first entry
    /// of the log.
    pub fn new(group: u64, limits: &Limits) -> Self {
        Self::with(Sessions::replicated(group, limits))
    }

    /// The table of a new group that goes on with the state of this one, restored from a backup: with
    /// its limits, its time and the ids of its calls, and none of its sessions, which are lost.
    pub fn of_new_group(&self, group: u64) -> Self {
        let mut table = Self { ids: self.ids.clone(), ..Self::new(group, &self.limits) };
        table.version = self.version;
        table.advance(self.time());
        table
    }

    /// The id of the group, which is the incarnation of its sessions.
    pub fn group(&self) -> u64 {
        self.desk.sessions.incarnation()
    }

    /// The log's time, as last given.
    pub fn time(&self) -> Instant {
        self.desk.sessions.time()
    }

    /// From this place of the log on the group has this version: see [`SessionCommand::as_of`]. To be
    /// said again of a table that was read from an image.
    pub fn activate(&mut self, version: u32) {
        self.version = version;
        if version >= IDS_SINCE {
            self.ids.get_or_insert_with(|| Ids::new(&self.limits));
        }
    }

    /// Applies a command that the replica with this number put into the log. `now` is the log's time
    /// at its entry. If it is a call that is to run, `run` runs it at once; `told` gets what is to be
    /// said to whom. Returns a call that came for the first time and does not run, for those who count.
    pub fn apply(
        &mut self,
        now: Instant,
        replica: u64,
        command: &SessionCommand,
        run: impl FnOnce(MethodId, Call<Encoded>) -> Answer,
        told: &mut Vec<Told>,
    ) -> Option<Unrun> {
        self.advance(now);
        let origin = Origin { replica, client: command.client };
        self.carry_out(origin, command, run, told).unwrap_or_else(|Violation(reason)| {
            told.push(origin.told(Content::Close(reason)));
            None
        })
    }

    /// The log's time is now `now`: sessions that nothing was heard of for the retention time are
    /// forgotten. Returns how many.
    pub fn advance(&mut self, now: Instant) -> usize {
        let expired = self.desk.sessions.advance(now);
        if let Some(ids) = &mut self.ids {
            ids.expire(self.desk.sessions.time());
        }
        expired
    }

    /// Whether calls that name themselves run once.
    pub fn keeps_ids(&self) -> bool {
        self.ids.is_some()
    }

    /// How many ids of calls there are.
    pub fn ids(&self) -> usize {
        self.ids.as_ref().map_or(0, Ids::len)
    }

    /// These sessions have a connection to a replica at the log's time `now`. To be applied from an
    /// entry of that replica, every [`renew_every`](Self::renew_every).
    pub fn renew(&mut self, now: Instant, sessions: &[SessionId]) {
        self.advance(now);
        for session in sessions {
            self.desk.sessions.renew(*session);
        }
    }

    /// How often a replica is to renew the sessions that are connected to it.
    pub fn renew_every(&self) -> Duration {
        RENEW_SESSIONS_EVERY.min(self.limits.retention / 3)
    }

    /// When the next session expires if nothing more is heard, by the log's time: the leader then
    /// writes an entry for the time.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.desk.sessions.next_timeout()
    }

    /// What is known of a call that somebody asks about. To be asked as a read: once everything that
    /// was committed is applied. For [`Node::answer_query`](crate::node::Node::answer_query).
    pub fn query(&self, query: &IncomingQuery) -> Finding {
        query.ask(&self.desk)
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.desk.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.desk.sessions.is_empty()
    }

    /// What all sessions hold.
    pub fn footprint(&self) -> Footprint {
        self.desk.sessions.footprint()
    }

    /// How often races were met since this replica has the table.
    pub fn races(&self) -> Races {
        self.desk.sessions.races()
    }

    /// The whole table as it is now, for a snapshot; the table goes on. Tables that applied the same
    /// give the same pieces.
    pub fn freeze(&mut self) -> Image {
        Image::in_pieces(self.desk.sessions.freeze(Image::PIECE))
    }

    /// The ids of calls, which are no part of [`freeze`](Self::freeze), in the same way; `None` if the
    /// table keeps none.
    pub fn freeze_ids(&self) -> Option<Image> {
        self.ids.as_ref().map(Ids::freeze)
    }

    /// Appends all sessions, if they are few.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut sessions = self.desk.sessions.clone();
        sessions.freeze(Image::PIECE).for_each(|piece| out.extend_from_slice(&piece));
    }

    /// The table that has exactly these sessions, and keeps no ids. It does not refer to the bytes.
    ///
    /// # Errors
    /// If they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unsound> {
        let mut reader = TableReader::default();
        reader.take(bytes)?;
        reader.finish()
    }

    fn with(sessions: Sessions<Kept, Origin>) -> Self {
        let limits = sessions.limits().clone();
        let (buffer, ids, version) = (MessageBuffer::default(), None, 1);
        Self { desk: Desk { sessions, borrowed: None }, ids, limits, buffer, version }
    }

    fn carry_out(
        &mut self,
        origin: Origin,
        command: &SessionCommand,
        run: impl FnOnce(MethodId, Call<Encoded>) -> Answer,
        told: &mut Vec<Told>,
    ) -> Result<Option<Unrun>, Violation> {
        let now = self.time();
        let (bytes, limit) = match &command.said {
            Said::Message(bytes) => (bytes, None),
            Said::TooLarge { start, limit } => (start, Some(*limit)),
            Said::Refused { slot, sequence, why } => {
                let attachment = self.heard(command)?;
                let verdict = self.desk.refuse(&attachment, *slot, *sequence, why)?;
                self.say(origin, verdict, told);
                return Ok(None);
            }
        };
        let message =
            ToServer::decode(bytes.clone()).map_err(|_| Violation("malformed message"))?;
        let mut unrun = None;
        let verdict = match message {
            ToServer::Open { nonce, slots } => {
                return self.open(origin, command, nonce, slots, told).map(|()| None);
            }
            ToServer::Attach { session, secret, succession } => {
                let attached = self.attach(origin, command, session, secret, succession, told);
                return attached.map(|()| None);
            }
            ToServer::Request { slot, sequence, payload } => {
                let attachment = self.heard(command)?;
                let method = payload.method;
                match limit {
                    Some(limit) => {
                        unrun = Some(Unrun { method, reason: NotExecutedReason::TooLarge });
                        self.desk.too_large(&attachment, slot, sequence, limit)?
                    }
                    None => {
                        let digest = payload.digest;
                        let verdict = self.desk.request(&attachment, slot, sequence, digest)?;
                        if let Verdict::Execute = verdict {
                            let id = CallId { session: attachment.session(), slot, sequence };
                            let why = self.execute(&attachment, id, command, payload, run, told);
                            return Ok(why.map(|reason| Unrun { method, reason }));
                        }
                        if let Verdict::Say(ToClient::FalseRetry { .. }) = verdict {
                            unrun = Some(Unrun { method, reason: NotExecutedReason::FalseRetry });
                        }
                        verdict
                    }
                }
            }
            // A group runs no streams: they are refused, for good.
            ToServer::Fence { slot, sequence }
            | ToServer::Stream { slot, sequence, .. }
            | ToServer::CancelStream { slot, sequence, .. } => {
                let attachment = self.heard(command)?;
                self.desk.fence(&attachment, slot, sequence)?
            }
            ToServer::Release(list) => {
                let attachment = self.heard(command)?;
                self.desk.release(&attachment, &list)?
            }
            ToServer::ReturnSlots(list) => {
                let attachment = self.heard(command)?;
                self.desk.return_slots(&attachment, &list)?
            }
            ToServer::CloseSession => {
                let attachment = self.heard(command)?;
                self.desk.close(now, &attachment);
                Verdict::Nothing
            }
            ToServer::Query { .. }
            | ToServer::Read { .. }
            | ToServer::StaleRead { .. }
            | ToServer::Watch { .. }
            | ToServer::CancelRead { .. }
            | ToServer::Part(_)
            | ToServer::Left
            | ToServer::Maybe(_) => return Err(Violation("a message that changes no session")),
        };
        self.say(origin, verdict, told);
        Ok(unrun)
    }

    fn say(&mut self, origin: Origin, verdict: Verdict, told: &mut Vec<Told>) {
        let parts = verdict.encode(&mut self.buffer);
        told.extend(parts.map(|parts| origin.told(Content::Answer(parts))));
    }

    fn open(
        &mut self,
        origin: Origin,
        command: &SessionCommand,
        nonce: [u8; 16],
        slots: u32,
        told: &mut Vec<Told>,
    ) -> Result<(), Violation> {
        let secret =
            command.fresh_secret.clone().ok_or(Violation("an opening without a secret"))?;
        let caller = origin.caller(command)?;
        let (verdict, attachment) = self.desk.open(&caller, None, nonce, slots, secret)?;
        self.attached(origin, verdict, attachment, told);
        if let Some(attachment) = attachment {
            self.give_to_owner(&attachment, command);
            for (other, change) in self.desk.share_slots(&self.limits) {
                let parts = ToClient::Slots(change).encode(&mut self.buffer);
                told.push(other.told(Content::Answer(parts)));
            }
        }
        Ok(())
    }

    fn attach(
        &mut self,
        origin: Origin,
        command: &SessionCommand,
        session: SessionId,
        secret: SessionSecret,
        succession: Option<Succession>,
        told: &mut Vec<Told>,
    ) -> Result<(), Violation> {
        let mut caller = origin.caller(command)?;
        let mut attach = |caller: &_| {
            self.desk.attach(caller, None, session, secret.clone(), succession.as_ref())
        };
        let (mut verdict, mut attachment) = attach(&caller)?;
        if is_denied(&verdict) {
            match command.peer.owner {
                Some(owner) => {
                    caller.identity = Some(owner);
                    (verdict, attachment) = attach(&caller)?;
                }
                // Its replica had not heard of the version yet under which the session may have got
                // another owner: it has when this answer comes.
                None if self.version >= OWNERS_SINCE && command.is_of_earlier_form() => {
                    let reference = session_reference(session);
                    verdict = Verdict::Say(ToClient::SessionBusy { reference, after: SOON });
                }
                None => {}
            }
        }
        if let Some(attachment) = &attachment {
            self.give_to_owner(attachment, command);
        }
        self.attached(origin, verdict, attachment, told);
        Ok(())
    }

    /// A session belongs to the key that opened it until the group's version lets commands tell whose key
    /// that is.
    fn give_to_owner(&mut self, attachment: &Attachment, command: &SessionCommand) {
        if let (Some(key), Some(owner)) = (command.peer.identity, command.peer.owner) {
            self.desk.sessions.belongs_to(attachment, key, owner);
        }
    }

    /// Tells the outcome of an opening or attach.
    fn attached(
        &mut self,
        origin: Origin,
        verdict: Verdict,
        attachment: Option<Attachment>,
        told: &mut Vec<Told>,
    ) {
        let Some(parts) = verdict.encode(&mut self.buffer) else { return };
        told.push(origin.told(match attachment {
            Some(attachment) => {
                let (session, epoch) = (attachment.session(), attachment.epoch());
                Content::Attached(Attaching { session, epoch }, parts)
            }
            None => Content::Answer(parts),
        }));
    }

    /// Runs a call that has not run, or fences it if it comes too late or is refused for its id, and
    /// records its end. Returns why it was not run, if it was not.
    fn execute(
        &mut self,
        attachment: &Attachment,
        id: CallId,
        command: &SessionCommand,
        payload: RequestPayload,
        run: impl FnOnce(MethodId, Call<Encoded>) -> Answer,
        told: &mut Vec<Told>,
    ) -> Option<NotExecutedReason> {
        let now = self.time();
        let key = payload.metadata.get(CALL_ID).filter(|_| self.ids.is_some()).map(<[u8]>::to_vec);
        let digest = payload.digest;
        let mut asked = false;
        let run = || {
            if command.is_late(now) {
                let why = "its deadline passed before the group came to it";
                return Answer::NotExecuted(NotExecuted::because(NotExecutedReason::Deadline, why));
            }
            asked = true;
            let context = CallContext {
                id: Some(id),
                peer: Arc::clone(&command.peer),
                metadata: payload.metadata,
                deadline: command.deadline_at(),
                clock: Clock::standing(now),
            };
            let encoded = Encoded { body: payload.body, digest };
            own_memory(run(payload.method, Call::new(encoded, context)))
        };
        let answer = match (&mut self.ids, key) {
            (Some(ids), Some(key)) => ids.run_once(now, command, &key, digest, run),
            _ => run(),
        };
        let refused = match &answer {
            Answer::NotExecuted(why) if !asked => Some(why.reason),
            _ => None,
        };
        let (slot, sequence) = (id.slot, id.sequence);
        let ended = self.desk.finish(now, attachment, slot, sequence, answer, &mut self.buffer);
        told.extend(ended.map(|(origin, parts)| origin.told(Content::Answer(parts))));
        refused
    }

    /// The attachment that the command's connection had when it was sent. Its session is alive.
    fn heard(&mut self, command: &SessionCommand) -> Result<Attachment, Violation> {
        let Attaching { session, epoch } = command
            .attached
            .ok_or(Violation("a call came before a session was opened or attached"))?;
        let attachment = self.desk.sessions.claimed(session, epoch);
        self.desk.sessions.heard(&attachment);
        self.give_to_owner(&attachment, command);
        Ok(attachment)
    }
}

impl Origin {
    fn told(self, content: Content) -> Told {
        Told { replica: self.replica, client: self.client, message: ClientMessage(content) }
    }

    fn caller(self, command: &SessionCommand) -> Result<Caller<Self>, Violation> {
        let address = command.peer.address.ok_or(Violation("a client without an address"))?;
        let identity = command.peer.identity;
        Ok(Caller { connection: self, identity, address: address.ip() })
    }
}

fn is_denied(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Say(ToClient::Refused { refusal: Refusal::Denied, .. }))
}

/// A reply that is kept must not hold the memory of its request, or of another message.
fn own_memory(answer: Answer) -> Answer {
    match answer {
        Answer::Reply(Encoded { body, digest }, metadata) => {
            let body = body.into_bytes();
            let body = if body.is_unique() { body } else { Bytes::copy_from_slice(&body) };
            Answer::Reply(Encoded { body: body.into(), digest }, metadata)
        }
        other => other,
    }
}

impl ImageOf for Origin {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.replica.to_be_bytes());
        out.extend_from_slice(&self.client.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (replica, client) = bytes.split_first_chunk()?;
        Some(Self {
            replica: u64::from_be_bytes(*replica),
            client: u64::from_be_bytes(client.try_into().ok()?),
        })
    }
}

impl ImageOf for Kept {
    fn write(&self, out: &mut Vec<u8>) {
        let (head, body) = self.parts();
        out.extend_from_slice(&head);
        body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let kept = Self::new(bytes, &Rope::EMPTY);
        ReplyPayload::from_kept(&kept).ok().map(|_| kept)
    }
}
