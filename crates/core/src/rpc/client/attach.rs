//! From a finished handshake to a session: opening one, or attaching to the one that there is.

use alloc::vec::Vec;

use super::Client;
use super::link::{Live, Occupant, Session};
use crate::rpc::SessionTicket;
use crate::rpc::context::{Context, close_code};
use crate::rpc::event::{ChannelEvent, Event, JournalEntry};
use crate::rpc::message::{ToServer, session_reference};
use crate::service::{CallState, text};
use crate::session::{Attached, ClientSession, Opened, Reconciled, Refusal, same_process};
use crate::transport::endpoint::ConnectionHandle;

impl Client {
    /// A handshake is done: the server is known, and with it whether it remembers the session.
    pub(crate) fn connected(&mut self, cx: &mut Context<'_>, handle: ConnectionHandle) {
        let Some(&key) = self.by_handle.get(&handle) else { return };
        let Some(incarnation) =
            cx.endpoint.connection(handle).and_then(|connection| connection.peer_incarnation())
        else {
            return self.fail_attempt(cx, key, "the server names no incarnation".into());
        };
        let Some(link) = self.links.get(key) else { return };
        if link.sessionless {
            return self.ready(cx, key, handle);
        }
        let replica =
            cx.endpoint.connection(handle).is_some_and(|connection| connection.peer_is_replica());
        if self.is_not_sought(cx, key, handle, incarnation, replica) {
            return;
        }
        if replica {
            return self.meet_replica(cx, key, handle, incarnation);
        }
        self.meet_server(cx, key, handle, incarnation);
    }

    /// The server keeps sessions of its own.
    fn meet_server(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        incarnation: u64,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.group = None;
        match link.session.as_ref().map(|session| session.slots.id()) {
            Some(id) if id.incarnation == incarnation => {
                self.found(key);
                self.attach(cx, key, handle);
            }
            // The server lives, and so does the session: only its worker was missed.
            Some(id) if same_process(id.incarnation, incarnation) => {
                self.found(key);
                if let Some(link) = self.links.get_mut(key) {
                    link.steer = Some(id.steer());
                }
                self.fail_attempt(cx, key, "another worker of the server answered".into());
            }
            Some(_) if link.session.as_ref().is_some_and(|session| session.group) => {
                self.other_group(cx, key);
                self.open(cx, key, handle);
            }
            Some(_) => {
                if !self.not_here(cx, key, handle) {
                    self.session_lost(cx, key, "the server restarted");
                    self.open(cx, key, handle);
                }
            }
            None => self.open(cx, key, handle),
        }
    }

    /// The server opened a session for an attempt.
    pub(super) fn opened(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        nonce: [u8; 16],
        opened: &Opened,
    ) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.nonce != Some(nonce) || link.session.is_some() {
            return;
        }
        let named =
            cx.endpoint.connection(handle).and_then(|connection| connection.peer_incarnation());
        if !named.is_some_and(|named| same_process(named, opened.session.incarnation)) {
            return cx.close(handle, close_code::PROTOCOL, "a session of another server");
        }
        link.nonce = None;
        let slots = ClientSession::new(opened, cx.limits.slots, cx.limits.background_fences);
        let ticket = SessionTicket { session: opened.session, secret: opened.secret.clone() };
        let group = link.group.is_some();
        let session = link.session.insert(Session { group, ..Session::new(slots, ticket) });
        for change in core::mem::take(&mut link.early_changes) {
            session.slots.slots_changed(&change);
        }
        let channel = link.channel;
        if let Some(journal) = &self.channels[channel.0 as usize].config.journal {
            session.slots.keep_journal();
            session.succession = Some(journal.succession());
            let entry = JournalEntry::Session(session.ticket.clone());
            cx.events.push(Event::Journal(channel, entry));
        }
        if opened.epoch > 1 {
            // A repeated opening: what changed since the first one is told by an attach.
            session.slots.detached();
            self.attach(cx, key, handle);
        } else {
            self.ready(cx, key, handle);
        }
    }

    /// The server attached the session to an attempt: each call in flight is taken up again.
    pub(super) fn attached(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        attached: &Attached,
    ) {
        let Some(link) = self.links.get_mut(key).filter(|link| link.uses(handle)) else { return };
        let Some(session) = link.session.as_mut() else { return };
        let Some(calls) = session.slots.attached(attached) else { return };
        if let Some(succession) = session.succession.as_mut().filter(|of| of.after != [of.holder]) {
            (succession.after, succession.known) = ([succession.holder].into(), None);
            let entry = JournalEntry::Held(attached.session);
            cx.events.push(Event::Journal(link.channel, entry));
        }
        // Slots that this settles are free from here on, and the next calls may take them as soon as
        // the link is ready: who waited there is looked up before.
        let mut todo = Vec::with_capacity(calls.len());
        for (id, reconciled) in calls {
            let occupant = match reconciled {
                Reconciled::NotKept | Reconciled::Ended(_) => link.take_occupant(id.slot),
                Reconciled::Send | Reconciled::Ask | Reconciled::WillCome => {
                    let call = link.occupant(id.slot).and_then(|occupant| occupant.call);
                    Occupant { call, ..Occupant::default() }
                }
            };
            todo.push((id, reconciled, occupant));
        }
        self.part_streams(key);
        self.ready(cx, key, handle);
        for (id, reconciled, occupant) in todo {
            match reconciled {
                Reconciled::Send => {
                    if let Some(call) = occupant.call {
                        self.send_numbered(cx, key, call);
                    }
                }
                Reconciled::Ask | Reconciled::WillCome => {
                    if let Some(call) = occupant.call {
                        self.resume_stream(cx, call);
                    }
                }
                Reconciled::NotKept => {
                    self.settle_occupant(cx, key, id, occupant, CallState::ReplyNotKept);
                }
                Reconciled::Ended(fate) => self.ended(cx, key, id, occupant, fate),
            }
        }
        self.arm_release(cx.now, key);
        self.after_answer(key);
    }

    /// The server refuses the session.
    pub(super) fn refused(
        &mut self,
        cx: &mut Context<'_>,
        key: u64,
        handle: ConnectionHandle,
        reference: [u8; 16],
        refusal: Refusal,
    ) {
        let Some(link) = self.links.get(key) else { return };
        let own = link.session.as_ref().map(|session| session_reference(session.slots.id()));
        let on_attempt = link.attempt.as_ref().is_some_and(|attempt| attempt.handle == handle);
        if own != Some(reference) && link.nonce != Some(reference) {
            return self.question_refused(cx, key, reference, refusal);
        }
        match refusal {
            _ if own != Some(reference) => {
                self.fail_attempt(
                    cx,
                    key,
                    text(format_args!("the server opens no session: {refusal}")),
                );
            }
            refusal if refusal.is_lost() || refusal == Refusal::Denied => {
                if refusal == Refusal::Denied {
                    // The server has the session still, so nothing of it is lost: others may ask.
                    self.leave_session(cx, key);
                }
                self.session_lost(cx, key, "the server has forgotten the session");
                if on_attempt {
                    // Another replica may have been asked for the group's next session by now.
                    self.connected(cx, handle);
                } else {
                    self.reconnect(cx, key);
                }
            }
            // Nobody can have taken over what no journal leads to.
            Refusal::TakenOver if self.has_journal(key) || cfg!(feature = "planted-gullible") => {
                self.supplanted(cx, key);
            }
            _ if on_attempt => {
                self.fail_attempt(
                    cx,
                    key,
                    text(format_args!("the server refuses the session: {refusal}")),
                );
            }
            // Another connection attached to the session after ours.
            _ => self.reconnect(cx, key),
        }
    }

    pub(super) fn open(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(key) else { return };
        if !self.channels[link.channel.0 as usize].config.opens {
            return self.leave_unopened(cx, key, handle);
        }
        // What was said about slots on an earlier connection is told again, if it still holds.
        link.early_changes.clear();
        let nonce = *link.nonce.get_or_insert_with(|| cx.random.bytes());
        let slots = self.channels[link.channel.0 as usize].config.slots.min(cx.limits.slots);
        self.send_on_attempt(cx, handle, ToServer::Open { nonce, slots });
    }

    pub(super) fn attach(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(session) = self.links.get(key).and_then(|link| link.session.as_ref()) else {
            return;
        };
        let succession = session.succession.clone();
        let SessionTicket { session, secret } = session.ticket.clone();
        self.send_on_attempt(cx, handle, ToServer::Attach { session, secret, succession });
    }

    /// There is no session for this link, and none is to be opened.
    fn leave_unopened(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        self.by_handle.remove(&handle);
        cx.close(handle, close_code::DONE, "");
        let Some(link) = self.links.get_mut(key) else { return };
        link.attempt.take_if(|attempt| attempt.handle == handle);
        (link.silent_since, link.retry_at) = (None, None);
        self.channels[link.channel.0 as usize].eager = false;
        self.set_link_timer(key);
    }

    fn send_on_attempt(&self, cx: &mut Context<'_>, handle: ConnectionHandle, message: ToServer) {
        let (written, body) = message.encode(cx.buffer);
        if let Some(connection) = cx.endpoint.connection_mut(handle) {
            // A connection without room for its first message is over, and says so by an event.
            let _ = connection.send_written(&written, body);
        }
    }

    /// An attempt becomes the live connection; the one before it is closed.
    fn ready(&mut self, cx: &mut Context<'_>, key: u64, handle: ConnectionHandle) {
        let Some(link) = self.links.get_mut(key) else { return };
        let (channel, peer) = (link.channel, link.address);
        // What the handshake measured; a connection that ends early leaves nothing better behind.
        link.rtt = cx.endpoint.connection(handle).map(|connection| connection.rtt());
        link.attempt.take_if(|attempt| attempt.handle == handle);
        link.retry_at = None;
        link.silent_since = None;
        link.suspect = false;
        link.share.connected();
        link.backoff = self.channels[channel.0 as usize].config.backoff_min;
        // In a group a late copy of an attach may attach the live connection again.
        let again = link.live.as_ref().is_some_and(|live| live.handle == handle);
        let before = if again { None } else { link.live.replace(Live::new(handle)) };
        let ticket = link.session.as_ref().map(|session| session.ticket.clone());
        if let Some(before) = before {
            self.by_handle.remove(&before.handle);
            cx.close(before.handle, close_code::REPLACED, "replaced by a new connection");
            self.requeue(before);
        }
        self.win(cx, key);
        let state = &mut self.channels[channel.0 as usize];
        state.failed_in_turn = 0;
        state.eager = false;
        if let Some(ticket) = ticket {
            let incarnation = ticket.session.incarnation;
            let event = ChannelEvent::Ready { peer, incarnation, ticket };
            cx.events.push(Event::Channel(channel, event));
        }
        self.after_sending(cx, key);
        self.move_reads(channel);
        self.send_held(cx, key);
        self.pump(cx, channel);
        self.keep_standbys(cx, channel);
        if self.spreads(channel) {
            self.seek_all(cx, channel);
        }
    }
}
