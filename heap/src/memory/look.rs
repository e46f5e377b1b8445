//! A look at what a payload owns outside the heap: what it may cost, and on whose behalf it is.
//!
//! Invariant: a thread looks on behalf of a sweep only within [`by_sweep`].

use std::cell::Cell;

use sexton_sync::thread_local;

thread_local! {
    static SWEEP: Cell<Sweep> = Cell::default();
    static ELEMENTS: Cell<Elements> = Cell::default();
}

/// Whether this thread looks on behalf of a sweep.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sweep {
    #[default]
    No,
    Yes,
    /// And a lock was held, so that something has not been seen.
    Blocked,
}

/// What may still be looked at within the containers of one field.
#[derive(Clone, Copy, Default)]
struct Elements {
    /// Containers that are being looked into, one within the other.
    depth: u32,
    left: u32,
}

/// The most elements that are looked at in one container.
pub(crate) const MOST_OF_ONE: usize = 32;

/// The most elements that are looked at in a container and in all that lie within its elements.
const MOST: u32 = 256;

/// Calls `look` on behalf of a sweep. Tells whether something could not be seen.
#[inline]
pub(crate) fn by_sweep(look: impl FnOnce() -> usize) -> (usize, bool) {
    // A thread that is ending may have no memory of its own any more. Locks are tried then.
    let _ending = SWEEP.try_with(|sweep| sweep.set(Sweep::Yes));
    // A panic in it ends the process: see `or_abort` in the sweeper.
    let bytes = look();
    let ended = SWEEP.try_with(|sweep| sweep.replace(Sweep::No));
    (bytes, matches!(ended, Ok(Sweep::Blocked)))
}

/// Tells whether this thread looks on behalf of a sweep.
pub(crate) fn is_by_sweep() -> bool {
    SWEEP.try_with(|sweep| sweep.get() != Sweep::No).unwrap_or(false)
}

/// Takes note that a lock was held.
pub(crate) fn is_blocked() {
    let _ending = SWEEP.try_with(|sweep| {
        if sweep.get() == Sweep::Yes {
            sweep.set(Sweep::Blocked);
        }
    });
}

/// Sums up `bytes_of` over the elements of a container of `len`.
///
/// Of many elements it looks at some, and takes these for the others.
pub(crate) fn elements<T>(
    len: usize,
    elements: impl Iterator<Item = T>,
    bytes_of: impl Fn(T) -> usize,
) -> usize {
    let Some(_container) = Container::begin() else { return 0 };
    let (mut looked, mut bytes) = (0, 0_usize);
    for element in elements.take(MOST_OF_ONE) {
        if !Container::spend() {
            break;
        }
        bytes = bytes.saturating_add(bytes_of(element));
        looked += 1;
    }
    match looked {
        0 => 0,
        _ if looked >= len => bytes,
        _ => (bytes as u128 * len as u128 / looked as u128).min(usize::MAX as u128) as usize,
    }
}

/// A container is being looked into.
struct Container;

impl Container {
    /// Begins to. `None` if too much has been looked at.
    fn begin() -> Option<Self> {
        let begun = ELEMENTS.try_with(|elements| {
            let Elements { depth, left } = elements.get();
            let left = if depth == 0 { MOST } else { left };
            let begins = left > 0;
            elements.set(Elements { depth: depth + u32::from(begins), left });
            begins
        });
        begun.unwrap_or(false).then_some(Container)
    }

    /// Takes one element off what may be looked at, if there is one.
    fn spend() -> bool {
        let spent = ELEMENTS.try_with(|elements| {
            let Elements { depth, left } = elements.get();
            elements.set(Elements { depth, left: left.saturating_sub(1) });
            left > 0
        });
        spent.unwrap_or(false)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ending = ELEMENTS.try_with(|elements| {
            let Elements { depth, left } = elements.get();
            elements.set(Elements { depth: depth.saturating_sub(1), left });
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_small_container_is_counted_exactly_and_a_large_one_by_some() {
        let looks = Cell::new(0);
        let sum = |len: usize| {
            looks.set(0);
            let bytes_of = |n: usize| {
                looks.set(looks.get() + 1);
                n
            };
            (elements(len, 0..len, bytes_of), looks.get())
        };
        assert_eq!(sum(0), (0, 0));
        assert_eq!(sum(32), (31 * 32 / 2, 32));
        assert_eq!(sum(320), (31 * 32 / 2 * 10, 32));
        assert_eq!(elements(3, 0..3, |_| usize::MAX), usize::MAX);
    }

    #[test]
    fn containers_within_containers_are_looked_into_for_so_long() {
        let looks = Cell::new(0);
        fn nested(levels: u32, looks: &Cell<u32>) -> usize {
            looks.set(looks.get() + 1);
            if levels == 0 { 1 } else { elements(32, 0..32, |_| nested(levels - 1, looks)) }
        }
        nested(10, &looks);
        assert_eq!(looks.get(), MOST + 1);
        // The next look begins anew.
        assert_eq!(nested(1, &looks), 32);
    }
}
