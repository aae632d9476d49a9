//! Versions of commands: machines evolve, and programs of two versions run side by side.
//!
//! Every replica tells the leader which versions its machines support. When all members support a
//! newer one than that which is active, the leader writes an entry that activates it: from that entry
//! on every replica runs commands as that version has them. A replica that meets a version which it
//! does not support stops before it applies anything of it.
//!
//! The group itself has a version too: how sessions and their commands are written. A new group begins
//! with the newest that its first leader reads. It stands with those of the machines, behind a mark which a program that knows nothing of it takes for a version of its
//! first machine that it does not support.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::time::{Duration, Instant};

use super::Replica;
use super::entry::{Item, Origin, What};
use super::message::Message;
use crate::replication::{Members, NodeId, Role};

/// How often a replica tells the leader what its machines support.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How long what a replica has told counts: it may have been started with another program since.
const COUNTS_FOR: Duration = Duration::from_secs(3);

/// What is no version of a machine: the version of the group follows it.
const MARK: u32 = u32::MAX;

/// The version of groups whose log says nothing of it.
const FIRST: u32 = 1;

/// Machines of which one replica may tell.
const MOST: usize = 1_024;

/// When a replica told what its machines support, if that was noted, and the oldest and newest version
/// of each.
type Told = (Option<Instant>, Vec<(u32, u32)>);

/// What the members support, as far as they have told this leader.
#[derive(Debug, Default)]
pub(super) struct Supports {
    told: BTreeMap<NodeId, Told>,
    tell_at: Instant,
}

impl Supports {
    /// What was told to another leader counts for nothing here.
    pub(super) fn leader_changed(&mut self) {
        self.told.clear();
        self.tell_at = Instant::ZERO;
    }

    /// A replica says what its machines support. It is known to be so from the next tick on.
    pub(super) fn told(&mut self, from: NodeId, versions: Vec<(u32, u32)>) {
        if versions.len() <= MOST {
            self.told.insert(from, (None, versions));
        }
    }

    fn forget_old(&mut self, now: Instant, members: &Members) {
        for (at, _) in self.told.values_mut() {
            at.get_or_insert(now);
        }
        let counts = |at: &Option<Instant>| at.is_some_and(|at| now.since(at) < COUNTS_FOR);
        self.told.retain(|id, (at, _)| members.contains(*id) && counts(at));
    }

    /// The newest version of the group that all members support, if all have told; never an older one than
    /// that which is active. One that says nothing of it supports the first.
    fn of_group(&self, members: &Members, active: u32) -> Option<u32> {
        let mut newest = u32::MAX;
        for id in members.all() {
            let (_, versions) = self.told.get(&id)?;
            let told = versions.iter().find(|(least, _)| *least == MARK);
            newest = newest.min(told.map_or(FIRST, |(_, newest)| *newest));
        }
        Some(newest.max(active))
    }

    /// The newest version of each machine that all members support, if all have told; never an older
    /// one than that which is active.
    fn common(&self, members: &Members, active: &[u32]) -> Option<Vec<u32>> {
        let mut newest = active.to_vec();
        for (machine, newest) in newest.iter_mut().enumerate() {
            let mut most = u32::MAX;
            for id in members.all() {
                let (_, versions) = self.told.get(&id)?;
                most = most.min(versions.get(machine)?.1);
            }
            let supported = members.all().all(|id| {
                self.told
                    .get(&id)
                    .and_then(|(_, versions)| versions.get(machine))
                    .is_some_and(|(least, upto)| (*least..=*upto).contains(&most))
            });
            if supported && most > *newest {
                *newest = most;
            }
        }
        Some(newest)
    }
}

/// Which versions are active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) group: u32,
    pub(super) machines: Vec<u32>,
}

impl Active {
    /// The bytes of versions in an entry, and in a snapshot.
    pub(super) fn encode(&self) -> Bytes {
        let group = (self.group > FIRST).then_some([MARK, self.group]);
        let versions = group.iter().flatten().chain(&self.machines);
        versions.flat_map(|version| version.to_be_bytes()).collect()
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let versions: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        match versions[..] {
            [MARK, group, ref machines @ ..] => Self { group, machines: machines.to_vec() },
            _ => Self { group: FIRST, machines: versions },
        }
    }
}

impl Replica {
    /// Tells the leader what this replica's machines support; as the leader, activates what all do.
    pub(super) fn keep_versions(&mut self, now: Instant) {
        let status = self.consensus.status();
        let (Some(leader), true) = (status.leader, now >= self.supports.tell_at) else { return };
        self.supports.tell_at = now + TELL_EVERY;
        let mut own: Vec<_> =
            self.state.machines().versions().map(|of| (*of.start(), *of.end())).collect();
        if self.settings.version > FIRST {
            own.push((MARK, self.settings.version));
        }
        if leader != self.id {
            return self.outbox.push(leader, Message::Supports(own));
        }
        self.supports.told(self.id, own);
        self.supports.forget_old(now, self.consensus.members());
        if status.role != Role::Leader || !self.state.has_versions() {
            return;
        }
        let (active, members) = (self.state.active(), self.consensus.members());
        let Some(machines) = self.supports.common(members, &active.machines) else { return };
        let Some(group) = self.supports.of_group(members, active.group) else { return };
        let common = Active { group, machines };
        if common != active
            && let Some(time) = self.clock.at(now)
        {
            // A copy changes nothing, and a refused one is proposed again.
            let origin = Origin { life: self.life, serial: u64::MAX >> 3 };
            let what = What::Activate(common.encode());
            let _ = self.propose(time, vec![Item { origin, what }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn supports(all: &[(u64, &[(u32, u32)])]) -> Supports {
        let mut supports = Supports::default();
        for (node, versions) in all {
            supports.told(id(*node), versions.to_vec());
        }
        supports
    }

    #[test]
    fn a_version_is_common_when_every_member_has_told_that_it_supports_it() {
        let members = Members::of([1, 2, 3].map(id));
        let one: &[(u32, u32)] = &[(1, 2), (1, 1)];
        let two: &[(u32, u32)] = &[(1, 3), (1, 1)];
        let missing = supports(&[(1, one), (2, two)]);
        assert_eq!(missing.common(&members, &[1, 1]), None);
        let all = supports(&[(1, one), (2, two), (3, two)]);
        assert_eq!(all.common(&members, &[1, 1]), Some(vec![2, 1]));
        assert_eq!(all.common(&members, &[3, 1]), Some(vec![3, 1]), "none goes back");
        let fewer: &[(u32, u32)] = &[(1, 3)];
        assert_eq!(supports(&[(1, one), (2, two), (3, fewer)]).common(&members, &[1, 1]), None);
        let later: &[(u32, u32)] = &[(3, 4), (1, 1)];
        let apart = supports(&[(1, one), (2, two), (3, later)]);
        assert_eq!(apart.common(&members, &[1, 1]), Some(vec![1, 1]), "nothing is common");
    }

    #[test]
    fn what_was_told_long_ago_or_by_others_than_members_does_not_count() {
        let members = Members::of([id(1)]);
        let mut supports = supports(&[(1, &[(1, 2)]), (9, &[(1, 2)])]);
        let now = Instant::ZERO + Duration::from_secs(9);
        supports.forget_old(now, &members);
        assert_eq!(supports.told.len(), 1);
        supports.forget_old(now + COUNTS_FOR, &members);
        assert!(supports.told.is_empty());
    }

    #[test]
    fn versions_survive_the_log() {
        for group in [1, 2, 9] {
            let active = Active { group, machines: vec![1, u32::MAX] };
            assert_eq!(Active::decode(&active.encode()), active);
        }
        assert_eq!(Active::decode(&[0, 0, 0, 1, 9]), Active { group: 1, machines: vec![1] });
        let later = Active { group: 2, machines: vec![1] }.encode();
        assert_eq!(later[..4], [0xff; 4], "what an earlier program stops at");
    }

    #[test]
    fn a_group_has_a_version_when_every_member_supports_it_and_does_not_go_back() {
        let members = Members::of([1, 2, 3].map(id));
        let (earlier, later): (&[_], &[_]) = (&[(1, 1)], &[(1, 1), (MARK, 2)]);
        assert_eq!(supports(&[(1, later), (2, later)]).of_group(&members, 1), None);
        let mixed = supports(&[(1, later), (2, earlier), (3, later)]);
        assert_eq!(mixed.of_group(&members, 1), Some(1));
        assert_eq!(mixed.of_group(&members, 2), Some(2));
        assert_eq!(mixed.common(&members, &[1]), Some(vec![1]), "the mark is no machine's");
        let all = supports(&[(1, later), (2, later), (3, later)]);
        assert_eq!(all.of_group(&members, 1), Some(2));
    }
}
