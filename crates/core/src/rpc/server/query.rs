//! Questions for the outcome of a call: answered from this half's sessions, or by the worker of the
//! same server that keeps the session.

use bytes::Bytes;

use super::Server;
use crate::rpc::context::Context;
use crate::rpc::desk::Desk;
use crate::rpc::event::Event;
use crate::rpc::kept::Kept;
use crate::rpc::message::{ReplyPayload, ToClient, session_reference};
use crate::session::{
    CallId, Claim, Owner, QueryAnswer, Refusal, SessionId, SessionSecret, same_process,
};

/// Names a question that this node is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryKey {
    client: u64,
    query: u64,
    session: SessionId,
}

/// A question for a call of a session that another worker of this server keeps, or the group.
#[derive(Clone, Debug)]
pub struct IncomingQuery {
    /// Its name for the answer.
    pub key: QueryKey,
    call: CallId,
    claim: Claim,
    /// The key of the certificate that was shown: sessions of a group may belong to it alone.
    identity: Option<[u8; 32]>,
}

/// What a worker found out about a call that another worker was asked for.
#[derive(Clone, Debug)]
pub struct Finding(Result<QueryAnswer<Kept>, Refusal>);

impl IncomingQuery {
    /// The lowest byte of the incarnation that opened the session: by it the worker is found.
    pub fn worker(&self) -> u8 {
        self.call.session.steer()
    }

    /// The call that it is about.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// What to answer of a session of this owner, of whose slot this is known.
    pub fn finding(&self, owner: &Owner, known: QueryAnswer<Bytes>) -> Finding {
        if !owner.accepts(&self.claim) {
            return Finding(Err(Refusal::Denied));
        }
        Finding(Ok(known.map_reply(Kept::recorded)))
    }

    /// Asks these sessions.
    pub(in crate::rpc) fn ask<C: Copy + Eq>(&self, desk: &Desk<C>) -> Finding {
        let found = desk.query(self.call, &self.claim);
        if let (Err(Refusal::Denied), Some(_)) = (&found, self.identity) {
            let claim = Claim { certificate: self.identity, ..self.claim.clone() };
            return Finding(desk.query(self.call, &claim));
        }
        Finding(found)
    }
}

impl Finding {
    /// There is no such worker, or it is gone.
    pub const NOTHING: Self = Self(Ok(QueryAnswer::UnknownSession));
}

impl Server {
    /// What this half's sessions know of the call that another worker was asked for.
    pub(crate) fn find(&self, query: &IncomingQuery) -> Finding {
        query.ask(&self.desk)
    }

    pub(super) fn query(
        &mut self,
        cx: &mut Context<'_>,
        client: u64,
        query: u64,
        call: CallId,
        secret: SessionSecret,
    ) {
        let claim = self.claim(client, secret);
        let key = QueryKey { client, query, session: call.session };
        let (asked, own) = (call.session.incarnation, self.desk.sessions.incarnation());
        if self.group.is_some() || asked != own && same_process(asked, own) {
            let identity = self.clients.get(client).and_then(|client| client.peer.identity);
            let query = IncomingQuery { key, call, claim, identity };
            cx.events.push(Event::Query(query));
        } else {
            let finding = Finding(self.desk.query(call, &claim));
            self.answer_query(cx, key, finding);
        }
    }

    /// Tells the client. If it is gone, nobody is told.
    pub(crate) fn answer_query(&mut self, cx: &mut Context<'_>, key: QueryKey, finding: Finding) {
        let QueryKey { client, query, session } = key;
        let answer = match finding.0 {
            Ok(answer) => answer,
            Err(refusal) => {
                let reference = session_reference(session);
                return self.send(cx, client, ToClient::Refused { reference, refusal });
            }
        };
        let answer = answer.map_reply(|kept| {
            Some(ReplyPayload::from_kept(&kept).expect("a slot keeps what this half encoded"))
        });
        self.send(cx, client, ToClient::Outcome { query, answer });
    }
}
