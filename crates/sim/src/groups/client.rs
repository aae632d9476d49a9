//! A client of a group: a real client node, which counts, reads, and changes registers, with one hand or
//! several at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use stubborn_core::service::{
    CALL_ID, CallError, CallState, Caller, Encoded, IncomingReply, Metadata, Method, Outcome,
    OutgoingCall,
};
use stubborn_core::session::{CallId, NotExecutedReason};
use stubborn_core::time::Instant;

use super::cluster::Cluster;
use super::invariants::Begun;
use super::ledger::{ADD, Command, GET, LOOK, PUT, Put, count, look};
use crate::nodes::{Nodes, host};
use crate::replicas::Operation;
use crate::world::{SimCaller, SimJournal, millis};

/// Registers that clients share.
const REGISTERS: u64 = 3;

#[derive(Clone)]
pub(super) struct Client {
    pub(super) cluster: Cluster,
    pub(super) caller: SimCaller,
    /// Another session of this client, from another host, if it sends commands by two.
    twin: Option<SimCaller>,
    pub(super) id: u64,
    /// What outlives this client's host, if it keeps a journal.
    pub(super) journal: Option<SimJournal>,
    pub(super) manners: Manners,
    /// The largest count that it was told: it never sees a smaller one again.
    seen: u64,
    /// The last value of a register that it was told.
    value: u64,
    /// Another process has used a copy of its journal: it can do nothing any more.
    pub(super) refused: bool,
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// The part of its operations that are reads.
    pub(super) reads: f64,
    /// The part that are about registers.
    pub(super) registers: f64,
    /// Microseconds between two operations, at most.
    pub(super) pause: u64,
    /// The part of its commands that have a deadline.
    pub(super) impatient: f64,
    /// The part of its commands that name themselves, and that two sessions send.
    pub(super) twice: f64,
    /// How many things it does at once, each one after another.
    pub(super) hands: u64,
}

impl Manners {
    /// Commands and reads that nobody gives up.
    pub(super) fn plain(reads: f64, pause: u64) -> Self {
        Self { reads, registers: 0.0, pause, impatient: 0.0, twice: 0.0, hands: 1 }
    }
}

/// A command that has not ended, as far as anybody was told.
#[derive(Clone, Copy)]
pub(super) struct Open {
    pub(super) operation: Operation,
    begun: Instant,
}

/// A change of a register that has not ended.
#[derive(Clone, Copy)]
pub(super) struct OpenPut {
    pub(super) client: u64,
    begun: Begun,
}

/// How a call ended.
pub(super) enum Ended {
    Replied(IncomingReply),
    NotExecuted(NotExecutedReason),
    Lost,
}

impl Client {
    /// A client that knows the addresses of all nodes; of those that an operator has added since, it is
    /// told.
    pub(super) fn new(cluster: Cluster, id: u64, manners: Manners) -> Self {
        Self::with(cluster, id, manners, false)
    }

    /// The same with a certificate, if it `has_one`.
    pub(super) fn with(cluster: Cluster, id: u64, manners: Manners, has_one: bool) -> Self {
        let addresses = cluster.first_addresses();
        cluster.world.client(&Self::host(id));
        let certified = has_one.then(|| cluster.world.certified(&Self::host(id)));
        let names: Vec<String> = addresses.iter().map(|(id, _)| host(*id)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut targets: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
        let first = cluster.below(targets.len() as u64) as usize;
        targets.rotate_left(first);
        let caller = |host: &str, certified: Option<_>| {
            cluster.world.caller(host, &names, |config| {
                config.targets = targets.clone();
                config.tls = certified.unwrap_or_else(|| config.tls.clone());
            })
        };
        // One that is silent for long is told of no new members.
        let has_twin = manners.twice > 0.0 && cluster.lock().operated.is_none();
        let twin = has_twin.then(|| caller(&format!("twin-{id}"), None));
        let caller = caller(&Self::host(id), certified);
        if let Some(operated) = &mut cluster.lock().operated {
            operated.clients.insert(id, caller.clone());
        }
        let (journal, refused) = (None, false);
        Self { cluster, caller, twin, id, journal, manners, seen: 0, value: 0, refused }
    }

    /// The name of a client's host.
    pub(super) fn host(id: u64) -> String {
        format!("client-{id}")
    }

    /// Works until nothing goes wrong any more.
    pub(super) async fn run(mut self) {
        let hands = (0..self.manners.hands).map(|_| self.clone().work());
        for hand in all(hands.collect()).await {
            self.refused |= hand.refused;
            self.seen = self.seen.max(hand.seen);
        }
        // What is begun in a world without faults ends at once.
        self.manners.impatient = 0.0;
        // Who says nothing is told of no new members.
        while !self.refused && self.cluster.is_operated() {
            self.read().await;
            self.cluster.world.sleep(millis(200)).await;
        }
        if !self.refused {
            self.add().await;
        }
        if !self.refused {
            self.read().await;
        }
        let mut shared = self.cluster.lock();
        shared.clients_done.insert(self.id);
        if self.refused {
            shared.refused.insert(self.id);
            shared.counts.refused += 1;
        }
    }

    /// What one hand does until nothing goes wrong any more.
    async fn work(mut self) -> Self {
        while !self.refused && !self.cluster.lock().healed {
            self.one().await;
            let pause = Duration::from_micros(self.cluster.below(self.manners.pause));
            self.cluster.world.sleep(pause).await;
        }
        self
    }

    async fn one(&mut self) {
        let Manners { reads, registers, .. } = self.manners;
        match (self.cluster.chance(registers), self.cluster.chance(reads)) {
            (true, true) => self.look().await,
            (true, false) => self.put().await,
            (false, true) if self.cluster.chance(0.5) => self.read_stale().await,
            (false, true) => self.read().await,
            (false, false) => self.add().await,
        }
    }

    async fn read(&mut self) {
        let operation = self.cluster.lock().judge.history.begin();
        let Some(count) = self.answer(outgoing(&GET, nothing(), None)).await else { return };
        self.saw(count);
        let verdict = self.cluster.lock().judge.history.on_read(&operation, count);
        self.cluster.lock().counts.reads += 1;
        self.cluster.judge(verdict);
    }

    /// Reads a state that may be older, though not older than what it has seen.
    async fn read_stale(&mut self) {
        let at_most = Duration::from_millis(self.cluster.below(4_000));
        let (began, before) = (self.cluster.world.now(), self.seen);
        let call = OutgoingCall { max_staleness: Some(at_most), ..outgoing(&GET, nothing(), None) };
        let Some(count) = self.answer(call).await else { return };
        self.saw(count);
        let steady = self.cluster.habits.steady;
        let mut shared = self.cluster.lock();
        shared.counts.stale_reads += 1;
        // Who has lost its session has none to read its own writes in.
        let expires = self.cluster.habits.expires;
        let mut verdict =
            if expires { Ok(()) } else { shared.judge.on_session_read(before, count) };
        if steady {
            let fresh = shared.judge.on_stale_read(began, at_most, count);
            verdict = verdict.and(fresh);
        }
        drop(shared);
        self.cluster.judge(verdict);
    }

    /// Reads a register.
    async fn look(&mut self) {
        let key = self.cluster.below(REGISTERS);
        let begun = self.cluster.lock().judge.registers.begin_look(key);
        let Some(value) = self.answer(outgoing(&LOOK, look(key), None)).await else { return };
        self.value = value;
        let mut shared = self.cluster.lock();
        shared.counts.reads += 1;
        shared.judge.registers.answered(begun, value);
    }

    /// Asks until it is answered.
    async fn answer(&mut self, call: OutgoingCall) -> Option<u64> {
        loop {
            match self.caller.call(call.clone()).await {
                Ok(reply) => return Some(count(&reply.reply)),
                Err(error) if self.is_refused(&error) => return None,
                Err(error) if matches!(error.outcome(), Outcome::Executed(_) | Outcome::Lost) => {
                    self.broken("a read was answered strangely", &error);
                    return None;
                }
                Err(_) => self.cluster.world.sleep(millis(20)).await,
            }
        }
    }

    /// The group told this client a count.
    fn saw(&mut self, count: u64) {
        self.seen = self.seen.max(count);
        let now = self.cluster.world.now();
        self.cluster.lock().judge.saw(now, count);
    }

    /// Has the group count, once.
    async fn add(&mut self) {
        let command = self.begin_add();
        let call = outgoing(&ADD, command.encode(), self.deadline());
        let twin = self.twin.clone().filter(|_| self.cluster.chance(self.manners.twice));
        let seen = self.seen;
        let (ended, itself) = match twin {
            // What takes up a journal knows of one call for each command.
            Some(twin) if self.journal.is_none() => self.add_twice(command, call, twin).await,
            _ => (self.call(call).await, true),
        };
        self.end_add(command, ended);
        if !itself {
            // What the twin's session has seen is nothing that this one reads after.
            self.seen = seen;
        }
    }

    /// Has two sessions send a command under the same id, at once or one after the other. Also tells
    /// whether it was this client's session that was told the end.
    async fn add_twice(
        &self,
        command: Command,
        mut call: OutgoingCall,
        twin: SimCaller,
    ) -> (Option<Ended>, bool) {
        self.cluster.lock().counts.twice += 1;
        let id = format!("{}/{}", command.client, command.number);
        call.metadata.insert(CALL_ID, id).expect("an id is short");
        let later = if self.cluster.chance(0.5) { self.cluster.below(1_500) } else { 0 };
        let send = |caller: SimCaller, wait| {
            let (mut client, call) = (Self { caller, ..self.clone() }, call.clone());
            async move {
                client.cluster.world.sleep(millis(wait)).await;
                client.call(call).await
            }
        };
        let copies = vec![send(self.caller.clone(), 0), send(twin, later)];
        let ended: Option<Vec<Ended>> = all(copies).await.into_iter().collect();
        let told = |ended: &Ended| match ended {
            Ended::Replied(reply) => Some(count(&reply.reply)),
            Ended::NotExecuted(_) | Ended::Lost => None,
        };
        let Some(mut ended) = ended else { return (None, false) };
        let mut counts = ended.iter().filter_map(told);
        if let (Some(one), Some(other)) = (counts.next(), counts.next())
            && one != other
        {
            let what = format!("{command:?} was told {one} and {other} under one id");
            self.cluster.judge(Err(("an id runs once", what)));
        }
        // A copy that did not run says nothing of the other one.
        let itself = told(&ended[0]).is_some();
        (Some(ended.swap_remove(usize::from(!itself))), itself)
    }

    fn begin_add(&mut self) -> Command {
        let mut shared = self.cluster.lock();
        let number = shared.numbers.entry(self.id).or_default();
        *number += 1;
        let command = Command { client: self.id, number: *number };
        let operation = shared.judge.history.begin();
        let begun = self.cluster.world.now();
        shared.open.insert(command, Open { operation, begun });
        command
    }

    /// It is known what became of a command.
    pub(super) fn end_add(&mut self, command: Command, ended: Option<Ended>) {
        let (Some(ended), now) = (ended, self.cluster.world.now()) else { return };
        if let Ended::Replied(reply) = &ended {
            self.saw(count(&reply.reply));
        }
        let mut shared = self.cluster.lock();
        let Some(Open { operation, begun }) = shared.open.remove(&command) else { return };
        let verdict = match ended {
            Ended::NotExecuted(why) => {
                shared.counts.not_executed += 1;
                shared.counts.refused_calls +=
                    u64::from(why == NotExecutedReason::PermissionDenied);
                shared.judge.not_executed(command)
            }
            Ended::Lost => {
                shared.counts.lost += 1;
                shared.judge.lost(command)
            }
            Ended::Replied(reply) => {
                let count = count(&reply.reply);
                shared.counts.counted += 1;
                shared.answered.insert(self.id, (begun, now));
                let judge = &mut shared.judge;
                let counted = judge.history.on_counted(&operation, count);
                counted.and(judge.counted(command, count))
            }
        };
        drop(shared);
        self.cluster.judge(verdict);
    }

    /// Changes a register: whatever it is, or from what it was when it was last seen.
    async fn put(&mut self) {
        let key = self.cluster.below(REGISTERS);
        let expected = self.cluster.chance(0.5).then_some(self.value);
        let value = self.cluster.with_random(|random| random.u64());
        let put = Put { key, expected, value };
        {
            let mut shared = self.cluster.lock();
            let begun = shared.judge.registers.begin_put(put);
            shared.open_puts.insert(value, OpenPut { client: self.id, begun });
        }
        let ended = self.call(outgoing(&PUT, put.encode(), self.deadline())).await;
        self.end_put(value, ended);
    }

    /// It is known what became of a change of a register.
    pub(super) fn end_put(&self, value: u64, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        let mut shared = self.cluster.lock();
        let Some(OpenPut { begun, .. }) = shared.open_puts.remove(&value) else { return };
        match ended {
            Ended::Replied(reply) => {
                shared.counts.puts += 1;
                shared.judge.registers.answered(begun, count(&reply.reply));
            }
            Ended::NotExecuted(_) => shared.judge.registers.not_executed(begun),
            Ended::Lost => shared.counts.lost += 1,
        }
    }

    /// Whether a call ended because another process has used a copy of the journal.
    fn is_refused(&mut self, error: &CallError) -> bool {
        let said = error.to_string();
        // What is tried after that finds the channel closed.
        let refused = said.contains("a copy of this journal") || said.contains("is closed");
        self.refused |= refused && self.journal.is_some();
        self.refused
    }

    fn deadline(&self) -> Option<Duration> {
        let impatient = self.cluster.chance(self.manners.impatient);
        impatient.then(|| millis(1 + self.cluster.below(800)))
    }

    /// Makes a call that changes something, until it is known what became of it. None if that broke
    /// a promise.
    pub(super) async fn call(&mut self, call: OutgoingCall) -> Option<Ended> {
        let error = match self.caller.call(call).await {
            Ok(reply) => return Some(Ended::Replied(reply)),
            Err(error) => error,
        };
        let refused = self.is_refused(&error);
        match error.outcome() {
            Outcome::NotExecuted(why) => Some(Ended::NotExecuted(why.reason)),
            // The process that has the session may know.
            _ if refused => None,
            Outcome::Pending(id) => self.ask(*id).await,
            Outcome::Lost if self.cluster.habits.expires => Some(Ended::Lost),
            _ => {
                self.broken("a command ended without a proof", &error);
                None
            }
        }
    }

    /// Asks what became of a call until it is known.
    pub(super) async fn ask(&mut self, id: CallId) -> Option<Ended> {
        self.cluster.lock().counts.asked += 1;
        loop {
            match self.caller.outcome(id).await {
                Ok(CallState::Executing | CallState::NotArrived) => {}
                Ok(state) => return self.known(id, state),
                Err(error) if self.is_refused(&error) => return None,
                Err(error) if matches!(error.outcome(), Outcome::Pending(_)) => {}
                Err(error) => {
                    self.broken("a question was answered strangely", &error);
                    return None;
                }
            }
            self.cluster.world.sleep(millis(20)).await;
        }
    }

    /// What an outcome that is final means.
    pub(super) fn known(&self, id: CallId, state: CallState<IncomingReply>) -> Option<Ended> {
        match state {
            CallState::Replied(reply) => Some(Ended::Replied(reply)),
            CallState::NotExecuted(why) => Some(Ended::NotExecuted(why.reason)),
            CallState::Lost if self.cluster.habits.expires => Some(Ended::Lost),
            state => {
                let what = format!("{id} was asked for and is {state:?}");
                self.cluster.judge(Err(("nothing is lost", what)));
                None
            }
        }
    }

    fn broken(&self, what: &str, error: &CallError) {
        self.cluster.judge(Err(("nothing is lost", format!("{what}: {error}"))));
    }
}

/// Does all of these at once, to their ends.
async fn all<T>(works: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut works: Vec<_> = works.into_iter().map(Box::pin).map(Some).collect();
    let mut ended = Vec::new();
    poll_fn(|cx| {
        for place in &mut works {
            if let Some(Poll::Ready(value)) = place.as_mut().map(|work| Pin::as_mut(work).poll(cx))
            {
                ended.push(value);
                *place = None;
            }
        }
        if works.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended
}

pub(super) fn nothing() -> Encoded {
    Command { client: 0, number: 0 }.encode()
}

pub(super) fn outgoing(
    method: &Method,
    request: Encoded,
    deadline: Option<Duration>,
) -> OutgoingCall {
    OutgoingCall {
        method: method.clone(),
        request,
        metadata: Metadata::new(),
        deadline,
        wait_for_ready: Some(true),
        reserved: None,
        max_staleness: None,
    }
}
