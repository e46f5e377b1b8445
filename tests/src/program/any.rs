//! Pointers to objects of any type of a program's.
//!
//! Invariant: an `Any` remembers its object's type, and nothing else does.

use sexton::{Branded, Cleanup, Gc, Heap, Leaf, Mutation, Root, Shared, SharedRoot, Trace, Weak};

use super::cleanups::Registry;
use super::ledger::Probe;
use super::payload::{Branch, Huge, Keeper, Large, Node, Plain, Stopper, Wide, Zero};
use super::place::Ground;

/// `any! { Name: Type<'gc>, Type<'static>; .. }` makes the enums, with a variant for every type.
macro_rules! any {
    ($($name:ident: $at:ty, $family:ty;)*) => {
        /// A pointer to an object of any type.
        #[derive(Trace)]
        pub(super) enum Any<'gc, M: Ground + 'static> {
            $($name(Gc<'gc, $at>),)*
        }

        /// A weak pointer to one.
        #[derive(Trace)]
        pub(super) enum AnyWeak<'gc, M: Ground + 'static> {
            $($name(Weak<'gc, $at>),)*
        }

        /// A root of one.
        pub(super) enum AnyRoot<M: Ground> {
            $($name(Root<$family>),)*
        }

        /// A root of one, for all mutators.
        pub(super) enum AnySharedRoot<'h, M: Ground> {
            $($name(SharedRoot<'h, $family>),)*
        }

        impl<M: Ground> Copy for Any<'_, M> {}
        impl<M: Ground> Copy for AnyWeak<'_, M> {}

        impl<M: Ground> Clone for Any<'_, M> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<M: Ground> Clone for AnyWeak<'_, M> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<M: Ground> Clone for AnyRoot<M> {
            fn clone(&self) -> Self {
                match self {
                    $(AnyRoot::$name(root) => AnyRoot::$name(root.clone()),)*
                }
            }
        }

        impl<M: Ground> Clone for AnySharedRoot<'_, M> {
            fn clone(&self) -> Self {
                match self {
                    $(AnySharedRoot::$name(root) => AnySharedRoot::$name(root.clone()),)*
                }
            }
        }

        impl<'gc, M: Ground> Any<'gc, M> {
            pub(super) fn address(self) -> usize {
                match self {
                    $(Any::$name(gc) => Gc::as_ptr(gc).addr(),)*
                }
            }

            pub(super) fn root(self, mc: &Mutation<'gc, M>) -> AnyRoot<M> {
                match self {
                    $(Any::$name(gc) => AnyRoot::$name(mc.root(gc)),)*
                }
            }

            pub(super) fn downgrade(self, mc: &Mutation<'gc, M>) -> AnyWeak<'gc, M> {
                match self {
                    $(Any::$name(gc) => AnyWeak::$name(mc.downgrade(gc)),)*
                }
            }
        }

        impl<'gc, M: Ground> Registry for (&Mutation<'gc, M>, Any<'gc, M>) {
            fn add_cleanup(self, f: impl FnOnce() + Send + 'static) -> Cleanup {
                let (mc, object) = self;
                match object {
                    $(Any::$name(gc) => mc.add_cleanup(gc, f),)*
                }
            }

            fn add_cleanup_with<A: Send + 'static>(self, arg: A, f: fn(A)) -> Cleanup {
                let (mc, object) = self;
                match object {
                    $(Any::$name(gc) => mc.add_cleanup_with(gc, arg, f),)*
                }
            }
        }

        impl<'gc, M: Ground> AnyWeak<'gc, M> {
            pub(super) fn upgrade(self, mc: &Mutation<'gc, M>) -> Option<Any<'gc, M>> {
                match self {
                    $(AnyWeak::$name(weak) => weak.upgrade(mc).map(Any::$name),)*
                }
            }

            /// Whether both are of the same target.
            pub(super) fn is(self, other: Self) -> bool {
                match (self, other) {
                    $((AnyWeak::$name(one), AnyWeak::$name(other)) => one.ptr_eq(other),)*
                    _ => false,
                }
            }
        }

        impl<M: Ground> AnyRoot<M> {
            pub(super) fn fetch<'gc>(&self, mc: &Mutation<'gc, M>) -> Any<'gc, M> {
                match self {
                    $(AnyRoot::$name(root) => Any::$name(mc.fetch(root)),)*
                }
            }

            pub(super) fn share<'h, R: Branded>(
                &self,
                heap: &'h Heap<R, Shared>,
            ) -> AnySharedRoot<'h, M> {
                match self {
                    $(AnyRoot::$name(root) => AnySharedRoot::$name(heap.share(root)),)*
                }
            }
        }

        impl<M: Ground> AnySharedRoot<'_, M> {
            pub(super) fn fetch<'gc>(&self, mc: &Mutation<'gc, Shared>) -> Any<'gc, M> {
                match self {
                    $(AnySharedRoot::$name(root) => Any::$name(mc.fetch_shared(root)),)*
                }
            }
        }
    };
}

any! {
    Node: Node<'gc, M>, Node<'static, M>;
    Branch: Branch<'gc, M>, Branch<'static, M>;
    Plain: Plain, Plain;
    Token: Leaf<Probe>, Leaf<Probe>;
    Zero: Zero, Zero;
    Large: Large<'gc, M>, Large<'static, M>;
    Wide: Wide<'gc, M>, Wide<'static, M>;
    Huge: Huge<'gc, M>, Huge<'static, M>;
    Keeper: Leaf<Keeper<M>>, Leaf<Keeper<M>>;
    Stopper: Leaf<Stopper>, Leaf<Stopper>;
}
