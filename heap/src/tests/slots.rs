//! Each kind of mark that an object can bear, at each place of a span's bitmaps where a pass over
//! them begins or ends.
//!
//! A pass that stops a word early, or skips a word's first slot, is wrong for few objects of few
//! spans. So here are all slots of one span, for each size that shapes the bitmaps in another way.
//! The one at the place in question lives where all others die, or dies where they live.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use sexton_cleanup::{Client, Pool, PoolConfig};

use crate::collect::heap::RawHeap;
use crate::memory::layout::{group_units, slot_bytes, span_slots};
use crate::memory::span::SpanRef;
use crate::object::trace::Branded;
use crate::policy::config::HeapConfig;
use crate::policy::pacer::Pacing;
use crate::{Gc, GcCell, GcRefCell, Leaf, Root, Weak};

/// The objects that live, and the weak pointers with the numbers of their targets.
type Family<Q> = (GcRefCell<Vec<Gc<'static, Q>>>, GcRefCell<Vec<(Leaf<usize>, Weak<'static, Q>)>>);

/// A payload that knows its number, if it has room for one.
trait Shape: Branded {
    fn make<'gc>(number: usize) -> Self::At<'gc>;

    fn number(value: &Self::At<'_>) -> Option<usize>;

    fn slot_bytes() -> usize {
        slot_bytes::<Self::At<'static>>()
    }
}

impl<const WORDS: usize> Shape for Leaf<[usize; WORDS]> {
    fn make<'gc>(number: usize) -> Self::At<'gc> {
        Leaf::new([number; WORDS])
    }

    fn number(value: &Self) -> Option<usize> {
        value.first().copied()
    }
}

/// Its drop glue notes its number.
struct Noted<const WORDS: usize>([usize; WORDS]);

thread_local! {
    static DROPPED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl<const WORDS: usize> Drop for Noted<WORDS> {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push(self.0[0]));
    }
}

impl<const WORDS: usize> Shape for Leaf<Noted<WORDS>> {
    fn make<'gc>(number: usize) -> Self::At<'gc> {
        Leaf::new(Noted([number; WORDS]))
    }

    fn number(value: &Self) -> Option<usize> {
        Some(value.0[0])
    }
}

/// Objects of a type that the marker traces.
impl<const WORDS: usize> Shape for [GcCell<Option<Gc<'static, Leaf<u64>>>>; WORDS] {
    fn make<'gc>(_: usize) -> Self::At<'gc> {
        std::array::from_fn(|_| GcCell::new(None))
    }

    fn number(_: &Self::At<'_>) -> Option<usize> {
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Weak,
    /// The number of cleanups of one object.
    Cleanups(usize),
    Root,
    LocalCleanup,
}

const MARKS: [Mark; 5] =
    [Mark::Weak, Mark::Cleanups(1), Mark::Cleanups(3), Mark::Root, Mark::LocalCleanup];

/// One object at the place in question, among all others of its span.
#[derive(Clone, Copy, Debug)]
struct Case {
    mark: Mark,
    at: usize,
    /// It lives and the others die, or the other way round.
    lives: bool,
    /// Each object bears the mark, and not it alone.
    all: bool,
}

impl Case {
    fn is_live(self, number: usize) -> bool {
        (number == self.at) == self.lives
    }

    fn is_marked(self, number: usize) -> bool {
        self.all || number == self.at
    }
}

/// Gives the first and the last slot of the first bitmap word, of one in the middle, and of the
/// last.
fn places(slots: usize) -> BTreeSet<usize> {
    let words = slots.div_ceil(64);
    let of_word = |word: usize| [word * 64, (word * 64 + 63).min(slots - 1)];
    [0, words / 2, words - 1].into_iter().flat_map(of_word).collect()
}

fn check<Q: Shape>() {
    // Those of the first span, or of all of the first group's.
    let (bytes, units) = (Q::slot_bytes(), group_units(Q::slot_bytes()));
    let slots: usize =
        (0..units).filter_map(|unit| span_slots(bytes, units, unit)).map(|span| span.slots).sum();
    let objects = slots.max(2);
    let places = if objects > slots { [0, 1].into() } else { places(slots) };
    for at in places {
        for mark in MARKS {
            for (lives, all) in [(false, false), (false, true), (true, false), (true, true)] {
                let case = Case { mark, at, lives, all };
                run::<Q>(objects, case);
            }
        }
    }
}

fn run<Q: Shape>(objects: usize, case: Case) {
    let name = format!("{case:?} of {objects} objects of {} bytes", Q::slot_bytes());
    let pool = Pool::new(PoolConfig::default(), None);
    let config = HeapConfig { pacing: Pacing::Manual, zeal: false, ..HeapConfig::default() };
    let mut heap: RawHeap<Family<Q>> =
        RawHeap::new(Client::new(&pool), config, |_| Default::default());
    let numbers = |of: &dyn Fn(usize) -> bool| (0..objects).filter(|&n| of(n)).collect::<Vec<_>>();
    let live = numbers(&|number| case.is_live(number));
    let doomed = numbers(&|number| !case.is_live(number));
    let marked_and_doomed = numbers(&|number| !case.is_live(number) && case.is_marked(number));
    let ran = Arc::new(Mutex::new(Vec::new()));
    let mut roots: BTreeMap<usize, Root<Q>> = BTreeMap::new();

    heap.mutate(|mc, (strong, weaks)| {
        for number in 0..objects {
            let object = mc.alloc(Q::make(number));
            let span = SpanRef::containing(object.as_address());
            if span.slots() == objects {
                assert_eq!(span.slot_of(object.as_address()), number, "{name}: its slot");
            }
            let note = || {
                let ran = ran.clone();
                move || ran.lock().expect("it is not poisoned").push(number)
            };
            let is_rooted = case.mark == Mark::Root && case.is_marked(number);
            if case.is_live(number) && !is_rooted {
                strong.borrow_mut(mc).push(object);
            }
            if !case.is_marked(number) {
                continue;
            }
            match case.mark {
                Mark::Weak => {
                    weaks.borrow_mut(mc).push((Leaf::new(number), mc.downgrade(object)));
                }
                Mark::Cleanups(count) => {
                    (0..count).for_each(|_| _ = mc.add_cleanup(object, note()));
                }
                Mark::Root => _ = roots.insert(number, mc.root(object)),
                Mark::LocalCleanup => _ = mc.add_cleanup_local(object, note()),
            }
        }
    });
    heap.verify().unwrap_or_else(|error| panic!("{name}, made: {error}"));
    doomed.iter().for_each(|number| _ = roots.remove(number));
    DROPPED.take();

    // What has to die does, and nothing else.
    let report = heap.collect();
    heap.verify().unwrap_or_else(|error| panic!("{name}, collected: {error}"));
    let is = |what: &str, left: u64, right: usize| assert_eq!(left, right as u64, "{name}: {what}");
    is("live", report.live_objects, live.len());
    is("swept", report.swept_objects, doomed.len());
    let is_noted = std::mem::needs_drop::<Q::At<'static>>();
    let dropped: &[usize] = if is_noted { &doomed } else { &[] };
    assert_eq!(DROPPED.take(), dropped, "{name}: dropped");

    let times = if let Mark::Cleanups(count) = case.mark { count } else { 1 };
    let notes = |of: &[usize]| of.iter().flat_map(|&n| vec![n; times]).collect::<Vec<_>>();
    let take_notes = |heap: &mut RawHeap<Family<Q>>| {
        pool.run_pending(usize::MAX);
        heap.run_local_cleanups(usize::MAX);
        let mut ran = std::mem::take(&mut *ran.lock().expect("it is not poisoned"));
        ran.sort_unstable();
        ran
    };
    if matches!(case.mark, Mark::Cleanups(_) | Mark::LocalCleanup) {
        assert_eq!(take_notes(&mut heap), notes(&marked_and_doomed), "{name}: cleanups");
    }
    if case.mark == Mark::Weak {
        is("cleared", report.cleared_weaks, marked_and_doomed.len());
    }

    // The free slots are used again, by objects that bear nothing.
    heap.mutate(|mc, (strong, weaks)| {
        let is_itself = |number: usize, object: Gc<'_, Q::At<'_>>| {
            assert_eq!(Q::number(&object).unwrap_or(number), number, "{name}: another object");
        };
        roots.iter().for_each(|(&number, root)| is_itself(number, mc.fetch(root)));
        for (number, weak) in weaks.borrow().iter() {
            let upgraded = weak.upgrade(mc);
            assert_eq!(upgraded.is_some(), case.is_live(**number), "{name}: weak {}", **number);
            upgraded.into_iter().for_each(|object| is_itself(**number, object));
        }
        strong.borrow_mut(mc).extend(doomed.iter().map(|&number| mc.alloc(Q::make(number))));
        for (number, weak) in weaks.borrow().iter() {
            let upgraded = weak.upgrade(mc).is_some();
            assert_eq!(upgraded, case.is_live(**number), "{name}: a new object's old weak pointer");
        }
    });
    heap.verify().unwrap_or_else(|error| panic!("{name}, filled again: {error}"));
    let report = heap.collect();
    is("live again", report.live_objects, objects);
    is("swept again", report.swept_objects, 0);
    is("cleared again", report.cleared_weaks, 0);
    assert_eq!(take_notes(&mut heap), [0; 0], "{name}: cleanups of what lives");

    // All die, and what is left of the marks with them.
    heap.mutate(|mc, (strong, _)| strong.borrow_mut(mc).clear());
    roots.clear();
    let report = heap.collect();
    heap.verify().unwrap_or_else(|error| panic!("{name}, emptied: {error}"));
    is("left", report.live_objects, 0);
    let marked_and_live = numbers(&|number| case.is_live(number) && case.is_marked(number));
    match case.mark {
        Mark::Weak => is("cleared in the end", report.cleared_weaks, marked_and_live.len()),
        Mark::Root => {}
        _ => assert_eq!(take_notes(&mut heap), notes(&marked_and_live), "{name}: cleanups"),
    }
}

/// Sizes in words by how they fill the bitmaps:
///
/// - whole words, at the head of the span: 0, 1
/// - whole words: 2, 4
/// - a part of the last one: 3, 17
/// - one word exactly: 128
/// - one slot: 8192
/// - a group of spans, of two slots or one: 4097
/// - a group of spans of several units: 8193, 20000
/// - a mapping of its own: 32769
macro_rules! at_every_place {
    ($($name:ident: $shape:ident of $($words:literal)+;)*) => {$(
        #[test]
        fn $name() {
            $(check::<$shape<$words>>();)+
        }
    )*};
}

type Plain<const WORDS: usize> = Leaf<[usize; WORDS]>;
type Dropped<const WORDS: usize> = Leaf<Noted<WORDS>>;
type Traced<const WORDS: usize> = [GcCell<Option<Gc<'static, Leaf<u64>>>>; WORDS];

at_every_place! {
    objects_without_a_size: Plain of 0;
    objects_of_a_word: Plain of 1;
    small_plain_objects: Plain of 3 4;
    plain_objects: Plain of 17 128 8192;
    large_plain_objects: Plain of 4097 8193 20000 32769;
    objects_of_a_word_with_drop_glue: Dropped of 1;
    small_objects_with_drop_glue: Dropped of 3;
    objects_with_drop_glue: Dropped of 17 4097 8193 32769;
    objects_of_a_word_that_are_traced: Traced of 1;
    small_objects_that_are_traced: Traced of 2;
    objects_that_are_traced: Traced of 17 4097 8193;
}
