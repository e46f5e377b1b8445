//! A small number for each of the first threads, so that they can count apart from one another.
//!
//! Invariant: no two threads have the same number at a time. All that a thread did under its number
//! happened before the next one is given it.
//!
//! It does not know what is counted with it.

#![forbid(unsafe_code)]

/// How many threads have a number at a time.
pub(crate) const NUMBERS: usize = 16;

#[cfg(not(any(loom, shuttle)))]
mod imp {
    use super::NUMBERS;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The thread has not asked yet.
    const UNKNOWN: u8 = u8::MAX;
    /// There was none left, or the thread is being torn down.
    const NONE: u8 = u8::MAX - 1;

    const _: () = assert!(NUMBERS <= u32::BITS as usize && NUMBERS <= NONE as usize);

    /// A bit for each number that a thread has.
    static TAKEN: AtomicU32 = AtomicU32::new(0);

    thread_local! {
        static NUMBER: Cell<u8> = const { Cell::new(UNKNOWN) };
        /// Apart from the number, which can be read without a look at whether it has a destructor
        /// to register.
        static HOLD: Cell<Option<Hold>> = const { Cell::new(None) };
    }

    /// A number, given back when the thread ends.
    struct Hold(u8);

    impl Drop for Hold {
        fn drop(&mut self) {
            NUMBER.set(NONE);
            // Release: pairs with the Acquire in `take_number`.
            TAKEN.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }

    /// This thread's number, below [`NUMBERS`]; a larger one is none.
    #[inline]
    pub(crate) fn number() -> usize {
        match NUMBER.get() {
            UNKNOWN => take_number(),
            number => usize::from(number),
        }
    }

    #[cold]
    fn take_number() -> usize {
        // Acquire: pairs with the Release in `Hold::drop`, with all of them, because
        // read-modify-writes continue a release sequence.
        let taken = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| {
            (taken.trailing_ones() < NUMBERS as u32).then_some(taken | (taken + 1))
        });
        let mut number = NONE;
        if let Ok(before) = taken {
            let hold = Hold(before.trailing_ones() as u8);
            number = hold.0;
            // It is dropped, and the number given back, if the thread's locals are gone.
            if HOLD.try_with(|place| place.set(Some(hold))).is_err() {
                number = NONE;
            }
        }
        NUMBER.set(number);
        usize::from(number)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::sync::Barrier;
        use std::thread::scope;

        #[test]
        fn threads_have_different_numbers_as_long_as_there_are_some() {
            const THREADS: usize = NUMBERS + 8;
            let all = Barrier::new(THREADS);
            let numbers: Vec<_> = scope(|scope| {
                let ask = || {
                    let number = number();
                    assert_eq!(number, super::number(), "it stays");
                    all.wait();
                    number
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().expect("it asks")).collect()
            });
            let mut given: Vec<_> = numbers.into_iter().filter(|&n| n < NUMBERS).collect();
            let count = given.len();
            given.sort_unstable();
            given.dedup();
            assert_eq!(given.len(), count);
        }

        #[test]
        fn a_number_is_given_back_when_its_thread_ends() {
            // Other tests' threads have numbers, too, and come and go.
            for _ in 0..100_000 {
                let number = std::thread::spawn(number).join().expect("it asks");
                if number < NUMBERS {
                    return;
                }
            }
            panic!("no number was ever free");
        }
    }
}

#[cfg(any(loom, shuttle))]
mod imp {
    /// None: in models all threads count in one place.
    pub(crate) fn number() -> usize {
        super::NUMBERS
    }
}

pub(crate) use imp::number;
