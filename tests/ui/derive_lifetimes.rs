//! A type has one brand at most, and the brand has no bounds.

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct Two<'a, 'gc> {
    one: Gc<'gc, Leaf<u32>>,
    other: &'a u32,
}

#[derive(Trace)]
struct Bounded<'gc: 'static>(Gc<'gc, Leaf<u32>>);

#[derive(Trace)]
struct BoundedBelow<'gc>(Gc<'gc, Leaf<u32>>)
where
    'gc: 'static;

fn main() {}
