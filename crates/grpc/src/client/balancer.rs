//! The servers of a channel over gRPC: who is connected, who gets the next call, and who is left alone
//! for a while. The policies are those of channels over datagrams (`docs/decisions/0025-balancing.md`).
//!
//! Nothing is connected here, and no clock is read: [`Pool`](super::pool::Pool) does that.

use std::net::SocketAddr;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::rpc::balance::{Candidates, Chooser, Health, Turn};
use stubborn_core::rpc::balance::{after_failure, probe_pause, sweep};
use stubborn_core::rpc::{Balancing, ServiceConfig};
use stubborn_core::time::Instant;

/// The servers, with connections `C`.
pub(super) struct Balancer<C> {
    service: ServiceConfig,
    /// The first pause after an attempt that failed, and the longest.
    backoff: (Duration, Duration),
    random: Random,
    chooser: Chooser,
    servers: Vec<Server<C>>,
    /// Their keys, in the same order.
    all: Vec<u64>,
    /// The index of the one that is used where one is used after the other.
    current: usize,
    swept_at: Instant,
    /// Keys of servers and numbers of connections that were given.
    given: u64,
    /// Why the last attempt failed.
    why: String,
}

struct Server<C> {
    key: u64,
    address: SocketAddr,
    link: Link<C>,
    /// After the next attempt that fails.
    pause: Duration,
    /// A connection has ended without an answer since the last answer.
    barren: bool,
    /// Calls in flight.
    outstanding: u32,
    answers: u64,
    health: Health,
}

enum Link<C> {
    Idle,
    Connecting,
    Ready {
        connection: C,
        serial: u64,
        /// How many answers had come when it was made.
        answers: u64,
    },
    Failed {
        until: Instant,
    },
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pick<C> {
    Send(Place<C>),
    /// Nowhere yet: a connection is being made.
    Wait,
    /// Nowhere yet: every server that could take it has as many calls as it may have.
    Full,
    /// Nowhere: no server could be reached a moment ago.
    Unreachable,
}

/// A server that has been chosen, and its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<C> {
    pub(super) key: u64,
    pub(super) serial: u64,
    pub(super) connection: C,
}

impl<C: Clone> Balancer<C> {
    /// Without servers yet.
    pub(super) fn new(
        service: ServiceConfig,
        backoff: (Duration, Duration),
        random: Random,
    ) -> Self {
        Self {
            service,
            backoff,
            random,
            chooser: Chooser::default(),
            servers: Vec::new(),
            all: Vec::new(),
            current: 0,
            swept_at: Instant::ZERO,
            given: 0,
            why: "it has no server now".into(),
        }
    }

    /// These are the servers now. An empty list changes nothing: it may only be told wrongly. Calls in
    /// flight at one that is not among them end there.
    pub(super) fn set_targets(&mut self, targets: &[SocketAddr]) {
        if targets.is_empty() {
            return;
        }
        let current = self.servers.get(self.current).map(|server| server.key);
        let mut before = std::mem::take(&mut self.servers);
        for address in targets {
            if self.servers.iter().any(|server| server.address == *address) {
                continue;
            }
            let known = before.iter().position(|server| server.address == *address);
            let server = match known {
                Some(index) => before.swap_remove(index),
                None => Server::new(self.give(), *address, self.backoff.0),
            };
            self.servers.push(server);
        }
        self.all = self.servers.iter().map(|server| server.key).collect();
        self.current = self.all.iter().position(|key| Some(*key) == current).unwrap_or(0);
        let named: Vec<_> = self.servers.iter().map(|s| (s.key, s.address)).collect();
        self.chooser.set_targets(&self.service.balancing, &named);
    }

    fn give(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    fn server(&mut self, key: u64) -> Option<&mut Server<C>> {
        self.servers.iter_mut().find(|server| server.key == key)
    }

    // --- connections ---------------------------------------------------------------------------

    /// Whom to connect to now that a call wants a server; they count as being connected to. Where calls
    /// are spread, all that can be tried; else the next one if none is ready.
    pub(super) fn wanted(&mut self, now: Instant) -> Vec<(u64, SocketAddr)> {
        let spreads = self.service.balancing != Balancing::PickFirst;
        let busy =
            |server: &Server<C>| matches!(server.link, Link::Ready { .. } | Link::Connecting);
        if !spreads && self.servers.iter().any(busy) {
            return Vec::new();
        }
        let (count, current) = (self.servers.len(), self.current);
        let mut found = Vec::new();
        for index in (0..count).map(|step| (current + step) % count) {
            let server = &mut self.servers[index];
            if server.is_due(now) {
                server.link = Link::Connecting;
                found.push((server.key, server.address));
                if !spreads {
                    self.current = index;
                    break;
                }
            }
        }
        found
    }

    /// When one that could not be reached may be tried again.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        let until = |server: &Server<C>| match server.link {
            Link::Failed { until } => Some(until),
            _ => None,
        };
        self.servers.iter().filter_map(until).min()
    }

    /// A server has answered. Returns the number of the connection, unless nobody wants it any more.
    pub(super) fn connected(&mut self, key: u64, connection: C) -> Option<u64> {
        let serial = self.give();
        let server = self.server(key)?;
        let answers = server.answers;
        server.link = Link::Ready { connection, serial, answers };
        Some(serial)
    }

    /// A server could not be reached.
    pub(super) fn unreached(&mut self, now: Instant, key: u64, why: String) {
        self.why = why;
        self.retreat(now, key);
    }

    /// A connection takes no more calls: it broke, or its server is leaving.
    pub(super) fn ended(&mut self, now: Instant, key: u64, serial: u64) {
        let Some(server) = self.server(key) else { return };
        match &server.link {
            Link::Ready { serial: present, answers, .. } if *present == serial => {
                // One that does not answer is tried again at once, but not again and again.
                if server.answers > *answers || !std::mem::replace(&mut server.barren, true) {
                    server.link = Link::Idle;
                    self.move_on(key);
                } else {
                    self.retreat(now, key);
                }
            }
            _ => {}
        }
    }

    fn retreat(&mut self, now: Instant, key: u64) {
        let (longest, random) = (self.backoff.1, &mut self.random);
        let Some(server) = self.servers.iter_mut().find(|server| server.key == key) else { return };
        let pause = server.pause;
        server.pause = (pause * 2).min(longest);
        server.link = Link::Failed { until: now + random.jitter(pause) };
        self.move_on(key);
    }

    /// The next one's turn, if it was this one's.
    fn move_on(&mut self, key: u64) {
        if self.all.get(self.current) == Some(&key) {
            self.current = (self.current + 1) % self.all.len();
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.servers.len() < 2
    }

    /// Why the last attempt to connect failed.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    // --- calls ---------------------------------------------------------------------------------

    /// Where a call goes whose key, for a ring, is `key`. It is in flight there until
    /// [`done`](Self::done).
    pub(super) fn pick(&mut self, now: Instant, key: Option<&[u8]>) -> Pick<C> {
        self.sweep(now);
        let chosen = match self.sort_out(now) {
            Sorted::Probe(key) => Some(key),
            Sorted::Fit(fit) => {
                let servers = Candidates { all: &self.all, current: self.current, fit: &fit };
                let outstanding = |key: u64| {
                    let server = self.servers.iter().find(|server| server.key == key);
                    server.map_or(u32::MAX, |server| server.outstanding)
                };
                let (balancing, random) = (&self.service.balancing, &mut self.random);
                self.chooser.choose(balancing, servers, random, key, outstanding)
            }
        };
        let Some(chosen) = chosen else { return self.none() };
        self.chooser.advance();
        self.pick_this(chosen)
    }

    /// The same, but at this server or nowhere.
    pub(super) fn pick_this(&mut self, key: u64) -> Pick<C> {
        let Some(server) = self.server(key) else { return Pick::Unreachable };
        match &server.link {
            Link::Ready { connection, serial, .. } => {
                let place = Place { key, serial: *serial, connection: connection.clone() };
                server.outstanding += 1;
                Pick::Send(place)
            }
            Link::Connecting => Pick::Wait,
            _ => Pick::Unreachable,
        }
    }

    fn none(&self) -> Pick<C> {
        let is = |what: fn(&Link<C>) -> bool| self.servers.iter().any(|server| what(&server.link));
        if is(|link| matches!(link, Link::Ready { .. })) {
            Pick::Full
        } else if is(|link| matches!(link, Link::Connecting | Link::Idle)) {
            Pick::Wait
        } else {
            Pick::Unreachable
        }
    }

    /// Those that can take a call, without those that are left out unless all are.
    fn sort_out(&mut self, now: Instant) -> Sorted {
        let most = self.service.breaker.as_ref().map_or(u32::MAX, |b| b.max_outstanding);
        let pause = self.service.outliers.as_ref().map(probe_pause);
        let (mut fit, mut good) = (Vec::new(), Vec::new());
        for server in &mut self.servers {
            if !matches!(server.link, Link::Ready { .. }) || server.outstanding >= most {
                continue;
            }
            let turn = server.health.turn(now, server.answers);
            if let (Turn::Probe, Some(pause)) = (turn, pause) {
                server.health.probing(now + pause);
                return Sorted::Probe(server.key);
            }
            fit.push(server.key);
            if turn == Turn::Good {
                good.push(server.key);
            }
        }
        Sorted::Fit(if good.is_empty() { fit } else { good })
    }

    /// A server has said how a call ended, or began to answer it.
    pub(super) fn answered(&mut self, key: u64) {
        let first = self.backoff.0;
        if let Some(server) = self.server(key) {
            server.answers += 1;
            server.pause = first;
            server.barren = false;
        }
    }

    /// A call failed by the server's fault. `answered`: by its own word, which was noted before.
    pub(super) fn at_fault(&mut self, now: Instant, key: u64, answered: bool) {
        let Some(index) = self.all.iter().position(|server| *server == key) else { return };
        let server = &mut self.servers[index];
        server.health.failed(server.answers, answered);
        let Some(config) = &self.service.outliers else { return };
        let mut all: Vec<_> =
            self.servers.iter_mut().map(|server| (&mut server.health, server.answers)).collect();
        after_failure(config, now, &mut all, index);
    }

    /// A call is not in flight there any more.
    pub(super) fn done(&mut self, key: u64) {
        if let Some(server) = self.server(key) {
            server.outstanding = server.outstanding.saturating_sub(1);
        }
    }

    /// Calls that may wait while every server is full.
    pub(super) fn most_waiting(&self) -> u64 {
        let most = self.service.breaker.as_ref().map_or(u32::MAX, |breaker| breaker.max_pending);
        u64::from(most).saturating_mul(self.servers.len().max(1) as u64)
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn sweep(&mut self, now: Instant) {
        let Some(config) = &self.service.outliers else { return };
        if now.since(self.swept_at) < config.interval {
            return;
        }
        self.swept_at = now;
        let mut all: Vec<_> =
            self.servers.iter_mut().map(|server| (&mut server.health, server.answers)).collect();
        sweep(config, now, &mut self.random, &mut all);
    }
}

enum Sorted {
    /// One that was left out is due for a call that tells how it is.
    Probe(u64),
    Fit(Vec<u64>),
}

impl<C> Server<C> {
    fn new(key: u64, address: SocketAddr, pause: Duration) -> Self {
        let (link, health) = (Link::Idle, Health::default());
        Self { key, address, link, pause, barren: false, outstanding: 0, answers: 0, health }
    }

    fn is_due(&self, now: Instant) -> bool {
        match self.link {
            Link::Idle => true,
            Link::Failed { until } => until <= now,
            Link::Connecting | Link::Ready { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests;
