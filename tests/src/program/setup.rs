//! Heaps and pools as a program's setup says.

use std::sync::Arc;
use std::time::Duration;

use sexton::{Branded, CleanupPool, Gc, HeapBuilder, Mode, Mutation, OnDrop, Pacing, Payload};

use super::common::Common;
use super::ledger::{Event, Id, Ledger};
use super::ops::{Policy, PoolKind, Setup};
use super::payload::{Any, FLOCK, Node};
use super::place::Ground;

/// Far more than anything here takes; a program that waits so long has failed.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// Objects that a heap begins with, so that its marks take several slices.
pub(super) fn flock(setup: Setup) -> usize {
    let has_room = setup.limit.is_none() && !setup.zeal;
    if has_room && setup.pause.is_some() { FLOCK } else { 0 }
}

/// The first objects of a heap, and where they are.
pub(super) fn herd<'gc, M: Ground>(
    mc: &Mutation<'gc, M>,
    common: &Common,
    members: usize,
    told: &mut Vec<(Id, usize)>,
) -> Vec<Gc<'gc, Node<'gc, M>>>
where
    Node<'gc, M>: Payload<M>,
{
    let make = |_| {
        let id = common.next_id();
        let node = mc.alloc(Node::new(id));
        told.push((id, Any::Node(node).address()));
        node
    };
    (0..members).map(make).collect()
}

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
        .pause_budget(setup.pause)
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
