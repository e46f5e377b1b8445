//! Which public types may cross threads, and which must not.

use sexton::{
    Cleanup, CleanupPool, CleanupState, CleanupStats, Gc, GcAtomic, GcCell, GcKey, GcMap, GcMutex,
    GcMutexGuard, GcOnce, GcRefCell, GcReport, GcRwLock, GcRwLockReadGuard, GcRwLockWriteGuard,
    GcVec, Heap, HeapId, HeapStats, Leaf, Mutation, Mutator, PoolStats, Quantiles, Root, Shared,
    SharedRoot, SlowSession, WaitError, Weak,
};

fn crosses_threads<T: Send + Sync + 'static>() {}

#[test]
fn handles_pools_and_reports_cross_threads() {
    crosses_threads::<Cleanup>();
    crosses_threads::<CleanupPool>();
    crosses_threads::<CleanupState>();
    crosses_threads::<CleanupStats>();
    crosses_threads::<GcReport>();
    crosses_threads::<HeapId>();
    crosses_threads::<HeapStats>();
    crosses_threads::<PoolStats>();
    crosses_threads::<WaitError>();
    crosses_threads::<Quantiles>();
    crosses_threads::<SlowSession>();
    assert_eq!(size_of::<Cleanup>(), 16);
}

/// Payload building blocks cross threads when what they hold does; only some can be shared.
#[test]
fn building_blocks_follow_their_contents() {
    fn is_send<T: Send>() {}
    crosses_threads::<Leaf<u8>>();
    crosses_threads::<GcMutex<u8>>();
    crosses_threads::<GcRwLock<u8>>();
    crosses_threads::<GcOnce<u8>>();
    crosses_threads::<Gc<'static, u8>>();
    crosses_threads::<GcKey<'static, u8>>();
    crosses_threads::<Weak<'static, u8>>();
    crosses_threads::<GcAtomic<'static, u8>>();
    crosses_threads::<GcMutex<Gc<'static, u8>>>();
    crosses_threads::<GcMutex<GcVec<'static, u8>>>();
    crosses_threads::<GcMutex<GcMap<'static, u8, u8>>>();
    is_send::<GcCell<u8>>();
    is_send::<GcRefCell<u8>>();
}

/// A guard can be lent to other threads, where what it guards can.
#[test]
fn guards_are_shared_where_their_contents_are() {
    fn is_sync<T: Sync>() {}
    is_sync::<GcMutexGuard<'static, u8>>();
    is_sync::<GcRwLockReadGuard<'static, u8>>();
    is_sync::<GcRwLockWriteGuard<'static, u8>>();
}

/// A shared heap goes where its root may go; so do roots made for it.
#[test]
fn a_shared_heap_crosses_threads() {
    crosses_threads::<Heap<Leaf<u8>, Shared>>();
    crosses_threads::<SharedRoot<'static, Leaf<u8>>>();
}

/// What borrows its heap for longer does for less.
#[expect(dead_code, reason = "it need only compile")]
fn shared_roots_are_covariant<'short, 'long: 'short>(
    root: SharedRoot<'long, Leaf<u8>>,
) -> SharedRoot<'short, Leaf<u8>> {
    root
}

/// Fails to compile, as ambiguous, if the type implements the trait.
macro_rules! never {
    ($trait:ident: $($ty:ty),+ $(,)?) => {
        const _: () = {
            trait Ambiguous<Choice> {
                const CHOSEN: () = ();
            }
            struct Implemented;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $trait> Ambiguous<Implemented> for T {}
            $(let () = <$ty as Ambiguous<_>>::CHOSEN;)+
        };
    };
}

// What belongs to a session stays on its thread, and so does what keeps objects alive.
never!(Send: Heap<()>, Mutation<'static>, Root<u8>);
never!(Sync: Heap<()>, Mutation<'static>, Root<u8>);
never!(Send: Leaf<*const u8>);
never!(Sync: GcCell<u8>, GcRefCell<u8>, Leaf<*const u8>);
// A guard stays where the lock was taken.
never!(Send: GcMutexGuard<'static, u8>, GcRwLockReadGuard<'static, u8>);
never!(Send: GcRwLockWriteGuard<'static, u8>);
never!(Sync: GcMutexGuard<'static, GcCell<u8>>, GcRwLockReadGuard<'static, GcCell<u8>>);
never!(Sync: GcRwLockWriteGuard<'static, GcCell<u8>>);
// A pointer goes where a reference would; so not where another thread could change what it points
// to.
never!(Send: GcKey<'static, GcCell<u8>>);
never!(Sync: GcKey<'static, GcCell<u8>>);
never!(Send: Gc<'static, GcCell<u8>>, Weak<'static, GcCell<u8>>, GcAtomic<'static, GcCell<u8>>);
never!(Sync: Gc<'static, GcCell<u8>>, Weak<'static, GcCell<u8>>, GcAtomic<'static, GcCell<u8>>);
// Nor into a payload, from where other threads have it.
never!(Send: GcMutex<Gc<'static, GcCell<u8>>>, GcRwLock<Gc<'static, GcCell<u8>>>);
never!(Sync: GcMutex<Gc<'static, GcCell<u8>>>, GcRwLock<Gc<'static, GcCell<u8>>>);
// To have a reference to a `GcRwLock` or a `GcOnce` is to have one to its content.
never!(Sync: GcRwLock<GcCell<u8>>, GcOnce<GcCell<u8>>);
// A shared heap crosses threads, what one thread has of it does not.
never!(Send: Mutation<'static, Shared>, Mutator<'static, Leaf<u8>>);
never!(Sync: Mutation<'static, Shared>, Mutator<'static, Leaf<u8>>);
