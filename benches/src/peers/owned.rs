//! What a program without a collector does: `Box`, `Arc`, and `Box` on mimalloc. The owner of an
//! object frees it; there is no search for the dead, so there is neither mark nor sweep to time.

use std::cell::OnceCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::driver::Peer;
use super::owning::owning_peer;
use crate::heaps::{GARBAGE_PER_CYCLE, SEED};

/// Defines a module with a peer of that name, whose pointers are of a type and made by a function.
macro_rules! owned {
    ($module:ident, $name:literal, $pointer:ident, $own:expr) => {
        pub(super) mod $module {
            use super::*;

            type Owner<T> = $pointer<T>;
            type Link<T> = OnceCell<Owner<T>>;

            #[inline]
            fn own<T>(value: T) -> Owner<T> {
                $own(value)
            }

            fn link<T>(from: &Link<T>, to: Owner<T>) {
                assert!(from.set(to).is_ok(), "a link is set once");
            }

            owning_peer!(Owned { ring: Vec<Option<Owner<[u64; 4]>>> }, derive());

            impl Peer for Owned {
                const NAME: &'static str = $name;
                const ROWS: &'static str = "W1 W2r.50 W2r.90 W7.wall W7.rss GCBench.wall \
                    memory.object memory.spike memory.size.20000 memory.size.33000 \
                    memory.size.65544";

                fn garbage(&mut self, objects: usize) -> Duration {
                    self.ring.resize_with(GARBAGE_PER_CYCLE, || None);
                    let start = Instant::now();
                    for n in 0..objects {
                        self.ring[n % GARBAGE_PER_CYCLE] = Some(own([n as u64; 4]));
                    }
                    black_box(&self.ring);
                    start.elapsed()
                }

                fn garbage_at_once(&mut self, objects: usize) -> Option<Duration> {
                    let start = Instant::now();
                    for n in 0..objects {
                        black_box(&*own([n as u64; 4]));
                    }
                    Some(start.elapsed())
                }

                /// Into the holes that the random dead among many have left.
                fn refill(&mut self, objects: usize, live: f64) -> (Duration, usize) {
                    let mut rng = fastrand::Rng::with_seed(SEED);
                    let mut all: Vec<_> = (0..objects).map(|n| Some(own([n as u64; 4]))).collect();
                    for slot in &mut all {
                        if rng.f64() >= live {
                            *slot = None;
                        }
                    }
                    let mut holes: Vec<_> = all.iter_mut().filter(|slot| slot.is_none()).collect();
                    let start = Instant::now();
                    for (n, slot) in holes.iter_mut().enumerate() {
                        **slot = Some(own([n as u64; 4]));
                    }
                    let (time, count) = (start.elapsed(), holes.len());
                    black_box(&all);
                    (time, count)
                }

                fn keep_bytes<const N: usize>(&mut self, objects: usize) {
                    let all: Vec<_> = (0..objects).map(|_| own([1_u8; N])).collect();
                    std::mem::forget(black_box(all));
                }

                fn spike(&mut self, objects: usize, peak: impl FnOnce()) {
                    let all: Vec<_> = (0..objects).map(|n| own([n as u64; 4])).collect();
                    peak();
                    drop(all);
                }
            }
        }
    };
}

owned!(system_box, "box", Box, Box::new);
owned!(system_arc, "arc", Arc, Arc::new);

#[cfg(feature = "peers")]
type MiBox<T> = allocator_api2::boxed::Box<T, super::mi_box::Mi>;
#[cfg(feature = "peers")]
owned!(mimalloc, "box-mimalloc", MiBox, |value| MiBox::new_in(value, crate::peers::mi_box::Mi));
