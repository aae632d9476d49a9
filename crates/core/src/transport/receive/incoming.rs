//! One message on its way in.

use super::assembly::{Assembly, Held, Piece};
use crate::transport::{Code, TransportError};

/// How far the reader is with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of it can be read yet.
    Unseen,
    /// It waits to be accepted.
    Offered,
    /// Somebody reads it.
    Accepted,
}

/// What happens to bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Read,
    /// They are dropped: the sender gave up, or it was asked to stop with this code.
    Dropped {
        stop: Option<u64>,
    },
}

#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) data: Assembly,
    /// One past the highest byte that came: what flow control counts.
    highest: u64,
    final_size: Option<u64>,
    /// Bytes that the peer may send of this message, and by how many that exceeds what was read when
    /// it is renewed.
    granted: u64,
    window: u64,
    fate: Fate,
    pub(super) stage: Stage,
    /// A code that the reader has not been told yet.
    pub(super) notice: Option<u64>,
    /// The reader found nothing to read and wants to hear when there is.
    pub(super) blocked: bool,
    /// The id stands in the inbox's queue of readable messages, of grants.
    pub(super) listed: bool,
    pub(super) grant_queued: bool,
}

impl Incoming {
    pub(super) fn new(window: u64) -> Self {
        Self {
            data: Assembly::default(),
            highest: 0,
            final_size: None,
            granted: window,
            window,
            fate: Fate::Read,
            stage: Stage::Unseen,
            notice: None,
            blocked: false,
            listed: false,
            grant_queued: false,
        }
    }

    /// One that came in one piece, once somebody reads it.
    pub(super) fn whole(piece: Piece, window: u64) -> Self {
        let size = piece.len();
        Self {
            data: Assembly::of(piece),
            highest: size,
            final_size: Some(size),
            stage: Stage::Accepted,
            ..Self::new(window)
        }
    }

    /// Counts bytes up to `end`, which is the message's end if `fin`. Returns how many are new.
    pub(super) fn extend(&mut self, end: u64, fin: bool) -> Result<u64, TransportError> {
        let contradiction = match self.final_size {
            Some(known) => end > known || (fin && end != known),
            None => fin && end < self.highest,
        };
        if contradiction {
            let reason = "the message's end is elsewhere";
            return Err(TransportError::new(Code::FINAL_SIZE_ERROR, reason));
        }
        if end > self.granted {
            let reason = "more data than was granted for the message";
            return Err(TransportError::new(Code::FLOW_CONTROL_ERROR, reason));
        }
        if fin {
            self.final_size = Some(end);
        }
        let new = end.saturating_sub(self.highest);
        self.highest += new;
        Ok(new)
    }

    /// True if every byte has come.
    pub(super) fn is_complete(&self) -> bool {
        self.final_size == Some(self.data.contiguous()) && !self.is_dropped()
    }

    /// True if every byte has been read.
    pub(super) fn is_read(&self) -> bool {
        self.final_size == Some(self.data.read()) && !self.is_dropped()
    }

    pub(super) fn is_dropped(&self) -> bool {
        matches!(self.fate, Fate::Dropped { .. })
    }

    /// True if reading gives something else than `Blocked`.
    pub(super) fn has_news(&self) -> bool {
        self.notice.is_some()
            || self.is_read()
            || (!self.is_dropped() && self.data.contiguous() > self.data.read())
    }

    /// Drops what was not read, and what still comes. Returns how many bytes of flow control that
    /// frees.
    pub(super) fn drop_data(&mut self, held: &mut Held) -> u64 {
        self.data.clear(held);
        self.fate = Fate::Dropped { stop: None };
        self.highest - self.data.read()
    }

    /// Notes the code to stop a dropped message with; false if its end is known, so that nothing is
    /// gained by asking.
    pub(super) fn stop(&mut self, code: u64) -> bool {
        let needed = self.final_size.is_none();
        if needed {
            self.fate = Fate::Dropped { stop: Some(code) };
        }
        needed
    }

    /// The code to stop the message with, while its sender has to be asked.
    pub(super) fn stop_code(&self) -> Option<u64> {
        match self.fate {
            Fate::Dropped { stop } if self.final_size.is_none() => stop,
            _ => None,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop_code().is_some()
    }

    /// True once a dropped message has nothing left to say: its size is accounted for and the reader
    /// was told.
    pub(super) fn is_done(&self) -> bool {
        self.is_dropped() && self.final_size.is_some() && self.notice.is_none()
    }

    /// True while more credit may be of use to the sender.
    pub(super) fn is_growing(&self) -> bool {
        self.final_size.is_none() && !self.is_dropped()
    }

    pub(super) fn granted(&self) -> u64 {
        self.granted
    }

    /// True when half of the message's window is used up.
    pub(super) fn wants_grant(&self) -> bool {
        self.is_growing() && self.granted - self.data.read() <= self.window / 2
    }

    /// The grant to announce next. The window doubles each time, up to `most`: somebody reads.
    pub(super) fn next_grant(&self, most: u64) -> u64 {
        let window = (2 * self.window).min(most).max(self.window);
        self.granted.max(self.data.read() + window)
    }

    pub(super) fn on_granted(&mut self, granted: u64) {
        self.window = granted - self.data.read();
        self.granted = granted;
    }
}
