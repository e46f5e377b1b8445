//! Processes: whether a value was made in this one, or came here through a `fork`.
//!
//! The child of a `fork` has a copy of all memory, and of its parent's threads only the one that
//! forked. A lock that another thread held is never unlocked there, and a worker that is counted
//! there does not exist. So a thing that was made before the `fork` is *inherited*. It waits for no
//! thread, wakes none, and takes no lock that may be held.
//!
//! Invariant: the process is asked for (a system call) in four places. Where a thread is started or
//! waited for, once in a cycle, where a lock is found taken, and where a unit of a shared region
//! changes hands. Never by another allocation, a registration or a session.

#![forbid(unsafe_code)]

use std::sync::OnceLock;

/// Names one process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

impl Process {
    /// Names the process that calls. A system call.
    pub fn current() -> Self {
        Process(std::process::id())
    }

    /// Tells whether it is the one that calls. A system call.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// Holds a static value of which each process has its own.
///
/// A child of a `fork` makes a new one, and leaves its parent's alone.
///
/// The values of a process and of its ancestors form a list. The last one is that of the youngest
/// process.
#[derive(Debug)]
pub struct PerProcess<T> {
    own: OnceLock<Box<Own<T>>>,
}

#[derive(Debug)]
struct Own<T> {
    process: Process,
    value: T,
    /// That of a child.
    next: PerProcess<T>,
}

impl<T> PerProcess<T> {
    /// Makes none yet.
    pub const fn new() -> Self {
        PerProcess { own: OnceLock::new() }
    }

    /// Gives the value of this process, made by `make` if there is none.
    ///
    /// Where threads race to be the first, several may call `make`, and one result stays. A system
    /// call; O(forks between the first process and this one).
    pub fn get(&self, make: impl Fn() -> T) -> &T {
        let process = Process::current();
        let mut place = self;
        let mut last = None;
        loop {
            while let Some(own) = place.own.get() {
                last = Some(own);
                place = &own.next;
            }
            if let Some(own) = last
                && own.process == process
            {
                return &own.value;
            }
            // Made first, and then set: a `fork` on another thread hardly ever comes in the middle
            // of the latter.
            let own = Box::new(Own { process, value: make(), next: PerProcess::new() });
            // Of two threads, the later one is refused, and finds the other one's value.
            let _ = place.own.set(own);
        }
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_value_and_its_ancestors_are_not_used() {
        let values = PerProcess::new();
        let first = values.get(|| 1);
        assert_eq!((*first, *values.get(|| 2)), (1, 1), "made once");
        // As a child finds it: the only value is that of a process with another number.
        let inherited = Own { process: Process(0), value: 1, next: PerProcess::new() };
        let values = PerProcess { own: OnceLock::from(Box::new(inherited)) };
        assert_eq!((*values.get(|| 2), *values.get(|| 3)), (2, 2));
    }
}
