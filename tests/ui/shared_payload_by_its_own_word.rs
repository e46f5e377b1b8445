//! A type cannot say of itself that it is a payload of a shared heap: it is one if it is `Send + Sync`.

use std::cell::Cell;
use std::rc::Rc;

use sexton::{Payload, Shared, Trace};

trait Hidden {}

#[derive(Trace)]
struct Evil {
    // With this field the compiler knows that the type will never be `Send`, and would let it implement a trait that all `Send` types implement.
    #[trace(leaf)]
    hidden: &'static dyn Hidden,
    #[trace(leaf)]
    shared: Rc<Cell<u64>>,
}

impl Payload<Shared> for Evil {}

fn main() {}
