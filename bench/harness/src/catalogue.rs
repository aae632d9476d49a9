//! The systems that are compared.

use crate::rows::{BUSY_POLLING, FLOOR_R, Network, OURS, RIVAL, TCP_CUBIC};

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

impl System {
    /// TCP's congestion control, of variants that are about it: their names end with it.
    pub(crate) fn congestion_control(&self) -> Option<&'static str> {
        ["cubic", "bbr"].into_iter().find(|name| self.id.ends_with(&format!("-{name}")))
    }

    /// What its program is told to run on this network.
    pub(crate) fn variant(&self, network: Network) -> String {
        match (self.congestion_control(), network) {
            _ if self.id == RIVAL => OURS.to_owned(),
            (Some(name), _) => self.id.trim_end_matches(name).trim_end_matches('-').to_owned(),
            (None, Network::Lossy(path)) if self.id == FLOOR_R => {
                format!("{}us", path.round_trip_us)
            }
            _ => self.id.to_owned(),
        }
    }
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
        id: BUSY_POLLING,
        part: Part::Ours,
        package: "bench-ours",
        library: Some("stubborn"),
        encrypted: true,
        workers: true,
        how: "ours with busy polling on both sides: 50 us are spun before a side sleeps",
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
        id: FLOOR_R,
        part: Part::Floor,
        package: "bench-floor-r",
        library: None,
        encrypted: false,
        workers: false,
        how: "one datagram for each call, sent again when the RTT and 1 ms have passed",
    },
    System {
        id: RIVAL,
        part: Part::Ours,
        package: "bench-ours",
        library: Some("stubborn"),
        encrypted: true,
        workers: false,
        how: "a second client with a server of its own, beside the first",
    },
    System {
        id: TCP_CUBIC,
        part: Part::Floor,
        package: "bench-tcp",
        library: None,
        encrypted: false,
        workers: false,
        how: "a bare TCP connection that is kept busy, CUBIC",
    },
    System {
        id: "tonic",
        part: Part::Peer,
        package: "bench-tonic",
        library: Some("tonic"),
        encrypted: false,
        workers: true,
        how: "gRPC over HTTP/2 and TCP, protobuf",
    },
    System {
        id: "tonic-tls",
        part: Part::Peer,
        package: "bench-tonic",
        library: Some("tonic"),
        encrypted: true,
        workers: true,
        how: "the same with TLS (rustls, aws-lc)",
    },
    System {
        id: "tarpc",
        part: Part::Peer,
        package: "bench-tarpc",
        library: Some("tarpc"),
        encrypted: false,
        workers: true,
        how: "its serde transport over TCP, bincode",
    },
    System {
        id: "capnp",
        part: Part::Peer,
        package: "bench-capnp",
        library: Some("capnp-rpc"),
        encrypted: false,
        workers: false,
        how: "Cap'n Proto's two-party network over TCP",
    },
    System {
        id: "connect",
        part: Part::Peer,
        package: "bench-connect",
        library: Some("connectrpc"),
        encrypted: false,
        workers: true,
        how: "Connect's protocol over HTTP/2 and TCP, protobuf (buffa)",
    },
    System {
        id: "tonic-cubic",
        part: Part::Peer,
        package: "bench-tonic",
        library: Some("tonic"),
        encrypted: false,
        workers: true,
        how: "tonic on TCP CUBIC",
    },
    System {
        id: "tonic-bbr",
        part: Part::Peer,
        package: "bench-tonic",
        library: Some("tonic"),
        encrypted: false,
        workers: true,
        how: "tonic on TCP BBR",
    },
    System {
        id: "tarpc-cubic",
        part: Part::Peer,
        package: "bench-tarpc",
        library: Some("tarpc"),
        encrypted: false,
        workers: true,
        how: "tarpc on TCP CUBIC",
    },
    System {
        id: "tarpc-bbr",
        part: Part::Peer,
        package: "bench-tarpc",
        library: Some("tarpc"),
        encrypted: false,
        workers: true,
        how: "tarpc on TCP BBR",
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
    System {
        id: "s2n-quic",
        part: Part::Peer,
        package: "bench-s2n",
        library: Some("s2n-quic"),
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
    use crate::rows::LossyPath;

    #[test]
    fn a_variant_that_is_about_the_network_runs_the_same_program() {
        let path = |round_trip_us| Network::Lossy(LossyPath { round_trip_us, loss: 1 });
        assert_eq!(find(FLOOR_R).unwrap().variant(path(200)), "200us");
        let quinn = find("quinn").unwrap();
        assert_eq!((quinn.variant(path(9)), quinn.congestion_control()), ("quinn".into(), None));
        assert_eq!(find(RIVAL).unwrap().variant(path(9)), OURS);
        let tonic = System { id: "tonic-bbr", ..*quinn };
        assert_eq!(
            (tonic.variant(path(9)), tonic.congestion_control()),
            ("tonic".into(), Some("bbr"))
        );
    }

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
