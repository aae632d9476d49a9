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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_altered_cut_or_made_up_is_refused() {
        let secret = ServerSecret::derive(b"private key");
        let token = secret.seal([1; 16], b"issued at noon", b"192.0.2.1:5000");
        for bit in 0..token.len() * 8 {
            let mut altered = token.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(secret.open(&altered, b"192.0.2.1:5000"), Err(OpenError));
        }
        for length in 0..token.len() {
            assert_eq!(secret.open(&token[..length], b"192.0.2.1:5000"), Err(OpenError));
        }
        assert_eq!(secret.open(&[7; 60], b"192.0.2.1:5000"), Err(OpenError));
    }

    #[test]
    fn a_token_for_another_address_or_of_another_server_is_refused() {
        let secret = ServerSecret::derive(b"private key");
        let token = secret.seal([1; 16], b"issued at noon", b"192.0.2.1:5000");
        assert_eq!(secret.open(&token, b"192.0.2.2:5000"), Err(OpenError));
        let other = ServerSecret::derive(b"another private key");
        assert_eq!(other.open(&token, b"192.0.2.1:5000"), Err(OpenError));
    }

    #[test]
    fn tokens_and_reset_tokens_survive_a_restart() {
        let before = ServerSecret::derive(b"private key");
        let token = before.seal([1; 16], b"issued at noon", b"address");
        let after = ServerSecret::derive(b"private key");
        assert_eq!(after.open(&token, b"address").as_deref(), Ok(&b"issued at noon"[..]));
        let id = ConnectionId::from([4; 8]);
        assert_eq!(before.reset_token(&id), after.reset_token(&id));
        assert_ne!(after.reset_token(&id), after.reset_token(&ConnectionId::from([5; 8])));
        let other = ServerSecret::derive(b"another private key");
        assert_ne!(after.reset_token(&id), other.reset_token(&id));
    }
}
