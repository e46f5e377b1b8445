//! A type that derives `Trace` cannot implement `Drop`: the objects it points to may be gone.

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct Node<'gc, T> {
    value: Gc<'gc, Leaf<u32>>,
    other: T,
}

impl<T> Drop for Node<'_, T> {
    fn drop(&mut self) {
        println!("{}", **self.value);
    }
}

fn main() {}
