//! The systems that are compared.

/// What part a system plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Ours,
    /// What a user could pick instead.
    Peer,
    /// Bare datagrams: for comparison, not to be picked.
    Floor,
}

/// A system in one variant.
#[derive(Debug)]
pub(crate) struct System {
    /// Its name on the command line and in the JSON.
    pub(crate) id: &'static str,
    pub(crate) part: Part,
    /// The package under `bench/systems`, whose program has the same name.
    pub(crate) package: &'static str,
    /// The library whose version is told; nothing for what the benchmark has itself.
    pub(crate) library: Option<&'static str>,
    pub(crate) encrypted: bool,
    /// Whether its server can have several threads.
    pub(crate) workers: bool,
    /// One line on how it is run.
    pub(crate) how: &'static str,
}

/// All of them, in the order of the tables.
pub(crate) const SYSTEMS: &[System] = &[
    System {
        id: "ours",
        part: Part::Ours,
        package: "bench-ours",
        library: Some("stubborn"),
        encrypted: true,
        workers: true,
        how: "generated stubs, deadlines and outcomes on, handlers that are ready at once",
    },
    System {
        id: "ours-yielding",
        part: Part::Ours,
        package: "bench-ours",
        library: Some("stubborn"),
        encrypted: true,
        workers: true,
        how: "the same with handlers that yield once, so that each call becomes a task",
    },
    System {
        id: "udp-blocking",
        part: Part::Floor,
        package: "bench-floors",
        library: None,
        encrypted: false,
        workers: false,
        how: "one datagram for each call, blocking sockets",
    },
    System {
        id: "udp-tokio",
        part: Part::Floor,
        package: "bench-floors",
        library: None,
        encrypted: false,
        workers: false,
        how: "one datagram for each call, tokio sockets",
    },
    System {
        id: "udp-batched",
        part: Part::Floor,
        package: "bench-floors",
        library: None,
        encrypted: false,
        workers: false,
        how: "one datagram for each call, many for each system call (GSO, GRO, recvmmsg), tokio",
    },
    System {
        id: "quinn",
        part: Part::Peer,
        package: "bench-quinn",
        library: Some("quinn"),
        encrypted: true,
        workers: true,
        how: "QUIC, a stream for each call",
    },
];

/// The system with this name.
pub(crate) fn find(id: &str) -> Option<&'static System> {
    SYSTEMS.iter().find(|system| system.id == id)
}

/// The version of a library in the committed lock file.
pub(crate) fn version(library: &str) -> Option<&'static str> {
    let lock = include_str!("../../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| {
        entry.lines().any(|line| line.strip_prefix("name = ") == Some(&format!("{library:?}")))
    })?;
    Some(entry.lines().find_map(|line| line.strip_prefix("version = "))?.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_libraries_have_versions() {
        for (index, system) in SYSTEMS.iter().enumerate() {
            assert_eq!(SYSTEMS.iter().position(|other| other.id == system.id), Some(index));
            if let Some(library) = system.library {
                assert!(version(library).is_some(), "{library} is not in Cargo.lock");
            }
        }
    }
}
