//! A leaf's type is `'static`: it holds no `Gc`, and names no brand.

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

// As an argument's, a lifetime may become a longer one.
#[derive(Trace)]
struct Contravariant<'gc> {
    #[trace(leaf)]
    field: fn(&'gc u8),
}

fn main() {}
