//! A block on its way to a runner.

use crate::account::registry::BatchAccount;
use crate::block::arena::Block;
use crate::pool::deferred_free::DeferredFree;
use sexton_sync::Arc;

/// A block in the full list, and the batch it belongs to.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) block: Block,
    pub(crate) batch: Arc<BatchAccount>,
    /// With whom the block shares entries, if it is the tail of another one that stalled.
    pub(crate) deferred: Option<Arc<DeferredFree>>,
}
