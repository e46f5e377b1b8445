//! A field that only names the brand is `PhantomData<Gc<'gc, ()>>`, and not a reference's.

use std::marker::PhantomData;

use sexton::Trace;

#[derive(Trace)]
struct Node<'gc> {
    brand: PhantomData<&'gc ()>,
}

fn main() {}
