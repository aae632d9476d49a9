//! Clients that crash and keep a journal: killed between every two steps, nothing runs twice and
//! every call of the journal resolves.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::node::{CallKey, ChannelEvent, JournalEntry, JournalStart, SessionTicket};
use stubborn_core::service::{CallState, Outcome};
use stubborn_core::session::{CallId, JournalSlot};
use stubborn_core::time::Duration;

use crate::world::{CLIENT, ECHO, Rules, World};

const SLOTS: u32 = 2;

/// The client's disk: entries that were synced outlive it.
#[derive(Clone, Default)]
struct Disk {
    synced: Vec<JournalEntry>,
    /// Synced, and the node was not told so yet.
    untold: usize,
    /// The process that has it, and those that had it since one of them attached.
    holder: u64,
    after: Vec<u64>,
}

/// What a journal says of a call.
#[derive(Clone)]
struct Known {
    body: Option<Bytes>,
    answered: Option<String>,
}

impl Disk {
    fn sync(&mut self, world: &mut World) -> bool {
        let entries = std::mem::take(&mut world.journal);
        self.untold += entries.len();
        if entries.iter().any(|e| matches!(e, JournalEntry::Session(_) | JournalEntry::Held(_))) {
            self.after = vec![self.holder];
        }
        self.synced.extend(entries);
        self.untold > 0
    }

    fn tell(&mut self, world: &mut World) {
        let (now, channel) = (world.now, world.channel);
        let from = self.synced.len() - std::mem::take(&mut self.untold);
        for entry in self.synced[from..].iter().cloned() {
            match entry {
                JournalEntry::Session(_) | JournalEntry::Held(_) | JournalEntry::Members(_) => {}
                JournalEntry::Call(call) => world.client().journalled(now, channel, call.id),
                JournalEntry::Outcome(id, _) => world.client().let_go(now, channel, id),
            }
        }
    }

    /// Starts the client with what is there.
    fn start(&mut self, world: &mut World, slots: u32) {
        self.untold = 0;
        self.holder += 1;
        self.after.push(self.holder);
        let (holder, after) = (self.holder, self.after.clone());
        let journal = JournalStart { holder, after, slots: self.slots() };
        world.restart_client(self.ticket(), journal, slots);
    }

    fn ticket(&self) -> Option<SessionTicket> {
        self.synced.iter().rev().find_map(|entry| match entry {
            JournalEntry::Session(ticket) => Some(ticket.clone()),
            _ => None,
        })
    }

    fn calls(&self) -> BTreeMap<CallId, Known> {
        let mut calls = BTreeMap::new();
        for entry in &self.synced {
            match entry {
                JournalEntry::Session(_) | JournalEntry::Held(_) | JournalEntry::Members(_) => {}
                JournalEntry::Call(call) => {
                    let request = call.request.as_ref();
                    let body = request.map(|request| request.encoded.body.clone().into_bytes());
                    let new = calls.insert(call.id, Known { body, answered: None }).is_none();
                    assert!(new, "a number is used once");
                }
                JournalEntry::Outcome(id, state) => {
                    let known: &mut Known = calls.get_mut(id).expect("a call of the journal");
                    known.answered = Some(format!("{state:?}"));
                }
            }
        }
        calls
    }

    fn slots(&self) -> Vec<JournalSlot> {
        let mut slots = BTreeMap::new();
        let session = self.ticket().map(|ticket| ticket.session);
        for (id, known) in self.calls() {
            if Some(id.session) == session {
                let answered = known.answered.is_some();
                slots.insert(
                    id.slot,
                    JournalSlot { slot: id.slot, sequence: id.sequence, answered },
                );
            }
        }
        slots.into_values().collect()
    }
}

/// Runs until everything that was begun has ended or so many steps were made: of the world, of the
/// disk, and of telling the node what the disk has.
fn live(world: &mut World, disk: &mut Disk, steps: usize, done: impl Fn(&World) -> bool) -> bool {
    let mut left = steps;
    for _ in 0..20_000 {
        for step in 0..3 {
            if left == 0 {
                return false;
            }
            left -= 1;
            match step {
                0 => world.step(),
                1 if disk.sync(world) => {}
                2 if disk.untold > 0 => disk.tell(world),
                _ => left += 1,
            }
        }
        if done(world) && world.journal.is_empty() {
            return true;
        }
    }
    panic!("it does not end");
}

fn ran(world: &World, body: &[u8]) -> usize {
    world.ran.iter().filter(|(_, ran)| ran == body).count()
}

fn killed_after(seed: u8, first: usize, second: usize, rules: Rules) -> (usize, bool) {
    let mut world = World::new(seed);
    world.rules = rules;
    let mut disk = Disk::default();
    disk.start(&mut world, SLOTS);
    let bodies: [&'static [u8]; 5] = [b"one", b"two", b"three", b"four", b"five"];
    let calls: Vec<CallKey> = bodies.iter().map(|body| world.call(&ECHO, body, None)).collect();
    let all = calls.clone();
    let whole =
        live(&mut world, &mut disk, first, |w| all.iter().all(|call| w.results.contains_key(call)));
    let mut told: BTreeMap<&[u8], bool> = BTreeMap::new();
    for (call, body) in calls.iter().zip(bodies) {
        match world.results.get(call) {
            Some(Ok(_)) => drop(told.insert(body, true)),
            Some(Err(error)) if matches!(error.outcome(), Outcome::NotExecuted(_)) => {
                told.insert(body, false);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }

    // Killed while it settles what it left, too.
    let mut ends = BTreeMap::new();
    for steps in [second, usize::MAX] {
        world.kill(CLIENT);
        disk.start(&mut world, SLOTS);
        let (mut resent, mut asked) = (Vec::new(), Vec::new());
        for (id, known) in disk.calls() {
            if known.answered.is_some() {
                continue;
            }
            let body = known.body.expect("every number here has a request");
            if id.sequence % 2 == 1 {
                resent.push((world.call_with(&ECHO, body, None, Some(id)), id));
            } else {
                let (now, channel) = (world.now, world.channel);
                asked.push((world.client().outcome(now, channel, id, None), id));
            }
        }
        let ended = |w: &World| {
            resent.iter().all(|(call, _)| w.results.contains_key(call))
                && asked.iter().all(|(call, _)| w.outcomes.contains_key(call))
        };
        if !live(&mut world, &mut disk, steps, ended) {
            continue;
        }
        for (call, id) in resent {
            let reply = world.results.remove(&call).expect("it ended");
            match reply {
                Ok(_) => drop(ends.insert(id, true)),
                Err(error) => match error.outcome() {
                    // Fenced in the life before.
                    Outcome::NotExecuted(_) => drop(ends.insert(id, false)),
                    _ => panic!("{id} resent: {error}"),
                },
            }
        }
        for (call, id) in asked {
            match world.outcomes.remove(&call).expect("it ended").expect("an outcome") {
                CallState::Replied(_) => drop(ends.insert(id, true)),
                CallState::NotExecuted(_) => drop(ends.insert(id, false)),
                other => panic!("{id} asked for: {other:?}"),
            }
        }
        // Numbers that were fenced or resent do not hinder new calls.
        let new = world.patient_call(&ECHO, b"new");
        live(&mut world, &mut disk, usize::MAX, |w| w.results.contains_key(&new));
        assert!(world.results[&new].is_ok(), "{:?}", world.results[&new]);
    }
    // Late copies come, too.
    world.run(5_000);
    let known = disk.calls();
    for body in bodies {
        let count = ran(&world, body);
        assert!(count <= 1, "{body:?} ran {count} times");
        let of_journal = known.iter().find(|(_, known)| known.body.as_deref() == Some(body));
        match of_journal {
            None => assert_eq!(count, 0, "{body:?} was sent before it was written down"),
            Some((id, known)) => {
                let answered = known.answered.as_ref().expect("every call of a journal resolves");
                assert_eq!(count == 1, answered.starts_with("Replied"), "{id}: {answered}");
                if let Some(executed) = ends.get(id) {
                    assert_eq!(*executed, count == 1);
                }
            }
        }
        if let Some(executed) = told.get(body) {
            assert_eq!(*executed, count == 1, "{body:?} ran {count} times");
        }
    }
    (known.len(), whole)
}

#[test]
fn a_client_killed_between_any_two_steps_runs_nothing_twice_and_every_call_of_its_journal_resolves()
{
    let mut first = 0;
    loop {
        let (_, whole) = killed_after(90, first, first * 5 % 23, Rules::default());
        if whole {
            break;
        }
        first += 1;
    }
    assert!(first > 20, "{first} steps");
}

#[test]
fn the_same_holds_on_a_network_that_loses_doubles_and_delays() {
    let jitter = Duration::from_millis(20);
    let rules = Rules { loss: 0.2, duplicate: 0.2, jitter, ..Rules::default() };
    for seed in 0..40 {
        killed_after(100 + seed, usize::from(seed) * 3, usize::from(seed) % 29, rules);
    }
}

/// A client with a journal that has made one call; the call's number.
fn with_one_call(seed: u8) -> (World, Disk) {
    let mut world = World::new(seed);
    let mut disk = Disk::default();
    disk.start(&mut world, SLOTS);
    let call = world.call(&ECHO, b"first", None);
    live(&mut world, &mut disk, usize::MAX, |w| w.results.contains_key(&call));
    (world, disk)
}

#[test]
fn nothing_is_sent_and_no_slot_is_used_again_before_the_journal_has_it() {
    let mut world = World::new(91);
    let mut disk = Disk::default();
    disk.start(&mut world, 1);
    let (first, second) = (world.call(&ECHO, b"first", None), world.call(&ECHO, b"second", None));
    world.run(2_000);
    assert!(world.ran.is_empty(), "nothing was told to be synced");
    disk.sync(&mut world);
    disk.tell(&mut world);
    assert!(world.run_until(2_000, |w| w.results.contains_key(&first)));
    world.run(2_000);
    assert!(!world.results.contains_key(&second) && world.ran.len() == 1);
    // The server still has the reply: nothing was let go before it was written down.
    let id = disk.calls().into_keys().next().expect("a call");
    let channel = world.channel;
    world.open_channel();
    let kept = world.outcome_with(id, disk.ticket());
    assert!(matches!(kept, CallState::Replied(_)), "{kept:?}");
    world.channel = channel;
    live(&mut world, &mut disk, usize::MAX, |w| w.results.contains_key(&second));
    assert_eq!(world.ran.len(), 2);
}

#[test]
fn a_copy_of_a_journal_is_refused_though_the_process_that_used_the_other_made_no_call() {
    let (mut world, mut disk) = with_one_call(92);
    let mut copy = disk.clone();
    copy.holder = 1_000;
    world.kill(CLIENT);
    world.channel_events.clear();
    disk.start(&mut world, SLOTS);
    let ready = |event: &ChannelEvent| matches!(event, ChannelEvent::Ready { .. });
    assert!(world.run_until(5_000, |w| w.channel_events.iter().any(ready)));
    world.kill(CLIENT);
    copy.start(&mut world, SLOTS);
    let call = world.call(&ECHO, b"third", None);
    assert!(world.run_until(5_000, |w| w.results.contains_key(&call)));
    let error = world.results.remove(&call).unwrap().unwrap_err();
    assert!(error.to_string().contains("a copy of this journal"), "{error}");
    assert_eq!(ran(&world, b"third"), 0);
    // The other one goes on, whatever its last process had written down of itself.
    world.kill(CLIENT);
    disk.start(&mut world, SLOTS);
    let call = world.call(&ECHO, b"fourth", None);
    assert!(live(&mut world, &mut disk, usize::MAX, |w| w.results.contains_key(&call)));
    assert_eq!(ran(&world, b"fourth"), 1);
}

#[test]
fn a_journal_that_lacks_numbers_which_its_session_has_used_is_refused() {
    let (mut world, mut disk) = with_one_call(92);
    let mut torn = disk.clone();
    let call = world.call(&ECHO, b"second", None);
    live(&mut world, &mut disk, usize::MAX, |w| w.results.contains_key(&call));
    world.kill(CLIENT);
    torn.start(&mut world, SLOTS);
    let call = world.call(&ECHO, b"third", None);
    assert!(world.run_until(5_000, |w| w.results.contains_key(&call)));
    let error = world.results.remove(&call).unwrap().unwrap_err();
    assert!(error.to_string().contains("a copy of this journal"), "{error}");
    assert_eq!(ran(&world, b"third"), 0);
}

#[test]
fn a_journal_of_a_session_that_the_server_forgot_says_lost() {
    let (mut world, mut disk) = with_one_call(93);
    world.call(&ECHO, b"second", None);
    world.settle();
    disk.sync(&mut world);
    world.kill(CLIENT);
    world.kill_server();
    world.start_server();
    disk.start(&mut world, SLOTS);
    let (id, known) = disk.calls().into_iter().find(|(_, k)| k.answered.is_none()).unwrap();
    let resent = world.call_with(&ECHO, known.body.unwrap(), None, Some(id));
    assert!(world.run_until(5_000, |w| w.results.contains_key(&resent)));
    let error = world.results.remove(&resent).unwrap().unwrap_err();
    assert!(matches!(error.outcome(), Outcome::Lost), "{error}");
    assert_eq!(ran(&world, b"second"), 0);
}
