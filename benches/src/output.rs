//! Standard output and error, and what a failure means for the exit code.
//!
//! Nothing here panics when a stream is closed: `sexton-bench .. | head -1` ends quietly.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why the command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments cannot be used. The text is one line that says what would be valid.
    Usage(String),
    /// Something went wrong on the way.
    Run(String),
    /// The reader of standard output has left: nobody is interested in the rest.
    ReaderLeft,
    /// All has been said: help, or the version.
    Done,
}

impl Failure {
    /// Says what is to be said, and tells the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Failure::Usage(line) => {
                complain(line);
                ExitCode::from(2)
            }
            Failure::Run(line) => {
                complain(line);
                ExitCode::from(1)
            }
            Failure::ReaderLeft | Failure::Done => ExitCode::SUCCESS,
        }
    }
}

/// Writes `text` to standard output, at once.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ReaderLeft),
        Err(error) => Err(Failure::Run(format!("cannot write to standard output: {error}"))),
    }
}

/// Writes one line to standard error, prefixed with the command's name. There is nobody to tell if
/// that fails.
pub(crate) fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "sexton-bench: {line}");
}
