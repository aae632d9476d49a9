//! The states of a connection, and how it ends (RFC 9000 §10).

use alloc::boxed::Box;

use bytes::Bytes;

use super::super::error::{Code, TransportError};
use super::super::record::Event;
use super::super::timers::Timers;
use super::{Connection, ConnectionError, ConnectionEvent};
use crate::time::{Duration, Instant};
use crate::wire::frame::Frame;

/// The states, in the order in which they follow; some are skipped, none comes back.
#[derive(Debug)]
pub(super) enum State {
    /// The peer is not authenticated yet.
    Handshaking,
    /// Messages flow.
    Established,
    /// We have closed: what comes is answered with CONNECTION_CLOSE, ever more rarely.
    /// Apart, since it is short and says much.
    Closing(Box<Closing>),
    /// The peer has closed or is gone: nothing is sent any more.
    Draining { until: Instant },
    /// Over; to be forgotten.
    Drained,
}

#[derive(Debug)]
pub(super) struct Closing {
    pub(super) reason: CloseReason,
    /// A CONNECTION_CLOSE is to be sent.
    pub(super) due: bool,
    /// Datagrams that came since, and how many until the next answer: it doubles each time.
    came: u64,
    next_answer: u64,
    until: Instant,
}

/// What CONNECTION_CLOSE says.
#[derive(Clone, Debug)]
pub(super) enum CloseReason {
    Application { code: u64, reason: Bytes },
    Transport(TransportError),
}

impl CloseReason {
    /// The frame for a packet with `room` for it. Before the peer is authenticated, an application's
    /// words stay hidden (RFC 9000 §10.2.3).
    pub(super) fn frame(&self, one_rtt: bool, room: usize) -> Frame<'_> {
        // Type, code, frame type and length take at most 25 bytes.
        let fit = |reason: &[u8]| reason.len().min(room.saturating_sub(25));
        match self {
            Self::Application { code, reason } if one_rtt => {
                Frame::ApplicationClose { code: *code, reason: &reason[..fit(reason)] }
            }
            Self::Application { .. } => Frame::ConnectionClose {
                code: Code::APPLICATION_ERROR.0,
                frame_type: 0,
                reason: b"",
            },
            Self::Transport(error) => Frame::ConnectionClose {
                code: error.code.0,
                frame_type: error.frame.unwrap_or(0),
                reason: &error.reason.as_bytes()[..fit(error.reason.as_bytes())],
            },
        }
    }
}

impl State {
    /// True while packets are processed.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Handshaking | Self::Established)
    }

    /// When closing or draining ends.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self {
            Self::Closing(closing) => Some(closing.until),
            Self::Draining { until } => Some(*until),
            _ => None,
        }
    }
}

impl Closing {
    /// A datagram came: it may deserve an answer (RFC 9000 §10.2.1).
    pub(super) fn on_datagram(&mut self) {
        self.came += 1;
        if self.came >= self.next_answer {
            self.next_answer = self.next_answer.saturating_mul(2);
            self.due = true;
        }
    }
}

impl Connection {
    /// Ends the connection from this side: `reason` goes to the peer, `error` to the application.
    pub(super) fn begin_closing(
        &mut self,
        now: Instant,
        reason: CloseReason,
        error: ConnectionError,
    ) {
        if !self.state.is_open() {
            return;
        }
        let until = now + self.closing_time();
        let closing = Closing { reason, due: true, came: 0, next_answer: 1, until };
        self.state = State::Closing(Box::new(closing));
        self.over(now, error);
    }

    /// The peer broke the protocol, or something here failed.
    pub(super) fn fail(&mut self, now: Instant, error: TransportError) {
        self.begin_closing(
            now,
            CloseReason::Transport(error.clone()),
            ConnectionError::Transport(error),
        );
    }

    /// The peer has closed, or lost its state: keep silent until late packets are gone.
    pub(super) fn drain(&mut self, now: Instant, error: ConnectionError) {
        let until = match self.state.ends_at() {
            Some(until) => until,
            None => now + self.closing_time(),
        };
        if self.state.is_open() {
            self.over(now, error);
        }
        if !matches!(self.state, State::Drained) {
            self.state = State::Draining { until };
        }
    }

    /// Ends without a word and at once.
    pub(super) fn vanish(&mut self, now: Instant, error: ConnectionError) {
        if self.state.is_open() {
            self.over(now, error);
        }
        self.state = State::Drained;
    }

    fn over(&mut self, now: Instant, error: ConnectionError) {
        self.timers = Timers::new();
        if let Some(record) = &mut self.record {
            record.take(now, Event::Closed(&error));
        }
        self.events.push_back(ConnectionEvent::Lost(error));
    }

    /// Three probe timeouts (RFC 9000 §10.2).
    fn closing_time(&self) -> Duration {
        3 * self.path.rtt.probe_timeout_base()
    }
}
