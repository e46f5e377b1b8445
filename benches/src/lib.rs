//! What the `sexton-bench` command and the Criterion suites share: the objects they measure, the
//! heaps they build of them, and the rounds they time.
//!
//! Invariant: a shape is a function of its parameters and a fixed seed, so two runs, and two tools,
//! measure the same heap.

#![forbid(unsafe_code)]

mod heaps;
mod rivals;
mod rounds;
mod spread;

pub use heaps::{
    Dropping, Graph, Links, NoMemory, OBJECT_BYTES, Pair, Plain, Registered, SEED, Shape,
    ShapedHeap,
};
pub use rivals::{box_garbage_at_once, box_garbage_later, box_refill};
pub use rounds::{
    GARBAGE_PER_CYCLE, Nothing, add_and_stop, alloc_garbage, garbage, garbage_heap, register,
    sample, suite_objects,
};
pub use spread::{Spread, per};
