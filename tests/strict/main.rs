//! What the derive writes is not held against the user: neither the `unsafe` in it nor any lint.

#![forbid(unsafe_code)]
#![deny(warnings, clippy::all, clippy::pedantic, rust_2018_idioms)]
#![deny(missing_docs, missing_debug_implementations, unreachable_pub, unnameable_types)]
#![deny(unused_qualifications, unused_lifetimes, single_use_lifetimes, drop_bounds)]
#![deny(elided_lifetimes_in_paths, explicit_outlives_requirements, non_local_definitions)]
#![deny(let_underscore_drop, trivial_casts, trivial_numeric_casts, variant_size_differences)]

use sexton::{Gc, GcCell, Heap, Leaf, Trace};

#[derive(Debug, Trace)]
struct Node<'gc, T: Clone> {
    value: T,
    next: GcCell<Option<Gc<'gc, Leaf<u32>>>>,
    #[trace(leaf)]
    name: &'static str,
}

#[derive(Debug, Trace)]
enum Tree<T> {
    Tip,
    Fork(Box<Self>, T, Box<Self>),
}

#[derive(Debug, Trace)]
enum Never {}

#[derive(Debug, Trace)]
struct Unit;

fn main() {
    #[derive(Debug, Trace)]
    struct Local<'gc>(Gc<'gc, Leaf<u32>>);

    let mut heap: Heap<Option<Local<'static>>> =
        Heap::new(|mc| Some(Local(mc.alloc(Leaf::new(1)))));
    heap.mutate(|mc, local| {
        let next = GcCell::new(local.as_ref().map(|local| local.0));
        let node = mc.alloc(Node { value: Unit, next, name: "name" });
        let tree = Tree::Fork(Box::new(Tree::Tip), node, Box::new(Tree::Tip));
        assert!(format!("{tree:?} {:?}", None::<Never>).ends_with("None"));
        let Tree::Fork(left, node, right) = tree else { return };
        assert!(matches!((*left, *right), (Tree::Tip, Tree::Tip)));
        assert!(format!("{:?} {:?} {}", node.value, node.next, node.name).ends_with("name"));
    });
}

impl Clone for Unit {
    fn clone(&self) -> Self {
        Self
    }
}
