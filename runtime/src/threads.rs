//! How Sexton's own threads are started: under names that tell them apart, and without signals.
//!
//! Invariant: a thread that is started here is never seen by the system without its mask. It
//! inherits the mask of the thread that starts it.

/// Bytes of a thread's name that Linux keeps.
const SHOWN: usize = 15;

/// Gives a thread's name: `prefix-role`.
///
/// A long prefix is cut, so that the role is seen on Linux.
pub(crate) fn name(prefix: &str, role: &str) -> String {
    let room = SHOWN.saturating_sub(role.len() + 1);
    let end = prefix.floor_char_boundary(room);
    format!("{}-{role}", &prefix[..end])
}

/// Calls `start`, whose threads block the signals that any thread may handle.
///
/// So the program's handlers run on the program's threads.
///
/// Not blocked are the signals that tell of a fault of the thread itself, and a profiler's.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let _restore = blocked();
    start()
}

/// Gives this thread its mask back.
#[cfg(unix)]
struct Restore(nix::sys::signal::SigSet);

#[cfg(unix)]
impl Drop for Restore {
    fn drop(&mut self) {
        // It was the mask a moment ago.
        let _ = self.0.thread_set_mask();
    }
}

#[cfg(unix)]
fn blocked() -> Option<Restore> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};

    let mut signals = SigSet::all();
    for own in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGABRT,
        Signal::SIGPROF,
    ] {
        signals.remove(own);
    }
    // The mask is valid, so there is no error. If there were, the threads would have the program's
    // mask.
    signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok().map(Restore)
}

#[cfg(not(unix))]
fn blocked() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_prefix_is_cut_and_the_role_is_not() {
        assert_eq!(name("sexton", "mon"), "sexton-mon");
        assert_eq!(name("my-application", "4095"), "my-applica-4095");
        assert_eq!(name("", "0"), "-0");
        // Each of these has two bytes.
        assert_eq!(name("äöüäöüäöü", "12"), "äöüäöü-12");
        for index in 0..4096_u32 {
            let name = name("my-application", &index.to_string());
            assert!(name.len() <= SHOWN && name.ends_with(&format!("-{index}")), "{name}");
        }
    }
}
