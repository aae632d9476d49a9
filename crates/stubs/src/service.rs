//! A service, as both doors describe it.

use std::rc::Rc;

/// As in `stubborn_core::service::Semantics`, whose names these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Semantics {
    Maybe,
    AtMostOnce,
    Idempotent,
    Read,
    ExactlyOnce,
}

/// As in `stubborn_core::service::Shape`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shape {
    Unary,
    ClientStreaming,
    ServerStreaming,
    BidiStreaming,
}

impl Shape {
    /// By which sides stream.
    pub fn of(client_streams: bool, server_streams: bool) -> Self {
        match (client_streams, server_streams) {
            (false, false) => Self::Unary,
            (true, false) => Self::ClientStreaming,
            (false, true) => Self::ServerStreaming,
            (true, true) => Self::BidiStreaming,
        }
    }
}

impl Semantics {
    /// Whether calls have an id by which their outcome can be asked for.
    pub fn takes_slot(self) -> bool {
        !matches!(self, Self::Maybe | Self::Read)
    }

    /// The promise in a sentence, for documentation.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Maybe => "Calls are sent once and may be lost; there is no reply.",
            Self::AtMostOnce => "Calls run at most once.",
            Self::Idempotent => "Calls are idempotent: one may run more than once.",
            Self::Read => "Calls have no side effects: one may run any number of times.",
            Self::ExactlyOnce => "Calls run exactly once.",
        }
    }
}

/// A service, with all that its items need beside the types of requests and replies.
#[derive(Debug)]
pub struct Service {
    /// `package.Service`.
    pub full_name: String,
    /// What it is called in Rust.
    pub rust_name: String,
    /// Whether it should not be used any more.
    pub deprecated: bool,
    /// Its methods, in order.
    pub methods: Vec<Method>,
    /// What describes it.
    pub files: Files,
}

/// A method of a service.
#[derive(Debug)]
pub struct Method {
    /// `package.Service/Method`.
    pub full_name: String,
    /// What it is called in Rust.
    pub rust_name: String,
    /// Whether it should not be used any more.
    pub deprecated: bool,
    /// What is promised about its calls.
    pub semantics: Semantics,
    /// Which sides stream.
    pub shape: Shape,
}

/// The compiled `.proto` file of a service and those that it imports.
#[derive(Debug)]
pub enum Files {
    /// To be written with this service.
    Own(Rc<[u8]>),
    /// Written with another service of the same file, which has this name in Rust.
    With(String),
    /// It has none: it is described by a trait.
    None,
}
