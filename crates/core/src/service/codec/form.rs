//! What messages look like, told in text to those who do not have their types.

#[cfg(feature = "postcard")]
mod definition;
#[cfg(feature = "postcard")]
mod probe;
#[cfg(all(test, feature = "postcard"))]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What messages of a type look like, as far as their codec can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The format: `json`, `postcard`.
    pub format: &'static str,
    /// The type, as Rust writes it; of a tuple those of its parts.
    pub parts: Vec<String>,
    /// The definitions of the types that it names, as Rust writes them, in alphabetical order. `_` stands
    /// for what could not be found out.
    pub types: Vec<String>,
}

/// How a method of a Rust trait is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The names of the arguments that are sent. None of a method whose client streams.
    pub arguments: Vec<&'static str>,
    /// What a request looks like: a tuple of the arguments, or one message of the client's stream.
    pub request: Form,
    /// What the reply looks like, or one message of the server's stream.
    pub reply: Form,
}

impl Form {
    /// The type, as Rust writes it.
    pub fn whole(&self) -> String {
        match self.parts.as_slice() {
            [one] => one.clone(),
            [one, rest @ ..] if rest.len() >= 4 && rest.iter().all(|other| other == one) => {
                format!("[{one}; {}]", self.parts.len())
            }
            parts => format!("({})", parts.join(", ")),
        }
    }

    /// The form of serde's types. It comes from what a type's `Deserialize` asks for: `readable` is
    /// whether the format is for humans, by which some types choose.
    #[cfg(feature = "postcard")]
    pub fn of<M: serde::de::DeserializeOwned>(format: &'static str, readable: bool) -> Self {
        let (parts, types) = probe::probe::<M>(readable);
        Self { format, parts, types }
    }
}
