//! The names of the attributes in the expansion cannot be those of macros, which could change it.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace};
use sexton_rewrite::becomes as inline;
use sexton_rewrite::becomes as automatically_derived;
#[derive(Trace)]
struct S<'gc> {
    field: Gc<'gc, String>,
}
fn main() {}
