//! A type is a payload of a shared heap if it is `Send + Sync`. It cannot say so of itself.

use std::cell::Cell;
use std::rc::Rc;

use sexton::{Payload, Shared, Trace};

trait Hidden {}

#[derive(Trace)]
struct Evil {
    // By it the type is never `Send`, so it may implement a trait that all `Send` types implement.
    #[trace(leaf)]
    hidden: &'static dyn Hidden,
    #[trace(leaf)]
    shared: Rc<Cell<u64>>,
}

impl Payload<Shared> for Evil {}

fn main() {}
