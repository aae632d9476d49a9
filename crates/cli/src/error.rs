//! What went wrong, as one line, what to do next, and an exit code that scripts can use. All errors
//! of other crates are translated here.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use stubborn::client::ConnectErrorKind;
use stubborn::{CallError, ConnectError, Detail, Outcome, SecurityError};

/// Printed under `stubborn --help`, and in docs/cli.md.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   the call was executed and failed, or a check found something
  2   wrong arguments, or an input file that cannot be used
  3   the call was not executed, and never will be
  4   the outcome of the call is not known: pending or lost
  5   cannot connect
  70  anything else: a file that cannot be written, a bug";

/// What the program's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The call was executed and failed, or a check found something.
    Failed = 1,
    /// Wrong arguments, or an input file that cannot be used.
    Usage = 2,
    /// The call was not executed, and never will be.
    NotExecuted = 3,
    /// Whether the call was executed is not known: pending or lost.
    Unknown = 4,
    /// No server was reached.
    Connect = 5,
    /// Anything else.
    Internal = 70,
}

impl Exit {
    /// In a word, for programs.
    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotExecuted => "not_executed",
            Self::Unknown => "unknown",
            Self::Connect => "connect",
            Self::Internal => "internal",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Error {
    exit: Exit,
    message: String,
    hint: Option<String>,
    /// The command has printed its JSON object already.
    printed: bool,
    /// More keys for the JSON object.
    more: serde_json::Map<String, Value>,
}

impl Error {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            printed: false,
            more: serde_json::Map::new(),
        }
    }

    /// Wrong arguments, or an input file that cannot be used.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Anything that is neither the user's doing nor a call's outcome.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// A file that cannot be written, read or made.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let told = Self::internal(format!("cannot {what} {}: {error}", path.display()));
        match advice(error.kind()) {
            Some(hint) => told.with_hint(hint),
            None => told,
        }
    }

    /// Says what to do next.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The same, with what to do next.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with a further key in its JSON object.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// The same, after the command has printed its own JSON object, which says it all.
    #[must_use]
    pub(crate) fn printed(mut self) -> Self {
        self.printed = true;
        self
    }

    /// The same where the command has printed its own JSON object.
    #[must_use]
    pub(crate) fn printed_if(self, printed: bool) -> Self {
        if printed { self.printed() } else { self }
    }

    /// Whether the JSON object of the command was printed already.
    pub(crate) fn is_printed(&self) -> bool {
        self.printed
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// `{"error": {"kind", "exit_code", "message", "hint"?, ...}}`
    pub(crate) fn to_json(&self) -> Value {
        let mut error = self.more.clone();
        error.insert("kind".into(), self.exit.name().into());
        error.insert("exit_code".into(), (self.exit as u8).into());
        error.insert("message".into(), self.message.clone().into());
        if let Some(hint) = &self.hint {
            error.insert("hint".into(), hint.clone().into());
        }
        json!({ "error": error })
    }
}

/// What to do where the system refuses a file.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotFound => "look at the path: a folder in it is not there",
        ErrorKind::PermissionDenied => "name another place, or change whose this one is",
        ErrorKind::ReadOnlyFilesystem => "name another place: this one cannot be written",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room there, then try again",
        _ => return None,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<stubborn_build::Error> for Error {
    fn from(error: stubborn_build::Error) -> Self {
        let place = [
            error.file().map(|f| ("file", Value::from(f))),
            error.line().map(|l| ("line", Value::from(l))),
            error.column().map(|c| ("column", Value::from(c))),
        ];
        let converted = Self::usage(error.to_string());
        place.into_iter().flatten().fold(converted, |e, (key, value)| e.with(key, value))
    }
}

impl From<SecurityError> for Error {
    fn from(error: SecurityError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error.kind() {
            ConnectErrorKind::Address(_) | ConnectErrorKind::Security(_) => {
                Self::usage(error.to_string())
            }
            ConnectErrorKind::Refused(why) if why.contains("certificate") => {
                let message = format!("cannot connect to {}: {why}", error.address());
                let hint = match why.contains("sent no certificate") {
                    true => {
                        "it lets in only who has a certificate of its authority: name the folder of \
                         the cluster with --data DIR or $STUBBORN_DATA, or a certificate with \
                         --cert FILE --key FILE"
                    }
                    false => {
                        "use the address with ?pin= that the server printed, or name its \
                         certificate with --ca FILE, or its key with --pin FINGERPRINT, or the \
                         folder of its cluster with --data DIR; `stubborn ping --insecure ADDR` \
                         shows the fingerprint: compare it with the server's own"
                    }
                };
                Self::new(Exit::Connect, message).with_hint(hint)
            }
            _ => Self::new(Exit::Connect, error.to_string()),
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let exit = match error.outcome() {
            Outcome::Executed(_) => Exit::Failed,
            Outcome::NotExecuted(_) => Exit::NotExecuted,
            Outcome::Pending(_) | Outcome::Lost | Outcome::Unanswered => Exit::Unknown,
        };
        let mut converted = Self::new(exit, error.to_string()).with("method", error.method());
        if let Some(id) = error.call_id() {
            converted = converted.with("call_id", id.to_string());
        }
        match (error.outcome(), error.peer()) {
            (Outcome::Executed(status), _) => {
                let told = converted
                    .with("status", status.code() as u8)
                    .with("status_message", status.message());
                with_details(told, &status.typed_details())
            }
            (Outcome::Pending(id), Some(peer)) => converted.with_hint(format!(
                "the call is {id}; ask again with: stubborn outcome {peer} {id}"
            )),
            _ => converted,
        }
    }
}

/// Tells the details of a status: those that its text has not told, a line each, and all of them for
/// programs.
fn with_details(mut error: Error, details: &[Detail]) -> Error {
    if details.is_empty() {
        return error;
    }
    for detail in details {
        if !matches!(detail, Detail::BadRequest(_)) {
            let line = detail.to_string();
            error.message.push_str("\n  ");
            error.message.extend(line.escape_debug());
        }
    }
    let all: Vec<Value> = details.iter().map(detail_to_json).collect();
    error.with("details", all)
}

fn detail_to_json(detail: &Detail) -> Value {
    match detail {
        Detail::BadRequest(bad) => {
            let violations = bad.field_violations.iter();
            let violations = violations
                .map(|v| json!({ "field": v.field, "description": v.description }))
                .collect::<Vec<_>>();
            json!({ "type": "google.rpc.BadRequest", "field_violations": violations })
        }
        Detail::RetryInfo(after) => {
            json!({ "type": "google.rpc.RetryInfo", "retry_delay_s": after.as_secs_f64() })
        }
        Detail::ErrorInfo(info) => json!({
            "type": "google.rpc.ErrorInfo",
            "reason": info.reason,
            "domain": info.domain,
            "metadata": info.metadata,
        }),
        other => json!({ "text": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stubborn::Status;

    #[test]
    fn a_call_that_the_handler_refused_is_told_from_one_that_never_ran() {
        let refused = CallError::new("a.B/C", Outcome::Executed(Status::not_found("no such one")));
        let error = Error::from(refused);
        assert_eq!(error.exit(), Exit::Failed);
        assert_eq!(error.to_json()["error"]["status"], 5);
        let lost = Error::from(CallError::new("a.B/C", Outcome::Lost));
        assert_eq!(lost.exit(), Exit::Unknown);
    }

    #[test]
    fn details_of_a_refusal_are_told_to_people_and_to_programs() {
        let status = Status::invalid().field("account", "must not be empty");
        let status = status.with_detail(Detail::RetryInfo(std::time::Duration::from_secs(2)));
        let error = Error::from(CallError::new("a.B/C", Outcome::Executed(status)));
        assert!(error.message().contains("(account: must not be empty)"), "{error}");
        assert!(error.message().ends_with("\n  try again after 2s"), "{error}");
        let told = error.to_json();
        assert_eq!(told["error"]["details"][0]["field_violations"][0]["field"], "account");
        assert_eq!(told["error"]["details"][1]["retry_delay_s"], 2.0);
    }

    #[test]
    fn the_help_lists_every_exit_code() {
        use Exit::*;
        for exit in [Failed, Usage, NotExecuted, Unknown, Connect, Internal] {
            let line = format!("\n  {:<3} ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }
}
