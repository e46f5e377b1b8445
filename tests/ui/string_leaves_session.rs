//! A string in the heap ends with its session, and so does the `str` that it lends.

use sexton::{GcStr, Heap};

fn main() {
    let mut heap: Heap<GcStr<'static>> = Heap::new(|mc| mc.alloc_str("kept"));
    let _string = heap.mutate(|_, string| *string);
    let _text = heap.mutate(|_, string| string.as_str());
}
