//! Which server gets the next call.

use super::Balance;
use crate::rpc::balance::{Candidates, Turn, probe_pause};
use crate::rpc::client::Client;
use crate::rpc::client::link::Link;
use crate::rpc::context::Context;
use crate::rpc::event::{CallKey, ChannelKey};
use crate::rpc::policy::Balancing;
use crate::time::Instant;
use crate::transport::endpoint::Endpoint;

impl Client {
    /// The server for a call, or for a copy of it that goes to none of `except`. `slot`: whether it
    /// takes one.
    pub(in crate::rpc::client) fn pick(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        call: Option<CallKey>,
        slot: bool,
        except: &[u64],
    ) -> Option<u64> {
        self.sweep_outliers(cx, key);
        let mut balance = self.channels[key.0 as usize].balance.take()?;
        let mut found = self.sort_out(cx, key, &mut balance, slot, except);
        if found.is_none() {
            let from = if balance.good.is_empty() { &balance.fit } else { &balance.good };
            found = self.choose(cx, key, call, from, &balance);
        }
        if found.is_some() {
            balance.chooser.advance();
        }
        self.channels[key.0 as usize].balance = Some(balance);
        found
    }

    /// Finds out who is good and who is fit. Returns a server that is due for a probe.
    fn sort_out(
        &mut self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        balance: &mut Balance,
        slot: bool,
        except: &[u64],
    ) -> Option<u64> {
        balance.good.clear();
        balance.fit.clear();
        let channel = &self.channels[key.0 as usize];
        let most = channel.config.service.breaker.as_ref().map_or(u32::MAX, |b| b.max_outstanding);
        let pause = channel.config.service.outliers.as_ref().map(probe_pause);
        let alone = channel.links.len() == 1;
        for link_key in &channel.links {
            let Some(link) = self.links.get_mut(*link_key) else { continue };
            let usable = link.is_ready() && !link.is_draining() && (!link.suspect || alone);
            if !usable || except.contains(link_key) || link.outstanding() >= most {
                continue;
            }
            if slot && !link.session.as_ref().is_some_and(|session| session.slots.has_room()) {
                continue;
            }
            let answers = link.answers();
            let turn = link.share.health.turn(cx.now, answers);
            if let (Turn::Probe, Some(pause)) = (turn, pause) {
                link.share.health.probing(cx.now + pause);
                return Some(*link_key);
            }
            balance.fit.push(*link_key);
            if turn == Turn::Good && !is_unanswered(cx.now, cx.endpoint, link) {
                balance.good.push(*link_key);
            }
        }
        None
    }

    fn choose(
        &self,
        cx: &mut Context<'_>,
        key: ChannelKey,
        call: Option<CallKey>,
        from: &[u64],
        balance: &Balance,
    ) -> Option<u64> {
        let channel = &self.channels[key.0 as usize];
        let balancing = &channel.config.service.balancing;
        let ring_key = match balancing {
            Balancing::RingHash { header, .. } => {
                let request = call.and_then(|call| self.calls.get(call.0)?.request());
                request.and_then(|request| request.metadata.get(header))
            }
            _ => None,
        };
        let servers = Candidates { all: &channel.links, current: channel.current, fit: from };
        let outstanding = |link| self.links.get(link).map_or(u32::MAX, Link::outstanding);
        balance.chooser.choose(balancing, servers, cx.random, ring_key, outstanding)
    }
}

/// Whether what was sent last is not acknowledged though it is time: the first sign of death.
pub(super) fn is_unanswered(now: Instant, endpoint: &Endpoint, link: &Link) -> bool {
    let handle = link.live.as_ref().map(|live| live.handle);
    let connection = handle.and_then(|handle| endpoint.connection(handle));
    connection.is_none_or(|connection| connection.is_unanswered(now))
}
