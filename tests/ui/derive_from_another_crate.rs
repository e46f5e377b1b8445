//! A crate path of the user's, with the real `Trace` and doubles of the rest, gets round no check.
#![forbid(unsafe_code)]

use sexton::{Gc, Trace};

mod another_check {
    pub use sexton::{Branded, Trace, Tracer};

    pub mod __private {
        pub struct No;

        pub trait MustNotImplementDropAsItDerivesTrace {
            type HasDrop;
        }
    }
}

#[derive(Trace)]
#[trace(crate = another_check)]
struct WithDrop<'gc> {
    field: Gc<'gc, String>,
}

impl Drop for WithDrop<'_> {
    fn drop(&mut self) {
        println!("{}", *self.field);
    }
}

mod another_tracer {
    pub use sexton::{__private, Branded, Trace};

    pub struct Tracer<'a>(&'a ());

    impl<'a> Tracer<'a> {
        pub fn derived<T>(&mut self) {}

        pub fn none<T>(&mut self) -> [&'a mut T; 0] {
            []
        }

        pub fn leaf<T>(&mut self, _: &mut T) {}
    }
}

#[derive(Trace)]
#[trace(crate = another_tracer)]
struct WithLeaf<'gc> {
    #[trace(leaf)]
    field: Gc<'gc, String>,
}

fn main() {}
