//! Metrics in Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use super::{Door, Held, Latency, Link, MethodCalls, Side, SnapshotReply, Traffic};
use crate::group::{Role, StatusReply};

/// The media type of the text.
pub const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The classes of latencies: each doubling from 2^14 ns (16 microseconds) to 2^34 ns (17 s), which are
/// ends of the classes that are counted.
const CLASSES: std::ops::RangeInclusive<u32> = 14..=34;

/// What was counted, in Prometheus' text format, for an endpoint of one's own; of a replica with how it
/// stands. What several parts of a program have counted is put together first, with
/// [`SnapshotReply::merge`].
pub fn prometheus_text(told: &SnapshotReply, standing: Option<&StatusReply>) -> String {
    let mut text = Text::default();
    text.calls(&told.methods);
    text.links(&told.links);
    text.traffic(&told.traffic.unwrap_or_default());
    text.held(&told.held.unwrap_or_default());
    if let Some(door) = &told.grpc {
        text.door(door);
    }
    if let Some(standing) = standing {
        text.standing(standing);
    }
    text.one("stubborn_uptime_seconds", GAUGE, "How long it has counted.", seconds(told.uptime_ns));
    text.head("stubborn_info", GAUGE, "The version of the runtime.");
    text.sample("stubborn_info", &[("version", &told.version)], 1);
    text.0
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

#[derive(Default)]
struct Text(String);

impl Text {
    fn calls(&mut self, methods: &[MethodCalls]) {
        let name = "stubborn_calls_total";
        self.head(
            name,
            COUNTER,
            "Calls that have ended, by how; the detail is a code or a reason.",
        );
        for calls in methods {
            let mut count = |outcome: &str, detail: &str, count: u64| {
                let [method, side] = labels(calls);
                let labels = [method, side, ("outcome", outcome), ("detail", detail)];
                self.sample(name, &labels, count);
            };
            count("replied", "", calls.replied);
            for status in &calls.statuses {
                count("status", &status.name, status.count);
            }
            for reason in &calls.not_executed {
                count("not_executed", &reason.name, reason.count);
            }
            // A client's only: a server has an answer for each.
            if calls.side() == Side::Client {
                count("pending", "", calls.pending);
                count("lost", "", calls.lost);
                count("unanswered", "", calls.unanswered);
            }
            count("abandoned", "", calls.abandoned);
        }
        let name = "stubborn_calls_in_flight";
        self.head(name, GAUGE, "Calls that were begun and have not ended.");
        methods.iter().for_each(|calls| self.sample(name, &labels(calls), calls.in_flight));
        let name = "stubborn_call_duration_seconds";
        self.head(name, HISTOGRAM, "How long calls took that have ended and were not abandoned.");
        for calls in methods {
            if let Some(latency) = &calls.latency {
                self.histogram(name, labels(calls), latency);
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: [(&str, &str); 2], latency: &Latency) {
        let (mut buckets, mut below) = (latency.buckets.iter().peekable(), 0);
        let [method, side] = labels;
        let bucket = format!("{name}_bucket");
        for power in CLASSES {
            let end = 1 << power;
            while let Some(class) = buckets.next_if(|class| class.below_ns <= end) {
                below += class.count;
            }
            let le = seconds(end).to_string();
            self.sample(&bucket, &[method, side, ("le", &le)], below);
        }
        self.sample(&bucket, &[method, side, ("le", "+Inf")], latency.count);
        self.sample(&format!("{name}_sum"), &labels, seconds(latency.sum_ns));
        self.sample(&format!("{name}_count"), &labels, latency.count);
    }

    fn links(&mut self, links: &[Link]) {
        // A peer may have a second connection from the same address, as the first one ends.
        let mut seen = BTreeSet::new();
        let links: Vec<&Link> =
            links.iter().filter(|link| seen.insert((&link.peer, link.side))).collect();
        let traffic = |link: &Link| link.traffic.unwrap_or_default();
        let mut all = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Link) -> f64| {
            self.head(name, kind, help);
            for link in &links {
                let labels = [("peer", link.peer.as_str()), ("side", side(link.side()))];
                self.sample(name, &labels, value(link));
            }
        };
        all("stubborn_link_rtt_seconds", GAUGE, "Smoothed round-trip time.", &|link| {
            seconds(link.rtt_ns)
        });
        all("stubborn_link_min_rtt_seconds", GAUGE, "Smallest round-trip time.", &|link| {
            seconds(link.min_rtt_ns)
        });
        all("stubborn_link_window_bytes", GAUGE, "Congestion window.", &|link| link.window as f64);
        all("stubborn_link_in_flight_bytes", GAUGE, "Sent and not acknowledged.", &|link| {
            link.in_flight as f64
        });
        all("stubborn_link_mtu_bytes", GAUGE, "The largest datagram on the path.", &|link| {
            link.mtu as f64
        });
        all("stubborn_link_packets_sent_total", COUNTER, "Packets sent.", &|link| {
            traffic(link).packets_sent as f64
        });
        all("stubborn_link_packets_lost_total", COUNTER, "Packets declared lost.", &|link| {
            traffic(link).packets_lost as f64
        });
        let help = "Packets with something that was sent before.";
        all("stubborn_link_packets_resent_total", COUNTER, help, &|link| {
            traffic(link).packets_resent as f64
        });
    }

    fn traffic(&mut self, all: &Traffic) {
        let of = "of all links, also those that are gone.";
        for (name, what, value) in [
            ("connections", "Connections", all.connections),
            ("datagrams_sent", "Datagrams sent", all.datagrams_sent),
            ("datagrams_received", "Datagrams received", all.datagrams_received),
            ("sent_bytes", "Bytes sent", all.bytes_sent),
            ("received_bytes", "Bytes received", all.bytes_received),
            ("packets_sent", "Packets sent", all.packets_sent),
            ("packets_received", "Packets received", all.packets_received),
            ("packets_lost", "Packets declared lost", all.packets_lost),
            ("packets_resent", "Packets with something that was sent before", all.packets_resent),
            ("packets_dropped", "Packets dropped", all.packets_dropped),
            ("probe_timeouts", "Probe timeouts", all.probe_timeouts),
            ("migrations", "Changes of a peer's address", all.migrations),
        ] {
            self.one(&format!("stubborn_{name}_total"), COUNTER, &format!("{what}, {of}"), value);
        }
    }

    fn door(&mut self, door: &Door) {
        self.one("stubborn_grpc_connections", GAUGE, "Connections over gRPC.", door.open);
        for (name, help, value) in [
            ("connections", "Connections over gRPC since the start.", door.connections),
            ("connections_refused", "Connections over gRPC that found no room.", door.refused),
            (
                "received_bytes",
                "Bytes received over gRPC, with TLS and HTTP/2.",
                door.bytes_received,
            ),
            ("sent_bytes", "Bytes sent over gRPC, with TLS and HTTP/2.", door.bytes_sent),
        ] {
            self.one(&format!("stubborn_grpc_{name}_total"), COUNTER, help, value);
        }
    }

    fn held(&mut self, held: &Held) {
        for (name, help, value) in [
            ("connections", "Connections.", held.connections),
            ("sessions", "Sessions of clients.", held.sessions),
            ("slots", "Slots of sessions.", held.slots),
            ("kept_reply_bytes", "Replies kept for sessions.", held.kept_replies),
            ("held_reply_bytes", "Replies kept for connections.", held.held_replies),
            ("requests_executing", "Requests whose handlers have not answered.", held.executing),
            ("streams", "Streams at the server.", held.streams),
            ("stream_bytes", "What streams hold.", held.stream_bytes),
            ("assembling_bytes", "Messages that are being put together.", held.assembling),
            ("calls_waiting", "Calls that this process waits for.", held.calls),
        ] {
            self.one(&format!("stubborn_{name}"), GAUGE, help, value);
        }
    }

    fn standing(&mut self, of: &StatusReply) {
        let leads = u64::from(of.role() == Role::Leader);
        for (name, kind, help, value) in [
            ("node", GAUGE, "The number of the node.", of.node),
            ("leads", GAUGE, "1 if the node leads.", leads),
            ("leader", GAUGE, "The node that leads; 0 if it knows of none.", of.leader),
            ("term", GAUGE, "The latest term that it has seen.", of.term),
            ("last_entry", GAUGE, "The last entry of its log.", of.last),
            ("committed_entry", GAUGE, "The last entry known to be committed.", of.committed),
            ("applied_entry", GAUGE, "The last entry that it has applied.", of.applied),
            ("sessions", GAUGE, "Sessions that the group remembers.", of.sessions),
            ("pending_commands", GAUGE, "Commands that are not applied yet.", of.pending),
            ("voters", GAUGE, "Members that vote.", of.voters.len() as u64),
            ("disk_syncs_total", COUNTER, "How often it has synced its disk.", of.syncs),
            ("disk_writes_total", COUNTER, "Writes that this made durable.", of.writes),
        ] {
            self.one(&format!("stubborn_group_{name}"), kind, help, value);
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn labels(calls: &MethodCalls) -> [(&str, &str); 2] {
    [("method", &calls.method), ("side", side(calls.side()))]
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Client => "client",
        Side::Unspecified => "unknown",
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Bucket, Count};
    use super::*;

    fn told() -> SnapshotReply {
        let latency = Latency {
            count: 6,
            sum_ns: 70_000_000_000,
            max_ns: 60_000_000_000,
            buckets: vec![
                Bucket { below_ns: 512, count: 2 },
                Bucket { below_ns: 1 << 14, count: 1 },
                Bucket { below_ns: 9 << 11, count: 1 },
                Bucket { below_ns: 1 << 36, count: 2 },
            ],
        };
        let calls = MethodCalls {
            method: "a.B/C\"\\\n".into(),
            side: Side::Client.into(),
            replied: 5,
            statuses: vec![Count { name: "not_found".into(), count: 1 }],
            latency: Some(latency),
            ..MethodCalls::default()
        };
        let link = Link { peer: "10.0.0.1:9".into(), rtt_ns: 1_500_000, ..Link::default() };
        SnapshotReply {
            uptime_ns: 2_500_000_000,
            methods: vec![calls],
            links: vec![link.clone(), link],
            version: "1.0".into(),
            ..SnapshotReply::default()
        }
    }

    /// Labels that were read, and what follows them.
    fn read_labels(mut text: &str) -> (BTreeMap<String, String>, &str) {
        let mut labels = BTreeMap::new();
        while !text.starts_with('}') {
            let (name, rest) = text.trim_start_matches(',').split_once("=\"").unwrap();
            let (mut value, mut letters) = (String::new(), rest.char_indices());
            loop {
                let (at, letter) = letters.next().unwrap();
                match letter {
                    '"' => {
                        text = &rest[at + 1..];
                        break;
                    }
                    '\\' => value.push(match letters.next().unwrap().1 {
                        'n' => '\n',
                        escaped @ ('"' | '\\') => escaped,
                        other => panic!("\\{other} is no escape"),
                    }),
                    '\n' => panic!("a line ends in a label"),
                    other => value.push(other),
                }
            }
            assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
        (labels, &text[1..])
    }

    #[test]
    fn every_line_can_be_read_and_every_series_has_its_type_help_and_one_value() {
        let text = prometheus_text(&told(), Some(&StatusReply::default()));
        let (mut types, mut series) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(helped.insert(name) && !help.is_empty(), "{line}");
                continue;
            }
            if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').unwrap();
                assert!(types.insert(name, kind).is_none() && helped.contains(name), "{line}");
                continue;
            }
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            let (labels, rest) = match rest.strip_prefix('{') {
                Some(rest) => read_labels(rest),
                None => (BTreeMap::new(), rest),
            };
            let legal = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(name.bytes().all(legal), "{line}");
            let value: f64 = rest.trim().parse().unwrap();
            let parts = ["_bucket", "_sum", "_count"];
            let base = parts.iter().find_map(|part| name.strip_suffix(part));
            let base = base.filter(|base| types.get(base) == Some(&"histogram")).unwrap_or(name);
            let kind = *types.get(base).unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(series.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
        let calls = |name: &str, more: &[(&str, &str)]| {
            let own = [("method", "a.B/C\"\\\n"), ("side", "client")];
            let labels = own.iter().chain(more).map(|(k, v)| (k.to_string(), v.to_string()));
            series[&(name.to_owned(), labels.collect())]
        };
        let outcome = [("outcome", "status"), ("detail", "not_found")];
        assert_eq!(calls("stubborn_calls_total", &outcome), 1.0);
        let name = "stubborn_call_duration_seconds";
        let bucket = |le: &str| calls(&format!("{name}_bucket"), &[("le", le)]);
        assert_eq!(bucket("0.000016384"), 3.0);
        assert_eq!(bucket("0.000032768"), 4.0, "classes are cumulative");
        assert_eq!((bucket("17.179869184"), bucket("+Inf")), (4.0, 6.0));
        assert_eq!(calls(&format!("{name}_count"), &[]), 6.0);
        assert_eq!(calls(&format!("{name}_sum"), &[]), 70.0);
        let one = |name: &str| series[&(name.to_owned(), BTreeMap::new())];
        assert_eq!((one("stubborn_uptime_seconds"), one("stubborn_group_leads")), (2.5, 0.0));
    }
}
