//! What a handler says when it does not return a reply: gRPC's status codes.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use bytes::Bytes;

use super::metadata::Metadata;

/// gRPC's status codes, with gRPC's numbers and meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are gRPC's own; each is explained by `Code::description`.
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; [`Code::Unknown`] for a number that has none.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Ok,
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            15 => Self::DataLoss,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The code in words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown error",
            Self::InvalidArgument => "invalid argument",
            Self::DeadlineExceeded => "deadline exceeded",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::PermissionDenied => "permission denied",
            Self::ResourceExhausted => "resource exhausted",
            Self::FailedPrecondition => "failed precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out of range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal error",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// A handler's refusal or failure: it ran, and this is what it said.
#[derive(Clone, PartialEq, Eq)]
pub struct Status(
    /// Failures are few, and every answer moves the room for one.
    Box<Said>,
);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    code: Code,
    message: Cow<'static, str>,
    details: Bytes,
    metadata: Metadata,
}

impl Status {
    /// A status with a message for people.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let (details, metadata) = (Bytes::new(), Metadata::new());
        Self(Box::new(Said { code, message: message.into(), details, metadata }))
    }

    /// The same with details: an encoded message that the caller knows how to read. What gRPC's own
    /// clients read, and [`with_detail`](Self::with_detail) and [`field`](Self::field) make, is a
    /// `google.rpc.Status`.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Bytes>) -> Self {
        self.0.details = details.into();
        self
    }

    /// The same with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Which kind of failure.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The encoded details; empty if there are none. [`typed_details`](Self::typed_details) reads them.
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// Metadata that came with it.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }
}

macro_rules! constructors {
    ($($name:ident $code:ident $doc:literal)*) => { impl Status { $(
        #[doc = $doc]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Code::$code, message)
        }
    )* } };
}

constructors! {
    invalid_argument InvalidArgument "The request makes no sense, whatever the state of the system."
    not_found NotFound "What was asked for does not exist."
    already_exists AlreadyExists "What was to be created exists."
    permission_denied PermissionDenied "The caller may not do this."
    resource_exhausted ResourceExhausted "A quota or a resource is used up."
    failed_precondition FailedPrecondition "The system is not in the state that this needs."
    aborted Aborted "A conflict; the caller may start again at a higher level."
    unimplemented Unimplemented "The method is not implemented."
    internal Internal "An invariant of the service is broken."
    unavailable Unavailable "The service cannot do this now."
    unauthenticated Unauthenticated "The caller is not known."
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { code, message, details, metadata } = &*self.0;
        f.debug_struct("Status")
            .field("code", code)
            .field("message", message)
            .field("details", details)
            .field("metadata", metadata)
            .finish()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code().description())?;
        if !self.message().is_empty() {
            write!(f, ": {}", self.message())?;
        }
        self.tell_violations(f)
    }
}

impl core::error::Error for Status {}

impl From<String> for Status {
    /// An [`Code::Unknown`] status with this message.
    fn from(message: String) -> Self {
        Self::new(Code::Unknown, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_strange_ones_are_unknown() {
        for n in 0..=16 {
            assert_eq!(Code::from_number(n) as u64, n);
        }
        assert_eq!(Code::from_number(99), Code::Unknown);
    }
}
