//! The file in which a client writes down what it was told of each transfer, before it lets its
//! journal forget the call.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::Told;

/// Bytes of a record, with its line feed: they divide a page, so that a killed process leaves no half
/// of one.
const RECORD: u64 = 64;

/// What was told of a transfer, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) reference: u64,
    pub(super) told: Told,
    /// From the beginning of the call, in the process that was told.
    pub(super) took: Duration,
    /// Of all processes of this machine, since 1970.
    pub(super) at: Duration,
}

impl Answer {
    pub(super) fn now(reference: u64, told: Told, took: Duration) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { reference, told, took, at }
    }

    fn to_record(self) -> String {
        let Self { reference, told, took, at } = self;
        let (took, at) = (took.as_micros(), at.as_micros());
        format!("{reference:>15} {:<15} {took:>14} {at:>16}\n", told.name())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let mut field = || fields.next();
        let reference = field()?.parse().ok()?;
        let told = Told::from_name(field()?)?;
        let took = Duration::from_micros(field()?.parse().ok()?);
        let at = Duration::from_micros(field()?.parse().ok()?);
        let whole = line.len() as u64 + 1 == RECORD && field().is_none();
        whole.then_some(Self { reference, told, took, at })
    }
}

/// The file, to be continued.
#[derive(Debug)]
pub(super) struct Answers(File);

impl Answers {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(path)?))
    }

    /// When this returns, the answer outlives the process.
    pub(super) fn append(&mut self, answer: Answer) -> io::Result<()> {
        self.0.write_all(answer.to_record().as_bytes())
    }
}

/// How many there are by now.
pub(super) fn count(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len() / RECORD)
}

/// All of them, in the order in which they came.
///
/// # Errors
/// If the file cannot be read, or something in it is no record.
pub(super) fn read(path: &Path) -> io::Result<Vec<Answer>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let wrong = |line: &str| io::Error::other(format!("no record of an answer: {line:?}"));
    text.lines().map(|line| Answer::parse(line).ok_or_else(|| wrong(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_also_after_a_restart_and_half_a_record_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        assert_eq!((read(&path).unwrap(), count(&path)), (vec![], 0));
        let whole = |answer: Answer| {
            let micros = |time: Duration| Duration::from_micros(time.as_micros() as u64);
            Answer { took: micros(answer.took), at: micros(answer.at), ..answer }
        };
        let first = whole(Answer::now(1, Told::Executed, Duration::from_micros(70)));
        let second = whole(Answer::now(100_000_000, Told::NotExecuted, Duration::from_secs(90)));
        for answer in [first, second] {
            Answers::open(&path).unwrap().append(answer).unwrap();
        }
        assert_eq!((read(&path).unwrap(), count(&path)), (vec![first, second], 2));
        std::fs::write(&path, "1 executed 5 6\n").unwrap();
        assert!(read(&path).is_err());
    }
}
