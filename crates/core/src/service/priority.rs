//! How much a call matters when a server cannot run all that it is asked for.

use super::metadata::Metadata;

/// By this metadata key a call says how much it matters: `low`, `normal` or `high`. Anything else, and
/// nothing, is `normal`.
pub const PRIORITY: &str = "stubborn-priority";

/// How much a call matters. A server that is overloaded begins what matters more first, and refuses what
/// matters less first. Whoever may call a method may say so of the call; the server believes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be done without: prefetching, work that is tried again later.
    Low,
    /// What says nothing.
    #[default]
    Normal,
    /// A user waits for it, or other calls depend on it.
    High,
}

impl Priority {
    /// All, from what matters least.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// What stands in the metadata of a call.
    pub fn of(metadata: &Metadata) -> Self {
        if metadata.is_empty() {
            return Self::Normal;
        }
        let said = metadata.get_str(PRIORITY);
        Self::ALL.into_iter().find(|one| said == Some(one.as_str())).unwrap_or_default()
    }

    /// As it is said in metadata.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_priority_is_a_normal_one() {
        assert_eq!(Priority::of(&Metadata::new()), Priority::Normal);
        for said in ["", "HIGH", "9", "urgent"] {
            let mut metadata = Metadata::new();
            metadata.insert(PRIORITY, said).unwrap();
            assert_eq!(Priority::of(&metadata), Priority::Normal);
        }
        for priority in Priority::ALL {
            let mut metadata = Metadata::new();
            metadata.insert(PRIORITY, priority.as_str()).unwrap();
            assert_eq!(Priority::of(&metadata), priority);
        }
    }
}
