//! Gets the bytes of QUIC keys out of rustls.
//!
//! rustls makes keys through the algorithms of a cipher suite, and hands them out as objects that can
//! encrypt in place and nothing else. The algorithms here make objects that only carry the bytes, so
//! that keys can be used as `keys.rs` wants: reading a plaintext from where it lies, and taking next
//! to no memory while a connection is idle.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::aead;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::quic::{self, HeaderProtectionKey, PacketKey, Tag};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};
use zeroize::Zeroizing;

/// Bytes of the longest key.
const LONGEST: usize = 32;

/// Bytes of an initialization vector.
pub(crate) const IV_LENGTH: usize = 12;

/// What a carrier is asked for its bytes with; no sample and no header are so long.
const EXPORT: &[u8] = b"stubborn takes the bytes of this key out";

/// How packets are protected.
pub(crate) struct Protection {
    pub(crate) packet: &'static aead::Algorithm,
    pub(crate) header: &'static aead::quic::Algorithm,
    /// RFC 9001 §6.6.
    pub(crate) confidentiality_limit: u64,
    pub(crate) integrity_limit: u64,
}

static AES_128: Protection = Protection {
    packet: &aead::AES_128_GCM,
    header: &aead::quic::AES_128,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
};
static AES_256: Protection = Protection {
    packet: &aead::AES_256_GCM,
    header: &aead::quic::AES_256,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
};
static CHACHA20: Protection = Protection {
    packet: &aead::CHACHA20_POLY1305,
    header: &aead::quic::CHACHA20,
    confidentiality_limit: u64::MAX,
    integrity_limit: 1 << 36,
};

/// The suites of TLS 1.3 with carriers in place of keys, the one first that a client likes best. A
/// carrier says by its place here what it is for.
static SUITES: LazyLock<[(Tls13CipherSuite, &Protection); 3]> = LazyLock::new(|| {
    [
        (carrying(TLS13_AES_128_GCM_SHA256, &Carriers(0)), &AES_128),
        (carrying(TLS13_AES_256_GCM_SHA384, &Carriers(1)), &AES_256),
        (carrying(TLS13_CHACHA20_POLY1305_SHA256, &Carriers(2)), &CHACHA20),
    ]
});

fn carrying(suite: SupportedCipherSuite, carriers: &'static Carriers) -> Tls13CipherSuite {
    let suite = suite.tls13().expect("a suite of TLS 1.3");
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: suite.aead_alg,
        quic: Some(carriers),
    }
}

/// The provider with packets protected by `keys.rs`, without suites that it does not know, and in our
/// order: AES-128 first, as RFC 8446 §9.1 has it, which costs a fifth less than AES-256.
pub(crate) fn carrying_keys(provider: &CryptoProvider) -> Arc<CryptoProvider> {
    let has = |(ours, _): &&(Tls13CipherSuite, _)| {
        provider.cipher_suites.iter().any(|suite| suite.suite() == ours.common.suite)
    };
    let suites = SUITES.iter().filter(has);
    let cipher_suites = suites.map(|(ours, _)| SupportedCipherSuite::Tls13(ours)).collect();
    Arc::new(CryptoProvider { cipher_suites, ..provider.clone() })
}

/// How packets are protected in this cipher suite (its number in TLS).
pub(crate) fn protection_of(suite: u16) -> Option<&'static Protection> {
    let of = |(ours, _): &&(Tls13CipherSuite, _)| u16::from(ours.common.suite) == suite;
    SUITES.iter().find(of).map(|(_, protection)| *protection)
}

/// The bytes of a key, and what they are for.
pub(crate) struct Material {
    pub(crate) protection: &'static Protection,
    key: Zeroizing<[u8; LONGEST]>,
    /// Not of a header key.
    pub(crate) iv: [u8; IV_LENGTH],
}

impl Material {
    /// Of a key as long as `protection` wants it.
    pub(crate) fn new(protection: &'static Protection, key: &[u8], iv: [u8; IV_LENGTH]) -> Self {
        let mut bytes = Zeroizing::new([0; LONGEST]);
        bytes[..key.len()].copy_from_slice(key);
        Self { protection, key: bytes, iv }
    }

    pub(crate) fn of_packet_key(key: &dyn PacketKey) -> Self {
        let mut bytes = Zeroizing::new([0; 1 + LONGEST + IV_LENGTH]);
        key.encrypt_in_place(0, EXPORT, &mut bytes[..]).expect("a key of our suites");
        Self::of(&bytes)
    }

    pub(crate) fn of_header_key(key: &dyn HeaderProtectionKey) -> Self {
        let mut bytes = Zeroizing::new([0; 1 + LONGEST + IV_LENGTH]);
        key.encrypt_in_place(EXPORT, &mut 0, &mut bytes[..]).expect("a key of our suites");
        Self::of(&bytes)
    }

    fn of(bytes: &[u8; 1 + LONGEST + IV_LENGTH]) -> Self {
        let (suite, rest) = bytes.split_first().expect("a first byte");
        let (key, iv) = rest.split_at(LONGEST);
        let key = key.try_into().expect("as long as the longest key");
        Self {
            protection: SUITES[usize::from(*suite)].1,
            key: Zeroizing::new(key),
            iv: iv.try_into().expect("what is left"),
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key[..self.protection.packet.key_len()]
    }
}

/// Makes carriers for the suite at this place.
struct Carriers(u8);

impl quic::Algorithm for Carriers {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        Box::new(Carrier { suite: self.0, key, iv })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(Carrier { suite: self.0, key, iv: Iv::from([0; IV_LENGTH]) })
    }

    fn aead_key_len(&self) -> usize {
        SUITES[usize::from(self.0)].1.packet.key_len()
    }
}

struct Carrier {
    suite: u8,
    key: AeadKey,
    iv: Iv,
}

impl Carrier {
    fn export(&self, asked: &[u8], out: &mut [u8]) -> Result<(), Error> {
        if asked != EXPORT || out.len() != 1 + LONGEST + IV_LENGTH {
            return Err(Error::EncryptError);
        }
        let key = self.key.as_ref();
        out[0] = self.suite;
        out[1..=key.len()].copy_from_slice(key);
        out[1 + LONGEST..].copy_from_slice(self.iv.as_ref());
        Ok(())
    }
}

impl PacketKey for Carrier {
    fn encrypt_in_place(&self, _: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        self.export(header, payload).map(|()| Tag::from(&[0; 16][..]))
    }

    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], _: &'a mut [u8]) -> Result<&'a [u8], Error> {
        Err(Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        aead::MAX_TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        SUITES[usize::from(self.suite)].1.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        SUITES[usize::from(self.suite)].1.integrity_limit
    }
}

impl HeaderProtectionKey for Carrier {
    fn encrypt_in_place(
        &self,
        sample: &[u8],
        _: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.export(sample, packet_number)
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        SUITES[usize::from(self.suite)].1.header.sample_len()
    }
}
