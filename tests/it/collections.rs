//! `GcVec` and `GcMap`: they do what std's do, in any order of calls, and lose nothing between two
//! slices of a collection.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sexton::{
    CleanupPool, Gc, GcKey, GcMap, GcMutex, GcRefCell, GcVec, Heap, Leaf, Mutation, Pacing, Shared,
    Trace,
};

#[derive(Trace)]
struct Node {
    id: usize,
    dropped: Leaf<OnDrop>,
}

/// Counts the drops of each node.
struct OnDrop(Rc<RefCell<Vec<usize>>>, usize);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.borrow_mut()[self.1] += 1;
    }
}

type Pointer<'gc> = Gc<'gc, Node>;

/// Collections behind others, so that the marker comes to them at any time.
#[derive(Trace)]
struct Deep<'gc> {
    list: GcVec<'gc, Pointer<'gc>>,
    map: GcMap<'gc, GcKey<'gc, Node>, Pointer<'gc>>,
    next: Option<Gc<'gc, Deep<'gc>>>,
}

type Moved<'gc> = GcVec<'gc, (Pointer<'gc>, usize)>;

#[derive(Trace)]
struct World<'gc> {
    first: Gc<'gc, Deep<'gc>>,
    /// Vectors that are moved.
    moved: GcRefCell<Vec<Moved<'gc>>>,
}

/// How far apart the collections are that are used.
const DEPTH: usize = 700;

impl<'gc> World<'gc> {
    fn deep(&self) -> [&'gc Deep<'gc>; 3] {
        let mut deep = std::iter::successors(Some(self.first), |deep| deep.next).step_by(DEPTH);
        [(); 3].map(|()| Gc::as_ref(deep.next().unwrap()))
    }
}

fn new_world<'gc>(mc: &Mutation<'gc>) -> World<'gc> {
    let deeper = |next| Some(mc.alloc(Deep { list: GcVec::new(), map: GcMap::new(), next }));
    let first = (0..=2 * DEPTH).fold(None, |next, _| deeper(next)).unwrap();
    World { first, moved: GcRefCell::default() }
}

#[derive(Default)]
struct Model {
    lists: [Vec<usize>; 3],
    maps: [HashMap<usize, usize>; 3],
    moved: Vec<Vec<usize>>,
}

struct Play {
    heap: Heap<World<'static>>,
    random: fastrand::Rng,
    model: Model,
    drops: Rc<RefCell<Vec<usize>>>,
}

impl Play {
    fn new(seed: u64) -> Self {
        Play {
            heap: manual::<World<'static>>(new_world),
            random: fastrand::Rng::with_seed(seed),
            model: Model::default(),
            drops: Rc::default(),
        }
    }

    fn reachable(&self) -> HashSet<usize> {
        let Model { lists, maps, moved } = &self.model;
        let in_lists = lists.iter().chain(moved).flatten().copied();
        in_lists.chain(maps.iter().flatten().flat_map(|(&key, &value)| [key, value])).collect()
    }

    fn check(&mut self) {
        self.heap.verify().unwrap();
        let (model, drops) = (&self.model, self.drops.borrow());
        self.heap.mutate(|_, world| {
            let alive = |node: Pointer<'_>| {
                assert_eq!(drops[node.id], 0, "a reachable node was dropped");
                node.id
            };
            for (Deep { list, .. }, model) in world.deep().iter().zip(&model.lists) {
                assert!(list.iter().map(alive).eq(model.iter().copied()));
                assert_eq!((list.len(), list.get(list.len()).is_some()), (model.len(), false));
            }
            for (Deep { map, .. }, model) in world.deep().iter().zip(&model.maps) {
                let mut seen = HashMap::new();
                map.for_each(|key, value| _ = seen.insert(alive(key.gc()), alive(value)));
                assert_eq!(seen, *model);
                assert_eq!(map.len(), model.len());
            }
            let moved = world.moved.borrow();
            for (list, model) in moved.iter().zip(&model.moved) {
                assert!(list.iter().map(|(node, _)| alive(node)).eq(model.iter().copied()));
            }
            assert_eq!(moved.len(), model.moved.len());
        });
    }

    fn session(&mut self) {
        let Play { heap, random, model, drops } = self;
        heap.mutate(|mc, world| {
            for _ in 0..random.usize(1..8) {
                op(mc, world, random, model, drops);
            }
        });
    }

    /// All that is unreachable now is gone, once.
    fn collect_and_check(&mut self) {
        let reachable = self.reachable();
        self.heap.collect();
        self.check();
        for (id, &dropped) in self.drops.borrow().iter().enumerate() {
            assert_eq!(dropped, usize::from(!reachable.contains(&id)), "node {id}");
        }
    }
}

fn manual<R: sexton::Branded>(root: impl for<'gc> FnOnce(&Mutation<'gc>) -> R::At<'gc>) -> Heap<R> {
    let pool = CleanupPool::manual();
    Heap::builder().cleanup_pool(&pool).pacing(Pacing::Manual).zeal(false).build(root)
}

fn op<'gc>(
    mc: &Mutation<'gc>,
    world: &World<'gc>,
    random: &mut fastrand::Rng,
    model: &mut Model,
    drops: &Rc<RefCell<Vec<usize>>>,
) {
    let new_node = || {
        let id = drops.borrow().len();
        drops.borrow_mut().push(0);
        let dropped = Leaf::new(OnDrop(drops.clone(), id));
        mc.alloc(Node { id, dropped })
    };
    let deep = world.deep();
    let (from, to) = (random.usize(..3), random.usize(..3));
    let (list, other) = (&deep[from].list, &deep[to].list);
    let at = random.usize(..list.len().max(1));
    let which = random.usize(..3);
    let map = &deep[which].map;
    match random.u8(..20) {
        0..3 => {
            let most = if random.u8(..) < 30 { 1500 } else { 20 };
            list.extend(
                mc,
                (0..random.usize(..most)).map(|_| new_node()).inspect(|new| {
                    model.lists[from].push(new.id);
                }),
            );
        }
        3 => {
            // Pointers go to places that the mark may have passed.
            let most = if random.u8(..) < 20 { 1200 } else { 20 };
            let mut moved = Vec::new();
            for _ in 0..random.usize(..most) {
                let popped = list.pop(mc);
                assert_eq!(popped.map(|node| node.id), model.lists[from].pop());
                moved.extend(popped.filter(|_| random.bool()));
            }
            if random.bool() {
                model.lists[to].extend(moved.iter().map(|node| node.id));
                other.extend(mc, moved);
            } else {
                // No page of the new vector is ever traced in this cycle.
                model.moved.push(moved.iter().map(|node| node.id).collect());
                let new = GcVec::new();
                new.extend(mc, moved.into_iter().map(|node| (node, node.id)));
                world.moved.borrow_mut(mc).push(new);
            }
        }
        4 | 5 if !list.is_empty() => {
            let new = other.get(at).unwrap_or_else(new_node);
            let old = list.set(mc, at, new);
            assert_eq!(old.id, std::mem::replace(&mut model.lists[from][at], new.id));
            if random.bool() {
                other.push(mc, old);
                model.lists[to].push(old.id);
            }
        }
        6 | 7 if !list.is_empty() => {
            let b = random.usize(..list.len());
            list.swap(mc, at, b);
            model.lists[from].swap(at, b);
        }
        8 | 9 if !list.is_empty() => {
            let removed = list.swap_remove(mc, at);
            assert_eq!(removed.id, model.lists[from].swap_remove(at));
            other.push(mc, removed);
            model.lists[to].push(removed.id);
        }
        10 => {
            // What is cut off lives on by a pointer that was read before.
            let kept = list.get(list.len().saturating_sub(1));
            if random.u8(..) < 40 {
                list.clear(mc);
                model.lists[from].clear();
            } else {
                let len = random.usize(..=list.len());
                list.truncate(mc, len);
                model.lists[from].truncate(len);
            }
            if let Some(kept) = kept {
                map.insert(mc, Gc::key(kept), kept);
                model.maps[which].insert(kept.id, kept.id);
            }
        }
        11..14 => {
            let most = if random.u8(..) < 70 { 1500 } else { 20 };
            for _ in 0..random.usize(..most) {
                let key = other.get(random.usize(..other.len().max(1)));
                let key = key.filter(|_| random.bool()).unwrap_or_else(new_node);
                let value = list.get(at).filter(|_| random.bool()).unwrap_or_else(new_node);
                let old = map.insert(mc, Gc::key(key), value);
                let expected = model.maps[which].insert(key.id, value.id);
                assert_eq!(old.map(|node| node.id), expected);
                if let Some(old) = old {
                    other.push(mc, old);
                    model.lists[to].push(old.id);
                }
            }
        }
        14 | 15 => {
            let mut keys = Vec::new();
            map.for_each(|key, _| keys.push(key.gc()));
            for _ in 0..random.usize(..20).min(keys.len()) {
                let key = keys.swap_remove(random.usize(..keys.len()));
                let removed = map.remove(mc, &Gc::key(key));
                assert!(map.get(&Gc::key(key)).is_none());
                assert_eq!(removed.map(|node| node.id), model.maps[which].remove(&key.id));
                let moved = if random.bool() { Some(key) } else { removed };
                list.extend(mc, moved);
                model.lists[from].extend(moved.map(|node| node.id));
            }
        }
        16 if random.u8(..) < 80 => {
            let keep = random.usize(2..5);
            let mut removed = Vec::new();
            map.retain(mc, |key, value| {
                let stays = key.gc().id % keep == 0;
                removed.extend((!stays && value.id % 3 == 0).then_some([key.gc(), value]));
                stays
            });
            model.maps[which].retain(|key, _| key % keep == 0);
            for node in removed.into_iter().flatten() {
                list.push(mc, node);
                model.lists[from].push(node.id);
            }
        }
        17 if random.u8(..) < 150 => {
            let mut kept = None;
            map.for_each(|key, _| kept = Some(key.gc()));
            map.clear(mc);
            model.maps[which].clear();
            list.extend(mc, kept);
            model.lists[from].extend(kept.map(|node| node.id));
        }
        18 => {
            let new = GcVec::new();
            new.extend(mc, list.iter().take(700).map(|node| (node, node.id)));
            model.moved.push(new.iter().map(|(node, _)| node.id).collect());
            world.moved.borrow_mut(mc).push(new);
        }
        19 => {
            let moved = world.moved.borrow_mut(mc).pop();
            assert_eq!(moved.is_some(), model.moved.pop().is_some());
            let moved = moved.iter().flat_map(|moved| moved.iter().map(|(node, _)| node).take(9));
            list.extend(mc, moved.inspect(|node| model.lists[from].push(node.id)));
        }
        _ => {}
    }
}

#[test]
fn whatever_sessions_do_between_slices_collections_keep_their_elements() {
    for seed in 0..4 {
        let mut play = Play::new(seed);
        let mut cycles = 0;
        for step in 0..600 {
            play.session();
            // Most sessions meet the marker early, where much is still ahead of it.
            let steps = if play.random.u8(..) < 200 { 1 } else { play.random.usize(..60) };
            for _ in 0..steps {
                cycles += usize::from(play.heap.step(Duration::ZERO).is_finished());
            }
            if step % 5 == 0 {
                play.check();
            }
            if play.random.u8(..) < 2 {
                play.collect_and_check();
            }
        }
        assert!(cycles > 3, "{cycles} cycles in slices");
        play.collect_and_check();
    }
}

/// A slice without time traces some thousand elements, and not all.
#[test]
fn large_collections_are_traced_in_many_slices() {
    #[derive(Trace, Default)]
    struct Large<'gc> {
        list: GcVec<'gc, Gc<'gc, Leaf<usize>>>,
        map: GcMap<'gc, usize, Gc<'gc, Leaf<usize>>>,
    }
    const COUNT: usize = 200_000;
    let slices = |fill: for<'gc> fn(&Mutation<'gc>, &Large<'gc>)| {
        let mut heap: Heap<Large<'static>> = manual(|_| Large::default());
        heap.mutate(fill);
        let mut slices = 1;
        while !heap.step(Duration::ZERO).is_finished() {
            slices += 1;
        }
        slices
    };
    let empty = slices(|mc, large| {
        let leaves: Vec<_> = (0..COUNT).map(|n| mc.alloc(Leaf::new(n))).collect();
        large.list.extend(mc, leaves);
        large.list.clear(mc);
    });
    let of_list = slices(|mc, large| {
        large.list.extend(mc, (0..COUNT).map(|n| mc.alloc(Leaf::new(n))));
    });
    let of_map = slices(|mc, large| {
        for n in 0..COUNT {
            large.map.insert(mc, n, mc.alloc(Leaf::new(n)));
        }
    });
    for slices in [of_list, of_map] {
        assert!(slices > empty + COUNT / 2500, "{slices} slices, {empty} without elements");
    }
}

/// Calls `f` with a heap whose root is made by `Default`.
fn with_root<R: sexton::Branded>(f: impl for<'gc> FnOnce(&Mutation<'gc>, &R::At<'gc>))
where
    for<'gc> R::At<'gc>: Default,
{
    let mut heap: Heap<R> = manual(|_| Default::default());
    heap.mutate(|mc, root| f(mc, root));
    heap.collect();
    heap.verify().unwrap();
}

#[test]
fn elements_without_size_are_counted() {
    with_root::<GcVec<'static, ()>>(|mc, list| {
        list.extend(mc, std::iter::repeat_n((), 1000));
        list.swap(mc, 0, 999);
        list.swap_remove(mc, 3);
        list.truncate(mc, 513);
        assert_eq!((list.len(), list.iter().count()), (513, 513));
        assert_eq!((list.get(512), list.get(513)), (Some(()), None));
        while list.pop(mc).is_some() {}
        assert!(list.is_empty());
    });
    with_root::<GcMap<'static, (), ()>>(|mc, map| {
        assert_eq!((map.insert(mc, (), ()), map.insert(mc, (), ())), (None, Some(())));
        assert_eq!((map.len(), map.get(&()), map.remove(mc, &())), (1, Some(()), Some(())));
        assert!(map.is_empty() && !map.contains_key(&()));
    });
}

/// Three levels, and the way back.
#[test]
fn a_vector_grows_and_shrinks_by_levels() {
    with_root::<GcVec<'static, usize>>(|mc, list| {
        let count = 512 * 512 + 700;
        list.extend(mc, 0..count);
        assert!(list.iter().eq(0..count));
        for len in [count - 1, 512 * 512 + 1, 512 * 512, 512 * 512 - 1, 513, 512, 511, 1] {
            list.truncate(mc, len);
            list.push(mc, 7);
            assert_eq!((list.len(), list.get(len), list.get(len + 1)), (len + 1, Some(7), None));
            assert_eq!(list.pop(mc), Some(7));
            assert!(list.iter().eq(0..len));
        }
        while list.pop(mc).is_some() {}
        list.extend(mc, 0..1025);
        while list.len() > 1 {
            list.pop(mc);
        }
        list.truncate(mc, 5);
        list.extend(mc, 1..2000);
        assert!(list.iter().eq(0..2000));
    });
}

#[test]
fn an_index_out_of_bounds_is_a_panic_that_changes_nothing() {
    with_root::<GcVec<'static, u8>>(|mc, list| {
        list.extend(mc, 0..3);
        let panics = |f: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
        panics(&|| _ = list.set(mc, 3, 9));
        panics(&|| list.swap(mc, 0, 3));
        panics(&|| list.swap(mc, 3, 0));
        panics(&|| _ = list.swap_remove(mc, 3));
        panics(&|| list.extend(mc, (3..6).inspect(|&n| assert!(n < 5))));
        assert!(list.iter().eq(0..5));
    });
}

/// An iterator reads what there is when it comes to it.
#[test]
fn a_vector_changes_while_it_is_iterated() {
    with_root::<GcVec<'static, usize>>(|mc, list| {
        list.extend(mc, 0..600);
        let seen = list.iter().inspect(|&n| {
            if n == 0 {
                list.extend(mc, 600..700);
            } else if n == 650 {
                list.clear(mc);
            }
        });
        assert_eq!(seen.count(), 651);
        list.extend(mc, 0..10);
        list.extend(mc, list.iter().take(1000));
        assert_eq!(list.len(), 1010);
    });
}

/// Gives the same hash for all, or one that differs in few bits.
#[derive(Default)]
struct Weak<const BITS: u64>(u64);

impl<const BITS: u64> Hasher for Weak<BITS> {
    fn finish(&self) -> u64 {
        self.0 & BITS
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0 << 8 | u64::from(byte));
    }
}

fn compare_with_std<const BITS: u64>(count: usize) {
    type Map<const BITS: u64> = GcMap<'static, usize, usize, BuildHasherDefault<Weak<BITS>>>;
    with_root::<Map<BITS>>(|mc, map| {
        let mut random = fastrand::Rng::with_seed(BITS);
        let mut model = HashMap::new();
        for n in 0..4 * count {
            let key = random.usize(..count);
            match random.u8(..4) {
                0 => assert_eq!(map.remove(mc, &key), model.remove(&key)),
                1 => assert_eq!(map.get(&key), model.get(&key).copied()),
                _ => assert_eq!(map.insert(mc, key, n), model.insert(key, n)),
            }
            assert_eq!(map.len(), model.len());
        }
        map.retain(mc, |key, value| (key + value) % 3 == 0);
        model.retain(|key, value| (key + *value) % 3 == 0);
        let mut seen = HashMap::new();
        map.for_each(|&key, value| assert!(seen.insert(key, value).is_none()));
        assert_eq!(seen, model);
        map.clear(mc);
        assert!(map.is_empty() && !map.contains_key(&0));
    });
}

#[test]
fn a_map_does_what_the_one_of_std_does_with_any_hasher() {
    compare_with_std::<{ u64::MAX }>(30_000);
    compare_with_std::<0>(1000);
    compare_with_std::<1>(1500);
    // Every eight bits set another byte of the number.
    compare_with_std::<0xff00_0000_0000_0000>(1500);
}

/// A key that is asked for by what runs code of its own.
#[derive(Trace, PartialEq, Eq, Hash)]
struct Key(u32);

trait Ask {
    fn number(&self) -> u32;
    fn is_compared(&self) {}
    fn is_hashed(&self) {}
}

impl Ask for Key {
    fn number(&self) -> u32 {
        self.0
    }
}

impl<'a> std::borrow::Borrow<dyn Ask + 'a> for Key {
    fn borrow(&self) -> &(dyn Ask + 'a) {
        self
    }
}

impl Hash for dyn Ask + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_hashed();
        self.number().hash(state);
    }
}

impl PartialEq for dyn Ask + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.is_compared();
        other.is_compared();
        self.number() == other.number()
    }
}

impl Eq for dyn Ask + '_ {}

struct Question<'a> {
    number: u32,
    is_hashed: &'a dyn Fn(),
    is_compared: &'a dyn Fn(),
}

impl Ask for Question<'_> {
    fn number(&self) -> u32 {
        self.number
    }

    fn is_compared(&self) {
        (self.is_compared)();
    }

    fn is_hashed(&self) {
        (self.is_hashed)();
    }
}

/// The message of the panic that `f` ends with.
fn message(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    *payload.downcast::<String>().expect("the panic has a message")
}

#[test]
fn a_map_is_not_changed_by_what_it_runs_while_it_is_borrowed() {
    with_root::<GcMap<'static, Key, u32>>(|mc, map| {
        (0..1000).for_each(|n| _ = map.insert(mc, Key(n), n));
        let nothing = || ();
        let calls: [&dyn Fn(); 4] = [
            &|| _ = map.insert(mc, Key(5000), 1),
            &|| _ = map.remove(mc, &Key(6)),
            &|| map.retain(mc, |_, _| false),
            &|| map.clear(mc),
        ];
        for change in calls {
            let asked = Question { number: 6, is_hashed: &nothing, is_compared: change };
            let asked: &dyn Ask = &asked;
            let in_closure = [
                message(|| _ = map.get(asked)),
                message(|| _ = map.contains_key(asked)),
                message(|| _ = map.remove(mc, asked)),
                message(|| map.for_each(|_, _| change())),
                message(|| {
                    map.retain(mc, |_, _| {
                        change();
                        true
                    });
                }),
            ];
            for message in in_closure {
                assert!(message.contains("is changed by an `Eq` or a closure"), "{message}");
            }
        }
        // It may be read, and `Hash` may change it.
        let read = || assert_eq!((map.get(&Key(7)), map.len()), (Some(7), 1000));
        let change = || _ = map.insert(mc, Key(6), 60);
        let asked = Question { number: 6, is_hashed: &change, is_compared: &read };
        assert_eq!(map.get(&asked as &dyn Ask), Some(60));
        map.retain(mc, |_, _| {
            read();
            true
        });
        let asked = Question { number: 6, is_hashed: &|| map.clear(mc), is_compared: &nothing };
        assert_eq!(map.remove(mc, &asked as &dyn Ask), None);
        assert!(map.is_empty());
    });
}

thread_local! {
    /// Calls of `Hash` and `Eq` until one panics.
    static FUSE: Cell<u32> = const { Cell::new(u32::MAX) };
}

fn burn() {
    FUSE.set(FUSE.get() - 1);
    assert!(FUSE.get() > 0, "the fuse has burnt down");
}

#[derive(Trace)]
struct Touchy<'gc>(Gc<'gc, Leaf<u32>>, Leaf<Counted>);

/// Counts what is there.
struct Counted(Rc<Cell<isize>>);

impl Counted {
    fn new(count: &Rc<Cell<isize>>) -> Leaf<Self> {
        count.set(count.get() + 1);
        Leaf::new(Counted(count.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Hash for Touchy<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        burn();
        self.0.hash(state);
    }
}

impl PartialEq for Touchy<'_> {
    fn eq(&self, other: &Self) -> bool {
        burn();
        self.0 == other.0
    }
}

impl Eq for Touchy<'_> {}

#[test]
fn a_panic_of_hash_eq_or_a_closure_leaves_the_map_whole() {
    let there = Rc::new(Cell::new(0));
    with_root::<GcMap<'static, Touchy<'static>, usize>>(|mc, map| {
        let mut random = fastrand::Rng::with_seed(1);
        let mut model = HashMap::new();
        let mut panics = 0;
        for n in 0..20_000 {
            let number = random.u32(..2000);
            let key = Touchy(mc.alloc(Leaf::new(number)), Counted::new(&there));
            FUSE.set(if random.bool() { random.u32(1..4) } else { u32::MAX });
            let (inserts, removes) = (random.u8(..3) > 0, random.bool());
            let result = catch_unwind(AssertUnwindSafe(|| match (inserts, removes) {
                (true, _) => map.insert(mc, key, n),
                (false, true) => map.remove(mc, &key),
                (false, false) => map.get(&key),
            }));
            FUSE.set(u32::MAX);
            match (result, inserts, removes) {
                (Err(_), ..) => panics += 1,
                (Ok(old), true, _) => assert_eq!(old, model.insert(number, n)),
                (Ok(old), false, true) => assert_eq!(old, model.remove(&number)),
                (Ok(old), false, false) => assert_eq!(old, model.get(&number).copied()),
            }
            if n % 2000 == 0 {
                let mut left = random.usize(..1000);
                let retained = catch_unwind(AssertUnwindSafe(|| {
                    map.retain(mc, |key, _| {
                        left = left.checked_sub(1).expect("as many as were asked for");
                        **key.0 % 7 != 0
                    });
                }));
                let mut after = HashMap::new();
                map.for_each(|key, value| _ = after.insert(**key.0, value));
                assert!(after.iter().all(|(key, value)| model[key] == *value));
                let kept = |key: &u32| !key.is_multiple_of(7) || after.contains_key(key);
                model.retain(|key, _| kept(key));
                assert_eq!(after, model);
                assert_eq!(retained.is_ok(), left > 0 || after.is_empty());
            }
            assert_eq!((map.len(), there.get()), (model.len(), model.len() as isize));
        }
        assert!(panics > 1000, "{panics} panics");
    });
    assert_eq!(there.get(), 0);
}

struct SharedDrop(Arc<Vec<AtomicUsize>>, usize);

impl Drop for SharedDrop {
    fn drop(&mut self) {
        self.0[self.1].fetch_add(1, SeqCst);
    }
}

type Shot<'gc> = Gc<'gc, Leaf<SharedDrop>>;

#[derive(Trace, Default)]
struct Field<'gc> {
    lists: [GcMutex<GcVec<'gc, Shot<'gc>>>; 6],
    maps: [GcMutex<GcMap<'gc, usize, Shot<'gc>>>; 3],
}

/// A thread marks pages beside sessions that change them.
#[test]
fn a_marker_beside_sessions_loses_no_element() {
    const SHOTS: usize = 150_000;
    let drops: Arc<Vec<AtomicUsize>> =
        Arc::new((0..SHOTS).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
    let next = AtomicUsize::new(0);
    let heap: Heap<Field<'static>, Shared> = Heap::builder()
        .pacing(Pacing::Manual)
        .zeal(false)
        .gc_threads(2)
        .cleanup_pool(&CleanupPool::manual())
        .build(|_| Field::default());
    let finished = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (heap, next, drops, finished) = (&heap, &next, &drops, &finished);
            let failed = &failed;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut mutator = heap.attach();
                let passed = catch_unwind(AssertUnwindSafe(|| {
                    while next.load(SeqCst) < SHOTS && !failed.load(SeqCst) {
                        mutator.mutate(|mc, field| shoot(mc, field, &mut random, next, drops));
                        if random.u8(..) < 60 {
                            let step = mutator.step(Duration::from_micros(random.u64(..50)));
                            finished.fetch_add(usize::from(step.is_finished()), SeqCst);
                        }
                        if random.u16(..) < 200 {
                            mutator.verify().unwrap();
                        }
                    }
                }));
                failed.fetch_or(passed.is_err(), SeqCst);
                passed.unwrap();
            });
        }
    });
    assert!(finished.load(SeqCst) > 3, "{finished:?} cycles");
    heap.attach().collect();
    heap.attach().verify().unwrap();
    drop(heap);
    assert!(drops.iter().all(|drops| drops.load(SeqCst) == 1), "each is dropped once");
}

fn shoot<'gc>(
    mc: &Mutation<'gc, Shared>,
    field: &Field<'gc>,
    random: &mut fastrand::Rng,
    next: &AtomicUsize,
    drops: &Arc<Vec<AtomicUsize>>,
) {
    let alive = |shot: Shot<'gc>| {
        assert_eq!(drops[shot.1].load(SeqCst), 0, "a reachable object was dropped");
        shot
    };
    let from = field.lists[random.usize(..6)].lock(mc);
    // Taken in one session, and put elsewhere later in it.
    let mut held = Vec::new();
    match random.u8(..8) {
        0..3 => {
            for _ in 0..random.usize(..400) {
                let id = next.fetch_add(1, SeqCst);
                if id < drops.len() {
                    from.push(mc, mc.alloc(Leaf::new(SharedDrop(drops.clone(), id))));
                }
            }
        }
        3 => held.extend(std::iter::from_fn(|| from.pop(mc)).take(random.usize(..600))),
        4 => {
            while held.len() < 50 && !from.is_empty() {
                held.push(from.swap_remove(mc, random.usize(..from.len())));
            }
        }
        5 if from.len() > 1 => {
            for _ in 0..50 {
                from.swap(mc, random.usize(..from.len()), random.usize(..from.len()));
                let other = from.get(random.usize(..from.len())).unwrap();
                held.push(from.set(mc, random.usize(..from.len()), other));
            }
        }
        6 => {
            let len = random.usize(..=from.len());
            held.extend(from.iter().skip(len).take(300));
            from.truncate(mc, len);
        }
        _ => from.iter().for_each(|shot| _ = alive(shot)),
    }
    drop(from);
    let map = field.maps[random.usize(..3)].lock(mc);
    let mut moved = Vec::new();
    for shot in held.into_iter().map(alive) {
        if random.bool() {
            moved.extend(map.insert(mc, shot.1 % 3000, shot));
        } else {
            moved.push(shot);
            moved.extend(map.remove(mc, &(shot.1 % 3000)));
        }
    }
    if random.u8(..) < 10 {
        map.retain(mc, |_, shot| !alive(shot).1.is_multiple_of(3));
    }
    map.for_each(|_, shot| _ = alive(shot));
    drop(map);
    field.lists[random.usize(..6)].lock(mc).extend(mc, moved.into_iter().map(alive));
}
