//! Leaving: a server that drains refuses new work, tells its clients to go elsewhere, and is drained
//! when nothing of theirs is here or on its way.

use super::{Client, Server};
use crate::rpc::context::Context;
use crate::rpc::event::Event;
use crate::rpc::message::ToClient;
use crate::time::{Duration, Instant};

/// How long clients are waited for that say nothing, or whose connection has ended without a word:
/// a request may be on its way that was sent before they heard.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often silent clients are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Probe timeouts in a row after which a client counts as silent.
const SILENT_PROBES: u32 = 3;

/// A drain that goes on.
#[derive(Debug)]
pub(super) struct Drain {
    since: Instant,
    /// When clients are looked at again; never once it is over.
    look_at: Option<Instant>,
}

impl Drain {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.look_at
    }
}

impl Server {
    /// No new sessions and calls from now on.
    pub(crate) fn drain(&mut self, cx: &mut Context<'_>) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Drain { since: cx.now, look_at: Some(cx.now + LOOK_EVERY) });
        self.desk.sessions.drain();
        for client in self.clients.keys() {
            self.ask_to_leave(cx, client);
        }
        self.check_drained(cx);
    }

    /// Tells a client that this server drains. Until it has left it is asked for signs of life: one that
    /// dies meanwhile is not waited for.
    pub(super) fn ask_to_leave(&mut self, cx: &mut Context<'_>, client: u64) {
        self.send(cx, client, ToClient::Draining);
        self.await_signs_of_life(cx, client, true);
    }

    fn await_signs_of_life(&self, cx: &mut Context<'_>, client: u64, on: bool) {
        let Some(client) = self.clients.get(client) else { return };
        if let Some(connection) = cx.endpoint.connection_mut(client.handle) {
            connection.await_answer(cx.now, on);
        }
    }

    /// Whether a new call of a client may run though this server drains: the client has sent it before
    /// it heard, or has given its number to its user, who may use it for a moment yet.
    pub(super) fn may_come_late(&self, client: u64) -> bool {
        let drains = self.drain.as_ref().is_some_and(|drain| drain.look_at.is_some());
        drains && self.clients.get(client).is_some_and(|client| !client.left)
    }

    /// A client has nothing under way here.
    pub(super) fn left(&mut self, cx: &mut Context<'_>, client: u64) {
        self.await_signs_of_life(cx, client, false);
        if let Some(client) = self.clients.get_mut(client) {
            client.left = true;
        }
        self.check_drained(cx);
    }

    pub(super) fn drain_due(&mut self, cx: &mut Context<'_>) {
        let Some(drain) = &mut self.drain else { return };
        if drain.look_at.is_some_and(|at| at <= cx.now) {
            drain.look_at = Some(cx.now + LOOK_EVERY);
            self.check_drained(cx);
        }
    }

    /// Says once that the server may go: nothing executes, every kept reply is released, and nobody
    /// may have a request on its way here that would not be answered.
    pub(super) fn check_drained(&mut self, cx: &mut Context<'_>) {
        let Some(Drain { since, look_at: Some(_) }) = self.drain else { return };
        let done = match &self.group {
            Some(group) => group.is_empty() && self.requests.len() == 0,
            None => {
                self.desk.sessions.is_drained()
                    && self.requests.len() == 0
                    && self.everybody_left(cx, since)
            }
        };
        if done {
            self.drain = Some(Drain { since, look_at: None });
            cx.events.push(Event::Drained);
        }
    }

    fn everybody_left(&self, cx: &Context<'_>, since: Instant) -> bool {
        let patient = cx.now.since(since) < PATIENCE;
        let stays = |client: &Client| {
            let session = client.attachment.as_ref();
            !client.left
                && session.is_some_and(|attached| self.desk.refusal(attached).is_none())
                && (patient || !is_silent(cx, client))
        };
        !self.clients.iter().any(|(_, client)| stays(client))
            && !self.desk.sessions.was_left_since(cx.now, PATIENCE)
    }
}

fn is_silent(cx: &Context<'_>, client: &Client) -> bool {
    let connection = cx.endpoint.connection(client.handle);
    connection.is_none_or(|found| found.stats().probe_timeouts_in_a_row >= SILENT_PROBES)
}
