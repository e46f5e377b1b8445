//! `any!`: pointers to objects of any type of a program's, for one mode.
//!
//! Invariant: an `Any` remembers its object's type, and nothing else does.

/// `any! { Mode; Name: Type<'gc>, Type<'static>; .. }` makes `Any`, `AnyWeak` and `AnyRoot`, each
/// with a variant for every type.
macro_rules! any {
    ($mode:ty; $($name:ident: $at:ty, $family:ty;)*) => {
        /// A pointer to an object of any type.
        #[derive(Clone, Copy, Trace)]
        pub(super) enum Any<'gc> {
            $($name(Gc<'gc, $at>),)*
        }

        /// A weak pointer to one.
        #[derive(Clone, Copy, Trace)]
        pub(super) enum AnyWeak<'gc> {
            $($name(Weak<'gc, $at>),)*
        }

        /// A root of one.
        #[derive(Clone)]
        pub(super) enum AnyRoot {
            $($name(Root<$family>),)*
        }

        impl<'gc> Any<'gc> {
            pub(super) fn address(self) -> usize {
                match self {
                    $(Any::$name(gc) => Gc::as_ptr(gc).addr(),)*
                }
            }

            pub(super) fn root(self, mc: &Mutation<'gc, $mode>) -> AnyRoot {
                match self {
                    $(Any::$name(gc) => AnyRoot::$name(mc.root(gc)),)*
                }
            }

            pub(super) fn downgrade(self, mc: &Mutation<'gc, $mode>) -> AnyWeak<'gc> {
                match self {
                    $(Any::$name(gc) => AnyWeak::$name(mc.downgrade(gc)),)*
                }
            }
        }

        impl<'gc> $crate::program::cleanups::Registry for (&Mutation<'gc, $mode>, Any<'gc>) {
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

        impl<'gc> AnyWeak<'gc> {
            pub(super) fn upgrade(
                self,
                mc: &Mutation<'gc, $mode>,
            ) -> Option<Any<'gc>> {
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

        impl AnyRoot {
            pub(super) fn fetch<'gc>(&self, mc: &Mutation<'gc, $mode>) -> Any<'gc> {
                match self {
                    $(AnyRoot::$name(root) => Any::$name(mc.fetch(root)),)*
                }
            }
        }
    };
}

pub(super) use any;
