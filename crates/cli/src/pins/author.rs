//! The process that has left a note: its number, and when it began, since numbers are used again.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Author {
    process: u32,
    /// As the system counts; 0 where it does not say.
    began: u64,
}

impl Author {
    pub(super) fn own() -> Self {
        let process = std::process::id();
        Self { process, began: began(process).unwrap_or(0) }
    }

    /// Whether the process still runs.
    pub(super) fn is_there(self) -> bool {
        match began(self.process) {
            Some(began) => began == self.began,
            // Where the system does not say when processes began, their numbers have to do.
            None => self.began == 0 && runs(self.process),
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.process, self.began)
    }
}

impl FromStr for Author {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (process, began) = text.split_once(' ').unwrap_or_default();
        Ok(Self { process: process.parse()?, began: began.parse()? })
    }
}

/// When a process began, in ticks since the machine did (`man 5 proc`). Nothing of one that has ended,
/// also if its parent has not heard of it.
#[cfg(target_os = "linux")]
fn began(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    if ["Z", "X"].contains(&state) {
        return None;
    }
    // State is the third field, the time is the 22nd.
    fields.nth(18)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn began(_: u32) -> Option<u64> {
    None
}

#[cfg(unix)]
fn runs(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    process.is_some_and(|process| rustix::process::test_kill_process(process).is_ok())
}

#[cfg(not(unix))]
fn runs(_: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_survives_being_written_and_is_there_until_its_process_ends() {
        let own = Author::own();
        assert_eq!(own.to_string().parse(), Ok(own));
        assert!(own.is_there());
        for text in ["", "1", "1 x", "-1 2"] {
            assert!(text.parse::<Author>().is_err(), "{text}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_that_has_ended_or_has_the_number_of_another_one_is_not_there() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = child.id();
        let author = Author { process, began: began(process).unwrap() };
        assert!(author.is_there());
        assert!(!Author { began: author.began + 1, ..author }.is_there());
        child.kill().unwrap();
        // Not waited for yet: the system still knows its number.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while author.is_there() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(!author.is_there());
        child.wait().unwrap();
        assert!(!author.is_there());
    }
}
