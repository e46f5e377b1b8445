//! A heap's root is a type that derives `Trace`.

use std::fs::File;

use sexton::Heap;

struct App {
    heap: Heap<File>,
}

fn main() {}
