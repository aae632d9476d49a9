//! The TLS sessions that clients may resume, as a server remembers them.
//!
//! They are kept here rather than in the ticket: only so can a ticket be good for one use. A server
//! with many clients holds one for nearly each of them, so they are kept small, and nothing is set
//! aside for those that do not come.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

/// Sessions issued last that are remembered; older ones are forgotten, which costs the client a full
/// handshake.
const SESSIONS: usize = 4_096;

/// Bytes of all of them. A session holds the certificates that its client has shown.
const BYTES: usize = 4 << 20;

/// What a session takes beside its bytes, about.
const OVERHEAD: usize = 128;

/// The length of what rustls names sessions by; others are not remembered.
const ID: usize = 32;

/// The sessions of one configuration.
#[derive(Default)]
pub(crate) struct RememberedSessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// Ids are random, of 256 bits: that comparing them takes longer the more of one is guessed helps
    /// nobody to guess the rest, and who has an id still lacks the secret.
    sessions: BTreeMap<[u8; ID], Zeroizing<Box<[u8]>>>,
    /// In the order in which they were issued, those included that were used meanwhile.
    issued: VecDeque<[u8; ID]>,
    bytes: usize,
}

impl RememberedSessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoresServerSessions for RememberedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let Ok(id) = key.try_into() else { return false };
        self.lock().insert(id, Zeroizing::new(value.into()))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().sessions.get(key).map(|session| session.to_vec())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.lock().remove(key).map(|session| session.to_vec())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl Table {
    /// False if it is too large to be remembered.
    fn insert(&mut self, id: [u8; ID], session: Zeroizing<Box<[u8]>>) -> bool {
        let size = size_of(&session);
        if size > BYTES {
            return false;
        }
        while self.issued.len() >= SESSIONS || self.bytes + size > BYTES {
            let Some(oldest) = self.issued.pop_front() else { break };
            self.remove(&oldest);
        }
        self.remove(&id);
        self.bytes += size;
        self.issued.push_back(id);
        self.sessions.insert(id, session);
        true
    }

    fn remove(&mut self, id: &[u8]) -> Option<Zeroizing<Box<[u8]>>> {
        let session = self.sessions.remove(id)?;
        self.bytes -= size_of(&session);
        Some(session)
    }
}

fn size_of(session: &[u8]) -> usize {
    session.len() + OVERHEAD
}

impl fmt::Debug for RememberedSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RememberedSessions({})", self.lock().sessions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Vec<u8> {
        let mut id = vec![0; ID];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn a_session_is_good_for_one_use() {
        let store = RememberedSessions::default();
        assert!(store.put(id(1), vec![7; 100]));
        assert_eq!(store.get(&id(1)), Some(vec![7; 100]));
        assert_eq!(store.take(&id(1)), Some(vec![7; 100]));
        assert_eq!(store.take(&id(1)), None);
        assert_eq!(store.get(&id(2)), None);
        assert_eq!(store.lock().bytes, 0);
    }

    #[test]
    fn the_oldest_give_way_and_used_ones_leave_nothing() {
        let store = RememberedSessions::default();
        for number in 0..3 * SESSIONS {
            assert!(store.put(id(number), vec![7; 10]));
            if number % 2 == 0 {
                assert!(store.take(&id(number)).is_some());
            }
            assert!(store.lock().issued.len() <= SESSIONS);
        }
        assert_eq!(store.lock().sessions.len(), SESSIONS / 2);
        assert!(store.get(&id(2 * SESSIONS - 1)).is_none());
        assert!(store.get(&id(2 * SESSIONS + 1)).is_some());
    }

    #[test]
    fn large_certificates_do_not_take_more_memory_than_is_meant_for_all() {
        let store = RememberedSessions::default();
        for number in 0..100 {
            assert!(store.put(id(number), vec![7; BYTES / 10]));
            assert!(store.lock().bytes <= BYTES);
        }
        assert!(!store.put(id(100), vec![7; BYTES]));
        assert_eq!(store.lock().sessions.len(), 9);
        assert!(!store.put(vec![1, 2, 3], vec![7]), "an id of another length");
    }

    #[test]
    fn an_id_that_comes_twice_is_counted_once() {
        let store = RememberedSessions::default();
        assert!(store.put(id(1), vec![7; 100]));
        assert!(store.put(id(1), vec![8; 50]));
        assert_eq!(store.lock().bytes, 50 + OVERHEAD);
        assert_eq!(store.take(&id(1)), Some(vec![8; 50]));
    }
}
