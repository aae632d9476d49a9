use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::time::Duration;
use crate::transport::crypto::{DirectionalKeys, KeyChange, OpenError, PeerIdentity};

/// A key that is its phase's number.
struct Key(u64);

impl PacketKey for Key {
    fn seal(&self, _: u64, _: &[u8], _: &mut [u8]) {}

    fn open(&self, _: u64, _: &[u8], payload: &mut [u8]) -> Result<usize, OpenError> {
        Ok(payload.len())
    }

    fn tag_len(&self) -> usize {
        16
    }

    fn confidentiality_limit(&self) -> u64 {
        MARGIN + 10
    }

    // Tells the tests which phase the key is of.
    fn integrity_limit(&self) -> u64 {
        self.0
    }
}

impl HeaderKey for Key {
    fn protect(&self, _: &[u8], _: &mut u8, _: &mut [u8]) {}

    fn unprotect(&self, _: &[u8], _: &mut u8, _: &mut [u8]) {}

    fn sample_len(&self) -> usize {
        16
    }
}

/// Hands out the keys of phase 1, 2, 3 and so on.
struct Tls(u64);

impl TlsSession for Tls {
    fn read_handshake(&mut self, _: &[u8]) -> Result<(), TransportError> {
        Ok(())
    }

    fn write_handshake(&mut self, _: &mut Vec<u8>) -> Option<KeyChange> {
        None
    }

    fn is_handshaking(&self) -> bool {
        false
    }

    fn peer_parameters(&self) -> Option<&[u8]> {
        None
    }

    fn next_data_keys(&mut self) -> (Box<dyn PacketKey>, Box<dyn PacketKey>) {
        self.0 += 1;
        (Box::new(Key(self.0)), Box::new(Key(self.0)))
    }

    fn early_keys(&mut self) -> Option<DirectionalKeys> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn peer_identity(&self) -> Option<PeerIdentity> {
        None
    }
}

fn keys() -> (DataKeys, Tls) {
    let key = || DirectionalKeys { header: Box::new(Key(0)), packet: Box::new(Key(0)) };
    (DataKeys::new(Keys { local: key(), remote: key() }), Tls(0))
}

const SOON: Instant = Instant::from_nanos(1_000);

#[test]
fn the_aead_limit_counts_packets_asks_for_an_update_in_time_and_then_ends_it_all() {
    let (mut keys, mut tls) = keys();
    for number in 0..10 {
        assert!(!keys.wants_update(u64::MAX), "{number}");
        keys.on_sealed(number);
    }
    assert!(keys.wants_update(u64::MAX) && !keys.is_used_up());
    assert!(keys.wants_update(5), "a lower limit counts too");
    for number in 10..10 + MARGIN {
        keys.on_sealed(number);
    }
    assert!(keys.is_used_up());
    keys.update(&mut tls);
    assert!(!keys.is_used_up() && !keys.wants_update(u64::MAX));
}

#[test]
fn an_update_waits_until_the_last_one_is_confirmed_and_its_old_keys_are_gone() {
    let (mut keys, mut tls) = keys();
    assert!(!keys.may_update(), "nothing of the first phase is acknowledged yet");
    keys.on_sealed(0);
    keys.on_ack(0, Opened::Current).unwrap();
    assert!(keys.may_update());
    keys.update(&mut tls);
    assert!(!keys.may_update());
    keys.on_sealed(1);
    keys.on_ack(1, Opened::Current).unwrap();
    assert!(!keys.may_update(), "the peer's packets of the old phase may still come");
    assert!(!keys.has_new_past(), "nothing of the new phase has come");
    keys.on_opened(7, Opened::Current, &mut tls).unwrap();
    assert!(keys.has_new_past());
    keys.keep_past_until(SOON);
    assert!(!keys.has_new_past(), "the first packet decides");
    keys.on_timeout(SOON + Duration::from_nanos(1));
    assert!(keys.may_update());
}

#[test]
fn phase_bit_and_number_point_to_the_right_keys() {
    let (mut keys, mut tls) = keys();
    let of = |keys: &mut DataKeys, tls: &mut Tls, number, phase| {
        let (key, with) = keys.remote(number, phase, tls);
        (key.integrity_limit(), with)
    };
    assert_eq!(of(&mut keys, &mut tls, 5, false), (0, Opened::Current));
    assert_eq!(of(&mut keys, &mut tls, 5, true), (1, Opened::Next));
    assert_eq!(of(&mut keys, &mut tls, 6, true), (1, Opened::Next), "made once");
    keys.on_opened(5, Opened::Current, &mut tls).unwrap();
    keys.on_opened(9, Opened::Next, &mut tls).unwrap();
    assert_eq!(of(&mut keys, &mut tls, 10, true), (1, Opened::Current));
    assert_eq!(of(&mut keys, &mut tls, 8, false), (0, Opened::Previous), "overtaken by the update");
    assert_eq!(of(&mut keys, &mut tls, 11, false), (2, Opened::Next));
}

#[test]
fn a_peer_that_updates_before_it_can_be_confirmed_or_acknowledges_with_old_keys_is_refused() {
    let (mut keys, mut tls) = keys();
    keys.on_sealed(0);
    keys.on_opened(3, Opened::Next, &mut tls).unwrap();
    let error = keys.on_opened(4, Opened::Next, &mut tls).unwrap_err();
    assert_eq!(error.code, Code::KEY_UPDATE_ERROR);

    let (mut keys, mut tls) = self::keys();
    keys.update(&mut tls);
    keys.on_sealed(8);
    assert!(keys.on_ack(7, Opened::Previous).is_ok());
    let error = keys.on_ack(8, Opened::Previous).unwrap_err();
    assert_eq!(error.code, Code::KEY_UPDATE_ERROR);
}
