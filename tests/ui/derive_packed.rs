//! Packed types cannot be traced.

use sexton::Trace;

#[derive(Trace)]
#[repr(C, packed)]
struct Packed {
    one: u8,
    other: u32,
}

#[derive(Trace)]
#[repr(packed(2), C)]
struct PackedToTwo {
    one: u8,
    other: u32,
}

fn main() {}
