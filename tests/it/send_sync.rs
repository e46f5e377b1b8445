//! Which public types may cross threads.

use sexton::{Cleanup, CleanupPool, CleanupState, GcReport, HeapStats, PoolStats, WaitError};

fn crosses_threads<T: Send + Sync + 'static>() {}

#[test]
fn handles_pools_and_reports_cross_threads() {
    crosses_threads::<Cleanup>();
    crosses_threads::<CleanupPool>();
    crosses_threads::<CleanupState>();
    crosses_threads::<GcReport>();
    crosses_threads::<HeapStats>();
    crosses_threads::<PoolStats>();
    crosses_threads::<WaitError>();
    assert_eq!(size_of::<Cleanup>(), 16);
}
