//! A leaf holds no `Gc`.

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct Direct<'gc> {
    #[trace(leaf)]
    field: Vec<Gc<'gc, Leaf<u32>>>,
}

#[derive(Trace)]
enum ByParameter<T> {
    One(#[trace(leaf)] T),
}

fn main() {}
