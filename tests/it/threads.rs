//! The threads that Sexton starts, as the system sees them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sexton::{CleanupPool, Heap, Leaf, Pacing, Shared, gc_threads};

use crate::forks::{apart, apart_with, calm_shared, finish, many_roots};
use crate::world::LONG;

/// What Linux knows of this thread: its name and the signals that it blocks, a bit for each.
fn this_thread() -> (String, u64) {
    let status = fs::read_to_string("/proc/thread-self/status").expect("Linux has one");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        line.trim().to_owned()
    };
    (field("Name:"), u64::from_str_radix(&field("SigBlk:"), 16).expect("a mask"))
}

/// The signals of the thread's own faults, and a profiler's.
const OWN: [i32; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    libc::SIGPROF,
];

/// The mask of the first 31 signals but [`OWN`] and the two that cannot be blocked.
fn blocked() -> u64 {
    let open = OWN.into_iter().chain([libc::SIGKILL, libc::SIGSTOP]);
    open.fold((1 << 31) - 1, |mask, signal| mask & !(1 << (signal - 1)))
}

/// The first 31 signals of a mask. The others have no names, and the C library keeps some for
/// itself.
fn low(mask: u64) -> u64 {
    mask & ((1 << 31) - 1)
}

/// The names of four workers, which run at the same time, and of the monitor; whether all block
/// signals.
fn names_of(pool: &CleanupPool) -> BTreeSet<String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let all = Arc::new(Barrier::new(4));
    let mut heap = Heap::<()>::builder().cleanup_pool(pool).pacing(Pacing::Manual).build(|_| ());
    for _ in 0..4 {
        let (seen, all) = (seen.clone(), all.clone());
        heap.mutate(|mc, _| {
            mc.add_cleanup(mc.alloc(Leaf::new(0)), move || {
                let (name, mask) = this_thread();
                assert_eq!(low(mask), blocked(), "{name} blocks {mask:x}");
                assert!(seen.lock().unwrap().insert(name), "two threads of one name");
                all.wait();
            });
        });
        // A block of its own for each, and so a worker.
        heap.collect();
    }
    heap.wait_for_cleanups(LONG).unwrap();
    assert_eq!(pool.stats().panicked, 0);
    seen.lock().unwrap().clone()
}

#[test]
fn workers_have_names_of_their_own_and_leave_signals_to_others() {
    let before = this_thread();
    let names = |names: [&str; 4]| names.map(str::to_owned).into();
    let pool = CleanupPool::builder().max_workers(4).build();
    assert_eq!(names_of(&pool), names(["sexton-0", "sexton-1", "sexton-2", "sexton-3"]));
    let pool = CleanupPool::builder().max_workers(4).thread_name("a-name-that-is-long").build();
    let long = ["a-name-that-i-0", "a-name-that-i-1", "a-name-that-i-2", "a-name-that-i-3"];
    assert_eq!(names_of(&pool), names(long));
    assert_eq!(this_thread(), before, "the thread that started them has its mask back");
}

#[test]
fn so_does_the_monitor() {
    let (send, slow) = mpsc::channel();
    let pool = CleanupPool::builder()
        .max_workers(1)
        .on_slow(Duration::from_millis(1), move |_| {
            send.send(this_thread()).expect("it is waited for");
        })
        .build();
    let gate = Arc::new(Barrier::new(2));
    let mut heap = Heap::<()>::builder().cleanup_pool(&pool).build(|_| ());
    heap.mutate(|mc, _| {
        let gate = gate.clone();
        mc.add_cleanup(mc.alloc(Leaf::new(0)), move || {
            gate.wait();
        });
    });
    heap.collect();
    let (name, mask) = slow.recv_timeout(LONG).expect("it is slow");
    gate.wait();
    assert_eq!((name.as_str(), low(mask)), ("sexton-mon", blocked()));
}

/// Notes the thread that drops it. As large as it takes for two helpers to be worth starting.
struct Dropped {
    seen: Arc<Mutex<BTreeSet<(String, u64)>>>,
    _room: [u64; 31],
}

thread_local! {
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Dropped {
    fn drop(&mut self) {
        // So that all threads have some to drop.
        thread::yield_now();
        if !NOTED.replace(true) {
            self.seen.lock().unwrap().insert(this_thread());
        }
    }
}

#[test]
fn so_do_the_threads_that_help_to_collect() {
    let heap = Heap::<(), Shared>::builder().gc_threads(3).pacing(Pacing::Manual).build(|_| ());
    let mut mutator = heap.attach();
    NOTED.set(true);
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let deadline = Instant::now() + LONG;
    // Not in each cycle is a helper as quick as the thread that collects.
    while seen.lock().unwrap().len() < 2 && Instant::now() < deadline {
        mutator.mutate(|mc, _| {
            for _ in 0..100_000 {
                mc.alloc(Leaf::new(Dropped { seen: seen.clone(), _room: [0; 31] }));
            }
        });
        mutator.collect();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "two threads, which other heaps may use as well");
    for (name, mask) in &*seen {
        assert!(name.starts_with("sexton-gc-"), "{name}");
        assert_eq!(low(*mask), blocked(), "{name} blocks {mask:x}");
    }
}

/// The threads that collect, as Linux lists them.
fn collecting() -> BTreeSet<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has one");
    tasks
        // A thread may end meanwhile.
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| name.starts_with("sexton-gc-"))
        .collect()
}

/// Waits until the threads that collect are listed, or none. For a moment, one that has been
/// started has no name, and one that has been joined is still there.
fn wait_until_there(there: bool) {
    let deadline = Instant::now() + LONG;
    while collecting().contains("sexton-gc-0") != there || collecting().is_empty() == there {
        assert!(Instant::now() < deadline, "there are: {:?}", collecting());
        thread::yield_now();
    }
}

#[test]
fn threads_that_collect_are_started_when_needed_and_gone_with_the_last_heap() {
    apart(
        "threads::threads_that_collect_are_started_when_needed_and_gone_with_the_last_heap",
        || {
            for round in 1..10 {
                let heaps = [(); 2].map(|()| calm_shared::<()>());
                let roots = heaps.each_ref().map(many_roots);
                assert_eq!(gc_threads().running, 0, "none is needed yet");
                wait_until_there(false);
                for heap in &heaps {
                    assert_eq!(finish(heap), 0);
                    assert!(gc_threads().running > 0);
                    wait_until_there(true);
                }
                let stats = gc_threads();
                assert_eq!(stats.running as u64, stats.started - stats.retired);
                // A few overlap, as each is on its way back when the next slice asks for one.
                let [first, second] = heaps;
                drop((roots, first));
                assert!(gc_threads().running > 0, "round {round}: there is another heap");
                drop(second);
                let stats = gc_threads();
                assert_eq!((stats.running, stats.idle), (0, 0));
                assert_eq!((stats.started, stats.refused), (stats.retired, 0));
                wait_until_there(false);
            }
        },
    );
}

/// No system gives a thread this stack.
#[test]
fn a_heap_collects_without_threads_where_none_can_be_started_and_says_so_once() {
    let errors = apart_with(
        [("RUST_MIN_STACK", "70368744177664")],
        "threads::a_heap_collects_without_threads_where_none_can_be_started_and_says_so_once",
        || {
            let heap = calm_shared::<()>();
            let roots = many_roots(&heap);
            let refused = finish(&heap) + finish(&heap);
            let stats = gc_threads();
            assert_eq!((stats.running, stats.started, stats.refused), (0, 0, refused));
            assert!(refused > 1);
            drop((roots, heap));
        },
    );
    assert_eq!(errors.matches("sexton: cannot start a thread to collect with").count(), 1);
}
