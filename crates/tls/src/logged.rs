//! Keys from the secrets of a key log: for those who read captured packets (RFC 9001 §5.1, §6).

use std::collections::BTreeMap;

use aws_lc_rs::hkdf;
use stubborn_core::transport::crypto::DirectionalKeys;
use zeroize::Zeroizing;

use crate::keys;
use crate::material::{IV_LENGTH, Material, protection_of};

/// Which of a connection's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretKind {
    /// Of 0-RTT packets.
    ClientEarly,
    /// Of the client's Handshake packets.
    ClientHandshake,
    /// Of the server's Handshake packets.
    ServerHandshake,
    /// Of the client's 1-RTT packets of the first key phase.
    ClientData,
    /// Of the server's 1-RTT packets of the first key phase.
    ServerData,
}

impl SecretKind {
    fn of_label(label: &str) -> Option<Self> {
        Some(match label {
            "CLIENT_EARLY_TRAFFIC_SECRET" => Self::ClientEarly,
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => Self::ClientHandshake,
            "SERVER_HANDSHAKE_TRAFFIC_SECRET" => Self::ServerHandshake,
            "CLIENT_TRAFFIC_SECRET_0" => Self::ClientData,
            "SERVER_TRAFFIC_SECRET_0" => Self::ServerData,
            _ => return None,
        })
    }
}

/// What a key log says.
#[derive(Default)]
pub struct LoggedSecrets(BTreeMap<Which, Zeroizing<Vec<u8>>>);

/// The random of the connection's ClientHello, and which of its secrets.
type Which = ([u8; 32], SecretKind);

impl LoggedSecrets {
    /// Reads a key log in the format of NSS. Lines that are of no use, or cut short, are passed over.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(entry).collect())
    }

    /// A secret of the connection whose ClientHello has this random.
    pub fn find(&self, client_random: &[u8; 32], kind: SecretKind) -> Option<&[u8]> {
        self.0.get(&(*client_random, kind)).map(|secret| &secret[..])
    }

    /// How many secrets there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn entry(line: &str) -> Option<(Which, Zeroizing<Vec<u8>>)> {
    let mut words = line.split_ascii_whitespace();
    let kind = SecretKind::of_label(words.next()?)?;
    let random = unhex(words.next()?)?[..].try_into().ok()?;
    Some(((random, kind), unhex(words.next()?)?))
}

fn unhex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let bytes = pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?));
    bytes.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

/// The keys that follow from a secret in this cipher suite (its number in TLS); none if the suite is
/// not one of ours or the secret has another length than its hash.
pub fn keys_of_secret(suite: u16, secret: &[u8]) -> Option<DirectionalKeys> {
    let prk = prk(suite, secret)?;
    let protection = protection_of(suite)?;
    let length = protection.packet.key_len();
    let key = expand(&prk, b"quic key", length);
    let iv: [u8; IV_LENGTH] = expand(&prk, b"quic iv", IV_LENGTH)[..].try_into().ok()?;
    let header = expand(&prk, b"quic hp", length);
    let header = Material::new(protection, &header, [0; IV_LENGTH]);
    Some(keys::of_material(header, Material::new(protection, &key, iv)))
}

/// The keys of Initial packets, the client's and the server's (RFC 9001 §5.2): everybody can make them
/// from the destination of the client's first one.
pub fn keys_of_initial(destination: &[u8]) -> [DirectionalKeys; 2] {
    const SALT: [u8; 20] = [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c,
        0xad, 0xcc, 0xbb, 0x7f, 0x0a,
    ];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &SALT).extract(destination);
    [&b"client in"[..], b"server in"].map(|label| {
        keys_of_secret(0x1301, &expand(&prk, label, 32)).expect("a secret as long as its hash")
    })
}

/// The secret of the next key phase. The key that masks headers stays the one of the first phase.
pub fn next_secret(suite: u16, secret: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    Some(expand(&prk(suite, secret)?, b"quic ku", secret.len()))
}

fn prk(suite: u16, secret: &[u8]) -> Option<hkdf::Prk> {
    let (hash, length) = match suite {
        0x1301 | 0x1303 => (hkdf::HKDF_SHA256, 32),
        0x1302 => (hkdf::HKDF_SHA384, 48),
        _ => return None,
    };
    (secret.len() == length).then(|| hkdf::Prk::new_less_safe(hash, secret))
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1). The labels are those of QUIC version 1.
fn expand(prk: &hkdf::Prk, label: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let head = [0, length as u8, 6 + label.len() as u8];
    let info = [&head[..], b"tls13 ", label, &[0]];
    let mut out = Zeroizing::new(vec![0; length]);
    let okm = prk.expand(&info, Length(length)).expect("shorter than 255 hashes");
    okm.fill(&mut out).expect("as long as was asked for");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let (random, secret) = ("11".repeat(32), "22".repeat(32));
        let text = format!(
            "# a comment\n\nCLIENT_RANDOM {random} {secret}\nCLIENT_TRAFFIC_SECRET_0\n\
             CLIENT_TRAFFIC_SECRET_0 {random}\nCLIENT_TRAFFIC_SECRET_0 11 {secret}\n\
             CLIENT_TRAFFIC_SECRET_0 {random} 2\nSERVER_TRAFFIC_SECRET_0 {random} +2\n\
             SERVER_TRAFFIC_SECRET_0 {random} {secret}\nSERVER_TRAFF"
        );
        let log = LoggedSecrets::parse(&text);
        assert_eq!(log.len(), 1);
        assert_eq!(log.find(&[0x11; 32], SecretKind::ServerData), Some(&[0x22; 32][..]));
        assert_eq!(log.find(&[0x11; 32], SecretKind::ClientData), None);
    }

    #[test]
    fn a_secret_of_the_wrong_length_or_suite_gives_no_keys() {
        assert!(keys_of_secret(0x1301, &[1; 48]).is_none());
        assert!(keys_of_secret(0x1302, &[1; 32]).is_none());
        assert!(keys_of_secret(0x1399, &[1; 32]).is_none());
        assert!(keys_of_secret(0x1303, &[1; 32]).is_some());
        assert!(next_secret(0x1302, &[1; 47]).is_none());
    }
}
