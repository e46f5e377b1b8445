//! The stand-in for crossbeam's `Injector`, which knows no checker.

use crate::{AtomicUsize, Ordering};
use crossbeam_deque::Steal;

/// Stands in for crossbeam's `Injector`: first in, first out.
///
/// No stronger than the real one. The load of `tail` may give an old value, and `Empty` then is the
/// answer for a thread with no right to ask. A stand-in behind a mutex would order all pushes and
/// steals, and hide a claim without order. But steals synchronise with one another, because
/// protocol 1 needs that. The real one's do so by its `head`, loaded with Acquire and moved by a
/// SeqCst compare-exchange.
#[derive(Debug)]
pub struct Injector<T> {
    /// How many have been stolen.
    head: AtomicUsize,
    /// How many have been pushed.
    tail: AtomicUsize,
    /// All that were ever pushed. Not the checker's mutex: it is to add no order.
    items: std::sync::Mutex<Vec<Option<T>>>,
}

impl<T> Default for Injector<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Injector<T> {
    /// Makes an empty queue.
    pub fn new() -> Self {
        Injector {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            items: std::sync::Mutex::default(),
        }
    }

    /// Appends a value.
    #[track_caller]
    pub fn push(&self, value: T) {
        self.items.lock().expect("not poisoned").push(Some(value));
        // Release: pairs with the Acquire in `steal`.
        self.tail.fetch_add(1, Ordering::Release);
    }

    /// Tells whether everything that was pushed has been stolen.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) >= self.tail.load(Ordering::Acquire)
    }

    /// Takes the first value.
    #[track_caller]
    pub fn steal(&self) -> Steal<T> {
        // Acquire, and AcqRel below: a stealer knows what those before it knew.
        let head = self.head.load(Ordering::Acquire);
        if head >= self.tail.load(Ordering::Acquire) {
            return Steal::Empty;
        }
        match self.head.compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                let item = self.items.lock().expect("not poisoned")[head].take();
                Steal::Success(item.expect("each is stolen once"))
            }
            Err(_) => Steal::Retry,
        }
    }
}
