//! The bad network: a process that carries datagrams between clients and the service, and loses,
//! doubles, holds back and alters some of them, as its dice say.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use stubborn::datagram::{Datagrams, DatagramsExt, UdpEndpoint};
use tokio::task::AbortHandle;

use super::dice::Dice;
use super::percent::Percent;
use crate::child;
use crate::error::Error;

/// Clients that are carried for at once; a further one takes the place of the one that was silent
/// longest.
const CLIENTS: usize = 64;

/// Datagrams held back at once; further ones pass.
const HELD: usize = 1_024;

/// How long a datagram is held back, in microseconds: long enough that later ones overtake it.
const HOLD: std::ops::Range<u64> = 1_000..5_000;

/// What is done to datagrams, each way.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Faults {
    /// Datagrams lost, each way.
    #[arg(long, value_name = "PERCENT", default_value = "20%")]
    pub(super) loss: Percent,

    /// Datagrams that arrive twice, each way.
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    pub(super) duplicate: Percent,

    /// Datagrams held back for 1 to 5 ms, so that later ones overtake them, each way.
    #[arg(long, value_name = "PERCENT", default_value = "5%")]
    pub(super) reorder: Percent,

    /// Datagrams of which one bit is turned, each way.
    #[arg(long, value_name = "PERCENT", default_value = "0.1%")]
    pub(super) corrupt: Percent,

    /// What the network's choices and the transfers are drawn from.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    to: SocketAddr,
    #[command(flatten)]
    faults: Faults,
}

/// What happened to the datagrams, both ways together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Datagrams that came to the relay.
    pub(super) datagrams: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) corrupted: u64,
    /// Datagrams that went on, second copies included.
    pub(super) passed: u64,
}

impl Counters {
    pub(super) fn add(&mut self, other: &Self) {
        self.datagrams += other.datagrams;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.passed += other.passed;
    }

    pub(super) fn to_json(self) -> Value {
        let Self { datagrams, lost, doubled, reordered, corrupted, passed } = self;
        json!({
            "datagrams": datagrams, "lost": lost, "doubled": doubled, "reordered": reordered,
            "corrupted": corrupted, "passed": passed,
        })
    }

    pub(super) fn from_json(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let count = |key: &str| value.get(key)?.as_u64();
        Some(Self {
            datagrams: count("datagrams")?,
            lost: count("lost")?,
            doubled: count("doubled")?,
            reordered: count("reordered")?,
            corrupted: count("corrupted")?,
            passed: count("passed")?,
        })
    }
}

/// Carries until the parent process is gone or closes standard input; then prints the counters.
pub(super) async fn run(args: Args) -> Result<(), Error> {
    let front = bind()?;
    child::ready(front.local_addr());
    let relay = Relay {
        front: Arc::new(front),
        to: args.to,
        state: Arc::new(Mutex::new(State::new(args.faults))),
    };
    tokio::select! {
        error = relay.carry_requests() => return Err(error),
        () = child::parent_gone() => {}
    }
    child::say(&relay.state().counters.to_json().to_string());
    Ok(())
}

fn bind() -> Result<UdpEndpoint, Error> {
    UdpEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into())
        .map_err(|e| Error::internal(format!("the relay has no UDP socket: {e}")))
}

#[derive(Clone)]
struct Relay {
    front: Arc<UdpEndpoint>,
    to: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    faults: Faults,
    dice: Dice,
    counters: Counters,
    clients: BTreeMap<SocketAddr, Client>,
    /// Grows with each datagram: tells who was silent longest.
    turn: u64,
    held: usize,
}

/// A client as the service sees it: a socket of its own, so that answers find their way back.
struct Client {
    back: Arc<UdpEndpoint>,
    answers: AbortHandle,
    last_turn: u64,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// When a copy of a datagram goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Go {
    Now,
    After(Duration),
}

impl Relay {
    /// Carries from clients to the service. Ends only when a socket is refused.
    async fn carry_requests(&self) -> Error {
        loop {
            // Errors are about earlier sends, such as to a service that is being restarted.
            let Ok(datagram) = self.front.recv_from().await else { continue };
            match self.back_of(datagram.from) {
                Ok(back) => self.pass(&back, self.to, &datagram.data).await,
                Err(error) => return error,
            }
        }
    }

    /// Carries from the service to one client.
    async fn carry_answers(self, back: Arc<UdpEndpoint>, client: SocketAddr) {
        loop {
            let Ok(datagram) = back.recv_from().await else { continue };
            if datagram.from == self.to {
                self.pass(&self.front, client, &datagram.data).await;
            }
        }
    }

    /// The socket that stands for a client.
    fn back_of(&self, client: SocketAddr) -> Result<Arc<UdpEndpoint>, Error> {
        let mut state = self.state();
        state.turn += 1;
        let turn = state.turn;
        if let Some(known) = state.clients.get_mut(&client) {
            known.last_turn = turn;
            return Ok(Arc::clone(&known.back));
        }
        if state.clients.len() >= CLIENTS {
            let longest = state.clients.iter().min_by_key(|(_, client)| client.last_turn);
            if let Some(address) = longest.map(|(address, _)| *address) {
                state.clients.remove(&address);
            }
        }
        let back = Arc::new(bind()?);
        let answers = tokio::spawn(self.clone().carry_answers(Arc::clone(&back), client));
        let known =
            Client { back: Arc::clone(&back), answers: answers.abort_handle(), last_turn: turn };
        state.clients.insert(client, known);
        Ok(back)
    }

    /// Lets a datagram meet its fate.
    async fn pass(&self, by: &Arc<UdpEndpoint>, to: SocketAddr, data: &[u8]) {
        let mut data = data.to_vec();
        let copies = self.state().fate(&mut data);
        for go in copies.into_iter().flatten() {
            match go {
                Go::Now => drop(by.send_to(&data, to).await),
                Go::After(pause) => {
                    let (relay, by, data) = (self.clone(), Arc::clone(by), data.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(pause).await;
                        let _ = by.send_to(&data, to).await;
                        relay.state().held -= 1;
                    });
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new(faults: Faults) -> Self {
        let dice = Dice::new(faults.seed);
        let counters = Counters::default();
        Self { faults, dice, counters, clients: BTreeMap::new(), turn: 0, held: 0 }
    }

    /// Decides what becomes of a datagram: alters it perhaps, and says when each copy goes on.
    fn fate(&mut self, data: &mut [u8]) -> [Option<Go>; 2] {
        self.counters.datagrams += 1;
        if self.dice.percent(self.faults.loss.get()) {
            self.counters.lost += 1;
            return [None, None];
        }
        if self.dice.percent(self.faults.corrupt.get()) && !data.is_empty() {
            self.counters.corrupted += 1;
            let bit = self.dice.below(data.len() as u64 * 8) as usize;
            data[bit / 8] ^= 1 << (bit % 8);
        }
        let doubled = self.dice.percent(self.faults.duplicate.get());
        self.counters.doubled += u64::from(doubled);
        let first = self.when();
        let second = doubled.then(|| self.when());
        [Some(first), second]
    }

    fn when(&mut self) -> Go {
        self.counters.passed += 1;
        if !self.dice.percent(self.faults.reorder.get()) || self.held >= HELD {
            return Go::Now;
        }
        self.held += 1;
        self.counters.reordered += 1;
        Go::After(Duration::from_micros(HOLD.start + self.dice.below(HOLD.end - HOLD.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(loss: f64, duplicate: f64, reorder: f64, corrupt: f64) -> Faults {
        let [loss, duplicate, reorder, corrupt] =
            [loss, duplicate, reorder, corrupt].map(|p| Percent::new(p).unwrap());
        Faults { loss, duplicate, reorder, corrupt, seed: 7 }
    }

    #[test]
    fn what_comes_in_goes_on_is_lost_or_doubled() {
        let mut state = State::new(faults(20.0, 5.0, 5.0, 1.0));
        for _ in 0..10_000 {
            let copies = state.fate(&mut [0; 100]).into_iter().flatten();
            state.held -= copies.filter(|go| *go != Go::Now).count();
        }
        let seen = state.counters;
        assert_eq!(seen.passed, seen.datagrams - seen.lost + seen.doubled);
        assert!((1_800..2_200).contains(&seen.lost), "{seen:?}");
        assert!((300..500).contains(&seen.doubled), "{seen:?}");
        assert!((300..550).contains(&seen.reordered), "{seen:?}");
        assert!((50..120).contains(&seen.corrupted), "{seen:?}");
        assert_eq!(Counters::from_json(&seen.to_json().to_string()), Some(seen));
    }

    #[test]
    fn exactly_one_bit_is_turned_and_an_empty_datagram_has_none() {
        let mut state = State::new(faults(0.0, 0.0, 0.0, 100.0));
        let mut data = [0; 50];
        state.fate(&mut data);
        assert_eq!(data.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        state.fate(&mut []);
        assert_eq!(state.counters.corrupted, 1);
    }

    #[test]
    fn a_full_store_of_held_datagrams_lets_further_ones_pass() {
        let mut state = State::new(faults(0.0, 0.0, 100.0, 0.0));
        let held = |copies: [Option<Go>; 2]| copies[0] != Some(Go::Now);
        assert!((0..HELD).all(|_| held(state.fate(&mut [0]))));
        assert!(!held(state.fate(&mut [0])));
    }

    #[tokio::test]
    async fn the_client_that_was_silent_longest_makes_room() {
        let service = UdpEndpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let relay = Relay {
            front: Arc::new(bind().unwrap()),
            to: service.local_addr(),
            state: Arc::new(Mutex::new(State::new(faults(0.0, 0.0, 0.0, 0.0)))),
        };
        let client = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for port in 1..=CLIENTS as u16 + 1 {
            relay.back_of(client(port)).unwrap();
        }
        let state = relay.state();
        assert_eq!(state.clients.len(), CLIENTS);
        assert!(!state.clients.contains_key(&client(1)));
    }
}
