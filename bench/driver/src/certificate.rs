//! A certificate for the systems that need one: made anew by each server, known to its client.

use crate::Result;

/// The name that certificates are for.
pub const NAME: &str = "localhost";

/// A certificate that signs itself.
#[derive(Debug)]
pub struct Certificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// Makes one (ECDSA P-256).
///
/// # Errors
/// If there is no entropy.
pub fn make() -> Result<Certificate> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    Ok(Certificate { certificate_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() })
}
