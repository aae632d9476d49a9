//! The server half of a replica: it keeps no sessions. What changes them becomes a command for the
//! group's log, and what the table answers comes back to be told.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{How, Pending, PendingKind, Server, Violation, note_read};
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{Event, RequestKey};
use crate::rpc::group::{Attaching, ClientMessage, Content, Deadline, Said, SessionCommand};
use crate::rpc::message::{ToClient, ToServer};
use crate::rpc::watch::Batch;
use crate::service::CALL_ID;
use crate::session::{SessionId, SessionSecret};

/// What a replica knows of its clients.
#[derive(Debug)]
pub(super) struct Group {
    /// Drawn at start: by it clients of this life of the replica are not mistaken for others.
    mask: u64,
    /// The sessions that connections speak for, by the key of the connection.
    attached: BTreeMap<u64, Attaching>,
    /// Connections that have asked for a session and have none yet.
    asking: BTreeSet<u64>,
    /// The last entry of the group's log that this replica has applied.
    applied: u64,
    /// Where the members are, since which entry; known once they have changed.
    members: Option<(u64, Vec<String>)>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// A connection is over.
    pub(super) fn left(&mut self, client: u64) {
        self.attached.remove(&client);
        self.asking.remove(&client);
    }
}

impl Server {
    /// From now on this is the server half of a replica. `drawn` is random.
    pub(crate) fn join_group(&mut self, drawn: u64) {
        self.group = Some(Group {
            mask: drawn,
            attached: BTreeMap::new(),
            asking: BTreeSet::new(),
            applied: 0,
            members: None,
        });
    }

    /// The replica has applied the log up to this entry: what it says from now on is true then.
    pub(crate) fn applied(&mut self, index: u64) {
        if let Some(group) = &mut self.group {
            group.applied = index;
        }
    }

    /// The group's members have changed: its clients are told where they are.
    pub(crate) fn tell_members(
        &mut self,
        cx: &mut Context<'_>,
        version: u64,
        addresses: &[String],
    ) {
        let Some(group) = &mut self.group else { return };
        group.members = Some((version, addresses.to_vec()));
        let clients: Vec<u64> = group.attached.keys().copied().collect();
        for client in clients {
            self.tell_client_members(cx, client);
        }
    }

    fn tell_client_members(&mut self, cx: &mut Context<'_>, client: u64) {
        let members = self.group.as_ref().and_then(|group| group.members.clone());
        if let Some((version, addresses)) = members {
            self.send(cx, client, ToClient::Members { version, addresses });
        }
    }

    /// The state of this replica is not known to be as fresh as a read asks for.
    pub(crate) fn too_stale(&mut self, cx: &mut Context<'_>, key: RequestKey) {
        self.end_read(cx, key, |read| ToClient::ReadTooStale { read });
    }

    /// What follows in a stream of reads.
    pub(crate) fn answer_watch(
        &mut self,
        cx: &mut Context<'_>,
        key: RequestKey,
        position: u64,
        messages: &Batch,
    ) {
        self.end_read(cx, key, |read| {
            let messages = messages.encode();
            ToClient::Watched { read, position, messages }
        });
    }

    /// Sends a read's client what ends it, if it still waits.
    fn end_read(
        &mut self,
        cx: &mut Context<'_>,
        key: RequestKey,
        message: impl FnOnce(u64) -> ToClient,
    ) {
        let Some(Pending { kind: PendingKind::Read { client, read, trace }, came, .. }) =
            self.requests.remove(key.0)
        else {
            return;
        };
        note_read(&mut self.log, cx.now, trace, came, false);
        if let Some(state) = self.clients.get_mut(client) {
            state.reads.remove(&read);
            self.send(cx, client, message(read));
        }
        self.check_drained(cx);
    }

    /// Sessions that have a connection here.
    pub(crate) fn attached_sessions(&self) -> Vec<SessionId> {
        let attached = self.group.iter().flat_map(|group| group.attached.values());
        attached.map(|attaching| attaching.session).collect()
    }

    /// Asks the clients whose sessions are here to go to another replica. Those that have none yet
    /// have nothing to lose: their connections are closed.
    pub(crate) fn send_away(&mut self, cx: &mut Context<'_>) {
        let asking = self.group.iter().flat_map(|group| &group.asking);
        let asking: Vec<_> =
            asking.filter_map(|client| self.clients.get(*client)).map(|c| c.handle).collect();
        for handle in asking {
            cx.close(handle, close_code::DONE, "the replica is cut off from its group");
        }
        let clients: Vec<u64> =
            self.group.iter().flat_map(|group| group.attached.keys()).copied().collect();
        for client in clients {
            self.send(cx, client, ToClient::Draining);
        }
    }

    /// Tells a client what the group's table has answered.
    pub(crate) fn tell(&mut self, cx: &mut Context<'_>, name: u64, message: ClientMessage) {
        let Some(group) = &mut self.group else { return };
        let client = name ^ group.mask;
        let Some(handle) = self.clients.get(client).map(|client| client.handle) else { return };
        match message.0 {
            Content::Close(reason) => cx.close(handle, close_code::PROTOCOL, reason),
            Content::Answer(parts) => self.send_parts(cx, client, parts),
            Content::Attached(attaching, parts) => {
                let before = group.attached.get(&client);
                if before.is_some_and(|before| before.session != attaching.session) {
                    return cx.close(handle, close_code::PROTOCOL, SECOND_SESSION);
                }
                group.asking.remove(&client);
                if before.is_none_or(|before| before.epoch < attaching.epoch) {
                    group.attached.insert(client, attaching);
                }
                self.send_parts(cx, client, parts);
                self.tell_client_members(cx, client);
            }
        }
    }

    pub(super) fn group_message(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        let message =
            ToServer::decode(bytes.clone()).map_err(|_| Violation("malformed message"))?;
        let attached = self.group.as_ref().and_then(|group| group.attached.get(&client)).copied();
        let (mut deadline, mut has_id) = (Deadline::None, false);
        match message {
            ToServer::Query { query, call, secret } => {
                self.query(cx, client, query, call, secret);
                return Ok(());
            }
            ToServer::Read { read, payload } => {
                return self.read(cx, client, read, How::NOW, payload);
            }
            ToServer::StaleRead { read, stale, payload } => {
                let how = How { stale: Some(stale), watch: None };
                return self.read(cx, client, read, how, payload);
            }
            ToServer::Watch { read, watch, payload } => {
                return self.read(cx, client, read, How::watch(watch), payload);
            }
            ToServer::CancelRead { read } => {
                self.cancel_read(cx, client, read);
                return Ok(());
            }
            ToServer::Maybe(_) => return Err(Violation("a maybe call came as a message")),
            ToServer::Open { .. } => {}
            ToServer::Attach { session, .. } => {
                if attached.is_some_and(|attached| attached.session != session) {
                    return Err(Violation(SECOND_SESSION));
                }
            }
            ToServer::Request { payload, .. } => {
                deadline = payload.deadline.map_or(Deadline::None, Deadline::Left);
                needs_session(attached)?;
                has_id = payload.metadata.get(CALL_ID).is_some();
            }
            // Of a stream that was refused. And who leaves a replica takes its session along.
            ToServer::Part(_) | ToServer::Left => return Ok(()),
            ToServer::Fence { .. }
            | ToServer::Stream { .. }
            | ToServer::CancelStream { .. }
            | ToServer::Release(_)
            | ToServer::ReturnSlots(_)
            | ToServer::CloseSession => needs_session(attached)?,
        }
        self.command(cx, client, attached, deadline, has_id, Said::Message(bytes));
        Ok(())
    }

    /// A request that is larger than allowed never runs: the group fences its number.
    pub(super) fn group_too_large(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        start: Bytes,
    ) -> Result<(), Violation> {
        let attached = self.group.as_ref().and_then(|group| group.attached.get(&client)).copied();
        needs_session(attached)?;
        let limit = cx.limits.message;
        self.command(cx, client, attached, Deadline::None, false, Said::TooLarge { start, limit });
        Ok(())
    }

    fn command(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        attached: Option<Attaching>,
        deadline: Deadline,
        has_id: bool,
        said: Said,
    ) {
        let (Some(group), Some(state)) = (&mut self.group, self.clients.get(client)) else {
            return;
        };
        if attached.is_none() {
            group.asking.insert(client);
        }
        let fresh_secret = attached.is_none().then(|| SessionSecret::new(cx.random.bytes()));
        cx.events.push(Event::Command(SessionCommand {
            client: client ^ group.mask,
            attached,
            peer: state.peer.clone(),
            fresh_secret,
            deadline,
            said,
            has_id,
        }));
    }
}

const SECOND_SESSION: &str = "a second session on one connection";

fn needs_session(attached: Option<Attaching>) -> Result<(), Violation> {
    match attached {
        Some(_) => Ok(()),
        None => Err(Violation("a call came before a session was opened or attached")),
    }
}
