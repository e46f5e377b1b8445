//! Which public types may cross threads, and which must not.

use sexton::{
    Cleanup, CleanupPool, CleanupState, CleanupStats, Gc, GcAtomic, GcCell, GcMutex, GcRefCell,
    GcReport, Heap, HeapId, HeapStats, Leaf, Mutation, PoolStats, Root, WaitError, Weak,
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
    assert_eq!(size_of::<Cleanup>(), 16);
}

/// Payload building blocks cross threads when what they hold does; only some can be shared.
#[test]
fn building_blocks_follow_their_contents() {
    fn is_send<T: Send>() {}
    crosses_threads::<Leaf<u8>>();
    crosses_threads::<GcMutex<u8>>();
    is_send::<GcCell<u8>>();
    is_send::<GcRefCell<u8>>();
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
never!(Send: Gc<'static, u8>, Weak<'static, u8>, Leaf<*const u8>, GcMutex<Gc<'static, u8>>);
never!(Sync: Heap<()>, Mutation<'static>, Root<u8>);
never!(Sync: Gc<'static, u8>, Weak<'static, u8>, GcCell<u8>, GcRefCell<u8>, Leaf<*const u8>);
// `GcAtomic` waits for a mode with several mutators, whose pointers are `Send`.
never!(Send: GcAtomic<'static, u8>);
never!(Sync: GcAtomic<'static, u8>);
