//! Sessions, slots and sequence numbers: what makes every call resolve.
//!
//! A session has numbered slots; a slot carries one call at a time, and each call on it takes the
//! slot's next sequence number. The server half ([`Sessions`]) remembers per slot what became of
//! the last number; the client half ([`ClientSession`]) sends a number only when the one before it
//! is settled. Both are pure state machines: no transport, no futures, no clock. They are
//! deterministic and can be cloned, so that the server half can also live in a replicated state
//! machine.
//!
//! `docs/semantics.md` says what follows from it for a caller, `docs/protocol.md` section 4 how it
//! looks on the wire.

mod client;
mod exchange;
mod incarnation;
mod keys;
#[cfg(test)]
mod model;
mod outcome;
mod races;
mod server;
mod slot;

use core::fmt;
use core::str::FromStr;

pub use client::{Abandoned, Asked, ClientSession, Effect, Fate, JournalSlot, Reconciled, Sent};
pub use exchange::{Attached, Opened, SlotChange, SlotPosition, Succession};
pub use incarnation::{same_process, worker_incarnation};
pub use keys::{
    Begin, KeyAccount, KeyImage, KeyLimits, KeyReader, KeyedEnd, Keys, LONGEST_KEY, Ticket, key_of,
};
pub use outcome::{NotExecutedReason, QueryAnswer, Refusal, Refused, Violation};
pub use races::Races;
pub use server::{
    Attachment, Completion, ImageOf, ImagePieces, ImageReader, OpenRequest, Sessions, Unsound,
    account_name,
};
pub use slot::{
    Answer, Decision, Footprint, Keep, KeptReply, RecordedState, Slot, SlotRecord, SlotReport,
    SlotState, ToKeep,
};

/// The largest sequence number: what a varint carries (RFC 9000 §16).
pub const MAX_SEQUENCE: u64 = (1 << 62) - 1;

/// The name of a session, issued by the server that opened it.
///
/// The incarnation is drawn anew each time a server process starts (for a group: the group's id),
/// so an id never means another session, and a server that does not know an id refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// Which life of which server issued the id, and in its lowest byte which worker of it.
    pub incarnation: u64,
    /// Counts the sessions of that incarnation, from 1.
    pub number: u64,
}

/// The name of one call: known before anything of the call is sent.
///
/// It is no secret: asking for its outcome needs the identity or the secret that the session
/// belongs to. Printed as `INCARNATION.NUMBER-SLOT-SEQUENCE`, the session in lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The session that the call was made in.
    pub session: SessionId,
    /// The slot that carries it.
    pub slot: u32,
    /// Its number in that slot.
    pub sequence: u64,
}

/// What an anonymous client shows to prove that a session is its own: 256 random bits, issued at
/// opening. Compared in constant time and never printed.
#[derive(Clone)]
pub struct SessionSecret([u8; 32]);

/// Whom a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The certificate that opened it: SHA-256 of its public key info.
    Certificate([u8; 32]),
    /// Whoever knows the secret.
    Anonymous(SessionSecret),
}

/// What a peer shows when it attaches to a session or asks for the outcome of a call.
#[derive(Clone, Debug)]
pub struct Claim {
    /// SHA-256 of the public key info of the certificate that the connection authenticated, if any.
    pub certificate: Option<[u8; 32]>,
    /// The secret that the message carried; all zero if none.
    pub secret: SessionSecret,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.incarnation, self.number)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.session, self.slot, self.sequence)
    }
}

/// Why a text is not the name of a call or session. Each names the part that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseIdError {
    /// Not three parts joined by `-`, or the session not two parts joined by `.`.
    Shape,
    /// The session's incarnation or number is not 1 to 16 hex digits.
    Session,
    /// The slot is not a decimal number below 2^32.
    Slot,
    /// The sequence number is not a decimal number from 1 to 2^62 - 1.
    Sequence,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => {
                "a call id looks like 7f3a.1-12-9041: incarnation, dot, session, dash, slot, dash, \
                 sequence number"
            }
            Self::Session => "incarnation and session must be hex numbers of at most 16 digits",
            Self::Slot => "the slot must be a decimal number below 2^32",
            Self::Sequence => "the sequence number must be a decimal number from 1 to 2^62 - 1",
        })
    }
}

impl core::error::Error for ParseIdError {}

impl FromStr for SessionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (incarnation, number) = text.split_once('.').ok_or(ParseIdError::Shape)?;
        if number.contains('.') {
            return Err(ParseIdError::Shape);
        }
        Ok(Self { incarnation: parse_hex(incarnation)?, number: parse_hex(number)? })
    }
}

impl FromStr for CallId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut parts = text.split('-');
        let (Some(session), Some(slot), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseIdError::Shape);
        };
        let session = session.parse()?;
        let slot = parse_decimal(slot)
            .and_then(|slot| u32::try_from(slot).ok())
            .ok_or(ParseIdError::Slot)?;
        let sequence = parse_decimal(sequence)
            .filter(|n| (1..=MAX_SEQUENCE).contains(n))
            .ok_or(ParseIdError::Sequence)?;
        Ok(Self { session, slot, sequence })
    }
}

// The standard parsers also take a leading plus sign, which no id has.
fn parse_hex(text: &str) -> Result<u64, ParseIdError> {
    if text.is_empty() || text.len() > 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ParseIdError::Session);
    }
    u64::from_str_radix(text, 16).map_err(|_| ParseIdError::Session)
}

fn parse_decimal(text: &str) -> Option<u64> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl SessionSecret {
    /// What a session that belongs to a certificate has in place of a secret. It opens nothing.
    pub const NONE: Self = Self([0; 32]);

    /// A secret of these bytes, which must be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be sent or stored where nobody else reads them.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time: the answer's delay does not tell how many bytes were right.
    pub fn matches(&self, other: &Self) -> bool {
        let mut difference = 0;
        for (a, b) in self.0.iter().zip(&other.0) {
            difference |= core::hint::black_box(a ^ b);
        }
        core::hint::black_box(difference) == 0
    }
}

impl PartialEq for SessionSecret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl Eq for SessionSecret {}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

impl Owner {
    /// Whether `claim` proves this owner.
    pub fn accepts(&self, claim: &Claim) -> bool {
        match self {
            Self::Certificate(identity) => claim.certificate.as_ref() == Some(identity),
            // A zero secret means "none was sent"; it must not match a session by accident.
            Self::Anonymous(secret) => {
                secret.matches(&claim.secret) & !claim.secret.matches(&SessionSecret::NONE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_id_prints_its_session_in_hex_and_its_numbers_in_decimal() {
        let session = SessionId { incarnation: 0x7f3a, number: 0x1b };
        let call = CallId { session, slot: 12, sequence: 9041 };
        assert_eq!(call.to_string(), "7f3a.1b-12-9041");
        assert_eq!("7f3a.1b-12-9041".parse(), Ok(call));
    }

    #[test]
    fn a_text_that_is_no_call_id_is_refused_with_the_part_that_is_wrong() {
        for (text, error) in [
            ("", ParseIdError::Shape),
            ("7f3a-12-9041", ParseIdError::Shape),
            ("7f.3.a-12-9041", ParseIdError::Shape),
            ("7f3a.1-12-9041-3", ParseIdError::Shape),
            ("7f3a.1-12", ParseIdError::Shape),
            (".1-12-9041", ParseIdError::Session),
            ("+7.1-12-9041", ParseIdError::Session),
            ("7g.1-12-9041", ParseIdError::Session),
            ("11112222333344445.1-12-9041", ParseIdError::Session),
            ("7f.1-4294967296-9041", ParseIdError::Slot),
            ("7f.1--9041", ParseIdError::Slot),
            ("7f.1-+1-9041", ParseIdError::Slot),
            ("7f.1-1-0", ParseIdError::Sequence),
            ("7f.1-1-4611686018427387904", ParseIdError::Sequence),
            ("7f.1-1-99999999999999999999", ParseIdError::Sequence),
        ] {
            assert_eq!(text.parse::<CallId>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = SessionSecret::new([0xAB; 32]);
        let shown = format!("{secret:?} {:?}", Owner::Anonymous(secret.clone()));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab,"), "{shown}");
    }

    #[test]
    fn a_secret_matches_only_itself_and_the_missing_secret_matches_nothing() {
        let secret = SessionSecret::new([7; 32]);
        let claim = |bytes| Claim { certificate: None, secret: SessionSecret::new(bytes) };
        let owner = Owner::Anonymous(secret);
        assert!(owner.accepts(&claim([7; 32])));
        let mut near = [7; 32];
        near[31] = 6;
        assert!(!owner.accepts(&claim(near)));
        assert!(!Owner::Anonymous(SessionSecret::NONE).accepts(&claim([0; 32])));
    }

    #[test]
    fn a_certificates_session_needs_that_certificate() {
        let owner = Owner::Certificate([1; 32]);
        let claim = |certificate| Claim { certificate, secret: SessionSecret::NONE };
        assert!(owner.accepts(&claim(Some([1; 32]))));
        assert!(!owner.accepts(&claim(Some([2; 32]))));
        assert!(!owner.accepts(&claim(None)));
    }

    proptest! {
        #[test]
        fn every_call_id_survives_being_printed_and_read(
            incarnation: u64, number: u64, slot: u32, sequence in 1..=MAX_SEQUENCE,
        ) {
            let call = CallId { session: SessionId { incarnation, number }, slot, sequence };
            prop_assert_eq!(call.to_string().parse(), Ok(call));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<CallId>();
        }
    }
}
