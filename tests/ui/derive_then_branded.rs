//! A type that has a brand only after the derive does not compile.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace};
use sexton_rewrite::becomes;
#[derive(Trace)]
#[becomes(struct Branded<'gc> { field: Gc<'gc, String> })]
struct Branded {
    field: String,
}
#[derive(Trace)]
#[becomes(struct Moved<'gc, T> { field: Gc<'gc, T> })]
struct Moved<T> {
    field: T,
}
fn main() {}
