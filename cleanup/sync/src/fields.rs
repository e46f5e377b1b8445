//! Atomics within objects, and others that a session touches at every step.
//!
//! A constant can hold them. Loom sees them. Shuttle does not: its models run whole heaps, and have
//! to reach further than from one of these to the next.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(loom)]
pub use self::late::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
#[cfg(loom)]
pub use loom::sync::atomic::AtomicPtr;

/// Loom's atomics, made when they are first used: no constant can hold loom's own.
///
/// To loom the making is a write. So the first use has to come before all others, as the making
/// would. `settle` is such a use.
#[cfg(loom)]
mod late {
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering;

    use loom::sync::atomic;

    macro_rules! late {
        ($($name:ident, $value:ty;)*) => {$(
            /// Stands in for the atomic of that name.
            #[derive(Debug, Default)]
            pub struct $name {
                value: $value,
                made: OnceLock<atomic::$name>,
            }

            impl $name {
                /// Makes one that loom does not know yet.
                pub const fn new(value: $value) -> Self {
                    $name { value, made: OnceLock::new() }
                }

                fn made(&self) -> &atomic::$name {
                    self.made.get_or_init(|| atomic::$name::new(self.value))
                }

                /// Lets loom know of it.
                pub fn settle(&self) {
                    self.made();
                }

                /// Gives the value.
                #[track_caller]
                pub fn load(&self, order: Ordering) -> $value {
                    self.made().load(order)
                }

                /// Replaces the value.
                #[track_caller]
                pub fn store(&self, value: $value, order: Ordering) {
                    self.made().store(value, order);
                }

                /// Replaces the value if it is `current`.
                ///
                /// # Errors
                ///
                /// The value found, if it is not `current`.
                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    self.made().compare_exchange(current, new, success, failure)
                }
            }
        )*};
    }

    late! {
        AtomicBool, bool;
        AtomicU8, u8;
        AtomicU16, u16;
        AtomicU32, u32;
        AtomicU64, u64;
    }

    impl AtomicU32 {
        /// Adds to the value, and gives what it was.
        #[track_caller]
        pub fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
            self.made().fetch_add(value, order)
        }

        /// Subtracts from the value, and gives what it was.
        #[track_caller]
        pub fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
            self.made().fetch_sub(value, order)
        }
    }
}
