//! Who was there, and what passed between them, in the order of time.

use std::time::Duration;

use stubborn::steps::{Kind, Step};

use super::gather::{Said, Witness};
use crate::notes::Note;

/// A call in time.
pub(super) struct Picture {
    /// As it was asked for.
    pub(super) call: String,
    pub(super) method: Option<String>,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

/// Somebody who took part. The client is the first.
pub(super) struct Column {
    pub(super) name: String,
    /// By how much its clock may be misread; none for this machine's own.
    pub(super) uncertain: Option<Duration>,
}

/// Something that happened.
pub(super) struct Row {
    /// Nanoseconds since the first row, by this machine's clock.
    pub(super) time: u64,
    /// Where.
    pub(super) column: usize,
    pub(super) what: String,
    /// The message that it is about: from which column to which.
    pub(super) arrow: Option<(usize, usize)>,
}

impl Row {
    pub(super) fn ms(&self) -> f64 {
        self.time as f64 / 1e6
    }
}

impl Column {
    pub(super) fn uncertain_ms(&self) -> Option<f64> {
        self.uncertain.map(|uncertain| uncertain.as_secs_f64() * 1e3)
    }
}

const CLIENT: usize = 0;

/// A step in the world's time, before rows are made of all.
struct Seen {
    /// Since 1970.
    time: u64,
    column: usize,
    kind: Kind,
    step: Step,
}

impl Picture {
    pub(super) fn new(call: &str, note: Option<&Note>, witnesses: &[Witness]) -> Self {
        let mut columns = vec![Column { name: "client".into(), uncertain: None }];
        let mut seen = Vec::new();
        for witness in witnesses {
            let Ok(said) = &witness.said else { continue };
            let column = columns.len();
            columns.push(Column {
                name: name(&witness.address, said),
                uncertain: Some(said.uncertain),
            });
            let mut steps: Vec<Seen> =
                said.reply.steps.iter().map(|step| place(said, column, step)).collect();
            if let Some(note) = note {
                let uncertain = u64::try_from(said.uncertain.as_nanos()).unwrap_or(u64::MAX);
                agree(&mut steps, note, uncertain);
            }
            seen.append(&mut steps);
        }
        agree_with_each_other(&mut seen, &columns);
        seen.sort_by_key(|seen| (seen.time, !seen.kind.comes()));
        let rows = rows(&seen, note);
        let method = note.map(|note| note.method.clone());
        Self { call: call.to_owned(), method, columns, rows }
    }

    /// Whether nobody knows of the call.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For a terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let width = self.columns.iter().map(|column| column.name.chars().count()).max();
        let width = width.unwrap_or(0).max(14) + 4;
        let mut lines = vec![self.title()];
        let mut head = " ".repeat(14);
        for column in &self.columns {
            head.push_str(&format!("{:<width$}", column.name));
        }
        lines.push(head.trim_end().to_owned());
        for row in &self.rows {
            lines.push(format!("{:>9.3} ms  {}", row.ms(), self.strip(row, width)));
        }
        lines.push(self.foot());
        lines
    }

    pub(super) fn title(&self) -> String {
        match &self.method {
            Some(method) => format!("call {} of {method}", self.call),
            None => format!("call {}", self.call),
        }
    }

    /// What is to be known of the times.
    pub(super) fn foot(&self) -> String {
        let worst = self.columns.iter().filter_map(Column::uncertain_ms).fold(0.0, f64::max);
        format!(
            "times by this machine's clock; those of others may be off by {worst:.3} ms, half the \
             round trip to them"
        )
    }

    /// The columns of one row: a line each, a mark where it happened, an arrow.
    fn strip(&self, row: &Row, width: usize) -> String {
        let last = (self.columns.len() - 1) * width;
        let mut cells: Vec<char> = vec![' '; last + 1];
        (0..self.columns.len()).for_each(|column| cells[column * width] = '│');
        let mut after = String::new();
        match row.arrow {
            Some((from, to)) if from != to => {
                let (left, right) = (from.min(to) * width, from.max(to) * width);
                cells[left + 1..right].fill('─');
                cells[left] = if from < to { '●' } else { '◀' };
                cells[right] = if from < to { '▶' } else { '●' };
                // In the first gap, where there is room for most.
                let text: Vec<char> = format!(" {} ", row.what).chars().collect();
                let room = right - left - 1;
                if text.len() <= room {
                    let at = left + 1 + (width.min(room + 1) - 1).saturating_sub(text.len()) / 2;
                    cells[at..at + text.len()].copy_from_slice(&text);
                } else {
                    after.clone_from(&row.what);
                }
            }
            _ => {
                cells[row.column * width] = '●';
                let text: Vec<char> = format!(" {}", row.what).chars().collect();
                let at = row.column * width + 1;
                let free = if row.column + 1 == self.columns.len() { 0 } else { width - 1 };
                if text.len() <= free {
                    cells[at..at + text.len()].copy_from_slice(&text);
                } else {
                    after.clone_from(&row.what);
                }
            }
        }
        let strip: String = cells.into_iter().collect();
        if after.is_empty() { strip } else { format!("{strip} {after}") }
    }
}

fn name(address: &str, said: &Said) -> String {
    let node = said.reply.node;
    match node {
        0 => address.split('?').next().unwrap_or(address).to_owned(),
        _ if said.reply.leader == node => format!("node {node} (leads)"),
        _ => format!("node {node}"),
    }
}

/// Nothing happened to a call before it was made, and what was answered before its client had the answer
/// was sent before that: a clock that says otherwise is read anew, as far as it may be wrong.
fn agree(steps: &mut [Seen], note: &Note, uncertain: u64) {
    let Some(first) = steps.iter().map(|step| step.time).min() else { return };
    let answered = |step: &&Seen| matches!(step.kind, Kind::Answered | Kind::Ended);
    let answered = steps.iter().filter(answered).map(|step| step.time).max().unwrap_or(first);
    let later = note.sent.saturating_sub(first).min(uncertain);
    let earlier = match note.replied() {
        true => answered.saturating_sub(note.ended).min(uncertain),
        false => 0,
    };
    steps.iter_mut().for_each(|step| step.time = (step.time + later).saturating_sub(earlier));
}

/// Nor does a leader take a call from a replica that does not have it yet.
fn agree_with_each_other(seen: &mut [Seen], columns: &[Column]) {
    let uncertain = |column: usize| columns[column].uncertain.unwrap_or_default();
    let Some(came) = seen.iter().filter(|step| step.kind.comes()).min_by_key(|step| step.time)
    else {
        return;
    };
    let (gateway, came) = (came.column, came.time);
    for column in (0..columns.len()).filter(|column| *column != gateway) {
        let taken = |step: &&Seen| step.column == column && step.kind == Kind::Taken;
        let Some(taken) = seen.iter().find(taken).map(|step| step.time) else { continue };
        let most = (uncertain(column) + uncertain(gateway)).as_nanos();
        let later = came.saturating_sub(taken).min(u64::try_from(most).unwrap_or(u64::MAX));
        seen.iter_mut().filter(|step| step.column == column).for_each(|step| step.time += later);
    }
}

fn place(said: &Said, column: usize, step: &Step) -> Seen {
    let ago = said.reply.now_ns.saturating_sub(step.at_ns);
    let time = said.middle.saturating_sub(ago);
    Seen { time, column, kind: step.kind(), step: *step }
}

fn rows(seen: &[Seen], note: Option<&Note>) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(note) = note {
        rows.push((note.sent, CLIENT, "call made".to_owned(), None));
    }
    // The replica that has the request from the client, and passes it on.
    let mut gateway = None;
    let mut came = 0;
    for step in seen {
        let at = step.column;
        let Step { entry, received, sent, .. } = step.step;
        let (what, arrow) = match step.kind {
            Kind::Came | Kind::CameAgain => {
                gateway = Some(at);
                came += 1;
                let again = if came > 1 || step.kind == Kind::CameAgain { " again" } else { "" };
                (format!("request{again}"), Some((CLIENT, at)))
            }
            Kind::FenceCame => {
                gateway = Some(at);
                ("fence".to_owned(), Some((CLIENT, at)))
            }
            Kind::Executing => ("executing".to_owned(), None),
            Kind::Answered => ("reply".to_owned(), Some((at, CLIENT))),
            Kind::Taken => {
                let from = gateway.filter(|from| *from != at);
                ("forwarded".to_owned(), from.map(|from| (from, at)))
            }
            Kind::Applied => (format!("applied, entry {entry}"), None),
            Kind::FenceApplied => (format!("fence applied, entry {entry}"), None),
            Kind::Streaming => (format!("streaming, {received} in, {sent} out"), None),
            Kind::HalfClosed => (format!("last of {received}"), Some((CLIENT, at))),
            Kind::Parted => ("path lost".to_owned(), None),
            Kind::Resumed => ("resumed".to_owned(), Some((CLIENT, at))),
            Kind::Ended => (format!("end, {received} in, {sent} out"), Some((at, CLIENT))),
            Kind::Unspecified => ("something newer".to_owned(), None),
        };
        rows.push((step.time, at, what, arrow));
        let applied = matches!(step.kind, Kind::Applied | Kind::FenceApplied);
        if applied && gateway == Some(at) {
            rows.push((step.time, at, "reply".to_owned(), Some((at, CLIENT))));
        }
    }
    if let Some(note) = note {
        rows.push((note.ended, CLIENT, note.outcome.clone(), None));
    }
    let first = rows.iter().map(|(time, ..)| *time).min().unwrap_or(0);
    let mut rows: Vec<Row> = rows
        .into_iter()
        .map(|(time, column, what, arrow)| Row { time: time - first, column, what, arrow })
        .collect();
    rows.sort_by_key(|row| row.time);
    rows
}

trait Comes {
    /// Whether it comes from the client.
    fn comes(self) -> bool;
}

impl Comes for Kind {
    fn comes(self) -> bool {
        matches!(self, Self::Came | Self::CameAgain | Self::FenceCame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stubborn::steps::CallReply;

    fn witness(address: &str, node: u64, leader: u64, steps: &[(u64, Kind, u64)]) -> Witness {
        let step = |&(at_ns, kind, entry): &(u64, Kind, u64)| Step {
            at_ns,
            kind: kind.into(),
            entry,
            ..Step::default()
        };
        let steps = steps.iter().map(step).collect();
        let reply = CallReply { now_ns: 9_000_000, steps, kept: true, node, leader };
        let said = Said { reply, middle: 1_000_000_000, uncertain: Duration::from_micros(50) };
        Witness { address: address.into(), said: Ok(said) }
    }

    #[test]
    fn a_leader_whose_clock_seems_to_be_behind_still_takes_the_call_from_the_replica_that_has_it() {
        let leader = [(940_000, Kind::Taken, 0), (3_000_000, Kind::Applied, 7)];
        let follower = [(1_000_000, Kind::Came, 0)];
        let witnesses = [witness("a:1", 1, 1, &leader), witness("b:2", 2, 1, &follower)];
        let picture = Picture::new("1.2-0-4", None, &witnesses);
        let told: Vec<_> =
            picture.rows.iter().map(|row| (row.what.as_str(), row.arrow, row.time)).collect();
        let expected = [
            ("request", Some((0, 2)), 0),
            ("forwarded", Some((2, 1)), 0),
            ("applied, entry 7", None, 2_060_000),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_stream_is_drawn_with_its_messages_counted_and_the_path_that_was_lost() {
        let step = |at_ns, kind: Kind, received, sent| Step {
            at_ns,
            kind: kind.into(),
            received,
            sent,
            ..Step::default()
        };
        let steps = vec![
            step(1_000_000, Kind::Came, 0, 0),
            step(2_000_000, Kind::Parted, 0, 0),
            step(3_000_000, Kind::Resumed, 0, 0),
            step(4_000_000, Kind::HalfClosed, 3, 0),
            step(5_000_000, Kind::Ended, 3, 2),
        ];
        let reply = CallReply { now_ns: 9_000_000, steps, kept: true, node: 0, leader: 0 };
        let said = Said { reply, middle: 1_000_000_000, uncertain: Duration::from_micros(50) };
        let witnesses = [Witness { address: "a:1".into(), said: Ok(said) }];
        let picture = Picture::new("4bf92f3577b34da6a3ce929d0e0e4736", None, &witnesses);
        let told: Vec<_> = picture.rows.iter().map(|row| (row.what.as_str(), row.arrow)).collect();
        let expected = [
            ("request", Some((0, 1))),
            ("path lost", None),
            ("resumed", Some((0, 1))),
            ("last of 3", Some((0, 1))),
            ("end, 3 in, 2 out", Some((1, 0))),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_call_by_way_of_a_follower_is_drawn_hop_by_hop() {
        let follower = [(1_000_000, Kind::Came, 0), (4_000_000, Kind::Applied, 7)];
        let leader = [(2_000_000, Kind::Taken, 0), (3_000_000, Kind::Applied, 7)];
        let witnesses = [witness("a:1", 1, 2, &follower), witness("b:2", 2, 2, &leader)];
        let picture = Picture::new("1.2-0-4", None, &witnesses);
        let told: Vec<_> =
            picture.rows.iter().map(|row| (row.what.as_str(), row.arrow, row.time)).collect();
        let expected = [
            ("request", Some((0, 1)), 0),
            ("forwarded", Some((1, 2)), 1_000_000),
            ("applied, entry 7", None, 2_000_000),
            ("applied, entry 7", None, 3_000_000),
            ("reply", Some((1, 0)), 3_000_000),
        ];
        assert_eq!(told, expected);
        let lines = picture.lines();
        assert!(lines[1].contains("node 2 (leads)"), "{lines:#?}");
        assert!(lines[2].contains("0.000 ms  ●─") && lines[2].contains(" request "), "{lines:#?}");
        assert!(lines[6].contains("◀") && lines[6].contains(" reply "), "{lines:#?}");
        assert!(lines[7].contains("0.050 ms"), "{lines:#?}");
    }
}
