//! What a channel knows of its servers, for people.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::rpc::client::Client;
use crate::rpc::client::link::Link;
use crate::rpc::event::ChannelKey;
use crate::rpc::policy::{ChannelCounters, EndpointState, EndpointStats};
use crate::time::Instant;
use crate::transport::endpoint::Endpoint;

impl Client {
    /// The channel's servers, in the order of its targets.
    pub(crate) fn endpoints(
        &self,
        now: Instant,
        endpoint: &Endpoint,
        key: ChannelKey,
    ) -> Vec<EndpointStats> {
        let Some(channel) = self.channels.get(key.0 as usize) else { return Vec::new() };
        let links = channel.links.iter().filter_map(|link| self.links.get(*link));
        links.map(|link| stats_of(now, endpoint, link)).collect()
    }

    /// What the channel did beyond sending each call once.
    pub(crate) fn channel_counters(&self, key: ChannelKey) -> ChannelCounters {
        self.channels.get(key.0 as usize).map_or_else(Default::default, |channel| channel.counters)
    }
}

fn stats_of(now: Instant, endpoint: &Endpoint, link: &Link) -> EndpointStats {
    let share = &link.share;
    let address: SocketAddr = link.address;
    EndpointStats {
        address,
        state: state_of(now, endpoint, link),
        outstanding: link.outstanding(),
        attempts: share.attempts,
        failures: share.health.failures,
        ejections: share.health.ejections,
        retries: share.retries,
        hedges: share.hedges,
    }
}

fn state_of(now: Instant, endpoint: &Endpoint, link: &Link) -> EndpointState {
    if link.is_draining() {
        EndpointState::Draining
    } else if link.is_ready() {
        match () {
            () if link.suspect || super::pick::is_unanswered(now, endpoint, link) => {
                EndpointState::Silent
            }
            () if link.share.health.is_ejected(now) => EndpointState::Ejected,
            () if link.share.health.is_out() => EndpointState::Probed,
            () => EndpointState::Ready,
        }
    } else if link.standby.is_some() {
        EndpointState::Standby
    } else if link.attempt.is_some() {
        EndpointState::Connecting
    } else if link.retry_at.is_some() {
        EndpointState::Failed
    } else {
        EndpointState::Idle
    }
}
