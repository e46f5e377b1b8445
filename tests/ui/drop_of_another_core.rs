//! A crate that renames itself `core` must not hide its `Drop` from the derive.
#![forbid(unsafe_code)]

extern crate self as core;

pub mod ops {
    pub trait Drop {}
}

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct S<'gc> {
    text: Gc<'gc, Leaf<String>>,
}

impl<'gc> Drop for S<'gc> {
    fn drop(&mut self) {
        println!("{:?}", &**self.text);
    }
}

fn main() {}
