//! The keys that protect packets, as the little that packets need of them (RFC 9001 §5.3, §5.4).

use alloc::boxed::Box;

/// The packet was not made with this key, or was altered on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenError;

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("authentication failed")
    }
}

impl core::error::Error for OpenError {}

/// An AEAD key for the packets of one direction (RFC 9001 §5.3).
pub trait PacketKey: Send + Sync {
    /// Encrypts `payload` in place, all but its last [`PacketKey::tag_len`] bytes, into which it
    /// writes the tag. `header` is authenticated.
    ///
    /// # Panics
    /// If `payload` is shorter than the tag.
    fn seal(&self, packet_number: u64, header: &[u8], payload: &mut [u8]);

    /// The same with a plaintext whose last bytes are `end`: what stands in their place in `payload`
    /// is overwritten. Saves a copy where the cipher can read and write different memory.
    ///
    /// # Panics
    /// If `payload` is shorter than `end` and the tag.
    fn seal_with_end(&self, packet_number: u64, header: &[u8], payload: &mut [u8], end: &[u8]) {
        let upto = payload.len() - self.tag_len();
        payload[upto - end.len()..upto].copy_from_slice(end);
        self.seal(packet_number, header, payload);
    }

    /// Decrypts `payload`, which ends with the tag, in place and returns the length of the plaintext
    /// at its front.
    ///
    /// # Errors
    /// [`OpenError`] when the packet is not authentic; `payload` is then undefined.
    fn open(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<usize, OpenError>;

    /// Gives back memory that is made anew when the key is used next: the connection rests.
    fn rest(&mut self) {}

    /// Begins to read what this key points to: it will be used soon.
    fn read_ahead(&self) {}

    /// Bytes of the tag.
    fn tag_len(&self) -> usize;

    /// Packets that may be sealed with this key (RFC 9001 §6.6).
    fn confidentiality_limit(&self) -> u64;

    /// Packets that may fail to open, over all keys of a connection (RFC 9001 §6.6).
    fn integrity_limit(&self) -> u64;
}

/// A header protection key for one direction (RFC 9001 §5.4). It does not change with key updates.
pub trait HeaderKey: Send + Sync {
    /// Masks the first byte and the 1 to 4 bytes of the packet number.
    ///
    /// # Panics
    /// If `sample` is not [`HeaderKey::sample_len`] bytes or `packet_number` is not 1 to 4 bytes.
    fn protect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]);

    /// Removes the mask. `packet_number` is the 4 bytes at the packet number's place; how many of them
    /// belong to it stands in the low two bits of the unmasked `first`, and only these are changed.
    ///
    /// # Panics
    /// As [`HeaderKey::protect`].
    fn unprotect(&self, sample: &[u8], first: &mut u8, packet_number: &mut [u8]);

    /// As [`PacketKey::rest`].
    fn rest(&mut self) {}

    /// As [`PacketKey::read_ahead`].
    fn read_ahead(&self) {}

    /// Bytes of ciphertext that the mask is made from.
    fn sample_len(&self) -> usize;
}

/// The keys of one direction.
pub struct DirectionalKeys {
    /// Masks packet numbers.
    pub header: Box<dyn HeaderKey>,
    /// Encrypts payloads.
    pub packet: Box<dyn PacketKey>,
}

/// The keys of one space, or of one encryption level.
pub struct Keys {
    /// What this end sends with.
    pub local: DirectionalKeys,
    /// What the peer sends with.
    pub remote: DirectionalKeys,
}

impl core::fmt::Debug for DirectionalKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DirectionalKeys(..)")
    }
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(..)")
    }
}
