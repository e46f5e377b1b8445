//! A trait of the user's gives the tracer no other methods than its own.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace, Tracer};

trait Shadow<'a>: Sized {
    fn none<T>(self) -> [&'a mut T; 0] {
        []
    }

    fn leaf<T>(self, _: &mut T) {}
}

impl<'a> Shadow<'a> for &'a mut Tracer<'_> {}

#[derive(Trace)]
struct S<'gc> {
    #[trace(leaf)]
    field: Gc<'gc, String>,
}

fn main() {}
