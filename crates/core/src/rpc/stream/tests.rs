use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Broken, Credit, Inbox, OVERHEAD, Outbox};
use crate::service::{Encoded, MethodId};

const LARGEST: u64 = 2_000 + OVERHEAD;

/// A message with a number, of this size.
fn message(number: u64, size: usize) -> Encoded {
    let mut body = vec![0; size.max(8)];
    body[..8].copy_from_slice(&number.to_be_bytes());
    Encoded::from_body(MethodId(1), body.into())
}

fn number(message: &Encoded) -> u64 {
    let body = message.body.clone().into_bytes();
    u64::from_be_bytes(body[..8].try_into().unwrap())
}

/// What happens to a direction of a stream.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    /// The sender hands one message to the connection.
    Transmit,
    /// One of those under way arrives: the earliest, or another one, so that it overtakes; maybe twice.
    Arrive(usize, bool),
    Take,
    /// The receiver tells how far it is.
    Tell,
    /// One of these messages arrives.
    Told(usize),
    /// The connection is lost with all that is under way, and both sides are told of a new one.
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_000usize).prop_map(Step::Push),
        6 => Just(Step::Transmit),
        6 => (0..4usize, any::<bool>()).prop_map(|(which, twice)| Step::Arrive(which, twice)),
        4 => Just(Step::Take),
        2 => Just(Step::Tell),
        2 => (0..4usize).prop_map(Step::Told),
        1 => Just(Step::Cut),
    ]
}

/// A direction with the connection between its ends.
struct Direction {
    outbox: Outbox,
    inbox: Inbox,
    under_way: Vec<(u64, Encoded)>,
    credits: Vec<Credit>,
    pushed: u64,
    taken: u64,
    window: u64,
}

impl Direction {
    fn new(window: u64) -> Self {
        let mut inbox = Inbox::new(window);
        let limit = inbox.credit().limit;
        Self {
            outbox: Outbox::new(window, limit),
            inbox,
            under_way: Vec::new(),
            credits: Vec::new(),
            pushed: 0,
            taken: 0,
            window,
        }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Push(size) => {
                if self.outbox.push(message(self.pushed, *size)).is_ok() {
                    self.pushed += 1;
                }
            }
            Step::Transmit => {
                self.under_way.extend(
                    self.outbox.transmit().map(|(index, message)| (index, message.clone())),
                );
            }
            Step::Arrive(which, twice) => {
                if self.under_way.is_empty() {
                    return;
                }
                let which = which % self.under_way.len();
                let (index, message) = match twice {
                    true => self.under_way[which].clone(),
                    false => self.under_way.remove(which),
                };
                self.inbox
                    .arrive(index, message, LARGEST)
                    .expect("a sender that keeps to the window");
            }
            Step::Take => {
                if let Some(message) = self.inbox.take() {
                    assert_eq!(number(&message), self.taken, "out of order");
                    self.taken += 1;
                }
            }
            Step::Tell => self.credits.push(self.inbox.credit()),
            Step::Told(which) => {
                if !self.credits.is_empty() {
                    let credit = self.credits.remove(which % self.credits.len());
                    self.outbox.credit(credit).expect("a receiver that tells the truth");
                }
            }
            Step::Cut => {
                self.under_way.clear();
                self.credits.clear();
                let credit = self.inbox.credit();
                self.outbox.credit(credit).expect("a receiver that tells the truth");
                self.outbox.rewind();
            }
        }
        assert!(self.outbox.held() < self.window + LARGEST);
        assert!(self.inbox.held() < self.window + LARGEST);
    }
}

proptest! {
    #[test]
    fn every_message_is_taken_once_and_in_order_whatever_happens_to_the_path(
        window in 1..8_000u64, steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut direction = Direction::new(window);
        for step in &steps {
            direction.act(step);
        }
        // Then everything arrives, and nothing hangs.
        direction.act(&Step::Cut);
        for _ in 0..direction.pushed + 1 {
            direction.act(&Step::Transmit);
            direction.act(&Step::Arrive(0, false));
            direction.act(&Step::Take);
            if direction.inbox.owes_credit() {
                direction.act(&Step::Tell);
                direction.act(&Step::Told(0));
            }
        }
        prop_assert_eq!(direction.taken, direction.pushed);
    }

    #[test]
    fn nothing_that_a_peer_sends_panics_or_makes_an_inbox_hold_more_than_its_bound(
        window in 1..5_000u64,
        parts in proptest::collection::vec((0..40u64, 0..2_000usize, any::<bool>()), 0..100),
    ) {
        let mut inbox = Inbox::new(window);
        for (index, size, take) in parts {
            if inbox.arrive(index, message(index, size), LARGEST).is_err() {
                break;
            }
            prop_assert!(inbox.held() <= window + LARGEST);
            if take {
                inbox.take();
            }
        }
    }
}

#[test]
fn a_message_far_ahead_is_refused() {
    let mut inbox = Inbox::new(1_000);
    let far = 1_000 / OVERHEAD + 1;
    assert!(inbox.arrive(far, message(far, 8), LARGEST).is_err());
    assert!(inbox.arrive(far - 1, message(far - 1, 8), LARGEST).is_ok());
}

#[test]
fn credit_for_what_was_never_sent_is_refused() {
    let mut outbox = Outbox::new(1_000, 1_000);
    outbox.push(message(0, 8)).unwrap();
    let credit = Credit { received: 1, taken: 0, limit: 2_000 };
    assert!(matches!(outbox.credit(credit), Err(Broken(_))));
    outbox.transmit().unwrap();
    assert!(outbox.credit(credit).is_ok() && outbox.is_received());
    let credit = Credit { received: 1, taken: 2, limit: 2_000 };
    assert!(matches!(outbox.credit(credit), Err(Broken(_))));
}

#[test]
fn a_message_larger_than_the_window_passes_alone() {
    let mut direction = Direction::new(100);
    direction.act(&Step::Push(1_500));
    direction.act(&Step::Push(8));
    direction.act(&Step::Transmit);
    direction.act(&Step::Transmit);
    assert_eq!((direction.pushed, direction.under_way.len()), (1, 1));
    direction.act(&Step::Arrive(0, false));
    direction.act(&Step::Take);
    assert!(direction.inbox.owes_credit());
}

#[test]
fn a_stream_ends_at_one_place() {
    let mut inbox = Inbox::new(10_000);
    inbox.arrive(2, message(2, 8), LARGEST).unwrap();
    assert!(inbox.end_at(2).is_err());
    inbox.end_at(3).unwrap();
    assert!(inbox.end_at(4).is_err());
    assert!(inbox.arrive(3, message(3, 8), LARGEST).is_err());
    inbox.arrive(0, message(0, 8), LARGEST).unwrap();
    inbox.arrive(1, message(1, 8), LARGEST).unwrap();
    assert!((0..3).all(|n| inbox.take().is_some_and(|message| number(&message) == n)));
    assert!(inbox.is_over());
}
