//! Datagrams that reached the socket of another worker than the one that they are for.
//!
//! Where the kernel steers there are none but for what came while the sockets were bound, or in one
//! batch with others of the same sender. Where it does not, every worker sorts what it receives.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use stubborn_core::transport::endpoint::Received;

/// Bytes of datagrams that a worker lets wait: as much as its socket would take. Further ones are
/// dropped, as a full socket does.
const ROOM: usize = 8 << 20;

/// What a waiting datagram takes beside its bytes, so that many small ones are bounded, too.
const OVERHEAD: usize = 256;

/// What other workers have received for this one.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    forwarded: AtomicU64,
}

#[derive(Default)]
struct Mail {
    datagrams: Vec<Received>,
    size: usize,
    owner: Option<Waker>,
}

impl Mailbox {
    /// Hands datagrams over, as far as there is room, and empties `datagrams`.
    pub(super) fn post(&self, datagrams: &mut Vec<Received>) {
        let mut mail = self.lock();
        let mut taken = 0;
        for datagram in datagrams.drain(..) {
            let size = datagram.data.len() + OVERHEAD;
            if mail.size + size <= ROOM {
                mail.size += size;
                mail.datagrams.push(datagram);
                taken += 1;
            }
        }
        let owner = mail.owner.take();
        drop(mail);
        self.forwarded.fetch_add(taken, Ordering::Relaxed);
        if let Some(owner) = owner {
            owner.wake();
        }
    }

    /// Moves what waits to `datagrams`; the owner is woken when there is more. Returns whether there
    /// was any.
    pub(super) fn collect(&self, owner: &Waker, datagrams: &mut Vec<Received>) -> bool {
        let mut mail = self.lock();
        match &mut mail.owner {
            Some(known) => known.clone_from(owner),
            none => *none = Some(owner.clone()),
        }
        mail.size = 0;
        if datagrams.is_empty() {
            mem::swap(&mut mail.datagrams, datagrams);
        } else {
            datagrams.append(&mut mail.datagrams);
        }
        !datagrams.is_empty()
    }

    /// Datagrams that were handed over since the start.
    pub(super) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams(count: usize, size: usize) -> Vec<Received> {
        let datagram = || Received {
            from: ([127, 0, 0, 1], 9).into(),
            local: None,
            ecn: Default::default(),
            data: vec![0; size][..].into(),
        };
        std::iter::repeat_with(datagram).take(count).collect()
    }

    #[test]
    fn a_full_mailbox_drops_what_comes_and_takes_more_once_it_was_emptied() {
        let mailbox = Mailbox::default();
        let fits = ROOM / (1_200 + OVERHEAD);
        mailbox.post(&mut datagrams(fits + 10, 1_200));
        let mut got = Vec::new();
        assert!(mailbox.collect(Waker::noop(), &mut got));
        assert_eq!(got.len(), fits);
        mailbox.post(&mut datagrams(3, 1_200));
        got.clear();
        assert!(mailbox.collect(Waker::noop(), &mut got));
        assert_eq!((got.len(), mailbox.forwarded()), (3, fits as u64 + 3));
    }

    #[test]
    fn datagrams_without_bytes_fill_it_as_well() {
        let mailbox = Mailbox::default();
        mailbox.post(&mut datagrams(ROOM / OVERHEAD + 1, 0));
        let mut got = Vec::new();
        mailbox.collect(Waker::noop(), &mut got);
        assert_eq!(got.len(), ROOM / OVERHEAD);
    }
}
