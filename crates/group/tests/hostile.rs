//! Nothing that a peer sends can panic a node, in whatever state the node is.

mod common;

use std::collections::BTreeSet;

use bytes::Bytes;
use common::{Cluster, node};
use proptest::prelude::*;
use stubborn_group::replication::{
    Entry, EntryKind, Frame, MemberChange, Members, NodeId, Position, Snapshot,
};

/// What happens to a group in the test.
#[derive(Clone, Debug)]
enum Step {
    Tick,
    Propose,
    Compact(u64),
    Restart(u64),
    Cut(u64),
    Heal,
    Change(BTreeSet<u64>),
    /// The second node says something to the first.
    Lie(u64, u64, Box<Frame>),
}

const NODES: u64 = 4;

/// Small numbers, about where a short log stands, and the largest.
fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![8 => 0..12u64, 1 => Just((1 << 61) - 1), 1 => 0..(1u64 << 61)]
}

fn position() -> impl Strategy<Value = Position> + Clone {
    (number(), number()).prop_map(|(index, term)| Position { index, term })
}

fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
    prop::collection::btree_set((1..=NODES).prop_map(node), 0..4)
}

fn members() -> impl Strategy<Value = Members> {
    (nodes(), nodes(), nodes(), nodes(), any::<bool>()).prop_map(
        |(voters, learners, outgoing, learners_next, leaves_by_itself)| Members {
            voters,
            learners,
            outgoing,
            learners_next,
            leaves_by_itself,
        },
    )
}

fn data() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn append() -> impl Strategy<Value = Frame> {
    let entry = (number(), any::<bool>(), data());
    (number(), position(), number(), prop::collection::vec(entry, 0..5)).prop_map(
        |(term, previous, committed, entries)| {
            let entry = |(offset, (term, members, data)): (u64, (u64, bool, Bytes))| Entry {
                at: Position { index: previous.index + 1 + offset, term },
                kind: if members { EntryKind::Members } else { EntryKind::Command },
                data,
            };
            let entries = (0..).zip(entries).map(entry).collect();
            Frame::Append { term, previous, committed, entries }
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let vote = (any::<bool>(), number(), position(), position(), any::<bool>());
    prop_oneof![
        1 => vote.clone().prop_map(|(pre, term, last, committed, transfer)| Frame::RequestVote {
            pre,
            term,
            last,
            committed,
            transfer
        }),
        1 => vote.prop_map(|(pre, term, committed, _, granted)| Frame::Vote {
            pre,
            term,
            granted,
            committed
        }),
        3 => append(),
        1 => (number(), number(), number(), prop::option::of(position()), number()).prop_map(
            |(term, index, committed, refused, wants_snapshot)| Frame::Appended {
                term,
                index,
                committed,
                refused,
                wants_snapshot
            }
        ),
        1 => (number(), number(), prop::option::of(any::<u64>()))
            .prop_map(|(term, committed, read)| Frame::Heartbeat { term, committed, read }),
        1 => (number(), number(), prop::option::of(any::<u64>()))
            .prop_map(|(term, committed, read)| Frame::Heartbeaten { term, committed, read }),
        2 => (number(), position(), members(), data()).prop_map(|(term, at, members, data)| {
            Frame::Install { term, snapshot: Snapshot { at, members, data: data.into() } }
        }),
        1 => number().prop_map(|term| Frame::Succeed { term }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Tick),
        3 => Just(Step::Propose),
        1 => (1..=NODES).prop_map(Step::Compact),
        1 => (1..=NODES).prop_map(Step::Restart),
        1 => (1..=NODES).prop_map(Step::Cut),
        1 => Just(Step::Heal),
        1 => prop::collection::btree_set(1..=NODES, 1..4).prop_map(Step::Change),
        8 => (1..=NODES, 1..=NODES + 2, frame())
            .prop_map(|(to, from, frame)| Step::Lie(to, from, Box::new(frame))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_of_a_peer_panics_a_node_in_any_state(steps in prop::collection::vec(step(), 1..120)) {
        let mut cluster = Cluster::new(3);
        cluster.tolerant = true;
        cluster.add(node(4));
        for step in steps {
            match step {
                Step::Tick => (0..5).for_each(|_| cluster.tick_some(100)),
                Step::Propose => {
                    if let Some(leader) = cluster.leader() {
                        let _ = cluster.get(leader).consensus.propose(Bytes::from_static(b"x"));
                    }
                }
                Step::Compact(number) => cluster.compact(node(number)),
                Step::Restart(number) => cluster.restart(node(number)),
                Step::Cut(number) => cluster.cut.push(node(number)),
                Step::Heal => cluster.cut.clear(),
                Step::Change(voters) => {
                    let voters: BTreeSet<NodeId> = voters.into_iter().map(node).collect();
                    let remove = (1..=NODES).map(node).filter(|id| !voters.contains(id)).collect();
                    let change = MemberChange { voters, remove, ..MemberChange::default() };
                    if let Some(leader) = cluster.leader() {
                        let _ = cluster.get(leader).consensus.change_members(&change);
                    }
                }
                Step::Lie(to, from, frame) => {
                    let _ = cluster.get(node(to)).consensus.receive(node(from), *frame);
                }
            }
            cluster.settle_some(400);
        }
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let _ = Frame::decode(&Bytes::from(bytes));
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same(frame in frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
    }

    #[test]
    fn a_frame_that_is_cut_short_is_refused(frame in frame(), at in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        prop_assert!(Frame::decode(&bytes.slice(..at.index(bytes.len()))).is_err());
    }
}
