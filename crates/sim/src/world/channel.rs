//! The client side of a simulated host, as generated stubs see it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use stubborn_core::node::{CallKey, ChannelConfig, ChannelKey, Node, SessionTicket, StreamKey};
use stubborn_core::service::{
    BoxFuture, CallError, CallState, Caller, IncomingReply, Method, NotExecuted, Outcome,
    OutgoingCall, Port,
};
use stubborn_core::session::{CallId, NotExecutedReason};
use stubborn_core::time::Instant;

use super::host::{Alive, ChannelPlan, Ending, OpenChannel, Waiting};
use super::journal::SimJournal;
use super::stream::SimPort;
use super::tasks::Home;
use super::{HostId, State, World};
use crate::crypto::COMMON_NAME;

/// A channel of a simulated host.
#[derive(Clone)]
pub struct SimCaller {
    pub(super) world: World,
    /// Which of the world's channels.
    pub(super) index: u32,
}

impl World {
    /// What [`World::channel_with`] wraps: for asking more than stubs do.
    ///
    /// # Panics
    /// If there is no such server, or none at all.
    pub fn caller(
        &self,
        client: &str,
        servers: &[&str],
        change: impl FnOnce(&mut ChannelConfig),
    ) -> SimCaller {
        self.client(client);
        let (host, servers) =
            (self.id(client), servers.iter().map(|name| self.id(name)).collect::<Vec<_>>());
        let mut state = self.state();
        let first = *servers.first().expect("a channel leads to a server");
        let tls = Arc::clone(&state.host(host).tls.anonymous);
        let name = if servers.len() > 1 { COMMON_NAME } else { &state.host(first).name };
        let mut config = ChannelConfig::new(name, tls);
        change(&mut config);
        state.channels.push(ChannelPlan { host, servers, config, journal: None });
        SimCaller { world: self.clone(), index: state.channels.len() as u32 - 1 }
    }

    /// The TLS configuration of a host with its certificate, for [`World::channel_with`]: sessions
    /// then belong to the certificate.
    ///
    /// # Panics
    /// If there is no such host.
    pub fn certified(&self, host: &str) -> Arc<dyn stubborn_core::transport::crypto::ClientTls> {
        let id = self.id(host);
        Arc::clone(&self.state().host(id).tls.certified)
    }
}

impl SimCaller {
    /// The session that the channel used last in this life of its host.
    pub fn ticket(&self) -> Option<SessionTicket> {
        let state = self.world.state();
        let alive = state.host(state.channels[self.index as usize].host).alive.as_ref()?;
        alive.channels.get(&self.index)?.ticket.clone()
    }

    /// What the channel's servers remember now, to be compared later.
    pub(crate) fn memories(&self) -> Memories {
        let state = self.world.state();
        let plan = &state.channels[self.index as usize];
        let alive = state.host(plan.host).alive.as_ref();
        let channel = alive.and_then(|alive| alive.channels.get(&self.index));
        // A session that is attached hangs on the memory that opened it; one that is not yet, on
        // what there is now.
        let memory = |server: &HostId| {
            let attached = channel.and_then(|channel| channel.attached.get(server)).copied();
            (*server, attached.unwrap_or_else(|| state.host(*server).memory()))
        };
        let memories = plan.servers.iter().map(memory).collect();
        let lies = plan.servers.iter().map(|server| state.lies.times(*server)).sum();
        Memories { memories, lies, lied_to: self.is_lied_to(&state) }
    }

    /// Whether a server of the channel may be a liar now, as far as the channel knows.
    fn is_lied_to(&self, state: &State) -> bool {
        let plan = &state.channels[self.index as usize];
        let alive = state.host(plan.host).alive.as_ref();
        let channel = alive.and_then(|alive| alive.channels.get(&self.index));
        plan.servers.iter().any(|server| {
            let attached = channel.and_then(|channel| channel.attached.get(server)).copied();
            let there = state.host(*server);
            let replaced = there.alive.is_none() && state.lies.times(*server) > 0;
            replaced || attached.is_some_and(|incarnation| state.lies.is_of_one(incarnation))
        })
    }

    /// Whether a call that began with `then` in its servers' memories may have been told lies.
    pub(crate) fn was_lied_to(&self, then: &Memories) -> bool {
        let state = self.world.state();
        let plan = &state.channels[self.index as usize];
        let lies: u64 = plan.servers.iter().map(|server| state.lies.times(*server)).sum();
        then.lied_to || lies != then.lies || self.is_lied_to(&state)
    }

    /// Leads the channel to these servers from now on, in this life of its host: some of those that it
    /// was made for.
    pub(crate) fn retarget(&self, servers: &[&str]) {
        let state = self.world.state();
        let address = |name: &&str| state.host(state.names[*name]).address;
        let targets = servers.iter().map(address).collect();
        drop(state);
        self.lead_to(targets);
    }

    /// Leads the channel to these addresses from now on, in this life of its host.
    pub(crate) fn lead_to(&self, targets: Vec<SocketAddr>) {
        let change = |node: &mut Node, now, key| node.set_targets(now, key, targets);
        self.world.state().with_channel(self.index, change);
    }

    /// Whether the channel knows one of these servers, also if its host is started again: then it has
    /// those that it was made with, and those of its journal.
    pub(crate) fn knows_one_of(&self, servers: &[SocketAddr]) -> bool {
        let state = self.world.state();
        let plan = &state.channels[self.index as usize];
        let known = |of: &[SocketAddr]| of.iter().any(|target| servers.contains(target));
        let alive = state.host(plan.host).alive.as_ref();
        let open = alive.and_then(|alive| alive.channels.get(&self.index));
        if plan.journal.is_none()
            && let Some(channel) = open
        {
            return known(&channel.targets);
        }
        known(&state.targets(plan)) && open.is_none_or(|channel| known(&channel.targets))
    }

    /// Asks what became of a call of another session, with that session's ticket.
    pub fn outcome_of(
        &self,
        id: CallId,
        ticket: Option<SessionTicket>,
    ) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        let asked = self.begin(|node, now, channel| Some(node.outcome(now, channel, id, ticket)));
        Box::pin(async move {
            match asked.await {
                Some(Ending::Outcome(result)) => result,
                Some(ending) => unreachable!("a question ended as {ending:?}"),
                None => Err(CallError::new("", Outcome::Pending(id)).because("the host is down")),
            }
        })
    }

    /// Begins something at the node. `None`: the host is down.
    fn begin(&self, act: impl FnOnce(&mut Node, Instant, ChannelKey) -> Option<CallKey>) -> Begun {
        let mut state = self.world.state();
        let host = state.channels[self.index as usize].host;
        let key = state.with_channel(self.index, act).flatten();
        let life = state.host(host).life;
        if let (Some(key), Some(alive)) = (key, &mut state.host_mut(host).alive) {
            alive.waiting.insert(key, Waiting::For(None));
        }
        drop(state);
        Begun { world: self.world.clone(), host, life, key }
    }
}

/// Which memories of which servers a call may depend on.
pub(crate) struct Memories {
    memories: Vec<(HostId, u64)>,
    /// How often liars had taken their places.
    lies: u64,
    lied_to: bool,
}

impl Memories {
    /// Whether one of them has been destroyed since.
    pub(crate) fn destroyed(&self, state: &State) -> bool {
        self.memories.iter().any(|(server, memory)| state.host(*server).memory() != *memory)
    }
}

impl State {
    /// The servers that a channel begins with: those that it was made with, and members of a group
    /// that its journal has.
    fn targets(&self, plan: &ChannelPlan) -> Vec<SocketAddr> {
        let mut targets = plan.config.targets.clone();
        if targets.is_empty() {
            targets.extend(plan.servers.iter().map(|server| self.host(*server).address));
        }
        let members = plan.journal.iter().flat_map(SimJournal::members);
        for member in members.filter_map(|member| self.look_up(&member)) {
            if !targets.contains(&member) {
                targets.push(member);
            }
        }
        targets
    }

    /// Does something with an open channel, opening it if need be. `None`: the host is down.
    fn with_channel<T>(
        &mut self,
        index: u32,
        act: impl FnOnce(&mut Node, Instant, ChannelKey) -> T,
    ) -> Option<T> {
        let plan = &self.channels[index as usize];
        let host = plan.host;
        let is_open = |alive: &Alive| alive.channels.contains_key(&index);
        let opens = self.host(host).alive.as_ref().is_some_and(|alive| !is_open(alive));
        let targets = if opens { self.targets(plan) } else { Vec::new() };
        let local = {
            let now = self.now;
            self.host_mut(host).clock.now(now)
        };
        let Self { hosts, channels, random, .. } = self;
        let alive = hosts[host.0 as usize].alive.as_mut()?;
        let channel = alive.channels.entry(index).or_insert_with(|| {
            let plan = &channels[index as usize];
            let mut config = ChannelConfig { targets: targets.clone(), ..plan.config.clone() };
            if let Some(journal) = &plan.journal {
                let (ticket, start) = journal.begin(random.u64());
                (config.resume, config.journal) = (ticket, Some(start));
            }
            let key = alive.node.open_channel(local, config);
            let useless = plan.journal.iter().flat_map(SimJournal::to_fence);
            useless.for_each(|id| alive.node.abandon_reserved(local, key, id));
            OpenChannel { key, targets, ticket: None, attached: BTreeMap::new(), home: None }
        });
        let result = act(&mut alive.node, local, channel.key);
        self.touch(host);
        Some(result)
    }
}

impl Caller for SimCaller {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        let caller = self.clone();
        Box::pin(async move {
            let method = call.method.name().to_owned();
            match caller.begin(|node, now, channel| Some(node.call(now, channel, call))).await {
                Some(Ending::Call(result)) => result,
                Some(ending) => unreachable!("a call ended as {ending:?}"),
                None => Err(host_is_down(method)),
            }
        })
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        let (caller, method) = (self.clone(), method.clone());
        Box::pin(async move {
            match caller.begin(|node, now, channel| Some(node.reserve(now, channel, &method))).await
            {
                Some(Ending::Reserved(result)) => result,
                Some(ending) => unreachable!("a reservation ended as {ending:?}"),
                None => Err(host_is_down(method.name().to_owned())),
            }
        })
    }

    fn abandon(&self, id: CallId) {
        let mut state = self.world.state();
        state.with_channel(self.index, |node, now, channel| {
            node.abandon_reserved(now, channel, id);
        });
    }

    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        let method = call.method.name().to_owned();
        let mut state = self.world.state();
        let host = state.channels[self.index as usize].host;
        let begun =
            state.with_channel(self.index, |node, now, channel| node.call(now, channel, call));
        let Some(call) = begun else { return Err(host_is_down(method)) };
        let life = state.host(host).life;
        if let Some(alive) = &mut state.host_mut(host).alive {
            alive.waiting.insert(call, Waiting::For(None));
        }
        drop(state);
        Ok(Arc::new(SimPort::new(&self.world, Home { host, life }, StreamKey::Call(call))))
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        let caller = self.clone();
        Box::pin(async move { caller.outcome_of(id, None).await })
    }
}

fn host_is_down(method: String) -> CallError {
    let reason = NotExecuted::because(NotExecutedReason::NeverSent, "the client's host is down");
    CallError::new(method, Outcome::NotExecuted(reason))
}

/// Something begun at a node; dropping it abandons it.
struct Begun {
    world: World,
    host: HostId,
    life: u32,
    /// `None` once it is over, and if the host was down.
    key: Option<CallKey>,
}

impl Future for Begun {
    type Output = Option<Ending>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else { return Poll::Ready(None) };
        let mut state = self.world.state();
        let host = state.host_mut(self.host);
        let alive = match &mut host.alive {
            Some(alive) if host.life == self.life => alive,
            // The process that waited is gone with its host: nobody is left to be told.
            _ => return Poll::Pending,
        };
        match alive.waiting.remove(&key) {
            Some(Waiting::Over(ending)) => {
                drop(state);
                self.key = None;
                Poll::Ready(Some(*ending))
            }
            Some(Waiting::For(_)) | None => {
                alive.waiting.insert(key, Waiting::For(Some(cx.waker().clone())));
                Poll::Pending
            }
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut state = self.world.state();
        let now = state.now;
        let (id, life) = (self.host, self.life);
        let host = state.host_mut(id);
        let local = host.clock.now(now);
        let Some(alive) = host.alive.as_mut().filter(|_| host.life == life) else { return };
        if let Some(Waiting::For(_)) = alive.waiting.remove(&key) {
            alive.node.abandon(local, key);
            state.touch(id);
        }
    }
}
