//! The timers of one connection.

use crate::time::Instant;

/// What a connection waits for. Each is set and stopped by the event named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Timer {
    /// Set while packets are outstanding: to the loss time if there is one, else to the probe
    /// timeout (RFC 9002 §6.2.1).
    LossDetection,
    /// Set when the pacer holds packets back.
    Pacing,
    /// Set at the start: the handshake has to be complete by then.
    Handshake,
    /// Set anew by each packet received, and by the first one sent after that (RFC 9000 §10.1).
    Idle,
    /// Set with the idle timer where keepalive is on: sends a PING.
    KeepAlive,
    /// Set on closing and draining: three probe timeouts later all state is dropped (RFC 9000
    /// §10.2).
    Close,
    /// Set when a PATH_CHALLENGE is sent: the new path has failed (RFC 9000 §8.2.4).
    PathValidation,
    /// Set by a key update: the former keys are dropped (RFC 9001 §6.5).
    KeyDiscard,
    /// Set when a packet comes and it is not set: gives memory back once no packet has come for a while.
    Rest,
}

impl Timer {
    /// All timers, in the order in which those due at the same time are reported.
    pub const ALL: [Self; 9] = [
        Self::LossDetection,
        Self::Pacing,
        Self::Handshake,
        Self::Idle,
        Self::KeepAlive,
        Self::Close,
        Self::PathValidation,
        Self::KeyDiscard,
        Self::Rest,
    ];
}

/// When each timer expires.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    at: [Option<Instant>; Timer::ALL.len()],
}

impl Timers {
    /// No timer set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a timer, or moves it.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.at[timer as usize] = Some(at);
    }

    /// Sets a timer to `at`, or stops it for `None`.
    pub fn set_or_stop(&mut self, timer: Timer, at: Option<Instant>) {
        self.at[timer as usize] = at;
    }

    /// Stops a timer; does nothing if it is not set.
    pub fn stop(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    /// When a timer expires, if it is set.
    pub fn get(&self, timer: Timer) -> Option<Instant> {
        self.at[timer as usize]
    }

    /// The earliest expiry.
    pub fn next(&self) -> Option<Instant> {
        self.at.iter().flatten().min().copied()
    }

    /// Takes out one timer that has expired at `now`, earliest first; to be called until `None`. A
    /// timer that is set again while this goes on is reported again if it is due.
    pub fn expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = Timer::ALL
            .into_iter()
            .filter(|t| self.get(*t).is_some_and(|at| at <= now))
            .min_by_key(|t| self.get(*t))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant::from_nanos(ns)
    }

    #[test]
    fn timers_expire_once_and_in_the_order_of_their_time() {
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        timers.set(Timer::LossDetection, at(30));
        timers.set(Timer::KeyDiscard, at(10));
        timers.set(Timer::Idle, at(99));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expired(at(9)), None);
        assert_eq!(timers.expired(at(30)), Some(Timer::KeyDiscard));
        assert_eq!(timers.expired(at(30)), Some(Timer::LossDetection));
        assert_eq!(timers.expired(at(30)), None);
        timers.stop(Timer::Idle);
        assert_eq!(timers.next(), None);
        timers.set_or_stop(Timer::Close, Some(at(1)));
        timers.set_or_stop(Timer::Close, None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
    }
}
