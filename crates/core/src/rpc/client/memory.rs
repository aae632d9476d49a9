//! Outcomes of calls whose callers gave up before they were settled: kept for when they ask.

use alloc::collections::{BTreeMap, VecDeque};

use crate::service::{CallState, IncomingReply, Status};
use crate::session::{CallId, SessionId};

/// The outcomes kept at most; the oldest goes first. Bodies of replies are not kept past
/// [`MAX_BODY`], so that memory is bounded too.
const MAX_OUTCOMES: usize = 1_024;

/// Lost sessions remembered at most; the oldest goes first.
const MAX_SESSIONS: usize = 64;

/// The largest reply that is kept here, in bytes.
const MAX_BODY: usize = 64 << 10;

/// A bounded memory of settled outcomes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    outcomes: BTreeMap<CallId, CallState<IncomingReply>>,
    order: VecDeque<CallId>,
    /// Sessions whose servers have no memory of them any more, the latest last.
    lost: VecDeque<SessionId>,
    /// Numbers of calls of which an earlier copy, under another number, may have run, and what the
    /// last one ended with that has; the latest last.
    doubtful: VecDeque<(CallId, Option<Status>)>,
}

impl Memory {
    /// The call of this number may have run under another one; it has, if `status` is what it ended
    /// with.
    pub(super) fn doubt(&mut self, id: CallId, status: Option<Status>) {
        if self.doubtful.len() == MAX_OUTCOMES {
            self.doubtful.pop_front();
        }
        self.doubtful.push_back((id, status));
    }

    /// What is to be said of the call when `state` is what is known of its number.
    pub(super) fn judge(
        &self,
        id: CallId,
        state: CallState<IncomingReply>,
    ) -> CallState<IncomingReply> {
        let earlier = || self.doubtful.iter().rev().find(|(doubtful, _)| *doubtful == id);
        match state {
            CallState::NotExecuted(_) => match earlier() {
                Some((_, Some(status))) => CallState::Executed(status.clone()),
                Some((_, None)) => CallState::Lost,
                None => state,
            },
            other => other,
        }
    }

    pub(super) fn remember(&mut self, id: CallId, state: CallState<IncomingReply>) {
        let state = match self.judge(id, state) {
            CallState::Replied(r) if r.reply.body.len() > MAX_BODY => CallState::ReplyNotKept,
            other => other,
        };
        if self.outcomes.insert(id, state).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_OUTCOMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }

    /// A server has no memory of this session.
    pub(super) fn lose(&mut self, session: SessionId) {
        if self.lost.len() == MAX_SESSIONS {
            self.lost.pop_front();
        }
        self.lost.push_back(session);
    }

    pub(super) fn recall(&self, id: CallId) -> Option<CallState<IncomingReply>> {
        let known = self.outcomes.get(&id).cloned();
        known.or_else(|| self.lost.contains(&id.session).then_some(CallState::Lost))
    }
}
