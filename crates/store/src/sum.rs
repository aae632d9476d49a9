//! Checksums that also say where the bytes belong: what was written elsewhere, or in an earlier life
//! of a file that is used again, does not pass.

use xxhash_rust::xxh3::xxh3_64;

use crate::Identity;

/// Which file of which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(u64);

impl Salt {
    /// For segment `number` of the log.
    pub(crate) fn log(identity: &Identity, number: u64) -> Self {
        Self::of(identity, 1, number)
    }

    /// For the snapshot at `index`.
    pub(crate) fn snapshot(identity: &Identity, index: u64) -> Self {
        Self::of(identity, 2, index)
    }

    /// For files that must be readable wherever they are.
    pub(crate) const fn none() -> Self {
        Self(0)
    }

    /// For one stream of several in a file.
    pub(crate) const fn stream(number: u64) -> Self {
        Self(number << 56)
    }

    fn of(identity: &Identity, kind: u64, number: u64) -> Self {
        let fields = [identity.group, identity.node.get(), kind, number];
        let mut bytes = [0; 32];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        Self(xxh3_64(&bytes))
    }

    /// The checksum of bytes that stand at `offset` of the file.
    pub(crate) fn sum(self, offset: u64, bytes: &[u8]) -> u64 {
        xxh3_64(bytes) ^ mix(self.0.wrapping_add(offset))
    }
}

/// SplitMix64: neighbouring numbers give unrelated ones.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
