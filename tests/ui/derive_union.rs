//! Unions cannot be traced.

use sexton::Trace;

#[derive(Trace)]
union Either {
    one: u32,
    other: f32,
}

fn main() {}
