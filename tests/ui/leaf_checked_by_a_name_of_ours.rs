//! A trait of the user's that has the name of the derive's own check must not stand in for it.
#![forbid(unsafe_code)]

use sexton::{Gc, Leaf, Trace};

trait ALeafMustBeStatic<const FIELD: usize> {
    type Leaf;
}

impl<'gc> ALeafMustBeStatic<0> for S<'gc> {
    type Leaf = Gc<'gc, Leaf<String>>;
}

#[derive(Trace)]
struct S<'gc> {
    #[trace(leaf)]
    first: u8,
    #[trace(leaf)]
    second: <S<'gc> as ALeafMustBeStatic<0>>::Leaf,
}

fn main() {}
