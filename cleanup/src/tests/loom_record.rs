//! A record's tag and mark: handles against workers, sweepers and each other.

use super::models::{explore, sweep_one};
use crate::{CleanupState, Client, Pool, PoolConfig};
use sexton_sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often the cleanup ran, and how often its captures were dropped. Not a loom type: it adds no
/// branches.
#[derive(Clone, Default)]
struct Witness(Arc<(AtomicU32, AtomicU32)>);

impl Witness {
    fn closure(&self) -> impl FnOnce() + Send + 'static {
        let capture = Capture(self.clone());
        move || {
            capture.0.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> (u32, u32) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }
}

struct Capture(Witness);

impl Drop for Capture {
    fn drop(&mut self) {
        self.0.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn manual() -> Arc<Pool> {
    Pool::new(PoolConfig::default(), None)
}

#[test]
fn stop_against_the_runner() {
    explore(|| {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let witness = Witness::default();
        let (head, handle) = registrar.register(None, witness.closure());
        sweep_one(&client, head);
        let stopper = loom::thread::spawn(move || handle.stop());
        let ran = pool.run_pending(1);
        let stopped = stopper.join().expect("the stopper");
        assert_eq!(ran + usize::from(stopped), 1);
        assert_eq!(witness.counts(), (ran as u32, 1));
        let stats = client.stats();
        assert_eq!((stats.backlog, stats.executed, stats.armed), (0, ran as u64, 0));
        assert!(client.ticket().is_done());
        // The slot is free, in whatever order they came: the next record gets it or a fresh one,
        // never a taken one.
        let (again, _) = registrar.register(None, || {});
        assert_eq!(registrar.len(again), 1);
    });
}

/// Whose captures need no destructor: a thread that meets it in between waits for its end, and gets
/// the slot. A cleanup of an object that lives is given that slot as soon as it is free, and
/// nothing of the old one touches it.
pub(super) fn stop_without_a_drop() {
    let pool = Pool::new(PoolConfig::default(), None);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (head, handle) = registrar.register(None, || {});
    let stopper = loom::thread::spawn(move || handle.stop());
    sweep_one(&client, head);
    let ticket = client.ticket();
    let ran = pool.run_pending(1);
    let (next, alive) = registrar.register(None, || panic!("its object lives"));
    let stopped = stopper.join().expect("the stopper");
    assert_eq!(alive.state(), CleanupState::Armed, "its object lives");
    assert_eq!(registrar.len(next), 1);
    assert_eq!(ran + usize::from(stopped), 1);
    assert!(ticket.is_done(), "counted by the one that came last:");
    let stats = client.stats();
    assert_eq!((stats.backlog, stats.executed, stats.armed), (0, ran as u64, 1));
    assert_eq!((stats.stopped, registrar.ended_early()), (u64::from(stopped), 0));
}

#[test]
fn stop_without_a_drop_against_the_sweeper_and_the_runner() {
    explore(stop_without_a_drop);
}

/// The slot serves the next cleanup as soon as the end is declared, and the old handle knows what
/// became of its own.
#[test]
fn stop_without_a_drop_against_the_next_registration() {
    explore(|| {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let (head, handle) = registrar.register(None, || {});
        let handle = Arc::new(handle);
        let other = handle.clone();
        let stopper = loom::thread::spawn(move || other.stop());
        let (chain, next) = registrar.register(Some(head), || {});
        if registrar.len(chain) == 1 {
            assert_eq!(handle.state(), CleanupState::Stopped, "its slot was used again");
        }
        assert_eq!(next.state(), CleanupState::Armed);
        assert!(stopper.join().expect("the stopper"));
        assert_eq!(handle.state(), CleanupState::Stopped);
        assert_eq!(next.state(), CleanupState::Armed);
        let stats = client.stats();
        assert_eq!((stats.registered, stats.stopped, stats.armed), (2, 1, 1));
    });
}

#[test]
fn run_now_against_the_sweeper() {
    explore(|| {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let witness = Witness::default();
        let (head, handle) = registrar.register(None, witness.closure());
        let runner = loom::thread::spawn(move || handle.run_now());
        sweep_one(&client, head);
        let ticket = client.ticket();
        let ran = pool.run_pending(1);
        let early = runner.join().expect("the runner");
        assert_eq!(ran + usize::from(early), 1);
        assert_eq!(witness.counts(), (1, 1));
        assert!(ticket.is_done(), "counted by the one that came last:");
        let stats = client.stats();
        assert_eq!((stats.backlog, stats.executed, stats.armed), (0, 1, 0));
        assert_eq!(registrar.ended_early(), 0);
    });
}

#[test]
fn stop_against_run_now() {
    explore(|| {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let witness = Witness::default();
        let (head, handle) = registrar.register(None, witness.closure());
        let handle = Arc::new(handle);
        let other = handle.clone();
        let stopper = loom::thread::spawn(move || other.stop());
        let ran = handle.run_now();
        let stopped = stopper.join().expect("the stopper");
        assert!(ran != stopped);
        assert_eq!(witness.counts(), (u32::from(ran), 1));
        assert_eq!(registrar.ended_early(), 1);
        assert_eq!(registrar.prune(head), None);
        assert_eq!(registrar.ended_early(), 0);
    });
}

/// Two mutators come for records and give them back: each record serves one cleanup at a time.
#[test]
fn records_go_from_mutator_to_mutator() {
    explore(|| {
        let pool = manual();
        let client = Client::new(&pool);
        let first = client.clone();
        let once = move |client: Client| {
            let mut registrar = client.registrar();
            let (head, _) = registrar.register(None, || {});
            registrar.discard(head);
        };
        once(first);
        let second = client.clone();
        let other = loom::thread::spawn(move || once(second));
        let mut registrar = client.registrar();
        let cleanups = [(); 2].map(|()| registrar.register(None, || panic!("its object lives")));
        other.join().expect("the other mutator");
        assert_ne!(cleanups[0].0, cleanups[1].0);
        for (head, handle) in cleanups {
            assert_eq!((registrar.len(head), handle.state()), (1, CleanupState::Armed));
        }
        let stats = client.stats();
        assert_eq!((stats.registered, stats.discarded, stats.armed), (4, 2, 2));
    });
}
