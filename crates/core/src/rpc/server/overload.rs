//! Requests on their way through admission: started, waiting, or refused.

use alloc::boxed::Box;

use super::{Pending, Server};
use crate::rpc::admission::{Applicant, Entry, Load, Ticket, Why};
use crate::rpc::context::Context;
use crate::rpc::event::{Event, IncomingRequest, RequestKey};
use crate::rpc::message::ToClient;
use crate::service::{Answer, NotExecuted, Priority};
use crate::session::{Attachment, CallId, NotExecutedReason};
use crate::time::Duration;

impl Server {
    /// What the server does about its load.
    pub(crate) fn load(&self) -> Load {
        self.admission.load()
    }

    /// What comes from now on may have come so long before.
    pub(crate) fn was_away(&mut self, time: Duration) {
        self.away = time;
    }

    /// Whether requests wait for others to be answered.
    pub(crate) fn has_waiting(&self) -> bool {
        self.admission.has_waiting()
    }

    /// There is no room for a request: it waits, or is refused, or another one is.
    #[cold]
    pub(super) fn wait(&mut self, cx: &mut Context<'_>, request: Box<IncomingRequest>) {
        let context = request.call.context();
        if let Some(call) = context.id {
            self.waiting.insert(call, request.key);
        }
        let applicant = Applicant {
            method: request.method,
            priority: Priority::of(&context.metadata),
            deadline: context.deadline.map(|at| at - self.away),
            bytes: request.call.message().body.len() as u64,
            entry: Entry::Request(request),
        };
        self.enqueue(cx, applicant);
    }

    pub(super) fn enqueue(&mut self, cx: &mut Context<'_>, applicant: Applicant) {
        for (key, why) in self.admission.enqueue(cx.now, applicant) {
            self.refuse(cx, key, why);
        }
    }

    /// Starts what waits, as far as there is room.
    #[inline]
    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_>) {
        if self.admission.has_waiting() {
            self.start_those(cx);
        }
    }

    #[cold]
    fn start_those(&mut self, cx: &mut Context<'_>) {
        while let Some(next) = self.admission.next(cx.now) {
            match next {
                Ok(Entry::Request(request)) => {
                    let key = request.key;
                    // Nobody may wait for it any more.
                    let Some(pending) = self.requests.get_mut(key.0) else { continue };
                    pending.ticket = self.admission.resume(cx.now);
                    if let Some(call) = request.call.context().id {
                        self.waiting.remove(&call);
                    }
                    cx.events.push_request(*request);
                }
                Ok(Entry::Place(key)) => {
                    let Some(pending) = self.requests.get_mut(key.0) else { continue };
                    pending.ticket = self.admission.resume(cx.now);
                    cx.events.push(Event::Placed(key));
                }
                Err((key, why)) => self.refuse(cx, key, why),
            }
        }
    }

    /// A fence comes. If its call waits for a handler, it ends as fenced; what is left of it in the queue
    /// is passed over. Returns whether it did.
    pub(super) fn fence_waiting(
        &mut self,
        cx: &mut Context<'_>,
        attachment: &Attachment,
        call: CallId,
    ) -> bool {
        // Who does not speak for the session any more is told so instead.
        if self.waiting.is_empty() || self.desk.refusal(attachment).is_some() {
            return false;
        }
        let Some(key) = self.waiting.get(&call).copied() else { return false };
        let why = NotExecuted::new(NotExecutedReason::Fenced);
        self.finish(cx, key, Answer::NotExecuted(why));
        true
    }

    /// Refuses what has waited too long, and takes slots back or gives them again.
    pub(super) fn relieve(&mut self, cx: &mut Context<'_>) {
        if self.admission.next_timeout().is_none_or(|at| at > cx.now) {
            return;
        }
        let requests = &self.requests;
        let refused = self.admission.sweep(cx.now, |key| requests.get(key.0).is_none());
        for (key, why) in refused {
            self.refuse(cx, key, why);
        }
        self.start_waiting(cx);
        let clients = &self.clients;
        let attached = || clients.iter().filter(|(_, one)| one.attachment.is_some()).count();
        if let Some(limit) = self.admission.share_slots(cx.now, attached) {
            for (client, change) in self.desk.sessions.limit_slots(limit) {
                self.send(cx, client, ToClient::Slots(change));
            }
        }
    }

    /// A request was not started in time.
    #[cold]
    pub(super) fn overdue(&mut self, cx: &mut Context<'_>, key: RequestKey) {
        let why = NotExecuted::because(
            NotExecutedReason::Deadline,
            "its deadline passed in the server's queue",
        );
        if let Some(pending) = self.requests.get_mut(key.0) {
            self.admission.withdraw(pending.ticket);
            pending.ticket = Ticket::UNCOUNTED;
        }
        self.answer(cx, key, Answer::NotExecuted(why));
    }

    /// Answers a request that waits, or was about to: it is not executed.
    fn refuse(&mut self, cx: &mut Context<'_>, key: RequestKey, why: Why) {
        let waits = |pending: &Pending| pending.ticket == Ticket::WAITING;
        if self.requests.get(key.0).is_some_and(waits) {
            let refusal = self.admission.refusal(why, cx.random);
            self.finish(cx, key, Answer::NotExecuted(refusal));
        }
    }
}
