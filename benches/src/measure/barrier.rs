//! The price of a write to a cell, and of the barrier in it: in a heap that stops the world, in one
//! that collects in slices and does not just now, and while a cycle marks.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sexton::{Gc, GcCell, GcMutex, GcRefCell, Heap, HeapBuilder, Leaf, Pacing, Shared, Trace};

use crate::catalogue::Out;
use crate::heaps::{Plain, per};

/// Cells that are written in turn, and values that are written.
const CELLS: usize = 1024;

/// Objects that a cycle has to mark: more than the least slice does.
const LINKS: usize = 200_000;

#[derive(Trace)]
struct Link<'gc> {
    before: Option<Gc<'gc, Link<'gc>>>,
    words: Leaf<[u64; 3]>,
}

/// The root: cells of one kind, what they are set to, and a list that keeps a cycle busy.
#[derive(Trace)]
struct Cells<'gc, C> {
    cells: Vec<C>,
    values: Vec<Gc<'gc, Plain>>,
    links: Option<Gc<'gc, Link<'gc>>>,
}

/// In which state the heap is meanwhile. The default pause budget is that of all but the first.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Stop,
    Idle,
    Marking,
}

/// Rows are the heap that does not collect just now.
const STATES: [(State, &str); 3] =
    [(State::Stop, "@stop"), (State::Idle, ""), (State::Marking, "@marking")];

/// Builds the root of a heap.
macro_rules! cells {
    ($mc:expr, $cell:expr) => {{
        let values: Vec<_> = (0..CELLS).map(|n| $mc.alloc(Plain::new([n as u64; 4]))).collect();
        let links = (0..LINKS).fold(None, |before, n| {
            Some($mc.alloc(Link { before, words: Leaf::new([n as u64; 3]) }))
        });
        Cells { cells: values.iter().map(|&value| $cell(Some(value))).collect(), values, links }
    }};
}

/// Times `write` with each cell in turn, and another value each time; nanoseconds for each.
///
/// The fastest of many parts, each of which is shorter than the system's time slices. So a program
/// that runs beside this one does not show.
fn time<C, V: Copy>(count: usize, cells: &[C], values: &[V], write: impl Fn(&C, V)) -> f64 {
    // Cells and values have the same length, which the optimiser is not to know.
    let (cells, values) = black_box((cells, values));
    let all = |rounds: usize| {
        for round in 0..rounds {
            let (last, first) = values.split_at(round % values.len());
            let values = first.iter().chain(last);
            cells.iter().zip(values).for_each(|(cell, &value)| write(cell, value));
        }
    };
    // The first write to each cell in a cycle marks; that is no price of a write.
    all(2);
    const ROUNDS: usize = 64;
    let writes = ROUNDS * cells.len();
    let parts = (0..count.div_ceil(writes).max(1)).map(|_| {
        let start = Instant::now();
        all(ROUNDS);
        start.elapsed()
    });
    per(parts.min().unwrap_or_default(), writes as u64)
}

/// Chooses what a state needs.
fn settings<R, M>(builder: HeapBuilder<R, M>, state: State) -> HeapBuilder<R, M>
where
    R: sexton::Branded,
    M: sexton::Mode,
{
    // With one thread none marks beside the loop.
    let builder = builder.pacing(Pacing::Manual).gc_threads(1);
    if state == State::Stop { builder.pause_budget(None) } else { builder }
}

/// Measures one kind of cell: `$user` is the heap, or a mutator of it.
macro_rules! measure {
    ($user:expr, $state:expr, $count:expr, $write:expr) => {{
        let mut user = $user;
        // Two steps before the end of the mark, at least: one here, and one that finds it going on.
        let mut is_marking =
            || $state == State::Marking && !user.step(Duration::ZERO).is_finished();
        let before = is_marking();
        let cost = user.mutate(|mc, root| {
            time($count, &root.cells, &root.values, |cell, value| $write(mc, cell, Some(value)))
        });
        let mut is_marking =
            || $state == State::Marking && !user.step(Duration::ZERO).is_finished();
        assert_eq!(before, is_marking(), "a cycle marks all the time, or never");
        cost
    }};
}

/// Tells nanoseconds for each of `count` writes.
pub(super) fn measure(count: usize, out: &mut Out) {
    for (state, suffix) in STATES {
        let heap: Heap<Cells<'static, GcCell<Option<Gc<'static, Plain>>>>> =
            settings(Heap::builder(), state).build(|mc| cells!(mc, GcCell::new));
        let set = measure!(heap, state, count, |mc, cell: &GcCell<_>, value| cell.set(mc, value));
        out.put(&format!("barrier.set{suffix}"), set);

        let heap: Heap<Cells<'static, GcRefCell<Option<Gc<'static, Plain>>>>> =
            settings(Heap::builder(), state).build(|mc| cells!(mc, GcRefCell::new));
        let lent = measure!(heap, state, count, |mc, cell: &GcRefCell<_>, value| {
            *cell.borrow_mut(mc) = value;
        });
        out.put(&format!("barrier.borrow_mut{suffix}"), lent);

        let heap: Heap<Cells<'static, GcMutex<Option<Gc<'static, Plain>>>>, Shared> =
            settings(Heap::builder(), state).build(|mc| cells!(mc, GcMutex::new));
        let locked = measure!(heap.attach(), state, count, |mc, cell: &GcMutex<_>, value| {
            *cell.lock(mc) = value;
        });
        out.put(&format!("barrier.lock{suffix}"), locked);
    }

    // The same loops over cells that no collector knows.
    let objects: Vec<[u64; 4]> = (0..CELLS).map(|n| [n as u64; 4]).collect();
    let values: Vec<&[u64; 4]> = objects.iter().collect();
    let cells: Vec<_> = values.iter().map(|&it| Cell::new(Some(it))).collect();
    out.put("barrier.set@bare", time(count, &cells, &values, |cell, it| cell.set(Some(it))));
    let cells: Vec<_> = values.iter().map(|&it| RefCell::new(Some(it))).collect();
    let lent = time(count, &cells, &values, |cell, it| *cell.borrow_mut() = Some(it));
    out.put("barrier.borrow_mut@bare", lent);
    let cells: Vec<_> = values.iter().map(|&it| Mutex::new(Some(it))).collect();
    let locked = time(count, &cells, &values, |cell, it| {
        cell.lock().into_iter().for_each(|mut cell| *cell = Some(it));
    });
    out.put("barrier.lock@bare", locked);
}
