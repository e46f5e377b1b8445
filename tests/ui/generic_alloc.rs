//! A function that allocates what it is generic over asks for `Trace` at its session's brand.

use sexton::{Gc, Mutation};

fn make<'gc, T>(mc: &Mutation<'gc>, value: T) -> Gc<'gc, T> {
    mc.alloc(value)
}

fn main() {}
