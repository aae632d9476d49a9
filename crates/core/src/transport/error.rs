//! Why a connection ends, as told to the peer in CONNECTION_CLOSE (RFC 9000 §20.1).

use alloc::borrow::Cow;
use core::fmt;

use crate::wire::frame::{FrameError, FrameErrorKind};
use crate::wire::params::ParameterError;

/// A transport error code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u64);

impl Code {
    /// Closed without an error.
    pub const NO_ERROR: Self = Self(0x00);
    /// A bug or a lack of resources at the closing end.
    pub const INTERNAL_ERROR: Self = Self(0x01);
    /// The server does not take new connections now.
    pub const CONNECTION_REFUSED: Self = Self(0x02);
    /// More data than was granted.
    pub const FLOW_CONTROL_ERROR: Self = Self(0x03);
    /// More messages than were granted.
    pub const MESSAGE_LIMIT_ERROR: Self = Self(0x04);
    /// A frame for a message in a state that does not allow it.
    pub const MESSAGE_STATE_ERROR: Self = Self(0x05);
    /// A message with two ends, or with data past its end.
    pub const FINAL_SIZE_ERROR: Self = Self(0x06);
    /// A frame that does not decode.
    pub const FRAME_ENCODING_ERROR: Self = Self(0x07);
    /// Transport parameters that are missing, doubled or out of range.
    pub const TRANSPORT_PARAMETER_ERROR: Self = Self(0x08);
    /// More connection ids than were granted.
    pub const CONNECTION_ID_LIMIT_ERROR: Self = Self(0x09);
    /// A breach that has no code of its own.
    pub const PROTOCOL_VIOLATION: Self = Self(0x0a);
    /// A token in an Initial packet that is not ours.
    pub const INVALID_TOKEN: Self = Self(0x0b);
    /// The application closed the connection during the handshake.
    pub const APPLICATION_ERROR: Self = Self(0x0c);
    /// More CRYPTO data than is buffered.
    pub const CRYPTO_BUFFER_EXCEEDED: Self = Self(0x0d);
    /// A key update that breaks the rules.
    pub const KEY_UPDATE_ERROR: Self = Self(0x0e);
    /// An AEAD key was used as often as it may be.
    pub const AEAD_LIMIT_REACHED: Self = Self(0x0f);
    /// No path carries datagrams of 1,200 bytes.
    pub const NO_VIABLE_PATH: Self = Self(0x10);
    /// Version negotiation was tampered with (RFC 9368 §8).
    pub const VERSION_NEGOTIATION_ERROR: Self = Self(0x11);

    /// The code for a TLS alert (RFC 9001 §4.8).
    pub const fn crypto(alert: u8) -> Self {
        Self(0x100 | alert as u64)
    }

    /// The TLS alert that this code stands for, if it does.
    pub const fn alert(self) -> Option<u8> {
        if self.0 >> 8 == 1 { Some(self.0 as u8) } else { None }
    }

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NO_ERROR => "no error",
            Self::INTERNAL_ERROR => "internal error",
            Self::CONNECTION_REFUSED => "connection refused",
            Self::FLOW_CONTROL_ERROR => "flow control error",
            Self::MESSAGE_LIMIT_ERROR => "message limit error",
            Self::MESSAGE_STATE_ERROR => "message state error",
            Self::FINAL_SIZE_ERROR => "final size error",
            Self::FRAME_ENCODING_ERROR => "frame encoding error",
            Self::TRANSPORT_PARAMETER_ERROR => "transport parameter error",
            Self::CONNECTION_ID_LIMIT_ERROR => "connection id limit error",
            Self::PROTOCOL_VIOLATION => "protocol violation",
            Self::INVALID_TOKEN => "invalid token",
            Self::APPLICATION_ERROR => "application error",
            Self::CRYPTO_BUFFER_EXCEEDED => "crypto buffer exceeded",
            Self::KEY_UPDATE_ERROR => "key update error",
            Self::AEAD_LIMIT_REACHED => "AEAD limit reached",
            Self::NO_VIABLE_PATH => "no viable path",
            Self::VERSION_NEGOTIATION_ERROR => "version negotiation error",
            _ => return None,
        })
    }
}

/// The alerts that people meet (RFC 8446 §6.2).
fn alert_name(alert: u8) -> Option<&'static str> {
    Some(match alert {
        10 => "unexpected message",
        40 => "handshake failure",
        42 => "bad certificate",
        43 => "unsupported certificate",
        44 => "certificate revoked",
        45 => "certificate expired",
        46 => "certificate unknown",
        47 => "illegal parameter",
        48 => "unknown certificate authority",
        49 => "access denied",
        50 => "decode error",
        51 => "decrypt error",
        70 => "protocol version",
        80 => "internal error",
        109 => "missing extension",
        112 => "unrecognized name",
        116 => "certificate required",
        120 => "no application protocol",
        _ => return None,
    })
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.alert()) {
            (Some(name), _) => f.write_str(name),
            (None, Some(alert)) => match alert_name(alert) {
                Some(name) => write!(f, "TLS alert {alert} ({name})"),
                None => write!(f, "TLS alert {alert}"),
            },
            (None, None) => write!(f, "error {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:#x}, {self})", self.0)
    }
}

/// An error of the transport that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError {
    /// What kind of error.
    pub code: Code,
    /// Type of the frame that caused it, if one did.
    pub frame: Option<u64>,
    /// For people. It travels to the peer: no secrets.
    pub reason: Cow<'static, str>,
}

impl TransportError {
    /// An error that no frame caused.
    pub fn new(code: Code, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, frame: None, reason: reason.into() }
    }

    /// The same error, caused by a frame of this type.
    pub fn in_frame(mut self, frame_type: u64) -> Self {
        self.frame = Some(frame_type);
        self
    }

    /// A [`Code::PROTOCOL_VIOLATION`].
    pub fn violation(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::PROTOCOL_VIOLATION, reason)
    }

    /// A [`Code::INTERNAL_ERROR`].
    pub fn internal(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::INTERNAL_ERROR, reason)
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(frame) = self.frame {
            write!(f, " in frame {frame:#04x}")?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

impl core::error::Error for TransportError {}

impl From<FrameError> for TransportError {
    fn from(e: FrameError) -> Self {
        let code = match e.kind {
            FrameErrorKind::Encoding => Code::FRAME_ENCODING_ERROR,
            FrameErrorKind::Violation => Code::PROTOCOL_VIOLATION,
        };
        Self { code, frame: e.frame, reason: e.reason.into() }
    }
}

impl From<ParameterError> for TransportError {
    fn from(ParameterError(reason): ParameterError) -> Self {
        Self::new(Code::TRANSPORT_PARAMETER_ERROR, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_error_says_what_where_and_why() {
        let e = TransportError::violation("reserved bits").in_frame(6);
        assert_eq!(e.to_string(), "protocol violation in frame 0x06: reserved bits");
        let e = TransportError::new(Code::crypto(48), "");
        assert_eq!(e.to_string(), "TLS alert 48 (unknown certificate authority)");
        assert_eq!(Code::crypto(0).alert(), Some(0));
        assert_eq!(Code::NO_VIABLE_PATH.alert(), None);
        assert_eq!(Code(0x200).alert(), None);
    }
}
