//! Cells and locks that change a pointer without a session cannot hold one.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Mutex;

use sexton::{Gc, Leaf, Trace};

#[derive(Trace)]
struct InCell<'gc> {
    field: Cell<Option<Gc<'gc, Leaf<u32>>>>,
}

#[derive(Trace)]
struct InRefCell<'gc> {
    field: RefCell<Vec<Gc<'gc, Leaf<u32>>>>,
}

#[derive(Trace)]
struct InOnceCell<'gc> {
    field: OnceCell<Gc<'gc, Leaf<u32>>>,
}

#[derive(Trace)]
struct InMutex<'gc> {
    field: Mutex<Option<Gc<'gc, Leaf<u32>>>>,
}

#[derive(Trace)]
struct InParameter<T> {
    field: RefCell<T>,
}

fn main() {}
