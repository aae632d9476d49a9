//! Calls that the replica's door for gRPC makes for others, and whose they are.
//!
//! The door is a client of its own node, and the node knows it by its own key. Each of its calls names,
//! in its metadata, the caller that it is made for: so the log, permissions and interceptors have them as
//! the caller's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stubborn_core::service::{CallContext, Metadata, MetadataError, NotExecuted, Peer};
use stubborn_core::session::NotExecutedReason;

/// The metadata that names the caller. It means nothing in a call of anybody else.
const CALLER: &str = "stubborn-door-caller";

/// The callers whose calls are under way, as many as the door lets in.
pub(crate) struct Guests {
    /// The key of this node.
    own: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    peers: BTreeMap<u64, Arc<Peer>>,
}

/// A caller, for as long as its call is under way.
#[must_use = "its call is refused once it is dropped"]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    number: u64,
}

impl Guests {
    /// Those of the node with this key.
    pub(super) fn new(own: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { own, state: Mutex::default() })
    }

    /// A call of this caller begins.
    pub(super) fn enter(self: &Arc<Self>, peer: Arc<Peer>) -> Guest {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.peers.insert(number, peer);
        Guest { guests: Arc::clone(self), number }
    }

    /// Makes a call that the door has sent its caller's. Returns whether it is one.
    ///
    /// # Errors
    /// If its caller is gone.
    pub(super) fn recognise(&self, context: &mut CallContext) -> Result<bool, NotExecuted> {
        if context.peer.identity != Some(self.own) {
            return Ok(false);
        }
        let Some(number) = context.metadata.get_str(CALLER) else { return Ok(false) };
        let peer =
            number.parse().ok().and_then(|number: u64| self.lock().peers.get(&number).cloned());
        let why = "whoever called over gRPC is gone";
        context.peer =
            peer.ok_or_else(|| NotExecuted::because(NotExecutedReason::Cancelled, why))?;
        // The number and the session are the door's.
        context.id = None;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Names the caller in a call's metadata.
    ///
    /// # Errors
    /// If there is no room left in it.
    pub(crate) fn sign(&self, metadata: &mut Metadata) -> Result<(), MetadataError> {
        metadata.set(CALLER, self.number.to_string())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.lock().peers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(key: u8) -> Arc<Peer> {
        Arc::new(Peer { identity: Some([key; 32]), ..Peer::default() })
    }

    #[test]
    fn only_the_nodes_own_door_calls_for_others_and_only_while_they_wait() {
        let guests = Guests::new([1; 32]);
        let guest = guests.enter(peer(9));
        let mut metadata = Metadata::new();
        metadata.insert(CALLER, "77").unwrap();
        guest.sign(&mut metadata).unwrap();
        let come = |key| {
            let metadata = metadata.clone();
            let mut context = CallContext { peer: peer(key), metadata, ..CallContext::default() };
            guests.recognise(&mut context).map(|own| (own, context.peer.identity))
        };
        assert_eq!(come(1), Ok((true, Some([9; 32]))));
        assert_eq!(come(2), Ok((false, Some([2; 32]))), "another one's certificate");
        drop(guest);
        assert_eq!(come(1).unwrap_err().reason, NotExecutedReason::Cancelled);
        assert!(guests.lock().peers.is_empty());
        let mut unsigned = CallContext { peer: peer(1), ..CallContext::default() };
        assert_eq!(guests.recognise(&mut unsigned), Ok(false));
    }
}
