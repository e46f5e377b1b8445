//! What is measured: objects, heaps built of them, and rounds on such heaps.
//!
//! Invariant: a shape is a function of its parameters and a fixed seed, so two runs measure the
//! same heap.

mod rounds;
mod shapes;

pub(crate) use rounds::{GARBAGE_PER_CYCLE, Nothing, add_and_stop, garbage, garbage_heap};
pub(crate) use shapes::{
    Graph, Links, OBJECT_BYTES, PATIENCE, Plain, Round, SEED, Shape, ShapedHeap, alloc_garbage, per,
};
