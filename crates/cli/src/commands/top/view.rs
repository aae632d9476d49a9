//! A report as lines for people.

use super::report::{Calls, Node, Rate, Report, side};
use crate::commands::status::{role, uptime};
use crate::output::{Output, Style};
use crate::table;

pub(super) fn lines(report: &Report, out: &Output) -> Vec<String> {
    let mut lines = servers(&report.nodes, out);
    lines.extend(doors(&report.nodes, out));
    lines.push(String::new());
    lines.extend(methods(&report.methods, out));
    if !report.links.is_empty() {
        lines.push(String::new());
        lines.extend(links(&report.links, report.nodes.len() > 1, out));
    }
    lines
}

fn servers(nodes: &[Node], out: &Output) -> Vec<String> {
    let group = nodes.iter().any(|node| node.told.as_ref().is_ok_and(|told| told.status.is_some()));
    let mut head = vec!["server", "calls/s", "executing", "connections", "sessions", "kept", "up"];
    if group {
        head.extend(["node", "role", "term", "lag"]);
    }
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for node in nodes {
        let told = match &node.told {
            Ok(told) => told,
            Err(why) => {
                rows.push(vec![short(&node.address), format!("unreachable: {why}")]);
                continue;
            }
        };
        let sessions = told.status.as_ref().map_or(told.held.sessions, |status| status.sessions);
        let mut row = vec![
            short(&node.address),
            rate(told.per_second),
            told.held.executing.to_string(),
            told.held.connections.to_string(),
            sessions.to_string(),
            bytes(told.held.kept_replies),
            uptime(told.uptime_ms),
        ];
        if let Some(status) = &told.status {
            row.push(status.node.to_string());
            row.push(role(status).to_owned());
            row.push(status.term.to_string());
            row.push(told.lag.map(|lag| lag.to_string()).unwrap_or_default());
        } else if group {
            row.extend([const { String::new() }; 4]);
        }
        rows.push(row);
    }
    with_head(&rows, out)
}

/// The doors for gRPC, if there are any.
fn doors(nodes: &[Node], out: &Output) -> Vec<String> {
    let head = ["over gRPC", "connections", "since start", "refused", "received/s", "sent/s"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for node in nodes {
        let Ok(Some((door, received, sent))) = node.told.as_ref().map(|told| &told.grpc) else {
            continue;
        };
        rows.push(vec![
            short(&node.address),
            door.open.to_string(),
            door.connections.to_string(),
            door.refused.to_string(),
            bytes(*received as u64),
            bytes(*sent as u64),
        ]);
    }
    if rows.len() == 1 {
        return Vec::new();
    }
    [vec![String::new()], with_head(&rows, out)].concat()
}

fn methods(methods: &[Calls], out: &Output) -> Vec<String> {
    if methods.is_empty() {
        return vec![out.paint(Style::Faint, "no calls yet")];
    }
    let head = ["method", "side", "calls/s", "p50", "p99", "in flight", "outcomes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for calls in methods {
        let time = |part| match calls.latency.count {
            0 => "-".to_owned(),
            _ => time(calls.latency.quantile(part)),
        };
        let outcomes = calls.endings.iter().map(|(how, count)| format!("{how} {count}"));
        let method = match calls.method.as_str() {
            "" => "(methods without a count)",
            method => method,
        };
        rows.push(vec![
            method.escape_debug().to_string(),
            side(calls.side).to_owned(),
            rate(calls.per_second),
            time(0.5),
            time(0.99),
            calls.in_flight.to_string(),
            outcomes.collect::<Vec<_>>().join(", "),
        ]);
    }
    with_head(&rows, out)
}

fn links(links: &[Rate], several: bool, out: &Output) -> Vec<String> {
    let head = [
        "link",
        "side",
        "RTT",
        "least",
        "window",
        "in flight",
        "MTU",
        "packets/s",
        "resent/s",
        "loss",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Rate { server, link, loss, packets_per_second, resent_per_second } in links {
        let peer = link.peer.escape_debug();
        rows.push(vec![
            if several { format!("{} - {peer}", short(server)) } else { peer.to_string() },
            side(link.side()).to_owned(),
            time(link.rtt_ns),
            time(link.min_rtt_ns),
            bytes(link.window),
            bytes(link.in_flight),
            link.mtu.to_string(),
            rate(*packets_per_second),
            rate(*resent_per_second),
            format!("{loss:.1} %"),
        ]);
    }
    with_head(&rows, out)
}

/// An address without what it says beside the host.
fn short(address: &str) -> String {
    let host = address.strip_prefix("stubborn://").unwrap_or(address);
    host.split('?').next().unwrap_or(host).to_owned()
}

fn with_head(rows: &[Vec<String>], out: &Output) -> Vec<String> {
    let mut lines = table::lines(rows);
    if let Some(head) = lines.first_mut() {
        *head = out.paint(Style::Faint, &*head);
    }
    lines
}

fn time(nanos: u64) -> String {
    match nanos {
        0..=9_999 => format!("{:.1} µs", nanos as f64 / 1e3),
        10_000..=999_999 => format!("{} µs", nanos / 1_000),
        1_000_000..=99_999_999 => format!("{:.1} ms", nanos as f64 / 1e6),
        100_000_000..=999_999_999 => format!("{} ms", nanos / 1_000_000),
        _ => format!("{:.1} s", nanos as f64 / 1e9),
    }
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=10_239_999 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        _ if rate < 10.0 => format!("{rate:.1}"),
        _ if rate < 100_000.0 => format!("{rate:.0}"),
        _ => format!("{:.0} k", rate / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Color;
    use stubborn::metrics::Side;

    #[test]
    fn numbers_are_as_long_as_they_have_to_be() {
        assert_eq!([time(1_500), time(250_000), time(2_500_000)], ["1.5 µs", "250 µs", "2.5 ms"]);
        assert_eq!([bytes(9), bytes(65_536), bytes(64 << 20)], ["9 B", "64 KiB", "64 MiB"]);
        assert_eq!([rate(0.0), rate(0.25), rate(2_000_000.0)], ["0", "0.2", "2000 k"]);
    }

    #[test]
    fn a_server_that_does_not_answer_has_its_line_and_names_have_no_control_characters() {
        let out = Output::new(false, Color::Never);
        let node = Node { address: "a:1".into(), told: Err("no answer".into()) };
        let calls = Calls { method: "\x1b[2J".into(), side: Side::Server, ..Calls::default() };
        let report = Report { nodes: vec![node], methods: vec![calls], links: Vec::new() };
        let shown = lines(&report, &out).join("\n");
        assert!(shown.contains("a:1     unreachable: no answer"), "{shown}");
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }
}
