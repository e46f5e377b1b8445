//! Ctrl-C: the first SIGINT or SIGTERM ends the program that is measuring, and the run then writes
//! what it has. The second one ends the command at once.
//!
//! A program that measures is in a process group of its own, so that all it has started ends with
//! it. Therefore a terminal's Ctrl-C reaches this process only, and is handed on from here.

use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
#[cfg(unix)]
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};

use crate::output::Failure;

/// The signal that was caught; 0 while there was none.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// The leader of the process group that measures. While it is here it has not been waited for, so
/// its id is its own.
#[cfg(unix)]
static MEASURING: Mutex<Option<Pid>> = Mutex::new(None);

#[cfg(unix)]
fn measuring() -> MutexGuard<'static, Option<Pid>> {
    MEASURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells which signal has ended the run.
pub(crate) fn caught() -> Option<i32> {
    Some(CAUGHT.load(SeqCst)).filter(|signal| *signal != 0)
}

/// Ends a run that a signal has broken off, after its report.
pub(crate) fn as_failure(kept: Option<&Path>) -> Result<(), Failure> {
    let Some(signal) = caught() else { return Ok(()) };
    let kept = match kept {
        Some(file) => format!("what was measured is above and in {file:?}"),
        None => "what was measured is above".into(),
    };
    Err(Failure::Interrupted { signal, line: format!("interrupted: {kept}") })
}

/// Catches signals from now on. Where that is impossible, a signal ends the command as ever.
pub(crate) fn watch() {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else {
            return;
        };
        std::thread::spawn(move || {
            for signal in &mut signals {
                let is_second = CAUGHT.swap(signal, SeqCst) != 0;
                if let Some(group) = *measuring() {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                if is_second {
                    std::process::exit(128 + signal);
                }
            }
        });
    }
}

/// Notes the program that a signal has to end; ends it at once if there was a signal already.
pub(super) fn begin(child: &Child) {
    #[cfg(not(unix))]
    let _ = child;
    #[cfg(unix)]
    {
        let group = Pid::from_child(child);
        let mut measuring = measuring();
        *measuring = Some(group);
        if caught().is_some() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Forgets the program, before it is waited for.
pub(super) fn end() {
    #[cfg(unix)]
    {
        *measuring() = None;
    }
}
