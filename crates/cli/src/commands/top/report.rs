//! What came between two looks, over all servers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use stubborn::group::StatusReply;
use stubborn::metrics::{Count, Door, Held, Latency, Link, MethodCalls, Side, Traffic};

use super::server::{Sample, Server};
use crate::commands::status::role;
use crate::schema;

/// What is shown.
#[derive(Default)]
pub(super) struct Report {
    pub(super) nodes: Vec<Node>,
    pub(super) methods: Vec<Calls>,
    pub(super) links: Vec<Rate>,
}

/// A server.
pub(super) struct Node {
    pub(super) address: String,
    pub(super) told: Result<Told, String>,
}

/// What a server told of itself.
pub(super) struct Told {
    pub(super) status: Option<StatusReply>,
    pub(super) held: Held,
    /// Of the door for gRPC, if there is one, with the bytes each way in a second.
    pub(super) grpc: Option<(Door, f64, f64)>,
    pub(super) uptime_ms: u64,
    pub(super) per_second: f64,
    /// Entries of the log that it has not applied and another one knows to be committed.
    pub(super) lag: Option<u64>,
}

/// The calls of a method on one side, at all servers.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) method: String,
    pub(super) side: Side,
    pub(super) per_second: f64,
    /// Of those that ended between the looks.
    pub(super) latency: Latency,
    pub(super) in_flight: u64,
    /// Since the servers were started, by how they ended.
    pub(super) endings: BTreeMap<String, u64>,
    pub(super) total: u64,
}

/// A link of a server.
pub(super) struct Rate {
    pub(super) server: String,
    pub(super) link: Link,
    /// Of the packets that were sent between the looks, how many were lost, in per cent.
    pub(super) loss: f64,
    pub(super) packets_per_second: f64,
    pub(super) resent_per_second: f64,
}

impl Report {
    pub(super) fn new(servers: &[Server], all: bool, most_links: usize) -> Self {
        let mut report = Self::default();
        let mut methods = BTreeMap::new();
        for server in servers {
            let told = match (&server.now, &server.failure) {
                (Some(now), _) => {
                    let between = Between::new(server.before.as_ref(), now);
                    report.links.extend(between.links(&server.address));
                    Ok(between.add_calls(&mut methods, all))
                }
                (None, Some(error)) => Err(error.message().lines().next().unwrap_or("").to_owned()),
                (None, None) => Err("not asked yet".to_owned()),
            };
            report.nodes.push(Node { address: server.address.clone(), told });
        }
        report.methods = methods.into_values().collect();
        report.links.sort_by_key(|rate| Reverse(rate.link.datagrams()));
        report.links.truncate(most_links);
        report.set_lag();
        report
    }

    fn set_lag(&mut self) {
        let told = || self.nodes.iter().filter_map(|node| node.told.as_ref().ok());
        let committed = told().filter_map(|told| told.status.as_ref()).map(|s| s.committed).max();
        for told in self.nodes.iter_mut().filter_map(|node| node.told.as_mut().ok()) {
            let applied = told.status.as_ref().map(|status| status.applied);
            told.lag = committed.zip(applied).map(|(most, own)| most.saturating_sub(own));
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "servers": self.nodes.iter().map(Node::to_json).collect::<Vec<_>>(),
            "methods": self.methods.iter().map(Calls::to_json).collect::<Vec<_>>(),
            "links": self.links.iter().map(Rate::to_json).collect::<Vec<_>>(),
        })
    }
}

/// Two looks at one server.
struct Between<'a> {
    before: Option<&'a Sample>,
    now: &'a Sample,
    seconds: f64,
}

impl<'a> Between<'a> {
    fn new(before: Option<&'a Sample>, now: &'a Sample) -> Self {
        let since = |before: &Sample| now.at.duration_since(before.at).as_secs_f64();
        // A first look is of all that was since the start.
        let start = now.told.uptime_ns as f64 / 1e9;
        let seconds = before.map_or(start, since).max(1e-3);
        Self { before, now, seconds }
    }

    fn add_calls(&self, methods: &mut BTreeMap<(String, i32), Calls>, all: bool) -> Told {
        let mut per_second = 0.0;
        for calls in &self.now.told.methods {
            let service = calls.method.split('/').next().unwrap_or_default();
            let own = schema::is_of_every_server(service) || calls.method == STATUS;
            let unused = calls.ended() == 0 && calls.in_flight == 0;
            if !all && (own || unused) {
                continue;
            }
            let same =
                |other: &&MethodCalls| (&other.method, other.side) == (&calls.method, calls.side);
            let before = self.before.and_then(|before| before.told.methods.iter().find(same));
            let rate = self.rate(before.map_or(0, MethodCalls::ended), calls.ended());
            if calls.side() == Side::Server {
                per_second += rate;
            }
            let key = (calls.method.clone(), calls.side);
            methods.entry(key).or_default().add(calls, before, rate);
        }
        Told {
            status: self.now.status.clone(),
            held: self.now.told.held.unwrap_or_default(),
            grpc: self.now.told.grpc.map(|door| {
                let before = self.before.and_then(|before| before.told.grpc).unwrap_or_default();
                let received = self.rate(before.bytes_received, door.bytes_received);
                (door, received, self.rate(before.bytes_sent, door.bytes_sent))
            }),
            uptime_ms: self.now.told.uptime_ns / 1_000_000,
            per_second,
            lag: None,
        }
    }

    fn links(&self, server: &str) -> impl Iterator<Item = Rate> {
        self.now.told.links.iter().map(move |link| {
            let same = |other: &&Link| (&other.peer, other.side) == (&link.peer, link.side);
            let before = self.before.and_then(|before| before.told.links.iter().find(same));
            let before: Traffic = before.and_then(|link| link.traffic).unwrap_or_default();
            let now = link.traffic.unwrap_or_default();
            let sent = now.packets_sent.saturating_sub(before.packets_sent);
            let lost = now.packets_lost.saturating_sub(before.packets_lost);
            Rate {
                server: server.to_owned(),
                link: link.clone(),
                loss: 100.0 * lost as f64 / sent.max(1) as f64,
                packets_per_second: self.rate(before.packets_sent, now.packets_sent),
                resent_per_second: self.rate(before.packets_resent, now.packets_resent),
            }
        })
    }

    fn rate(&self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.seconds
    }
}

/// Asked by this program.
const STATUS: &str = "stubborn.group.v1.Group/Status";

impl Calls {
    fn add(&mut self, now: &MethodCalls, before: Option<&MethodCalls>, per_second: f64) {
        self.method.clone_from(&now.method);
        self.side = now.side();
        self.per_second += per_second;
        self.in_flight += now.in_flight;
        self.total += now.ended();
        let latency = now.latency.clone().unwrap_or_default();
        let since = match before.and_then(|before| before.latency.as_ref()) {
            Some(before) => latency.since(before),
            None => latency,
        };
        self.latency.merge(&since);
        let mut ended = |how: &str, count: u64| {
            if count > 0 {
                *self.endings.entry(how.to_owned()).or_default() += count;
            }
        };
        ended("replied", now.replied);
        for Count { name, count } in &now.statuses {
            ended(&format!("status {name}"), *count);
        }
        for Count { name, count } in &now.not_executed {
            ended(&format!("not executed {name}"), *count);
        }
        ended("pending", now.pending);
        ended("lost", now.lost);
        ended("unanswered", now.unanswered);
        ended("abandoned", now.abandoned);
    }

    fn to_json(&self) -> Value {
        let endings = self.endings.iter().map(|(how, count)| (how.clone(), json!(count)));
        let micros = |part| (self.latency.count > 0).then(|| self.latency.quantile(part) / 1_000);
        json!({
            "method": self.method,
            "side": side(self.side),
            "calls_per_second": self.per_second,
            "p50_us": micros(0.5),
            "p99_us": micros(0.99),
            "in_flight": self.in_flight,
            "ended": self.total,
            "outcomes": endings.collect::<Map<_, _>>(),
        })
    }
}

impl Node {
    fn to_json(&self) -> Value {
        let told = match &self.told {
            Ok(told) => told,
            Err(why) => {
                return json!({ "address": self.address, "reachable": false, "error": why });
            }
        };
        let mut value = json!({
            "address": self.address,
            "reachable": true,
            "calls_per_second": told.per_second,
            "uptime_ms": told.uptime_ms,
            "connections": told.held.connections,
            "sessions": told.held.sessions,
            "slots": told.held.slots,
            "kept_replies_bytes": told.held.kept_replies,
            "executing": told.held.executing,
            "streams": told.held.streams,
        });
        if let Some((door, received, sent)) = &told.grpc {
            value["grpc"] = json!({
                "connections": door.open,
                "connections_since_start": door.connections,
                "connections_refused": door.refused,
                "received_bytes": door.bytes_received,
                "sent_bytes": door.bytes_sent,
                "received_bytes_per_second": received,
                "sent_bytes_per_second": sent,
            });
        }
        if let Some(status) = &told.status {
            value["node"] = status.node.into();
            value["role"] = role(status).into();
            value["leader"] = json!(Some(status.leader).filter(|leader| *leader != 0));
            value["term"] = status.term.into();
            value["lag"] = json!(told.lag);
            value["sessions"] = status.sessions.into();
        }
        value
    }
}

impl Rate {
    fn to_json(&self) -> Value {
        let traffic = self.link.traffic.unwrap_or_default();
        json!({
            "server": self.server,
            "peer": self.link.peer,
            "side": side(self.link.side()),
            "rtt_us": self.link.rtt_ns / 1_000,
            "min_rtt_us": self.link.min_rtt_ns / 1_000,
            "window_bytes": self.link.window,
            "in_flight_bytes": self.link.in_flight,
            "mtu": self.link.mtu,
            "loss_percent": self.loss,
            "packets_per_second": self.packets_per_second,
            "resent_per_second": self.resent_per_second,
            "packets_sent": traffic.packets_sent,
            "packets_lost": traffic.packets_lost,
            "packets_resent": traffic.packets_resent,
        })
    }
}

pub(super) fn side(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Client => "client",
        Side::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};
    use stubborn::metrics::SnapshotReply;

    fn sample(at: Instant, replied: u64, packets: u64) -> Sample {
        let traffic =
            Traffic { packets_sent: packets, packets_lost: packets / 10, ..Traffic::default() };
        let link = Link { peer: "10.0.0.1:9".into(), traffic: Some(traffic), ..Link::default() };
        let calls = MethodCalls {
            method: "a.B/C".into(),
            side: Side::Server.into(),
            replied,
            latency: Some(Latency::default()),
            ..MethodCalls::default()
        };
        let own =
            MethodCalls { method: "stubborn.metrics.v1.Metrics/Snapshot".into(), ..calls.clone() };
        let told = SnapshotReply {
            uptime_ns: 10_000_000_000,
            methods: vec![calls, own],
            links: vec![link],
            ..SnapshotReply::default()
        };
        Sample { at, told, status: None }
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_and_the_first_is_since_the_start() {
        let start = Instant::now();
        let (before, now) =
            (sample(start, 100, 50), sample(start + Duration::from_secs(2), 300, 150));
        for (before, rate, packets) in [(Some(&before), 100.0, 50.0), (None, 30.0, 15.0)] {
            let between = Between::new(before, &now);
            let mut methods = BTreeMap::new();
            let told = between.add_calls(&mut methods, false);
            assert_eq!((told.per_second, methods.len()), (rate, 1), "its own calls are not shown");
            let link = between.links("s").next().unwrap();
            assert_eq!((link.packets_per_second, link.loss), (packets, 10.0));
        }
    }
}
