//! Keys that outlive the process: for address validation tokens and stateless resets.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use stubborn_core::transport::ConnectionId;
use stubborn_core::transport::crypto::{OpenError, RESET_TOKEN_LENGTH};

const SALT: &[u8] = b"stubborn/1 server secret";

/// Bytes of the nonce at the front of a token.
const TOKEN_NONCE: usize = 16;

/// What a server derives from its private key, so that it knows its own tokens after a restart, and
/// so that all workers and all servers with the same key know each other's.
pub(crate) struct ServerSecret {
    token: hmac::Key,
    reset: hmac::Key,
}

impl ServerSecret {
    /// Derives by HKDF from `secret`, which is never used itself.
    pub(crate) fn derive(secret: &[u8]) -> Self {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(secret);
        Self {
            token: expand(&prk, b"address validation token"),
            reset: expand(&prk, b"stateless reset token"),
        }
    }

    /// The nonce, then plaintext and tag under a key for this nonce alone: so random nonces of 16
    /// bytes bound how many tokens may be sealed, not the AEAD's 12.
    pub(crate) fn seal(
        &self,
        nonce: [u8; TOKEN_NONCE],
        plaintext: &[u8],
        associated: &[u8],
    ) -> Vec<u8> {
        let mut sealed = plaintext.to_vec();
        self.token_key(&nonce)
            .seal_in_place_append_tag(zero_nonce(), Aad::from(associated), &mut sealed)
            .expect("a token is far below the AEAD's size limit");
        [&nonce[..], &sealed].concat()
    }

    pub(crate) fn open(&self, token: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (nonce, sealed) = token.split_first_chunk::<TOKEN_NONCE>().ok_or(OpenError)?;
        let mut opened = sealed.to_vec();
        let length = self
            .token_key(nonce)
            .open_in_place(zero_nonce(), Aad::from(associated), &mut opened)
            .map_err(|_| OpenError)?
            .len();
        opened.truncate(length);
        Ok(opened)
    }

    /// RFC 9000 §10.3.2.
    pub(crate) fn reset_token(&self, id: &ConnectionId) -> [u8; RESET_TOKEN_LENGTH] {
        let tag = hmac::sign(&self.reset, id);
        *tag.as_ref().first_chunk().expect("SHA-256 gives 32 bytes")
    }

    fn token_key(&self, nonce: &[u8; TOKEN_NONCE]) -> LessSafeKey {
        let key = hmac::sign(&self.token, nonce);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a key of 32 bytes"))
    }
}

fn expand(prk: &hkdf::Prk, label: &[u8]) -> hmac::Key {
    let mut key = [0; 32];
    prk.expand(&[label], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("one block of HKDF output");
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

/// Each key seals one token only, so its nonce can be fixed.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
