//! What a node tells its driver, and the names by which both speak of calls.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::config::SessionTicket;
use super::group::SessionCommand;
use super::message::Staleness;
use super::server::IncomingQuery;
use super::watch::Watch;
use crate::service::{
    Call, CallError, CallState, Encoded, IncomingReply, Metadata, Method, MethodId, NotExecuted,
    RequestKind,
};
use crate::session::{CallId, SessionId};

/// Names a channel of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey(pub(crate) u32);

/// Names a call, reservation or question that this node's user began. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey(pub(crate) u64);

impl CallKey {
    /// A small number that no other call, reservation or question has that has not ended: for tables
    /// of them.
    pub fn index(self) -> usize {
        super::arena::index(self.0)
    }
}

/// Names a request that this node is to answer. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub(crate) u64);

impl RequestKey {
    /// A small number that no other request has while this one is unanswered and not cancelled: for
    /// tables of them.
    pub fn index(self) -> usize {
        super::arena::index(self.0)
    }
}

/// Names a stream at this node: at the client by its call, at the server by its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKey {
    /// A stream that this node's user began.
    Call(CallKey),
    /// A stream that a handler of this node answers.
    Request(RequestKey),
}

/// What a stream has for its reader.
#[derive(Debug)]
pub enum StreamRead {
    /// The next message.
    Message(Encoded),
    /// Nothing yet: [`Event::Readable`] follows.
    Blocked,
    /// No message comes any more. At the client the call's end says whether that is all of them.
    End,
}

/// Why a stream took no message.
#[derive(Debug)]
pub enum StreamRefusal {
    /// There is no room: [`Event::Writable`] follows. This is the message.
    Full(Encoded),
    /// The message is larger than this many bytes, which is what this node takes.
    TooLarge(u64),
    /// The stream is over, or its sending side was ended.
    Over,
}

/// What a node tells its driver.
#[derive(Debug)]
pub enum Event {
    /// A call ended.
    Resolved(CallKey, Result<IncomingReply, CallError>),
    /// A number was reserved, or could not be.
    Reserved(CallKey, Result<CallId, CallError>),
    /// A question for an outcome was answered, or could not be.
    Outcome(CallKey, Result<CallState<IncomingReply>, CallError>),
    /// A channel changed its state.
    Channel(ChannelKey, ChannelEvent),
    /// Write this into the channel's journal, in the order of these events.
    Journal(ChannelKey, JournalEntry),
    /// A request came: start its handler, then call [`Node::answer`](crate::node::Node::answer).
    Request(IncomingRequest),
    /// A call that asked for a place with [`Node::ask_place`](crate::node::Node::ask_place) has it now:
    /// start its handler, then call [`Node::leave_place`](crate::node::Node::leave_place).
    Placed(RequestKey),
    /// A call that asked for a place gets none, and has left already.
    Refused(RequestKey, NotExecuted),
    /// A client of this replica sent a message that changes sessions: it goes into the group's log.
    /// Once it was applied, tell what the table answered with
    /// [`Node::tell`](crate::node::Node::tell).
    Command(SessionCommand),
    /// The caller of this read has gone, or this stream is over: stop its handler. No answer is due.
    Cancelled(RequestKey),
    /// A question about a session that another worker of this server keeps: ask that worker's node
    /// with [`Node::find`](crate::node::Node::find), then call
    /// [`Node::answer_query`](crate::node::Node::answer_query). At a replica: about any session; ask
    /// the table with [`SessionTable::query`](crate::node::SessionTable::query), as for a read.
    Query(IncomingQuery),
    /// A stream has a message, or its end, for a reader that had found nothing.
    Readable(StreamKey),
    /// A stream has room again for a sender that had found none, or is over.
    Writable(StreamKey),
    /// The drain is over: every request was answered and every kept reply released.
    Drained,
}

/// What a client that keeps a journal has to write down.
#[derive(Clone, Debug)]
pub enum JournalEntry {
    /// A session was opened by this process: the calls that follow are of it. Sync it before them.
    Session(SessionTicket),
    /// This process has attached to the session, so that earlier ones do not have it any more.
    Held(SessionId),
    /// The members of the group are at these addresses, HOST:PORT, which a later process may try.
    Members(Vec<String>),
    /// A call was given its number. Once this is synced, tell so with
    /// [`Node::journalled`](crate::node::Node::journalled); the request is sent then, not before.
    Call(JournalCall),
    /// A call has its outcome. Once this is synced, tell so with
    /// [`Node::let_go`](crate::node::Node::let_go); the server may forget it then, not before.
    Outcome(CallId, CallState<IncomingReply>),
}

/// A call for the journal.
#[derive(Clone, Debug)]
pub struct JournalCall {
    /// Its number.
    pub id: CallId,
    /// Who waits for it; none for a number that is only fenced.
    pub key: Option<CallKey>,
    /// What is sent under that number; `None` if that is only a fence.
    pub request: Option<JournalRequest>,
}

/// The request of a call for the journal.
#[derive(Clone, Debug)]
pub struct JournalRequest {
    /// Its method.
    pub method: Method,
    /// Its bytes and their digest.
    pub encoded: Encoded,
    /// What travels with it.
    pub metadata: Metadata,
}

/// What became of a channel's way to its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// A session is attached: calls flow.
    Ready {
        /// The server's address.
        peer: SocketAddr,
        /// Its incarnation.
        incarnation: u64,
        /// The session, for asking from elsewhere.
        ticket: SessionTicket,
    },
    /// The group of replicas has other members than before: they are at these addresses, HOST:PORT.
    /// Look them up, and use them as targets.
    Members(Vec<String>),
    /// Every target was tried once and none answered; attempts go on.
    Unreachable(Cow<'static, str>),
    /// A server refuses this client for good (certificate, version): attempts go on only when the
    /// targets change.
    Refused(Cow<'static, str>),
}

/// A request for the driver to hand to a service.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Its name for the answer.
    pub key: RequestKey,
    /// The method.
    pub method: MethodId,
    /// What the caller expects to be kept of its outcome.
    pub kind: RequestKind,
    /// For a read: how old the state may be that it is answered from. None where it has to be that of
    /// now.
    pub stale: Option<Box<Staleness>>,
    /// For a read that asks for what follows in a stream: how. It is answered with
    /// [`Node::answer_watch`](crate::node::Node::answer_watch), or as any other request, which ends the
    /// stream.
    pub watch: Option<Box<Watch>>,
    /// The message and what is known of the call. The driver sets the context's clock.
    pub call: Call<Encoded>,
}
