//! The keys of 1-RTT packets: key phases, updates from either side, usage limits (RFC 9001 §6).

use alloc::boxed::Box;

use stubborn_rope::ahead::read_ahead;

use super::super::crypto::{HeaderKey, Keys, PacketKey, TlsSession};
use super::super::error::{Code, TransportError};
use crate::time::Instant;

/// Packets before the AEAD's own limit at which an update must have begun: room for those that are
/// sealed until the peer has confirmed.
const MARGIN: u64 = 1 << 10;

/// Packets sealed in a phase before the keys of the next one are made.
const PREPARE_AFTER: u64 = 64;

/// One key phase.
struct Phase {
    local: Box<dyn PacketKey>,
    remote: Box<dyn PacketKey>,
}

/// The phase before the present one, kept for packets that were overtaken.
struct Previous {
    remote: Box<dyn PacketKey>,
    /// When to forget it: three probe timeouts after the peer was seen to use the present phase.
    discard_at: Option<Instant>,
}

/// The keys of 1-RTT packets.
pub(super) struct DataKeys {
    local_header: Box<dyn HeaderKey>,
    pub(super) remote_header: Box<dyn HeaderKey>,
    current: Phase,
    /// Made ahead of time, so that the first packet of an update costs what any packet costs
    /// (RFC 9001 §6.3); but not for a connection that hardly sends: keys take a kilobyte.
    next: Option<Phase>,
    previous: Option<Previous>,
    /// The key phase bit of `current`.
    phase: bool,
    sealed: u64,
    /// What `current` seals at most, and the bytes that it adds: asked for with each packet.
    most_sealed: u64,
    tag_len: usize,
    /// The first packet number sealed in this phase.
    first_sent: Option<u64>,
    /// The lowest packet number opened in this phase.
    first_received: Option<u64>,
    /// The peer has acknowledged a packet of this phase: only then may we go on to the next.
    confirmed: bool,
    updates: u64,
}

/// With which phase a packet opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The previous one: the packet was overtaken by an update.
    Previous,
    /// The present one.
    Current,
    /// The next one: the peer has begun an update.
    Next,
}

impl DataKeys {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            most_sealed: keys.local.packet.confidentiality_limit(),
            tag_len: keys.local.packet.tag_len(),
            local_header: keys.local.header,
            remote_header: keys.remote.header,
            current: Phase { local: keys.local.packet, remote: keys.remote.packet },
            next: None,
            previous: None,
            phase: false,
            sealed: 0,
            first_sent: None,
            first_received: None,
            confirmed: false,
            updates: 0,
        }
    }

    /// The key phase bit to send.
    pub(super) fn phase(&self) -> bool {
        self.phase
    }

    /// Updates so far, by either side.
    pub(super) fn updates(&self) -> u64 {
        self.updates
    }

    /// Bytes that sealing adds.
    pub(super) fn tag_len(&self) -> usize {
        self.tag_len
    }

    /// Packets that may fail to open before the connection must end (RFC 9001 §6.6).
    pub(super) fn integrity_limit(&self) -> u64 {
        self.current.remote.integrity_limit()
    }

    /// What packets are sealed with.
    pub(super) fn local(&self) -> (&dyn HeaderKey, &dyn PacketKey) {
        (&*self.local_header, &*self.current.local)
    }

    /// A packet was sealed.
    pub(super) fn on_sealed(&mut self, number: u64) {
        self.sealed += 1;
        self.first_sent.get_or_insert(number);
    }

    /// True if the key may seal no packet any more: the connection must end silently.
    pub(super) fn is_used_up(&self) -> bool {
        self.sealed >= self.most_sealed
    }

    /// True if it is time to update after `limit` packets.
    pub(super) fn wants_update(&self, limit: u64) -> bool {
        let hard = self.most_sealed.saturating_sub(MARGIN);
        self.sealed >= limit.min(hard)
    }

    /// True if an update may begin: the present phase is confirmed and the one before it is gone
    /// (RFC 9001 §6.1, §6.5).
    pub(super) fn may_update(&self) -> bool {
        self.confirmed && self.previous.is_none()
    }

    /// Goes over to the next phase.
    pub(super) fn update(&mut self, tls: &mut dyn TlsSession) {
        let next = self.next.take().unwrap_or_else(|| next_phase(tls));
        self.most_sealed = next.local.confidentiality_limit();
        self.tag_len = next.local.tag_len();
        let old = core::mem::replace(&mut self.current, next);
        self.previous = Some(Previous { remote: old.remote, discard_at: None });
        self.phase = !self.phase;
        self.sealed = 0;
        self.first_sent = None;
        self.first_received = None;
        self.confirmed = false;
        self.updates += 1;
    }

    /// Makes the keys of the next phase if the connection is in use and has none.
    pub(super) fn prepare(&mut self, tls: &mut dyn TlsSession) {
        if self.sealed >= PREPARE_AFTER && self.next.is_none() {
            self.next = Some(next_phase(tls));
        }
    }

    /// The key that a packet's phase bit and number point to.
    pub(super) fn remote(
        &mut self,
        number: u64,
        phase: bool,
        tls: &mut dyn TlsSession,
    ) -> (&dyn PacketKey, Opened) {
        let overtaken = self.first_received.is_none_or(|first| number < first);
        match &self.previous {
            _ if phase == self.phase => (&*self.current.remote, Opened::Current),
            Some(previous) if overtaken => (&*previous.remote, Opened::Previous),
            _ => (&*self.next.get_or_insert_with(|| next_phase(tls)).remote, Opened::Next),
        }
    }

    /// An authentic packet that was no duplicate opened with a phase; follows the peer's update.
    ///
    /// # Errors
    /// `KEY_UPDATE_ERROR` when the peer updates again before its last update can be confirmed.
    pub(super) fn on_opened(
        &mut self,
        number: u64,
        with: Opened,
        tls: &mut dyn TlsSession,
    ) -> Result<(), TransportError> {
        match with {
            Opened::Previous => return Ok(()),
            Opened::Current => {}
            Opened::Next => {
                // RFC 9001 §6.2: the peer must have seen an acknowledgement of this phase first.
                if self.updates > 0 && self.first_sent.is_none() {
                    return Err(TransportError::new(Code::KEY_UPDATE_ERROR, "updated too early"));
                }
                self.update(tls);
            }
        }
        self.first_received = Some(self.first_received.map_or(number, |first| first.min(number)));
        Ok(())
    }

    /// True if packets of the present phase come, and nothing was said yet about when the keys of the
    /// one before it may go.
    pub(super) fn has_new_past(&self) -> bool {
        let undecided = self.previous.as_ref().is_some_and(|p| p.discard_at.is_none());
        undecided && self.first_received.is_some()
    }

    /// Says that.
    pub(super) fn keep_past_until(&mut self, at: Instant) {
        if let Some(previous) = &mut self.previous {
            previous.discard_at = Some(at);
        }
    }

    /// The peer acknowledged packets up to `largest` in a packet that opened with a phase.
    ///
    /// # Errors
    /// `KEY_UPDATE_ERROR` when old keys acknowledge packets of new keys (RFC 9001 §6.2).
    pub(super) fn on_ack(&mut self, largest: u64, with: Opened) -> Result<(), TransportError> {
        if self.first_sent.is_some_and(|first| largest >= first) {
            if with == Opened::Previous {
                return Err(TransportError::new(
                    Code::KEY_UPDATE_ERROR,
                    "acknowledged by old keys",
                ));
            }
            self.confirmed = true;
        }
        Ok(())
    }

    /// Begins to read the keys of the present phase.
    pub(super) fn read_ahead(&self) {
        read_ahead(&*self.local_header);
        read_ahead(&*self.remote_header);
        read_ahead(&*self.current.local);
        read_ahead(&*self.current.remote);
    }

    /// Begins to read their ciphers.
    pub(super) fn read_further_ahead(&self) {
        self.local_header.read_ahead();
        self.remote_header.read_ahead();
        self.current.local.read_ahead();
        self.current.remote.read_ahead();
    }

    /// Gives back the memory of ciphers until they are used again.
    pub(super) fn rest(&mut self) {
        self.local_header.rest();
        self.remote_header.rest();
        self.current.local.rest();
        self.current.remote.rest();
        if let Some(next) = &mut self.next {
            next.local.rest();
            next.remote.rest();
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is due.
    pub(super) fn discard_at(&self) -> Option<Instant> {
        self.previous.as_ref()?.discard_at
    }

    /// Forgets the previous phase if its time is over.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if self.discard_at().is_some_and(|at| at <= now) {
            self.previous = None;
        }
    }
}

fn next_phase(tls: &mut dyn TlsSession) -> Phase {
    let (local, remote) = tls.next_data_keys();
    Phase { local, remote }
}

#[cfg(test)]
mod tests;
