//! A field is `Trace` or a leaf. A reference into the heap is neither, nor is an `Rc` of pointers.

use std::fs::File;
use std::rc::Rc;

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct Foreign {
    file: File,
}

#[derive(Trace)]
struct Reference<'gc> {
    object: &'gc Leaf<u32>,
}

#[derive(Trace)]
struct Shared<'gc> {
    object: Rc<Gc<'gc, Leaf<u32>>>,
}

fn main() {}
