//! What was found out about a named type.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Stands for what could not be found out.
pub(super) const UNKNOWN: &str = "_";

pub(super) enum Definition {
    Unit,
    Tuple(Vec<String>),
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
}

#[derive(Clone)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its type, once it was seen.
    pub(super) of: Option<String>,
    /// It leads back to where it is: what may be empty in it is left empty.
    pub(super) circular: bool,
    /// How often its value was refused.
    pub(super) failed: usize,
}

#[derive(Clone)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) content: String,
    /// How often it was looked into without end.
    pub(super) failed: usize,
    pub(super) done: bool,
}

impl Definition {
    pub(super) fn of_fields(names: &[&'static str]) -> Self {
        let field = |name: &&'static str| Field { name, of: None, circular: false, failed: 0 };
        Self::Struct(names.iter().map(field).collect())
    }

    pub(super) fn of_variants(names: &[&'static str]) -> Self {
        let variant =
            |name: &&'static str| Variant { name, content: String::new(), failed: 0, done: false };
        Self::Enum(names.iter().map(variant).collect())
    }

    /// How many of its parts were seen, and were seen whole.
    pub(super) fn known(&self) -> usize {
        match self {
            Self::Unit | Self::Tuple(_) => 1,
            Self::Struct(fields) => {
                let seen =
                    |field: &Field| usize::from(field.of.is_some()) + usize::from(field.circular);
                fields.iter().map(seen).sum()
            }
            Self::Enum(variants) => variants.iter().map(Variant::known).sum(),
        }
    }

    pub(super) fn show(&self, name: &str) -> String {
        match self {
            Self::Unit => format!("struct {name}"),
            Self::Tuple(parts) => format!("struct {name}({})", parts.join(", ")),
            Self::Struct(fields) => format!("struct {name} {}", braces(fields)),
            Self::Enum(variants) => format!("enum {name} {}", braces(variants)),
        }
    }
}

impl Variant {
    fn known(&self) -> usize {
        self.failed + usize::from(self.done)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.of.as_deref().unwrap_or(UNKNOWN))
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, self.content)
    }
}

pub(super) fn braces(parts: &[impl fmt::Display]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| format!("{part}")).collect();
    if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
}
