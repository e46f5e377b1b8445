//! Contexts: types of the stack that hold a session for as long as it lasts, as a virtual machine's
//! do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sexton::{
    Gc, GcMutex, GcMutexGuard, GcRef, GcRefCell, GcRefMut, GcRwLock, Heap, Mode, Mutation, Pacing,
    Payload, Shared, Trace,
};
use sexton_tests::settings;

#[derive(Trace)]
struct Value<'gc> {
    number: u64,
    below: Option<Gc<'gc, Value<'gc>>>,
}

#[derive(Trace, Default)]
struct State<'gc> {
    top: GcMutex<Option<Gc<'gc, Value<'gc>>>>,
}

/// What each function of the machine gets: one word for each part, and good for all of `'gc`.
struct Context<'gc, M: Mode> {
    mc: &'gc Mutation<'gc, M>,
    state: &'gc State<'gc>,
}

impl<M: Mode> Copy for Context<'_, M> {}

impl<M: Mode> Clone for Context<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'gc, M: Mode> Context<'gc, M>
where
    Value<'gc>: Payload<M>,
{
    fn push(self, number: u64) -> Gc<'gc, Value<'gc>> {
        let mut top = self.top();
        let value = self.mc.alloc(Value { number, below: *top });
        *top = Some(value);
        value
    }

    /// The guard outlives the context that made it.
    fn top(self) -> GcMutexGuard<'gc, Option<Gc<'gc, Value<'gc>>>> {
        self.state.top.lock(self.mc)
    }

    fn sum(self) -> u64 {
        std::iter::successors(*self.top(), |value| value.below).map(|value| value.number).sum()
    }

    /// A session of a machine: pushes the numbers, by closures that keep the context.
    fn run(self, numbers: std::ops::Range<u64>) {
        let steps: Vec<Box<dyn FnOnce() -> Gc<'gc, Value<'gc>> + 'gc>> =
            numbers.map(|number| Box::new(move || self.push(number)) as Box<_>).collect();
        steps.into_iter().for_each(|step| _ = step());
    }
}

/// What makes a root gets its session for `'gc` as well.
fn make<'gc>(mc: &'gc Mutation<'gc>, number: u64) -> Gc<'gc, Value<'gc>> {
    mc.alloc(Value { number, below: None })
}

/// Pushes when it is dropped: within its session, at its end or in a panic.
struct PushLate<'gc, M: Mode>(Context<'gc, M>, u64)
where
    Value<'gc>: Payload<M>;

impl<'gc, M: Mode> Drop for PushLate<'gc, M>
where
    Value<'gc>: Payload<M>,
{
    fn drop(&mut self) {
        self.0.push(self.1);
    }
}

#[test]
fn a_context_holds_its_session_in_a_local_heap() {
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let mut heap: Heap<State<'static>> = builder.build(|mc| {
        let value = make(mc, 1000);
        State { top: GcMutex::new(Some(value)) }
    });
    heap.mutate(|mc, state| Context { mc, state }.run(0..10));
    assert_eq!(heap.collect().live_objects, 11);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        heap.mutate(|mc, state| {
            let context = Context { mc, state };
            let _late = PushLate(context, 100);
            context.run(10..20);
            panic!("within a session");
        })
    }));
    assert!(panicked.is_err());
    heap.verify().unwrap();
    let sum = heap.mutate(|mc, state| {
        let context = Context { mc, state };
        drop(PushLate(context, 200));
        context.sum()
    });
    assert_eq!(sum, 1000 + 190 + 100 + 200);
    assert_eq!(heap.collect().live_objects, 23);
    heap.verify().unwrap();
}

#[test]
fn a_context_holds_its_session_in_a_shared_heap() {
    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let heap: Heap<State<'static>, Shared> = builder.build(|_| State::default());
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let heap = &heap;
            scope.spawn(move || {
                let mut mutator = heap.attach();
                mutator
                    .mutate(|mc, state| Context { mc, state }.run(10 * thread..10 * (thread + 1)));
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    mutator.mutate(|mc, state| {
                        let _late = PushLate(Context { mc, state }, 100);
                        panic!("within a session");
                    })
                }));
                assert!(panicked.is_err());
            });
        }
    });
    let mut mutator = heap.attach();
    assert_eq!(mutator.mutate(|mc, state| Context { mc, state }.sum()), 190 + 200);
    assert_eq!(mutator.collect().live_objects, 22);
    mutator.verify().unwrap();
}

#[test]
fn guards_of_cells_that_are_objects_last_as_long_as_the_session() {
    type Cell<'gc> = Gc<'gc, GcRefCell<Vec<u64>>>;

    fn first<'gc>(cells: &[Cell<'gc>]) -> GcRef<'gc, Vec<u64>> {
        let cell = cells[0];
        cell.borrow()
    }

    fn last<'gc>(mc: &Mutation<'gc>, cells: &[Cell<'gc>]) -> GcRefMut<'gc, u64> {
        let cell = cells[cells.len() - 1];
        GcRefMut::map(cell.borrow_mut(mc), |numbers| numbers.last_mut().unwrap())
    }

    let builder = Heap::builder().pacing(Pacing::Manual).zeal(settings::zeal());
    let mut heap: Heap<Vec<Cell<'static>>> =
        builder.build(|mc| (0..3).map(|n| mc.alloc(GcRefCell::new(vec![n]))).collect());
    heap.mutate(|mc, cells| {
        let mut last = last(mc, cells);
        let first = first(&cells.clone());
        assert!(cells[2].try_borrow().is_none() && cells[2].try_borrow_mut(mc).is_none());
        assert!(cells[0].try_borrow().is_some() && cells[0].try_borrow_mut(mc).is_none());
        *last += first[0] + 40;
    });
    heap.collect();
    assert_eq!(heap.mutate(|_, cells| cells[2].borrow()[0]), 42);

    type Locks<'gc> = (Gc<'gc, GcMutex<u64>>, Gc<'gc, GcRwLock<u64>>);
    let heap: Heap<Locks<'static>, Shared> =
        Heap::new(|mc| (mc.alloc(GcMutex::new(1)), mc.alloc(GcRwLock::new(2))));
    let sum = heap.attach().mutate(|mc, &(mutex, lock)| {
        let (mut one, two) = (mutex.lock(mc), lock.read(mc));
        assert!(mutex.try_lock(mc).is_none() && lock.try_write(mc).is_none());
        assert!(lock.try_read(mc).is_some());
        *one += *two;
        drop(two);
        *lock.write(mc) += *one;
        *lock.read(mc)
    });
    assert_eq!(sum, 5);
}
