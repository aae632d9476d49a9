//! A channel: several servers of one service, and the calls that wait for one of them.

use alloc::vec::Vec;

use super::balance::Balance;
use super::memory::Memory;
use super::stale::Seen;
use super::waiting::Waiting;
use crate::rpc::{ChannelConfig, ChannelCounters, Policies, Tokens};
use crate::time::Instant;

/// A user's way to a service.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) config: ChannelConfig,
    /// Keys of its links, in the order of the targets; retired ones are not among them.
    pub(super) links: Vec<u64>,
    /// Links that are not targets any more and have unsettled calls.
    pub(super) retired: Vec<u64>,
    /// The index of the link that new calls use.
    pub(super) current: usize,
    /// Links that failed one after another since a server answered last.
    pub(super) failed_in_turn: usize,
    /// Whether it connects without a call that asks for it: until it was ready, or failed once unless
    /// it waits for a server.
    pub(super) eager: bool,
    pub(super) waiting: Waiting,
    /// Outcomes of calls that their caller gave up.
    pub(super) memory: Memory,
    /// Up to where replicas have told their log.
    pub(super) seen: Seen,
    pub(super) closed: bool,
    /// None where calls go to one server after the other.
    pub(super) balance: Option<alloc::boxed::Box<Balance>>,
    pub(super) policies: Policies,
    pub(super) tokens: Tokens,
    pub(super) counters: ChannelCounters,
    /// When a hedged read began last.
    pub(super) hedged_at: Instant,
}

impl Channel {
    pub(super) fn new(config: ChannelConfig) -> Self {
        let balance = Balance::new(&config.service).map(alloc::boxed::Box::new);
        let policies = Policies::new(&config.service);
        let tokens = Tokens::new(config.service.throttling.as_ref());
        Self {
            config,
            links: Vec::new(),
            retired: Vec::new(),
            current: 0,
            failed_in_turn: 0,
            eager: true,
            waiting: Waiting::default(),
            memory: Memory::default(),
            seen: Seen::default(),
            closed: false,
            balance,
            policies,
            tokens,
            counters: ChannelCounters::default(),
            hedged_at: Instant::ZERO,
        }
    }

    /// Whether somebody wants a server.
    pub(super) fn wants_server(&self) -> bool {
        !self.closed && (self.eager || !self.waiting.is_empty())
    }

    pub(super) fn all_links(&self) -> Vec<u64> {
        self.links.iter().chain(&self.retired).copied().collect()
    }
}
