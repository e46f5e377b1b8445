//! The modes of a heap: one mutator on one thread, or many.
//!
//! What differs is chosen at compile time. A [`Local`] heap's state lies in cells, a [`Shared`]
//! heap's behind locks. Nothing of the handshake is compiled into a `Local` session.
//!
//! Invariant: a heap has one mode for life, its type's.

use std::rc::Rc;
use std::sync::Arc;

use crate::memory::locking::{Local, Locking, Shared};
use crate::safepoint::handshake::{Handshake, NotStopped, Stopped};
use crate::session::context::Context;
use crate::session::core::Core;
use crate::sweep::local_cleanups::{LocalCleanups, LocalTable, NoLocals};

/// A mode: [`Local`] or [`Shared`].
pub trait Mode: parts::Parts {}

impl Mode for Local {}
impl Mode for Shared {}

/// A value that may be allocated in a heap of the mode.
///
/// In a [`Local`] heap that is any value. In a [`Shared`] one it is `Send + Sync`, because other
/// threads see it, and one of them may drop it. Implemented for those, and for nothing else.
///
/// Asked of what is allocated and of the root, not of every type that one of them mentions: a field
/// is part of its object.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot live in a heap of mode `{M}`",
    note = "a heap that several threads use holds only what is `Send + Sync`: `GcAtomic`, \
            `GcMutex`, `GcRwLock` or `GcOnce` in place of `GcCell` and `GcRefCell`"
)]
pub trait Payload<M: Mode>: parts::Fits<M> {}

impl<M: Mode, T: parts::Fits<M>> Payload<M> for T {}

pub(crate) mod parts {
    use super::*;

    /// What [`Payload`] says. It cannot be named outside. Otherwise a type that is not `Send` could
    /// declare itself a payload of a shared heap.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot live in a heap of mode `{M}`",
        note = "a heap that several threads use holds only what is `Send + Sync`: `GcAtomic`, \
                `GcMutex`, `GcRwLock` or `GcOnce` in place of `GcCell` and `GcRefCell`"
    )]
    pub trait Fits<M> {}

    impl<T> Fits<Local> for T {}
    impl<T: Send + Sync> Fits<Shared> for T {}

    /// What a mode is made of. Not to be named outside: so there are no other modes.
    pub trait Parts: Locking + Sized {
        type Locals: LocalCleanups;
        type Mutators: Mutators<Self>;

        /// Gives a heap's core to another thread, if that may have it.
        #[expect(private_interfaces, reason = "called by the collector")]
        fn shared(core: &Arc<Core<Self>>) -> Option<Arc<Core<Shared>>>
        where
            Self: Mode;
    }

    impl Parts for Local {
        type Locals = Rc<LocalTable>;
        type Mutators = ();

        #[expect(private_interfaces, reason = "as in the trait")]
        fn shared(_: &Arc<Core<Local>>) -> Option<Arc<Core<Shared>>> {
            None
        }
    }

    impl Parts for Shared {
        type Locals = NoLocals;
        type Mutators = Handshake<Context<Shared>>;

        #[expect(private_interfaces, reason = "as in the trait")]
        fn shared(core: &Arc<Core<Shared>>) -> Option<Arc<Core<Shared>>> {
            Some(core.clone())
        }
    }

    /// The mutators of a heap, but for its own context.
    pub trait Mutators<M: Parts>: Default {
        /// Tells whether a thread waits for sessions to end, in order to collect.
        fn is_stopping(&self) -> bool;

        /// Tells whether a collector does with sessions that are parked. A hint.
        fn is_parking(&self) -> bool;

        /// Parks the session of the mutator with this context, if a collector does with that.
        /// Called by the session, where nothing is half done.
        fn park(&self, context: &Context<M>);

        /// Parks the session as `park` does. Tells why it could not stop the others now; `None` if
        /// no collector is there.
        fn give_way(&self, context: &Context<M>) -> Option<NotStopped>;

        /// Calls `f` with the other mutators stopped, for the session of the one with this context.
        /// Called as `park`.
        fn while_stopped<T>(
            &self,
            context: &Context<M>,
            f: impl FnOnce(Stopped) -> T,
        ) -> Result<T, NotStopped>;

        /// Has the session wait until it may try again to stop the others. Called as `park`.
        fn rest(&self, context: &Context<M>);

        /// Calls `each` with the context of every mutator. Called while the mutators are stopped.
        fn for_each(&self, each: impl FnMut(&Context<M>));

        /// Tells how many there are.
        fn len(&self) -> usize;
    }

    impl Mutators<Local> for () {
        #[inline]
        fn is_stopping(&self) -> bool {
            false
        }

        #[inline]
        fn is_parking(&self) -> bool {
            false
        }

        fn park(&self, _: &Context<Local>) {}

        fn give_way(&self, _: &Context<Local>) -> Option<NotStopped> {
            None
        }

        fn while_stopped<T>(
            &self,
            _: &Context<Local>,
            f: impl FnOnce(Stopped) -> T,
        ) -> Result<T, NotStopped> {
            Ok(f(Stopped { has_sessions: true, is_assist: true, ..Stopped::now() }))
        }

        fn rest(&self, _: &Context<Local>) {}

        fn for_each(&self, _: impl FnMut(&Context<Local>)) {}

        fn len(&self) -> usize {
            0
        }
    }

    impl Mutators<Shared> for Handshake<Context<Shared>> {
        #[inline]
        fn is_stopping(&self) -> bool {
            self.is_stopping()
        }

        #[inline]
        fn is_parking(&self) -> bool {
            self.is_parking()
        }

        fn park(&self, context: &Context<Shared>) {
            self.park(context);
        }

        fn give_way(&self, context: &Context<Shared>) -> Option<NotStopped> {
            if self.is_stopping() { self.give_way(context) } else { None }
        }

        fn while_stopped<T>(
            &self,
            context: &Context<Shared>,
            f: impl FnOnce(Stopped) -> T,
        ) -> Result<T, NotStopped> {
            self.stop_within(context).map(|guard| f(guard.stopped))
        }

        fn rest(&self, context: &Context<Shared>) {
            self.rest(context);
        }

        fn for_each(&self, each: impl FnMut(&Context<Shared>)) {
            self.for_each(each);
        }

        fn len(&self) -> usize {
            self.len()
        }
    }
}
