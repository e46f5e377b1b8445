//! A type whose shape is another after the derive does not compile.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace};
use sexton_rewrite::becomes;

#[derive(Trace)]
#[becomes(struct AnotherField<'gc> { field: String, another: Gc<'gc, String> })]
struct AnotherField<'gc> {
    field: String,
}

#[derive(Trace)]
#[becomes(enum AnotherVariant<'gc> { One, Another(Gc<'gc, String>) })]
enum AnotherVariant<'gc> {
    One,
}

#[derive(Trace)]
#[becomes(enum Inhabited<'gc> { One(Gc<'gc, String>) })]
enum Inhabited<'gc> {}

#[derive(Trace)]
#[becomes(union AUnion<'gc> { field: Gc<'gc, String> })]
struct AUnion<'gc> {
    field: Gc<'gc, String>,
}
#[derive(Trace)]
#[becomes(#[repr(packed)] struct Packed<'gc> { field: Gc<'gc, String> })]
struct Packed<'gc> {
    field: Gc<'gc, String>,
}

#[derive(Trace)]
#[becomes(struct Bounded<'gc> where 'gc: 'static { leaf: Gc<'gc, String> })]
struct Bounded<'gc> {
    #[trace(leaf)]
    leaf: String,
}
fn main() {}
