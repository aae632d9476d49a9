//! What a group tells a client, ready to be sent by the replica that the client is connected to.

use super::command::Attaching;
use crate::rpc::message::Parts;

/// A message of the group's table for one client. Give it to
/// [`Node::tell`](crate::node::Node::tell).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage(pub(crate) Content);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Sent as it is.
    Answer(Parts),
    /// The same; the connection speaks for this session from now on.
    Attached(Attaching, Parts),
    /// No correct client sends what this one sent: its connection is closed.
    Close(&'static str),
}
