//! Unknown, misplaced and malformed `trace` attributes.

use sexton::Trace;

#[derive(Trace)]
#[trace(skip)]
struct Unknown;

#[derive(Trace)]
#[trace(leaf)]
struct LeafOnType;

#[derive(Trace)]
#[trace]
struct Empty;

#[derive(Trace)]
#[trace()]
struct EmptyList;

#[derive(Trace)]
#[trace(crate = ::sexton, crate = ::sexton)]
struct Twice;

#[derive(Trace)]
#[trace(crate = "not a path")]
struct NoPath;

#[derive(Trace)]
#[trace(crate = 3)]
struct Number;

#[derive(Trace)]
struct UnknownOnField {
    #[trace(skip)]
    one: u32,
    #[trace(crate = ::sexton)]
    other: u32,
}

#[derive(Trace)]
enum OnVariant {
    #[trace(leaf)]
    One(u32),
}

fn main() {}
