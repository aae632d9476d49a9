//! Certificates of simulated hosts: the same for the same name and seed, in every run.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    PKCS_ED25519, SerialNumber,
};
use stubborn_core::random::Random;
use stubborn_tls::{Identity, Roots};

/// RFC 8410 §7: what stands before the 32 bytes of an Ed25519 private key in PKCS #8.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A name that every certificate bears, for services that several hosts offer.
pub(crate) const COMMON_NAME: &str = "any.world";

/// Issues the certificates of one world.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// The authority of a world.
    ///
    /// # Panics
    /// Never: its certificate is made of constants and a key.
    pub(super) fn new(random: &mut Random) -> Self {
        let mut params = parameters("simulated world", Vec::new(), random);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (_, pair) = key_pair(random.bytes());
        let issuer = CertifiedIssuer::self_signed(params, pair).expect("an Ed25519 key signs");
        Self { issuer }
    }

    /// The roots that hosts of the world trust.
    ///
    /// # Panics
    /// Never: the authority's own certificate can be read.
    pub(super) fn roots(&self) -> Roots {
        Roots::from_der(vec![self.issuer.der().to_vec()]).expect("a root certificate can be read")
    }

    /// A certificate for a host, valid for its name and the common one.
    ///
    /// # Panics
    /// If `name` is no DNS name.
    pub(super) fn issue(&self, name: &str, random: &mut Random) -> Identity {
        let (der, pair) = key_pair(random.bytes());
        let params = parameters(name, vec![name.to_owned(), COMMON_NAME.to_owned()], random);
        let certificate = params.signed_by(&pair, &self.issuer).expect("an Ed25519 key signs");
        Identity::from_der(vec![certificate.der().to_vec()], der)
            .expect("a key just made can be read")
    }
}

fn parameters(name: &str, subjects: Vec<String>, random: &mut Random) -> CertificateParams {
    let mut params = CertificateParams::new(subjects)
        .unwrap_or_else(|error| panic!("a host's name must be a DNS name, not {name:?}: {error}"));
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    params.distinguished_name = distinguished;
    let mut serial = random.bytes::<16>();
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and of one length
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn key_pair(seed: [u8; 32]) -> (Vec<u8>, KeyPair) {
    let mut der = PKCS8_PREFIX.to_vec();
    der.extend_from_slice(&seed);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_slice().into(), &PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 private key");
    (der, pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_the_same_for_the_same_seed() {
        let issue = |seed| {
            let mut random = Random::from_seed([seed; 32]);
            let authority = Authority::new(&mut random);
            let identity = authority.issue("bank", &mut random);
            identity.chain().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(issue(1), issue(1));
        assert_ne!(issue(1), issue(2));
    }
}
