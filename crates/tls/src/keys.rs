//! Packet protection keys in the shape that core asks for.

use std::sync::OnceLock;

use aws_lc_rs::aead::quic::HeaderProtectionKey;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::quic::{self, Version};
use stubborn_core::ahead::read_ahead;
use stubborn_core::transport::crypto::{
    DirectionalKeys, HeaderKey, Keys, OpenError, PacketKey, RETRY_TAG_LENGTH,
};
use stubborn_core::transport::{ConnectionId, Side};

use crate::material::{IV_LENGTH, Material};

/// Our versions use the salts and labels of QUIC version 1 (docs/protocol.md section 1).
pub(crate) const LABELS: Version = Version::V1;

/// RFC 9001 §5.8.
const RETRY_KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
const RETRY_NONCE: [u8; 12] =
    [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

pub(crate) fn initial_keys(suite: quic::Suite, destination: &ConnectionId, side: Side) -> Keys {
    let side = match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    };
    keys(suite.keys(destination, side, LABELS))
}

pub(crate) fn retry_tag(
    original_destination: &ConnectionId,
    packet: &[u8],
) -> [u8; RETRY_TAG_LENGTH] {
    let mut pseudo = Vec::with_capacity(1 + original_destination.len() + packet.len());
    pseudo.push(original_destination.len() as u8);
    pseudo.extend_from_slice(original_destination);
    pseudo.extend_from_slice(packet);
    let key = UnboundKey::new(&AES_128_GCM, &RETRY_KEY).expect("a key of 16 bytes");
    let nonce = Nonce::assume_unique_for_key(RETRY_NONCE);
    let tag = LessSafeKey::new(key)
        .seal_in_place_separate_tag(nonce, Aad::from(&pseudo), &mut [])
        .expect("an empty plaintext can be sealed");
    tag.as_ref().try_into().expect("a tag of 16 bytes")
}

pub(crate) fn keys(keys: quic::Keys) -> Keys {
    Keys { local: directional(keys.local), remote: directional(keys.remote) }
}

pub(crate) fn directional(keys: quic::DirectionalKeys) -> DirectionalKeys {
    of_material(Material::of_header_key(&*keys.header), Material::of_packet_key(&*keys.packet))
}

pub(crate) fn of_material(header: Material, packet: Material) -> DirectionalKeys {
    let header = Header { material: header, cipher: OnceLock::new() };
    let packet = Packet { material: packet, cipher: OnceLock::new() };
    DirectionalKeys { header: Box::new(header), packet: Box::new(packet) }
}

pub(crate) fn packet(key: Box<dyn quic::PacketKey>) -> Box<dyn PacketKey> {
    Box::new(Packet { material: Material::of_packet_key(&*key), cipher: OnceLock::new() })
}

/// A key and what the cipher makes of it, which takes ten times as much memory: made when it is
/// needed, dropped when the connection rests.
struct Packet {
    material: Material,
    cipher: OnceLock<LessSafeKey>,
}

impl Packet {
    fn cipher(&self) -> &LessSafeKey {
        self.cipher.get_or_init(|| {
            let key = UnboundKey::new(self.material.protection.packet, self.material.key());
            LessSafeKey::new(key.expect("a key of the length that the algorithm has"))
        })
    }

    /// RFC 9001 §5.3.
    fn nonce(&self, packet_number: u64) -> Nonce {
        let mut nonce = self.material.iv;
        let number = packet_number.to_be_bytes();
        nonce[IV_LENGTH - number.len()..].iter_mut().zip(number).for_each(|(n, p)| *n ^= p);
        Nonce::assume_unique_for_key(nonce)
    }
}

impl PacketKey for Packet {
    fn seal(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) {
        let (plaintext, tag) = payload.split_at_mut(payload.len() - self.tag_len());
        let made = self
            .cipher()
            .seal_in_place_separate_tag(self.nonce(packet_number), Aad::from(header), plaintext)
            .expect("a packet is far below the AEAD's size limit");
        tag.copy_from_slice(made.as_ref());
    }

    fn seal_with_end(&self, packet_number: u64, header: &[u8], payload: &mut [u8], end: &[u8]) {
        let (begin, sealed) = payload.split_at_mut(payload.len() - self.tag_len() - end.len());
        let (nonce, header) = (self.nonce(packet_number), Aad::from(header));
        self.cipher()
            .seal_in_place_scatter(nonce, header, begin, end, sealed)
            .expect("a packet is far below the AEAD's size limit");
    }

    fn open(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, OpenError> {
        let plaintext = self
            .cipher()
            .open_in_place(self.nonce(packet_number), Aad::from(header), payload)
            .map_err(|_| OpenError)?;
        Ok(plaintext.len())
    }

    fn tag_len(&self) -> usize {
        self.material.protection.packet.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.material.protection.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.material.protection.integrity_limit
    }

    fn rest(&mut self) {
        self.cipher.take();
    }

    fn read_ahead(&self) {
        if let Some(cipher) = self.cipher.get() {
            read_ahead(cipher);
        }
    }
}

/// The same for headers.
struct Header {
    material: Material,
    cipher: OnceLock<Box<HeaderProtectionKey>>,
}

/// The bits of the first byte that are masked in packets with long headers, and in others
/// (RFC 9001 §5.4.1).
const LONG_BITS: u8 = 0x0f;
const SHORT_BITS: u8 = 0x1f;

impl Header {
    fn mask(&self, sample: &[u8]) -> [u8; 5] {
        let cipher = self.cipher.get_or_init(|| {
            let Material { protection, .. } = &self.material;
            let key = HeaderProtectionKey::new(protection.header, self.material.key());
            Box::new(key.expect("a key of the length that the algorithm has"))
        });
        cipher.new_mask(sample).expect("the sample has the length that was asked for")
    }
}

/// Masks or unmasks the first byte.
fn mask_first(first: &mut u8, mask: u8) {
    *first ^= mask & if *first & 0x80 == 0 { SHORT_BITS } else { LONG_BITS };
}

fn mask_number(number: &mut [u8], mask: &[u8]) {
    number.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

impl HeaderKey for Header {
    fn protect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) {
        assert!((1..=4).contains(&packet_number.len()), "a packet number of 1 to 4 bytes");
        let mask = self.mask(sample);
        mask_first(first, mask[0]);
        mask_number(packet_number, &mask[1..]);
    }

    fn unprotect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) {
        let mask = self.mask(sample);
        mask_first(first, mask[0]);
        let length = usize::from(*first & 0x03) + 1;
        mask_number(&mut packet_number[..length], &mask[1..]);
    }

    fn sample_len(&self) -> usize {
        self.material.protection.header.sample_len()
    }

    fn rest(&mut self) {
        self.cipher.take();
    }

    fn read_ahead(&self) {
        if let Some(cipher) = self.cipher.get() {
            read_ahead(&**cipher);
        }
    }
}
