//! What is in flight.

use std::time::{Duration, Instant};

use bench_driver::protocol::Load;
use bench_driver::{Recorder, Result};

/// How long the whole server may be silent before a datagram must have been lost.
pub(crate) const LOST: Duration = Duration::from_millis(500);

/// The datagrams in flight by number: when each was sent.
pub(crate) struct Flight {
    sent: Vec<Instant>,
    payload: usize,
    /// How many are under way.
    pub(crate) under_way: usize,
}

impl Flight {
    pub(crate) fn new(load: &Load) -> Result<Self> {
        if load.payload < 4 || load.payload > 60_000 || load.connections != 1 {
            return Err("a floor sends datagrams of 4 to 60,000 bytes from one socket".into());
        }
        let sent = vec![Instant::now(); load.in_flight];
        Ok(Self { sent, payload: load.payload, under_way: load.in_flight })
    }

    /// The first datagrams.
    pub(crate) fn first(&self) -> impl Iterator<Item = Vec<u8>> {
        let payload = self.payload;
        (0..self.sent.len()).map(move |number| {
            let mut datagram = vec![0x5a; payload];
            datagram[..4].copy_from_slice(&(number as u32).to_le_bytes());
            datagram
        })
    }

    /// A datagram has come back. True if it is to be sent again.
    pub(crate) fn answered(
        &mut self,
        datagram: &[u8],
        now: Instant,
        recorder: &mut Recorder,
    ) -> Result<bool> {
        let number = datagram.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        let sent = number.and_then(|number| self.sent.get_mut(number));
        let sent = sent.filter(|_| datagram.len() == self.payload).ok_or("a strange datagram")?;
        recorder.answered(std::mem::replace(sent, now), now);
        let again = recorder.wants(now);
        self.under_way -= usize::from(!again);
        Ok(again)
    }
}
