//! A leaf that is none any more after the derive does not compile.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace};
use sexton_rewrite::becomes;

#[derive(Trace)]
#[becomes(struct Pointer<'gc> { leaf: Gc<'gc, String> })]
struct Pointer<'gc> {
    #[trace(leaf)]
    leaf: String,
}

#[derive(Trace)]
#[becomes(struct Contravariant<'gc> { leaf: fn(&'gc u8) })]
struct Contravariant<'gc> {
    #[trace(leaf)]
    leaf: String,
}

#[derive(Trace)]
#[becomes(enum Variant<'gc> { One(Gc<'gc, String>) })]
enum Variant<'gc> {
    One(#[trace(leaf)] String),
}

fn main() {}
