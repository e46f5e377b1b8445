//! A program that is started to measure, or to be built: its lines, or why there are none.
//!
//! One runs at a time, nothing polls while it runs, and none runs for longer than its time: then it
//! is killed, with whatever it has started.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use super::interrupt;

/// What a program that ended has left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program to its end.
///
/// # Errors
///
/// If it cannot be started or takes longer than `patience`; in one line.
pub(crate) fn run(
    program: &OsStr,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    patience: Duration,
) -> Result<Ended, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;

    interrupt::begin(&child);

    // One message from each stream, when it ends.
    let (sender, ends) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|it| Box::new(it) as _),
        child.stderr.take().map(|it| Box::new(it) as _),
    ];
    for (nth, stream) in streams.into_iter().enumerate() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            let _ = sender.send((nth, String::from_utf8_lossy(&bytes).into_owned()));
        });
    }

    let start = Instant::now();
    let mut texts = [String::new(), String::new()];
    for _ in 0..texts.len() {
        match ends.recv_timeout(patience.saturating_sub(start.elapsed())) {
            Ok((nth, text)) => texts[nth] = text,
            Err(_) => {
                interrupt::end();
                kill(&mut child);
                return Err(format!("took longer than {} s", patience.as_secs()));
            }
        }
    }
    interrupt::end();
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    let [out, err] = texts;
    Ok(Ended { status, out, err })
}

/// Runs this very program, with other arguments.
pub(crate) fn run_self(
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    patience: Duration,
) -> Result<Ended, String> {
    run(env::current_exe().map_err(|error| error.to_string())?.as_ref(), args, patience)
}

/// Ends the program and everything in its process group.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    {
        use rustix::process::{Pid, Signal, kill_process_group};
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

impl Ended {
    /// What it has written to standard output, unless it failed.
    pub(crate) fn out_if_successful(self) -> Result<String, String> {
        if self.status.success() { Ok(self.out) } else { Err(self.reason()) }
    }

    /// The last line on standard error, or how the program ended if it wrote none.
    pub(crate) fn reason(&self) -> String {
        let line = self.err.lines().rev().map(str::trim).find(|line| !line.is_empty());
        line.map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(line: &str, patience: Duration) -> Result<Ended, String> {
        run("sh".as_ref(), ["-c", line], patience)
    }

    #[test]
    fn lines_and_the_reason_of_an_end_are_kept() {
        let ended = shell("echo one; echo first >&2; echo why >&2; exit 3", PATIENCE).unwrap();
        assert_eq!((ended.status.code(), ended.out.as_str()), (Some(3), "one\n"));
        assert_eq!(ended.reason(), "why");
        assert!(shell("exit 4", PATIENCE).unwrap().reason().contains('4'));
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
        let start = Instant::now();
        // The inner shell holds the pipes open, too.
        let error = shell("sleep 100 & sh -c 'sleep 100'", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error, "took longer than 0 s");
        assert!(start.elapsed() < PATIENCE);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = run("/no/such/program".as_ref(), [""; 0], PATIENCE).unwrap_err();
        assert!(error.starts_with("cannot be started"), "{error}");
    }

    const PATIENCE: Duration = Duration::from_secs(30);
}
