//! Standard output and error, and what a failure means for the exit code.
//!
//! Nothing here panics when a stream is closed: `sexton-bench .. | head -1` ends quietly.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::{fmt, fs};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

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

/// What is going on, on standard error if that is a terminal; otherwise silent.
pub(crate) fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_msg}") {
        spinner.set_style(style);
    }
    spinner
}

/// Before hours of measuring, and not after: whether the file of `--json` can be written. Makes it.
pub(crate) fn writable(file: &Path) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(|error| {
        Failure::Usage(format!("--json {file:?} cannot be written: {error}; valid is a file name"))
    })
}

/// Writes a record to the file of `--json`.
pub(crate) fn save(record: &impl Serialize, file: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(record).map_err(|error| error.to_string());
    let saved = text.and_then(|text| fs::write(file, text + "\n").map_err(|it| it.to_string()));
    saved.map_err(|error| Failure::Run(format!("cannot write {file:?}: {error}")))
}
