//! Who a certificate chain says that its owner is.

use rustls::pki_types::CertificateDer;
use stubborn_core::identity::{CertifiedNames, SpiffeId};
use stubborn_core::transport::crypto::PeerIdentity;
use webpki::EndEntityCert;

use crate::identity::sha256;
use crate::key_digest;

/// Who shows this chain, one's own certificate first; `None` when that cannot be parsed. Whether the
/// chain is to be believed was decided in the handshake.
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<PeerIdentity> {
    let own = chain.first()?;
    let key_digest = key_digest(own)?;
    let names = names(own);
    Some(PeerIdentity {
        key_digest,
        owner: names.spiffe().map_or(key_digest, owner),
        names,
        certificates: chain.iter().map(|certificate| certificate.to_vec()).collect(),
    })
}

fn names(certificate: &CertificateDer<'_>) -> CertifiedNames {
    match EndEntityCert::try_from(certificate) {
        Ok(parsed) => CertifiedNames::of(parsed.valid_uri_names(), parsed.valid_dns_names()),
        Err(_) => CertifiedNames::default(),
    }
}

/// No digest of a key is one of these: no encoded key begins so.
fn owner(id: &SpiffeId) -> [u8; 32] {
    sha256(format!("SPIFFE {id}").as_bytes())
}
