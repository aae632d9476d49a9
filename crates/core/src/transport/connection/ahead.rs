//! Reading ahead what the next packet of a connection will need. Its memory lies in several places, found
//! one through the other; where there are many connections none of it is in the caches.

use stubborn_rope::ahead::read_queue_ahead;

use super::Connection;

impl Connection {
    /// Begins to read what the connection points to. It itself should be in the caches.
    pub(in super::super) fn read_ahead(&self) {
        if let Some(keys) = &self.data_keys {
            keys.read_ahead();
        }
        self.path.read_ahead();
        self.spaces.read_ahead();
        self.outbox.read_ahead();
        self.inbox.read_ahead();
        read_queue_ahead(&self.events);
    }

    /// The same with what lies behind that.
    pub(in super::super) fn read_further_ahead(&self) {
        if let Some(keys) = &self.data_keys {
            keys.read_further_ahead();
        }
        self.spaces.read_further_ahead();
    }
}
