//! Generated programs against a naive oracle: after every operation the heap must verify, and after
//! every collection exactly the objects the oracle calls reachable are alive, and exactly the others'
//! cleanups have run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use sexton::{
    Cleanup, CleanupPool, CleanupState, Gc, GcRefCell, Heap, Leaf, Pacing, Root, Trace, Weak,
};

/// One step of a program. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc { kept: bool },
    Link { from: usize, to: usize },
    Unlink { from: usize, edge: usize },
    Forget { object: usize },
    Root { object: usize },
    Unroot { root: usize },
    Downgrade { object: usize },
    AddCleanup { object: usize },
    Stop { cleanup: usize },
    RunNow { cleanup: usize },
    Collect,
    RunPending { max: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0..1000usize;
    prop_oneof![
        6 => any::<bool>().prop_map(|kept| Op::Alloc { kept }),
        6 => (n.clone(), n.clone()).prop_map(|(from, to)| Op::Link { from, to }),
        3 => (n.clone(), n.clone()).prop_map(|(from, edge)| Op::Unlink { from, edge }),
        3 => n.clone().prop_map(|object| Op::Forget { object }),
        1 => n.clone().prop_map(|object| Op::Root { object }),
        1 => n.clone().prop_map(|root| Op::Unroot { root }),
        2 => n.clone().prop_map(|object| Op::Downgrade { object }),
        4 => n.clone().prop_map(|object| Op::AddCleanup { object }),
        1 => n.clone().prop_map(|cleanup| Op::Stop { cleanup }),
        1 => n.clone().prop_map(|cleanup| Op::RunNow { cleanup }),
        1 => Just(Op::Collect),
        1 => (0..20usize).prop_map(|max| Op::RunPending { max }),
    ]
}

#[derive(Trace)]
struct Object<'gc> {
    id: usize,
    edges: GcRefCell<Vec<Gc<'gc, Object<'gc>>>>,
    _ballast: Leaf<String>,
}

#[derive(Trace, Default)]
struct World<'gc> {
    kept: GcRefCell<Vec<Gc<'gc, Object<'gc>>>>,
    weak: GcRefCell<BTreeMap<usize, Weak<'gc, Object<'gc>>>>,
}

/// What the heap should be.
#[derive(Default)]
struct Oracle {
    edges: BTreeMap<usize, Vec<usize>>,
    kept: Vec<usize>,
    rooted: Vec<usize>,
    weak: BTreeSet<usize>,
    /// Object and expected end of each cleanup.
    cleanups: Vec<(usize, Fate)>,
    next_id: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Armed,
    Queued,
    Ran,
    Stopped,
}

impl Oracle {
    fn reachable(&self) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut work: Vec<usize> = self.kept.iter().chain(&self.rooted).copied().collect();
        while let Some(object) = work.pop() {
            if seen.insert(object) {
                work.extend(&self.edges[&object]);
            }
        }
        seen
    }
}

/// The heap, the oracle, and the log of cleanups that ran.
struct Run {
    heap: Heap<World<'static>>,
    pool: CleanupPool,
    oracle: Oracle,
    roots: Vec<Root<Object<'static>>>,
    handles: Vec<Cleanup>,
    log: Arc<Mutex<Vec<usize>>>,
}

impl Run {
    fn new() -> Self {
        let pool = CleanupPool::manual();
        let heap = Heap::builder()
            .cleanup_pool(&pool)
            .pacing(Pacing::Manual)
            .zeal(false)
            .build(|_| World::default());
        Run {
            heap,
            pool,
            oracle: Oracle::default(),
            roots: Vec::new(),
            handles: Vec::new(),
            log: Arc::default(),
        }
    }

    fn step(&mut self, op: Op) {
        let oracle = &mut self.oracle;
        match op {
            Op::Alloc { kept } => {
                let id = oracle.next_id;
                oracle.next_id += 1;
                oracle.edges.insert(id, Vec::new());
                self.heap.mutate(|mc, world| {
                    let object = mc.alloc(Object {
                        id,
                        edges: GcRefCell::default(),
                        _ballast: Leaf::new(format!("object {id}")),
                    });
                    if kept {
                        world.kept.borrow_mut(mc).push(object);
                    }
                });
                if kept {
                    oracle.kept.push(id);
                }
            }
            Op::Link { from, to } if !oracle.kept.is_empty() => {
                let (from, to) = (from % oracle.kept.len(), to % oracle.kept.len());
                self.heap.mutate(|mc, world| {
                    let kept = world.kept.borrow();
                    kept[from].edges.borrow_mut(mc).push(kept[to]);
                });
                let to = oracle.kept[to];
                oracle.edges.get_mut(&oracle.kept[from]).unwrap().push(to);
            }
            Op::Unlink { from, edge } if !oracle.kept.is_empty() => {
                let from = from % oracle.kept.len();
                let edges = oracle.edges.get_mut(&oracle.kept[from]).unwrap();
                if !edges.is_empty() {
                    let edge = edge % edges.len();
                    edges.swap_remove(edge);
                    self.heap.mutate(|mc, world| {
                        world.kept.borrow()[from].edges.borrow_mut(mc).swap_remove(edge);
                    });
                }
            }
            Op::Forget { object } if !oracle.kept.is_empty() => {
                let object = object % oracle.kept.len();
                oracle.kept.swap_remove(object);
                self.heap.mutate(|mc, world| {
                    world.kept.borrow_mut(mc).swap_remove(object);
                });
            }
            Op::Root { object } if !oracle.kept.is_empty() => {
                let object = object % oracle.kept.len();
                oracle.rooted.push(oracle.kept[object]);
                let root = self.heap.mutate(|mc, world| mc.root(world.kept.borrow()[object]));
                self.roots.push(root);
            }
            Op::Unroot { root } if !self.roots.is_empty() => {
                let root = root % self.roots.len();
                self.roots.swap_remove(root);
                oracle.rooted.swap_remove(root);
            }
            Op::Downgrade { object } if !oracle.kept.is_empty() => {
                let object = object % oracle.kept.len();
                oracle.weak.insert(oracle.kept[object]);
                self.heap.mutate(|mc, world| {
                    let target = world.kept.borrow()[object];
                    world.weak.borrow_mut(mc).insert(target.id, mc.downgrade(target));
                });
            }
            Op::AddCleanup { object } if !oracle.kept.is_empty() => {
                let object = object % oracle.kept.len();
                let number = oracle.cleanups.len();
                oracle.cleanups.push((oracle.kept[object], Fate::Armed));
                let log = self.log.clone();
                let handle = self.heap.mutate(|mc, world| {
                    let target = world.kept.borrow()[object];
                    mc.add_cleanup(target, move || log.lock().unwrap().push(number))
                });
                self.handles.push(handle);
            }
            Op::Stop { cleanup } if !self.handles.is_empty() => {
                let cleanup = cleanup % self.handles.len();
                let fate = &mut oracle.cleanups[cleanup].1;
                let pending = matches!(fate, Fate::Armed | Fate::Queued);
                assert_eq!(self.handles[cleanup].stop(), pending, "stop of cleanup {cleanup}");
                if pending {
                    *fate = Fate::Stopped;
                }
            }
            Op::RunNow { cleanup } if !self.handles.is_empty() => {
                let cleanup = cleanup % self.handles.len();
                let pending = matches!(oracle.cleanups[cleanup].1, Fate::Armed | Fate::Queued);
                assert_eq!(self.handles[cleanup].run_now(), pending, "run_now of {cleanup}");
                self.expect_log(if pending { vec![cleanup] } else { vec![] });
            }
            Op::Collect => self.collect(),
            Op::RunPending { max } => {
                let queued =
                    oracle.cleanups.iter().filter(|(_, fate)| *fate == Fate::Queued).count();
                let ran = self.pool.run_pending(max);
                assert_eq!(ran, max.min(queued));
                let log = self.log.lock().unwrap().clone();
                assert_eq!(log.len(), ran);
                assert!(log.iter().all(|&at| self.oracle.cleanups[at].1 == Fate::Queued));
                self.expect_log(log);
            }
            _ => {}
        }
    }

    /// The cleanups that ran since the last call were these.
    fn expect_log(&mut self, expected: Vec<usize>) {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        assert_eq!(log, expected);
        for cleanup in log {
            self.oracle.cleanups[cleanup].1 = Fate::Ran;
        }
    }

    fn collect(&mut self) {
        let reachable = self.oracle.reachable();
        let before = self.oracle.edges.len();
        let report = self.heap.collect();
        self.oracle.edges.retain(|object, _| reachable.contains(object));
        let mut queued = 0;
        for (object, fate) in &mut self.oracle.cleanups {
            if *fate == Fate::Armed && !reachable.contains(object) {
                *fate = Fate::Queued;
                queued += 1;
            }
        }
        assert_eq!(report.queued_cleanups, queued);
        assert_eq!(report.swept_objects as usize, before - reachable.len());
        assert_eq!(report.live_objects as usize, reachable.len());
        self.heap.mutate(|mc, world| {
            for (id, weak) in world.weak.borrow().iter() {
                let alive = weak.upgrade(mc).map(|object| object.id);
                assert_eq!(alive, reachable.contains(id).then_some(*id), "weak pointer to {id}");
            }
        });
    }

    fn check(&mut self) {
        self.heap.verify().unwrap();
        for (number, (handle, (_, fate))) in
            self.handles.iter().zip(&self.oracle.cleanups).enumerate()
        {
            let expected = match fate {
                Fate::Armed => CleanupState::Armed,
                Fate::Queued => CleanupState::Queued,
                Fate::Ran => CleanupState::Done,
                Fate::Stopped => CleanupState::Stopped,
            };
            assert_eq!(handle.state(), expected, "cleanup {number}");
        }
    }

    fn finish(mut self) {
        self.collect();
        self.check();
        drop(self.heap);
        while self.pool.run_pending(7) > 0 {}
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        for cleanup in log {
            let fate = &mut self.oracle.cleanups[cleanup].1;
            assert!(matches!(fate, Fate::Armed | Fate::Queued), "cleanup {cleanup} ran twice");
            *fate = Fate::Ran;
        }
        for (number, (_, fate)) in self.oracle.cleanups.iter().enumerate() {
            assert!(matches!(fate, Fate::Ran | Fate::Stopped), "cleanup {number} never ran");
        }
    }
}

/// 200 programs, or as many as proptest's own variable says.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 200, ..config },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn programs_agree_with_the_oracle(ops in prop::collection::vec(op(), 1..300)) {
        let mut run = Run::new();
        for op in ops {
            run.step(op);
            run.check();
        }
        run.finish();
    }
}
