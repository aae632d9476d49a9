//! Packet protection keys in the shape that core asks for.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::quic::{self, Version};
use stubborn_core::transport::crypto::{
    DirectionalKeys, HeaderKey, Keys, OpenError, PacketKey, RETRY_TAG_LENGTH,
};
use stubborn_core::transport::{ConnectionId, Side};

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
    DirectionalKeys { header: Box::new(Header(keys.header)), packet: packet(keys.packet) }
}

pub(crate) fn packet(key: Box<dyn quic::PacketKey>) -> Box<dyn PacketKey> {
    Box::new(Packet(key))
}

struct Packet(Box<dyn quic::PacketKey>);

impl PacketKey for Packet {
    fn seal(&self, packet_number: u64, header: &[u8], payload: &mut [u8]) {
        let (plaintext, tag) = payload.split_at_mut(payload.len() - self.0.tag_len());
        let made = self
            .0
            .encrypt_in_place(packet_number, header, plaintext)
            .expect("a packet is far below the AEAD's size limit");
        tag.copy_from_slice(made.as_ref());
    }

    fn open(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, OpenError> {
        let plaintext =
            self.0.decrypt_in_place(packet_number, header, payload).map_err(|_| OpenError)?;
        Ok(plaintext.len())
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

struct Header(Box<dyn quic::HeaderProtectionKey>);

impl HeaderKey for Header {
    fn protect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) {
        self.0
            .encrypt_in_place(sample, first, packet_number)
            .expect("the sample has the length that was asked for");
    }

    fn unprotect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]) {
        self.0
            .decrypt_in_place(sample, first, packet_number)
            .expect("the sample has the length that was asked for");
    }

    fn sample_len(&self) -> usize {
        self.0.sample_len()
    }
}
