//! The clearing: what lasts from one of its steps to the next.
//!
//! Invariant: it is done before any span is swept.

use sexton_cleanup::Registrar;

use crate::memory::span::SpanRef;

/// How far the clearing has come.
pub(crate) struct Clearing {
    /// Local cleanups to look at.
    pub(crate) locals: usize,
    /// Whether records of cleanups that have ended early are to be freed.
    pub(crate) prunes: bool,
}

/// Frees the records of cleanups that were stopped or run early. They stay in their objects' chains
/// until they make up much of what there is.
pub(crate) fn prune(span: SpanRef, registrar: &mut Registrar) {
    let mut cleanups = span.cleanups().borrow_mut();
    if !cleanups.is_empty() {
        cleanups.retain_map(span.special_bits(), |_, head| registrar.prune(head));
    }
}

/// Records of cleanups that have ended early, worth a pass over all chains.
pub(crate) const PRUNE_AT: u64 = 1024;
