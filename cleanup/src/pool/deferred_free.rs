//! Slots that are kept from use while two blocks hold the same entries.
//!
//! Invariant: no slot that is kept here is used again before the last sharer has ended its block.

#![forbid(unsafe_code)]

use crate::account::registry::BatchAccount;
use crate::record::ending::Skip;
use crate::record::free_list::FreeList;
use crate::record::head::Index;
use sexton_sync::{Arc, Mutex};

/// The slots that the sharers of entries have freed, kept from use until the last sharer has ended
/// its block and dropped this. A grace period, as in RCU.
#[derive(Debug)]
pub(crate) struct DeferredFree {
    batch: Arc<BatchAccount>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    freed: FreeList,
    /// Records that a handle's thread was at. Left to it they would be freed at once; so they are
    /// passed last.
    busy: Vec<Index>,
}

impl DeferredFree {
    pub(super) fn new(batch: &Arc<BatchAccount>) -> Arc<Self> {
        let freed = batch.registry().storage.free_list();
        Arc::new(DeferredFree {
            batch: batch.clone(),
            kept: Mutex::new(Kept { freed, busy: Vec::new() }),
        })
    }

    /// Keeps a sharer's slots.
    pub(crate) fn keep(&self, freed: &mut FreeList) {
        self.kept.lock().freed.append(freed);
    }

    /// Keeps in mind a record that a handle's thread is at.
    pub(crate) fn keep_busy(&self, record: Index) {
        self.kept.lock().busy.push(record);
    }
}

impl Drop for DeferredFree {
    /// Frees the slots. The last sharer is gone: no runner will come to any of these records again.
    fn drop(&mut self) {
        let (freed, busy) = {
            let mut kept = self.kept.lock();
            let empty = self.batch.registry().storage.free_list();
            (std::mem::replace(&mut kept.freed, empty), std::mem::take(&mut kept.busy))
        };
        let mut freed = freed;
        let storage = self.batch.registry().storage;
        let mut uncounted = 0;
        for record in busy {
            if let Skip::Freed(slot, counted) = storage.skip(record, Some(self.batch.byte())) {
                freed.push(slot);
                uncounted += u64::from(!counted);
            }
        }
        freed.give_back();
        for _ in 0..uncounted {
            self.batch.end_one_early();
        }
    }
}
