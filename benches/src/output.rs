//! Standard output and error, and what a failure means for the exit code.
//!
//! Nothing here panics when a stream is closed: `sexton-bench .. | head -1` ends quietly.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fmt, fs};

use indicatif::{FormattedDuration, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Why the command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments cannot be used. The text is one line that says what would be valid.
    Usage(String),
    /// Something went wrong on the way.
    Run(String),
    /// A signal has ended the run. What was measured before has been written.
    Interrupted { signal: i32, line: String },
    /// The reader of standard output has left: the rest has no reader.
    ReaderLeft,
    /// All has been said: help, or the version.
    Done,
}

impl Failure {
    /// Says what is to be said, and tells the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (line, code) = match self {
            Failure::Usage(line) => (line, 2),
            Failure::Run(line) => (line, 1),
            // As a shell tells it.
            Failure::Interrupted { signal, line } => (line, 128 + signal as u8),
            Failure::ReaderLeft | Failure::Done => return ExitCode::SUCCESS,
        };
        complain(line);
        ExitCode::from(code)
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

/// Writes one line to standard error, prefixed with the command's name. A failure to do so is
/// ignored: there is no other place for it.
pub(crate) fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "sexton-bench: {line}");
}

/// What is going on, on standard error: one line that changes on a terminal, plain lines elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    start: Instant,
    last: Cell<Instant>,
}

impl Progress {
    /// The shortest time between two plain lines that say how far a step is.
    const BETWEEN_LINES: Duration = Duration::from_secs(10);

    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        let now = Instant::now();
        Progress { bar, start: now, last: Cell::new(now) }
    }

    /// Says what begins now.
    pub(crate) fn step(&self, text: impl fmt::Display) {
        if self.bar.is_hidden() { self.line(text) } else { self.show(text) }
    }

    /// Says how far it is: as a plain line every ten seconds at most.
    pub(crate) fn far(&self, text: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.show(text());
        } else if self.last.get().elapsed() >= Self::BETWEEN_LINES {
            self.line(text());
        }
    }

    /// Makes way for other lines.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self, text: impl fmt::Display) {
        self.bar.set_message(text.to_string());
        self.bar.tick();
    }

    fn line(&self, text: impl fmt::Display) {
        self.last.set(Instant::now());
        complain(format_args!("{} {text}", FormattedDuration(self.start.elapsed())));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Checks that the file of `--json` can be written, before hours of measuring. Makes it.
pub(crate) fn writable(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(|error| {
        Failure::Usage(format!("--json {file:?} cannot be written: {error}; valid is a file name"))
    })
}

/// Writes a record to the file of `--json`, if there is one.
pub(crate) fn save(record: &impl Serialize, file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    let text = serde_json::to_string_pretty(record).map_err(|error| error.to_string());
    let saved = text.and_then(|text| fs::write(file, text + "\n").map_err(|it| it.to_string()));
    saved.map_err(|error| Failure::Run(format!("cannot write {file:?}: {error}")))
}
