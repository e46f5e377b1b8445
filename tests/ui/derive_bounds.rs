//! Bounds that cannot be written for a parameter at every brand.

use sexton::{Gc, Trace};

#[derive(Trace)]
struct Shorthand<'gc, T: Iterator>(Gc<'gc, T>)
where
    T::Item: Copy;

#[derive(Trace)]
struct Tied<'gc, T, U: Iterator<Item = T>>(Gc<'gc, T>, Gc<'gc, U>);

#[derive(Trace)]
struct Returned<'gc, T, F: Fn() -> T>(Gc<'gc, T>, Gc<'gc, F>);

fn main() {}
