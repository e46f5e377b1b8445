//! Weak records at the end of mark: those of dead targets are cleared.
//!
//! Invariant: it is done before any slot is swept or any cleanup is queued. Until it is done, an
//! `upgrade` looks at the target's mark. So no `Weak` upgrades to an object that is about to go.

use std::ptr::NonNull;

use crate::memory::span::SpanRef;
use crate::memory::weak_table::{WeakRecord, WeakTable};

/// Clears the records of dead targets in a span, and forgets those that no `Weak` reaches any more.
/// Returns how many it cleared. Called with the span's specials held: a session may downgrade an
/// object of the span meanwhile, and then marks its record. O(records).
pub(crate) fn clear_dead(span: SpanRef) -> u64 {
    let mut table = span.weaks().borrow_mut();
    let Some(weaks) = &mut *table else { return 0 };
    let cleared = clear_dead_of(weaks, span);
    if weaks.is_empty() {
        *table = None;
    }
    cleared
}

fn clear_dead_of(weaks: &mut WeakTable, span: SpanRef) -> u64 {
    let mut cleared = 0;
    weaks.retain(|slot, record: NonNull<WeakRecord>| {
        let target_lives = span.is_marked(slot);
        let record_lives = SpanRef::containing(record.cast()).is_marked_at(record.cast());
        if record_lives && !target_lives {
            // SAFETY: the record is marked, so it is a live object.
            unsafe { record.as_ref() }.clear();
            cleared += 1;
        }
        target_lives && record_lives
    });
    cleared
}
