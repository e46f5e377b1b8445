//! The checker: recomputes what the heap believes, the slow way, and trusts none of it.
//!
//! Tests run it after every step, zeal mode after every cycle. It walks reachability with a set of
//! addresses instead of mark bits. It finds spans by searching the regions instead of masking, and
//! counts bit by bit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use crate::collect::cycle::Collector;
use crate::memory::allocator::CachedSlots;
use crate::memory::bitmap;
use crate::memory::mark_stack::Marker;
use crate::memory::phase::Phase;
use crate::memory::region::Region;
use crate::memory::space::{Space, Usage};
use crate::memory::span::SpanRef;
use crate::memory::weak_table::WeakRecord;
use crate::session::core::Core;
use crate::session::mode::Mode;
use crate::sweep::local_cleanups::LocalCleanups;

/// What the checker found wrong.
#[derive(Debug)]
pub struct VerifyError {
    message: String,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for VerifyError {}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(VerifyError { message: format!($($message)*) });
        }
    };
}

/// Checks a heap whose roots `roots` reports; if `swept` says so in the end, also that nothing
/// unreachable is left, as right after a cycle. Called while no session is open.
pub(crate) fn verify<M: Mode>(
    core: &Core<M>,
    collector: &Collector<M>,
    roots: impl FnOnce(&mut Marker),
    swept: impl FnOnce() -> bool,
) -> Result<(), VerifyError> {
    collector.settle(core);
    let allocators = Allocators::of(core);
    let phase = core.phase().get();
    core.space().with(|space| {
        let truth = Truth::gather(space, &allocators);
        let mut unswept = HashSet::new();
        if phase == Phase::Sweeping {
            collector.for_each_unswept(space, |span| _ = unswept.insert(span));
        }
        let reachable = truth.walk(Marker::audited(roots))?;
        match phase {
            Phase::Idle => truth.check_no_marks(|_| true)?,
            Phase::Marking => {
                let mut waiting = Vec::new();
                collector.for_each_waiting(core, &mut |object| waiting.push(object));
                truth.check_snapshot(&reachable, waiting)?;
            }
            Phase::Clearing => truth.check_snapshot(&reachable, Vec::new())?,
            Phase::Sweeping => truth.check_no_marks(|span| !unswept.contains(span))?,
        }
        truth.check_regions()?;
        truth.check_spans(core)?;
        truth.check_lists(&allocators, &unswept)?;
        truth.check_weaks(&reachable)?;
        truth.check_locals(core)?;
        truth.check_usage(&allocators, phase)?;
        if swept() {
            for &object in truth.objects.keys() {
                ensure!(
                    reachable.contains(&object),
                    "unreachable object {object:#x} survived a sweep"
                );
            }
        }
        Ok(())
    })
}

/// Holds what all allocators of a heap have.
#[derive(Default)]
struct Allocators {
    cached: HashMap<SpanRef, CachedSlots>,
    spans: Vec<SpanRef>,
    /// What they have taken and not committed.
    taken: Usage,
    allowance: u64,
}

impl Allocators {
    fn of<M: Mode>(core: &Core<M>) -> Self {
        let mut all = Allocators::default();
        core.for_each_context(|context| {
            context.with_allocator(|allocator| {
                all.cached.extend(allocator.cached_slots().map(|cached| (cached.span, cached)));
                all.spans.extend(allocator.spans());
                all.taken = all.taken.plus(allocator.taken());
                all.allowance += allocator.allowance();
            });
        });
        all
    }
}

/// What there is, by looking at every bit.
struct Truth<'a> {
    space: &'a Space,
    /// Address of every allocated slot -> its span and slot.
    objects: BTreeMap<usize, (SpanRef, usize)>,
}

impl<'a> Truth<'a> {
    fn gather(space: &'a Space, allocators: &Allocators) -> Self {
        let mut objects = BTreeMap::new();
        for span in space.spans() {
            let cached = allocators.cached.get(&span);
            for (index, word) in span.alloc_bits().iter().enumerate() {
                let cached = cached.map_or(0, |cached| cached.in_word(index));
                // Most words of a small heap are empty or cached; tests verify at every step.
                for slot in bitmap::ones_of(index, word.get() & !cached) {
                    let address = span.base().addr().get() + slot * span.info().slot_bytes;
                    objects.insert(address, (span, slot));
                }
            }
        }
        Truth { space, objects }
    }

    fn region_of(&self, object: NonNull<u8>) -> Option<&Region> {
        self.space.regions().iter().find(|region| region.holds(object))
    }

    /// Everything reachable, each object checked before it is followed.
    fn walk(&self, roots: Vec<NonNull<u8>>) -> Result<HashSet<usize>, VerifyError> {
        let mut reachable = HashSet::new();
        let mut work = roots;
        while let Some(object) = work.pop() {
            if reachable.contains(&object.addr().get()) {
                continue;
            }
            let region = self.region_of(object);
            ensure!(region.is_some(), "reachable object {object:p} lies in no region of the heap");
            let span = region.and_then(|region| region.span_at(object));
            ensure!(span.is_some(), "reachable object {object:p} lies in no open span");
            let known = self.objects.get(&object.addr().get());
            ensure!(known.is_some(), "reachable object {object:p} is not an allocated slot");
            let (owner, slot) = known.copied().expect("checked above");
            ensure!(Some(owner) == span, "object {object:p} is claimed by two spans");
            ensure!(
                SpanRef::containing(object) == owner && owner.slot_of(object) == slot,
                "mask and shift find another slot than {slot} for object {object:p}"
            );
            reachable.insert(object.addr().get());
            if owner.info().needs_trace {
                work.extend(Marker::pointers_of(object));
            }
        }
        Ok(reachable)
    }

    /// Checks what the regions know of their memory.
    fn check_regions(&self) -> Result<(), VerifyError> {
        let regions = self.space.regions();
        for region in regions {
            ensure!(region.is_consistent(), "units of a region are both free and in use");
        }
        let resident = regions.iter().map(Region::resident_bytes).sum::<u64>();
        let believed = self.space.resident_bytes();
        ensure!(resident == believed, "{resident} bytes are resident, but {believed} believed");
        Ok(())
    }

    /// Checks that nothing is marked in the spans that `of` picks.
    fn check_no_marks(&self, of: impl Fn(&SpanRef) -> bool) -> Result<(), VerifyError> {
        for span in self.space.spans().filter(of) {
            ensure!(
                span.mark_bits().iter().all(|mark| mark.load(Relaxed) == 0),
                "span {:p} of `{}` has marks between cycles",
                span.base(),
                (span.info().name)()
            );
        }
        Ok(())
    }

    /// Checks that each reachable object is marked, or reached from a waiting one through unmarked
    /// ones.
    fn check_snapshot(
        &self,
        reachable: &HashSet<usize>,
        waiting: Vec<NonNull<u8>>,
    ) -> Result<(), VerifyError> {
        let mut promised = HashSet::new();
        // A waiting object is marked, unless it is a root's.
        let mut work: Vec<(NonNull<u8>, bool)> =
            waiting.into_iter().map(|object| (object, true)).collect();
        while let Some((object, waits)) = work.pop() {
            let known = self.objects.get(&object.addr().get());
            ensure!(known.is_some(), "waiting object {object:p} is not an allocated slot");
            let (span, slot) = known.copied().expect("checked above");
            // A marked one leads on if it waits itself.
            let leads_on = waits || !span.is_marked(slot);
            if leads_on && promised.insert(object.addr().get()) && span.info().needs_trace {
                work.extend(Marker::pointers_of(object).into_iter().map(|object| (object, false)));
            }
        }
        for object in reachable {
            let (span, slot) = self.objects[object];
            ensure!(
                span.is_marked(slot) || promised.contains(object),
                "reachable object {object:#x} of `{}` is not marked, and nothing that waits leads \
                 to it",
                (span.info().name)()
            );
        }
        Ok(())
    }

    fn check_spans<M: Mode>(&self, core: &Core<M>) -> Result<(), VerifyError> {
        let registrar = core.context().registrar().borrow();
        for span in self.space.spans() {
            let at = span.base();
            let name = (span.info().name)();
            for (index, alloc) in span.alloc_bits().iter().enumerate() {
                ensure!(
                    alloc.get() & !span.valid(index) == 0,
                    "span {at:p} of `{name}` has bits set beyond its last slot"
                );
            }
            let cleanups = span.cleanups().borrow();
            let specials: u32 =
                span.special_bits().iter().map(|word| word.get().count_ones()).sum();
            ensure!(
                specials as usize == cleanups.len(),
                "span {at:p} of `{name}` has {specials} special bits for {} cleanup chains",
                cleanups.len()
            );
            for (slot, head) in cleanups.iter(span.special_bits()) {
                let object = at.addr().get() + slot * span.info().slot_bytes;
                ensure!(
                    self.objects.contains_key(&object),
                    "free slot {slot} of span {at:p} of `{name}` has cleanups"
                );
                ensure!(registrar.len(head) > 0, "object {object:#x} has an empty cleanup chain");
            }
        }
        Ok(())
    }

    /// Checks that every swept span with a free slot is where the next allocation finds it, and
    /// only there.
    fn check_lists(
        &self,
        allocators: &Allocators,
        unswept: &HashSet<SpanRef>,
    ) -> Result<(), VerifyError> {
        let mut listed = HashSet::new();
        for span in self.space.partial().chain(allocators.spans.iter().copied()) {
            ensure!(listed.insert(span), "span {:p} is listed twice", span.base());
        }
        let open: HashSet<SpanRef> = self.space.spans().collect();
        let emptied: HashSet<SpanRef> = self.space.emptied().collect();
        ensure!(listed.is_disjoint(&emptied), "a listed span waits for others of its group");
        ensure!(listed.is_subset(&open), "a listed span is not open");
        for &span in open.difference(unswept) {
            let full = span
                .alloc_bits()
                .iter()
                .enumerate()
                .all(|(index, word)| word.get() == span.valid(index));
            ensure!(
                full || listed.contains(&span) || emptied.contains(&span),
                "span {:p} has free slots that no allocation would find",
                span.base()
            );
        }
        Ok(())
    }

    fn check_usage(&self, allocators: &Allocators, phase: Phase) -> Result<(), VerifyError> {
        let mut counted = Usage::default();
        for (span, _) in self.objects.values() {
            counted.add(1, span.info());
        }
        for cached in allocators.cached.values() {
            counted = counted.plus(cached.usage());
        }
        let believed = self.space.usage().plus(allocators.taken);
        // What is freed of a span that is being swept is counted at its end.
        let is_right = match phase {
            Phase::Sweeping => counted.bytes <= believed.bytes,
            _ => counted == believed,
        };
        ensure!(is_right, "usage is {counted:?} but believed to be {believed:?}");
        let (reserved, held) =
            (self.space.reserved(), allocators.taken.bytes + allocators.allowance);
        ensure!(reserved == held, "{reserved} bytes are reserved, but allocators hold {held}");
        Ok(())
    }

    /// Lists every armed local cleanup belongs to an allocated object.
    fn check_locals<M: Mode>(&self, core: &Core<M>) -> Result<(), VerifyError> {
        let mut strays = 0;
        core.locals().for_each_armed(&mut |object| {
            strays += usize::from(!self.objects.contains_key(&object.addr().get()));
        });
        ensure!(strays == 0, "{strays} local cleanups are armed for free slots");
        Ok(())
    }

    /// Lists every weak table entry belongs to an allocated target, and its record points back to
    /// it.
    fn check_weaks(&self, reachable: &HashSet<usize>) -> Result<(), VerifyError> {
        for span in self.space.spans() {
            let table = span.weaks().borrow();
            for (slot, record) in table.iter().flat_map(|table| table.iter()) {
                let target = span.base().addr().get() + slot * span.info().slot_bytes;
                ensure!(self.objects.contains_key(&target), "a free slot has a weak record");
                ensure!(
                    self.objects.contains_key(&record.addr().get()),
                    "the weak record of object {target:#x} is not allocated"
                );
                if reachable.contains(&record.addr().get()) {
                    // SAFETY: the record is reachable and allocated, hence live.
                    let record: &WeakRecord = unsafe { record.as_ref() };
                    ensure!(
                        record.target().map(|target| target.addr().get()) == Some(target),
                        "the weak record of object {target:#x} points elsewhere"
                    );
                }
            }
        }
        Ok(())
    }
}
