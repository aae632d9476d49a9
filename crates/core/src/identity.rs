//! Names that certificates prove: SPIFFE ids and DNS names.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::limits::{MAX_DNS_NAME, MAX_DNS_NAMES, MAX_SPIFFE_ID, MAX_TRUST_DOMAIN};

/// The name of a workload, `spiffe://TRUST-DOMAIN/PATH`, by the rules of the SPIFFE ID standard (§2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Box<str>);

/// Why a text is no SPIFFE id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiffeIdError {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// The trust domain is empty, too long, or has other characters than lower-case letters, digits,
    /// `.`, `-` and `_`.
    TrustDomain,
    /// A segment of the path is empty, `.` or `..`, or has other characters than letters, digits, `.`,
    /// `-` and `_`; or the path ends in `/`.
    Path,
    /// It is longer than 2,048 bytes.
    Length,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The trust domain: the part before the path.
    pub fn trust_domain(&self) -> &str {
        self.split().0
    }

    /// The path, with its first `/`; empty if there is none, as of a trust domain itself.
    pub fn path(&self) -> &str {
        self.split().1
    }

    /// The whole, as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&str, &str) {
        split(&self.0[SCHEME.len()..])
    }
}

fn split(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find('/').unwrap_or(rest.len()))
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(SpiffeIdError::Length);
        }
        let (domain, path) = split(text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?);
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN || !domain.bytes().all(fits) {
            return Err(SpiffeIdError::TrustDomain);
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(fits);
        match path.strip_prefix('/') {
            None => {}
            Some(segments) if segments.split('/').all(segment) => {}
            Some(_) => return Err(SpiffeIdError::Path),
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.0)
    }
}

impl PartialEq<str> for SpiffeId {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a SPIFFE id begins with spiffe://",
            Self::TrustDomain => {
                "the trust domain of a SPIFFE id is 1 to 255 lower-case letters, digits, '.', '-' and \
                 '_'"
            }
            Self::Path => {
                "the path of a SPIFFE id is segments of letters, digits, '.', '-' and '_', none of \
                 them empty, '.' or '..'"
            }
            Self::Length => "a SPIFFE id has 2,048 bytes at most",
        })
    }
}

impl core::error::Error for SpiffeIdError {}

/// The names that a verified certificate bears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertifiedNames(Option<Box<Names>>);

/// Apart, and only where there are some: most connections are of clients without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    spiffe: Option<SpiffeId>,
    dns: Vec<Box<str>>,
}

impl CertifiedNames {
    /// Takes the names of a certificate: the URIs and the DNS names among its subject alternative
    /// names.
    ///
    /// The SPIFFE id counts if the certificate has exactly one URI, it is well formed and has a path:
    /// else it is no X.509-SVID (X509-SVID §2 and §4.1), and has none. Names that are too long or too
    /// many are left out.
    pub fn of<'a>(
        uris: impl IntoIterator<Item = &'a str>,
        dns: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut uris = uris.into_iter();
        let spiffe = match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse().ok(),
            _ => None,
        };
        let spiffe = spiffe.filter(|id: &SpiffeId| !id.path().is_empty());
        let dns = dns.into_iter().filter(|name| name.len() <= MAX_DNS_NAME);
        let dns: Vec<_> = dns.take(MAX_DNS_NAMES).map(Into::into).collect();
        let any = spiffe.is_some() || !dns.is_empty();
        Self(any.then(|| Box::new(Names { spiffe, dns })))
    }

    /// The SPIFFE id.
    pub fn spiffe(&self) -> Option<&SpiffeId> {
        self.0.as_ref()?.spiffe.as_ref()
    }

    /// The DNS names.
    pub fn dns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|names| &names.dns).map(|name| &**name)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        text.parse()
    }

    #[test]
    fn what_is_no_spiffe_id_is_refused() {
        use SpiffeIdError::{Length, Path, Scheme, TrustDomain};
        for (text, why) in [
            ("", Scheme),
            ("https://example.org/web", Scheme),
            ("SPIFFE://example.org/web", Scheme),
            ("spiffe://", TrustDomain),
            ("spiffe:///web", TrustDomain),
            ("spiffe://Example.org/web", TrustDomain),
            ("spiffe://example.org:443/web", TrustDomain),
            ("spiffe://user@example.org/web", TrustDomain),
            ("spiffe://example.org?x/web", TrustDomain),
            ("spiffe://exämple.org/web", TrustDomain),
            ("spiffe://example.org/", Path),
            ("spiffe://example.org/web/", Path),
            ("spiffe://example.org/a//b", Path),
            ("spiffe://example.org/a/../b", Path),
            ("spiffe://example.org/./b", Path),
            ("spiffe://example.org/a%20b", Path),
            ("spiffe://example.org/a?b", Path),
            ("spiffe://example.org/a#b", Path),
        ] {
            assert_eq!(parsed(text), Err(why), "{text}");
        }
        let long = alloc::format!("spiffe://a/{}", "x".repeat(MAX_SPIFFE_ID));
        assert_eq!(parsed(&long), Err(Length));
        let domain = alloc::format!("spiffe://{}/x", "a".repeat(MAX_TRUST_DOMAIN + 1));
        assert_eq!(parsed(&domain), Err(TrustDomain));
    }

    #[test]
    fn an_id_has_a_trust_domain_and_a_path() {
        let id = parsed("spiffe://prod.example-1.org/ns/web/Sa_1.x").unwrap();
        assert_eq!((id.trust_domain(), id.path()), ("prod.example-1.org", "/ns/web/Sa_1.x"));
        assert_eq!(parsed("spiffe://example.org").unwrap().path(), "");
    }

    #[test]
    fn a_certificate_with_two_uris_or_a_malformed_one_has_no_spiffe_id() {
        let id = "spiffe://example.org/web";
        let of =
            |uris: &[&'static str]| CertifiedNames::of(uris.iter().copied(), []).spiffe().cloned();
        assert_eq!(of(&[id]), Some(parsed(id).unwrap()));
        assert_eq!(of(&[id, "spiffe://example.org/db"]), None);
        assert_eq!(of(&[id, "https://example.org"]), None);
        assert_eq!(of(&["spiffe://example.org"]), None);
        assert_eq!(of(&["spiffe://example.org//"]), None);
    }

    #[test]
    fn dns_names_are_bounded_in_number_and_length() {
        let long = "x".repeat(MAX_DNS_NAME + 1);
        let names = CertifiedNames::of([], [&*long].into_iter().chain(["a.example"; 100]));
        assert_eq!(names.dns().count(), MAX_DNS_NAMES);
        assert!(names.dns().all(|name| name == "a.example"));
    }
}
