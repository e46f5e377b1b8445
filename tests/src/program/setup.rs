//! Heaps and pools as a program's setup says.

use std::sync::Arc;
use std::time::Duration;

use sexton::{Branded, CleanupPool, HeapBuilder, Mode, OnDrop, Pacing};

use super::ledger::{Event, Ledger};
use super::ops::{Policy, PoolKind, Setup};

/// Far more than anything here takes; a program that waits so long has failed.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A pool that tells the ledger of panics.
pub(super) fn new_pool(kind: PoolKind, ledger: &Arc<Ledger>) -> CleanupPool {
    let workers = match kind {
        PoolKind::Manual => 0,
        PoolKind::Workers(workers) => workers,
    };
    let ledger = ledger.clone();
    CleanupPool::builder().max_workers(workers).on_panic(move |_| ledger.write(Event::Told)).build()
}

/// The builder, with what a setup says.
pub(super) fn configure<R: Branded, M: Mode>(
    builder: HeapBuilder<R, M>,
    pool: &CleanupPool,
    setup: Setup,
) -> HeapBuilder<R, M> {
    let builder = builder
        .cleanup_pool(pool)
        .drop_timeout(LONG)
        .zeal(setup.zeal)
        // The oracle expects whole cycles.
        .pause_budget(None)
        .pacing(match setup.pace {
            Some(min_bytes) => Pacing::Automatic { min_bytes, growth: 1.0 },
            None => Pacing::Manual,
        })
        .on_drop(match setup.on_drop {
            Policy::RunAll => OnDrop::RunAll,
            Policy::RunQueued => OnDrop::RunQueued,
            Policy::Discard => OnDrop::Discard,
        });
    match setup.limit {
        Some(limit) => builder.max_bytes(limit),
        None => builder,
    }
}
