//! Spreading calls over servers that are no group: who gets the next call.
//!
//! A server is *fit* if it is ready, has a free slot and room within the circuit breaker. It is *good* if
//! it also answers: packets to it are acknowledged, and it is not left out as an outlier. A call goes to
//! a good server as the policy says, to a fit one if none is good, and waits if none is fit.

mod endpoints;
mod pick;

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Client;
use super::call::{State, Work};
use super::link::Link;
use crate::rpc::balance::{Chooser, Health, after_failure, is_fault, sweep};
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelEvent, ChannelKey, Event};
use crate::rpc::policy::{Balancing, ServiceConfig};
use crate::service::{Outcome, text};
use crate::session::NotExecutedReason;
use crate::time::Instant;

/// How a channel that does more than use one server after the other chooses.
#[derive(Debug)]
pub(super) struct Balance {
    /// Whether calls go to several servers, so that all of them are kept connected.
    pub(super) spreads: bool,
    chooser: Chooser,
    swept_at: Instant,
    /// Kept for its memory.
    good: Vec<u64>,
    fit: Vec<u64>,
}

/// What the channel knows of one server.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The channel spreads its calls, so that a dead server has to be noticed soon.
    pub(super) spread: bool,
    /// No attempt has succeeded since one failed.
    failed: bool,
    /// Calls and copies of calls that were sent to it.
    pub(super) attempts: u64,
    /// Reads that it has answered.
    pub(super) reads: u64,
    /// Answers that the channel's tokens were counted by.
    pub(super) counted: u64,
    pub(super) retries: u64,
    pub(super) hedges: u64,
    pub(super) health: Health,
}

impl Balance {
    /// `None` where the plain way is enough.
    pub(super) fn new(config: &ServiceConfig) -> Option<Self> {
        let spreads = config.balancing != Balancing::PickFirst;
        let wanted = spreads || config.outliers.is_some() || config.breaker.is_some();
        wanted.then(|| Self {
            spreads,
            chooser: Chooser::default(),
            swept_at: Instant::ZERO,
            good: Vec::new(),
            fit: Vec::new(),
        })
    }
}

impl Client {
    /// Whether the channel keeps all its servers connected and spreads its calls.
    pub(super) fn spreads(&self, channel: ChannelKey) -> bool {
        let channel = &self.channels[channel.0 as usize];
        channel.balance.as_ref().is_some_and(|balance| balance.spreads)
    }

    /// The channel has other targets.
    pub(super) fn rebalance(&mut self, key: ChannelKey) {
        let channel = &mut self.channels[key.0 as usize];
        let Some(balance) = channel.balance.as_mut() else { return };
        for link in &channel.links {
            if let Some(link) = self.links.get_mut(*link) {
                link.share.spread = balance.spreads;
            }
        }
        let address = |link: &u64| Some((*link, self.links.get(*link)?.address));
        let links: Vec<(u64, SocketAddr)> = channel.links.iter().filter_map(address).collect();
        balance.chooser.set_targets(&channel.config.service.balancing, &links);
    }

    /// Connects to every server that is not connected, if the channel has a use for it.
    pub(super) fn seek_all(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        for link in self.channels[key.0 as usize].links.clone() {
            let idle = |link: &Link| link.is_idle() && link.standby.is_none();
            if self.keeps_connected(link) && self.links.get(link).is_some_and(idle) {
                self.start_attempt(cx, link);
            }
        }
    }

    /// Whether a link is to be connected though nothing is unsettled there: its channel spreads calls,
    /// and somebody wants a server or uses one.
    pub(super) fn keeps_connected(&self, key: u64) -> bool {
        let Some(link) = self.links.get(key).filter(|link| link.share.spread) else { return false };
        let channel = &self.channels[link.channel.0 as usize];
        let lives = |link: &u64| self.links.get(*link).is_some_and(|link| link.live.is_some());
        !link.retired
            && !channel.closed
            && (channel.wants_server() || channel.links.iter().any(lives))
    }

    /// An attempt at a link of a channel that spreads its calls has failed. When all have, calls that
    /// do not wait for a server fail.
    pub(super) fn failed_among_all(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        failed: u64,
        reason: alloc::borrow::Cow<'static, str>,
    ) {
        if let Some(link) = self.links.get_mut(failed) {
            link.share.failed = true;
        }
        let hopeless = |link: &u64| {
            let link = self.links.get(*link);
            link.is_none_or(|link| link.share.failed && !link.is_ready() && link.standby.is_none())
        };
        let links = self.channels[key.0 as usize].links.clone();
        if !links.iter().all(hopeless) {
            return;
        }
        for link in links {
            if let Some(link) = self.links.get_mut(link) {
                link.share.failed = false;
            }
        }
        let channel = &mut self.channels[key.0 as usize];
        channel.eager &= channel.config.wait_for_ready;
        cx.events.push(Event::Channel(key, ChannelEvent::Unreachable(reason.clone())));
        self.fail_fast(cx, key, &reason);
    }

    /// Sends what waits, each call to the server that the policy names.
    pub(super) fn pump_balanced(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        let mut sent = Vec::new();
        self.spread_others(cx, key, &mut sent);
        while let Some(call) = self.next_numbered(cx.now, key) {
            let Some(link) = self.pick(cx, key, Some(call), true, &[]) else { break };
            if self.follow_at(link, call) {
                self.channels[key.0 as usize].waiting.pop_numbered(call);
                self.send_follow(cx, key, link, call);
                note(&mut sent, link);
                continue;
            }
            let session = self.links.get_mut(link).and_then(|link| link.session.as_mut());
            let Some(id) = session.and_then(|session| session.slots.reserve()) else { break };
            self.channels[key.0 as usize].waiting.pop_numbered(call);
            self.place(cx, link, call, id);
            note(&mut sent, link);
        }
        for link in sent {
            self.after_sending(cx, link);
        }
        if !self.channels[key.0 as usize].waiting.is_empty() {
            self.watch_awaited(cx, key);
        }
    }

    /// Sends reads and questions. What finds no server waits on.
    fn spread_others(&mut self, cx: &mut Context<'_>, key: ChannelKey, sent: &mut Vec<u64>) {
        let mut others = self.channels[key.0 as usize].waiting.take_others();
        let mut full = false;
        while let Some(call) = others.pop_front() {
            let owner = self.owner_of_question(call);
            let to = match owner {
                Some(owner) if self.links.get(owner).is_some_and(Link::is_ready) => Some(owner),
                Some(_) => None,
                None if full => None,
                None => self.pick(cx, key, Some(call), false, &[]),
            };
            full |= to.is_none() && owner.is_none();
            if let Some(link) = to {
                if self.follows(call) {
                    self.send_follow(cx, key, link, call);
                } else if !self.send_stale(cx, key, link, call) {
                    self.send_unnumbered(cx, link, call);
                }
                note(sent, link);
                continue;
            }
            if let Some(waits) = self.calls.get(call.0) {
                self.channels[key.0 as usize].waiting.push_back(call, &waits.work);
            }
            let idle = |link: &Link| link.is_idle() && link.standby.is_none();
            if let Some(owner) = owner.filter(|owner| self.links.get(*owner).is_some_and(idle)) {
                self.start_attempt(cx, owner);
            }
        }
    }

    /// A call waits because no server is fit: refuses it if too many do.
    pub(super) fn break_circuit(&mut self, cx: &mut Context<'_>, key: CallKey) {
        let Some(call) = self.calls.get(key.0).filter(|c| matches!(c.state, State::Waiting)) else {
            return;
        };
        let channel = &mut self.channels[call.channel.0 as usize];
        let Some(breaker) = channel.config.service.breaker.as_ref() else { return };
        let servers = channel.links.len().max(1);
        let most = (breaker.max_pending as usize).saturating_mul(servers);
        if channel.waiting.len() <= most {
            return;
        }
        let why = text(format_args!(
            "circuit breaker: {} calls are outstanding at each server that answers, or none does, \
             and {most} wait",
            breaker.max_outstanding
        ));
        channel.counters.refused += 1;
        let error = match (&call.work, call.may_have_run()) {
            (Work::Question { id, .. }, _) => call.error(Outcome::Pending(*id)).because(why),
            _ => call.not_executed(NotExecutedReason::Overloaded, why),
        };
        self.finish(cx, key, Err(error));
    }

    /// How a call that was executed, or was not, ended at this server.
    pub(super) fn note_end(&mut self, now: Instant, link: u64, result: Result<(), &Outcome>) {
        if result.is_err_and(is_fault) {
            self.note_failure(now, link, true);
        }
    }

    /// The session of a link is gone: answers are counted anew.
    pub(super) fn recount(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(link) {
            link.share.reads = 0;
            link.share.health.recount();
        }
    }

    /// A call at this server has failed. `answered`: by the server's own word.
    pub(super) fn note_failure(&mut self, now: Instant, link_key: u64, answered: bool) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        let (channel, answers) = (link.channel, link.answers());
        link.share.health.failed(answers, answered);
        let channel = &self.channels[channel.0 as usize];
        let Some(config) = channel.config.service.outliers.clone() else { return };
        let Some(index) = channel.links.iter().position(|link| *link == link_key) else { return };
        let links = channel.links.clone();
        let mut taken = self.take_healths(&links);
        let mut all: Vec<_> =
            taken.iter_mut().map(|(health, answers)| (health, *answers)).collect();
        after_failure(&config, now, &mut all, index);
        self.put_healths(&links, taken);
    }

    fn sweep_outliers(&mut self, cx: &mut Context<'_>, key: ChannelKey) {
        let channel = &mut self.channels[key.0 as usize];
        let Some(config) = channel.config.service.outliers.as_ref() else { return };
        let Some(balance) = channel.balance.as_mut() else { return };
        if cx.now.since(balance.swept_at) < config.interval {
            return;
        }
        let config = config.clone();
        balance.swept_at = cx.now;
        let links = channel.links.clone();
        let mut taken = self.take_healths(&links);
        let mut all: Vec<_> =
            taken.iter_mut().map(|(health, answers)| (health, *answers)).collect();
        sweep(&config, cx.now, cx.random, &mut all);
        self.put_healths(&links, taken);
    }

    fn take_healths(&mut self, links: &[u64]) -> Vec<(Health, u64)> {
        let mut take = |link: &u64| match self.links.get_mut(*link) {
            Some(link) => (core::mem::take(&mut link.share.health), link.answers()),
            None => (Health::default(), 0),
        };
        links.iter().map(&mut take).collect()
    }

    fn put_healths(&mut self, links: &[u64], healths: Vec<(Health, u64)>) {
        for (link, (health, _)) in links.iter().zip(healths) {
            if let Some(link) = self.links.get_mut(*link) {
                link.share.health = health;
            }
        }
    }
}

impl Share {
    /// A server has answered an attempt.
    pub(super) fn connected(&mut self) {
        self.failed = false;
    }
}

impl Link {
    /// Calls in flight here.
    pub(super) fn outstanding(&self) -> u32 {
        let numbered = self.session.as_ref().map_or(0, |session| session.slots.in_flight());
        let live = self.live.as_ref().map_or(0, |live| live.reads.len() + live.queries.len());
        numbered.saturating_add(u32::try_from(live).unwrap_or(u32::MAX))
    }

    /// Answers that have come from here in this session.
    pub(super) fn answers(&self) -> u64 {
        self.session.as_ref().map_or(0, |session| session.slots.answers()) + self.share.reads
    }
}

fn note(links: &mut Vec<u64>, link: u64) {
    if !links.contains(&link) {
        links.push(link);
    }
}
