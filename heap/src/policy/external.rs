//! What a program tells a heap of things outside: bytes that it does not see, and things of which
//! there are few.
//!
//! Invariant: nothing here reaches an object of the heap, or keeps one. So all of it may be used in
//! `Drop`, in cleanups, on any thread, and when the heap is gone.

use std::fmt;
use std::sync::Arc;

use crate::policy::pacer::{CountOfQuota, Pacer};

/// The way to tell a heap of bytes that its objects keep, and that it does not see.
///
/// The heap sees [what payloads own](crate::Trace::external_bytes). It does not see buffers of a C
/// library, mapped files, or memory of a graphics card. With what is charged here it collects in
/// time for them. [`Mutation::external`](crate::Mutation::external) gives one.
///
/// What is charged counts as bytes in use, for the heap's [`Pacing`](crate::Pacing) and for its
/// limit. A charge never fails: beyond the limit the next `alloc` does. A charge that makes a cycle
/// due has it run at the end of a session.
///
/// It belongs to no session, and is cheap to clone. It may be used in the `Drop` of a payload, in a
/// cleanup, and on any thread. When the heap is gone it does nothing of use. O(1), and takes no
/// lock.
///
/// ```
/// # use sexton_cleanup::{Client, Pool, PoolConfig};
/// # use sexton_heap::{Gc, GcCell, HeapConfig, Leaf, RawHeap};
/// # let client = Client::new(&Pool::new(PoolConfig::default(), None));
/// # let mut heap: RawHeap<()> = RawHeap::new(client, HeapConfig::default(), |_| ());
/// heap.mutate(|mc, ()| {
///     let texture = 7_u32; // 16 MB of a graphics card
///     let external = mc.external();
///     external.charge(16 << 20);
///     let object = mc.alloc(Leaf::new(texture));
///     mc.add_cleanup(object, move || {
///         // Here the texture is freed.
///         external.release(16 << 20);
///     });
/// });
/// assert_eq!(heap.stats().charged_bytes, 16 << 20);
/// ```
#[derive(Clone)]
pub struct ExternalBytes {
    pacer: Arc<Pacer>,
}

impl ExternalBytes {
    pub(crate) fn new(pacer: &Arc<Pacer>) -> Self {
        ExternalBytes { pacer: pacer.clone() }
    }

    /// Counts `bytes` more.
    pub fn charge(&self, bytes: u64) {
        self.pacer.charge(bytes);
    }

    /// Counts `bytes` less; never less than none.
    ///
    /// What is released after a cycle, as by the cleanups of that cycle, has the next cycle begin
    /// earlier.
    pub fn release(&self, bytes: u64) {
        self.pacer.release(bytes);
    }

    /// Counts `bytes` more until the [`ExternalCharge`] is dropped.
    ///
    /// ```
    /// # use sexton_cleanup::{Client, Pool, PoolConfig};
    /// # use sexton_heap::{ExternalCharge, Gc, GcCell, HeapConfig, Leaf, RawHeap};
    /// # let client = Client::new(&Pool::new(PoolConfig::default(), None));
    /// # let mut heap: RawHeap<()> = RawHeap::new(client, HeapConfig::default(), |_| ());
    /// struct Texture { number: u32, charge: ExternalCharge }
    ///
    /// heap.mutate(|mc, ()| {
    ///     mc.alloc(Leaf::new(Texture { number: 7, charge: mc.external().hold(16 << 20) }));
    /// });
    /// assert_eq!(heap.stats().charged_bytes, 16 << 20);
    /// heap.collect();
    /// assert_eq!(heap.stats().charged_bytes, 0);
    /// ```
    pub fn hold(&self, bytes: u64) -> ExternalCharge {
        self.charge(bytes);
        ExternalCharge { of: Of::Bytes(self.clone()), n: bytes }
    }
}

impl fmt::Debug for ExternalBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let charged = self.pacer.external().charged().count();
        f.debug_struct("ExternalBytes").field("charged", &charged).finish()
    }
}

/// A count of things that a heap's objects keep, and of which there are few: open files, windows.
///
/// Things that are garbage are open until a cycle finds them. The heap collects, at the end of a
/// session, when half of them are in use that are not known to stay. What is known to stay is the
/// least that was in use since the last cycle. If no more than a quarter is left, the cycle runs at
/// once, and not in slices. Then the end of the session waits for the cycle's cleanups, for a
/// second at most, as they may give things back. It does not in a cleanup, nor if the pool is
/// manual.
///
/// A quota never refuses. It cannot help within one session that takes more than there are, nor if
/// all of them are alive. [`Pacing::Manual`](crate::Pacing::Manual) takes no notice of it.
///
/// [`Mutation::quota`](crate::Mutation::quota) makes one. It may be used wherever an
/// [`ExternalBytes`] may. O(1), and takes no lock.
///
/// ```
/// # use sexton_cleanup::{Client, Pool, PoolConfig};
/// # use sexton_heap::{ExternalCharge, Gc, GcCell, HeapConfig, Leaf, RawHeap};
/// # let client = Client::new(&Pool::new(PoolConfig::default(), None));
/// # let mut heap: RawHeap<()> = RawHeap::new(client, HeapConfig::default(), |_| ());
/// use std::fs::File;
///
/// struct Opened { file: File, unit: ExternalCharge }
///
/// // Of 1024 files that `ulimit -n` allows some are for others.
/// let files = heap.mutate(|mc, ()| mc.quota(1000));
/// for _ in 0..3000 {
///     heap.mutate(|mc, ()| {
///         let unit = files.hold(1);
/// # #[cfg(unix)]
///         mc.alloc(Leaf::new(Opened { file: File::open("/dev/null")?, unit }));
///         Ok::<(), std::io::Error>(())
///     })?;
///     heap.collect_if_due();
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Quota {
    pacer: Arc<Pacer>,
    count: Arc<CountOfQuota>,
}

impl Quota {
    pub(crate) fn new(pacer: &Arc<Pacer>, most: u64) -> Self {
        Quota { pacer: pacer.clone(), count: pacer.quota(most) }
    }

    /// Counts `n` more that are in use.
    pub fn charge(&self, n: u64) {
        self.pacer.charge_quota(&self.count, n);
    }

    /// Counts `n` less; never less than none.
    pub fn release(&self, n: u64) {
        self.pacer.release_quota(&self.count, n);
    }

    /// Counts `n` more until the [`ExternalCharge`] is dropped.
    pub fn hold(&self, n: u64) -> ExternalCharge {
        self.charge(n);
        ExternalCharge { of: Of::Quota(self.clone()), n }
    }

    /// Gives how many are in use.
    pub fn in_use(&self) -> u64 {
        self.count.count()
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_use, most) = (self.count.count(), self.count.most());
        f.debug_struct("Quota").field("in_use", &in_use).field("most", &most).finish()
    }
}

/// What counts against a heap until it is dropped: bytes, or things of a [`Quota`].
///
/// Made by [`ExternalBytes::hold`] and [`Quota::hold`]. It may be a field of a payload, within a
/// [`Leaf`](crate::Leaf), or a capture of a cleanup.
#[must_use = "dropping it releases what it holds"]
pub struct ExternalCharge {
    of: Of,
    n: u64,
}

enum Of {
    Bytes(ExternalBytes),
    Quota(Quota),
}

impl ExternalCharge {
    /// Gives how much it holds.
    pub fn amount(&self) -> u64 {
        self.n
    }
}

impl Drop for ExternalCharge {
    fn drop(&mut self) {
        match &self.of {
            Of::Bytes(bytes) => bytes.release(self.n),
            Of::Quota(quota) => quota.release(self.n),
        }
    }
}

impl fmt::Debug for ExternalCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExternalCharge").field(&self.n).finish()
    }
}
