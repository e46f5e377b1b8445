//! Panics: in cleanups, in their hook, in what they throw, in captures.

use crate::common::*;
use sexton_cleanup::{CleanupPanic, CleanupState, Client, Hooks, Pool, PoolConfig};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

fn config(hook: impl Fn(&CleanupPanic<'_>) + Send + Sync + 'static) -> PoolConfig {
    let hooks = Hooks { panic: Some(Arc::new(hook)), ..Hooks::default() };
    PoolConfig { hooks, ..PoolConfig::default() }
}

/// A manual pool whose hook notes what it is told.
fn listening() -> (Arc<Pool>, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    let hook = move |panic: &CleanupPanic<'_>| {
        assert!(sexton_cleanup::in_cleanup());
        let closure = panic.cleanup.closure.expect("always known");
        assert!(closure.contains("panics"), "{closure}");
        notes.lock().unwrap().push(panic.message.to_string());
    };
    (Pool::new(config(hook), None), heard)
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("the bomb"));
    }
}

/// Thrown by a panic, and panics when it is dropped. What that one throws the crate leaks, so it
/// has no size: a check for leaks sees only those that were not meant.
struct LastBomb;

impl Drop for LastBomb {
    fn drop(&mut self) {
        resume_unwind(Box::new(()));
    }
}

#[test]
fn a_panic_is_counted_and_told_and_the_rest_of_the_block_runs() {
    let (pool, heard) = listening();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(30);
    let mut handles = Vec::new();
    let heads: Vec<_> = (0..30)
        .map(|at| {
            let capture = table.capture(at);
            let (head, handle) = add(&mut registrar, move || {
                capture.ran();
                match at {
                    10 => resume_unwind(Box::new("a str")),
                    11 => resume_unwind(Box::new(String::from("a string"))),
                    12 => resume_unwind(Box::new(12_u8)),
                    // Thrown, told, and then dropped by the runner.
                    13 => resume_unwind(Box::new(LastBomb)),
                    _ => {}
                }
            });
            handles.push(handle);
            head
        })
        .collect();
    sweep(&client, heads);
    assert_eq!(pool.run_pending(usize::MAX), 30);
    table.all_ran_once();
    let stats = client.stats();
    assert_eq!((stats.executed, stats.panicked, stats.backlog), (30, 4, 0));
    assert_eq!((pool.stats().executed, pool.stats().panicked), (30, 4));
    let other = "(the panic's payload is not a string)";
    assert_eq!(*heard.lock().unwrap(), ["a str", "a string", other, other]);
    assert!(handles.iter().all(|handle| handle.state() == CleanupState::Done));
    assert!(!sexton_cleanup::in_cleanup());
}

#[test]
fn a_hook_that_panics_disturbs_nobody() {
    let hook = |_: &CleanupPanic<'_>| resume_unwind(Box::new(LastBomb));
    let config = config(hook);
    let pool = Pool::new(config, None);
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let heads = [0, 1].map(|_| add(&mut registrar, || resume_unwind(Box::new("first"))).0);
    sweep(&client, heads);
    assert_eq!(pool.run_pending(usize::MAX), 2);
    assert_eq!((client.stats().panicked, client.stats().backlog), (2, 0));
}

#[test]
fn a_panic_in_run_now_is_treated_like_one_on_a_worker() {
    let (pool, heard) = listening();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (_, handle) = add(&mut registrar, || resume_unwind(Box::new("early")));
    assert!(handle.run_now());
    assert_eq!(handle.state(), CleanupState::Done);
    assert_eq!((client.stats().executed, client.stats().panicked), (1, 1));
    assert_eq!(*heard.lock().unwrap(), ["early"]);
}

#[test]
fn a_panic_in_a_destructor_leaves_stop_after_the_books_are_done() {
    for queued in [false, true] {
        let pool = manual();
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        let bomb = Bomb;
        let (head, handle) = add(&mut registrar, move || {
            let _bomb = &bomb;
        });
        if queued {
            sweep(&client, [head]);
        }
        let thrown = std::panic::catch_unwind(|| handle.stop()).unwrap_err();
        assert_eq!(*thrown.downcast::<&str>().unwrap(), "the bomb");
        assert_eq!(handle.state(), CleanupState::Stopped);
        assert_eq!((client.stats().stopped, client.stats().backlog), (1, 0));
        assert!(client.ticket().is_done());
        assert_eq!(pool.run_pending(9), 0);
    }
}

#[test]
fn a_panic_in_a_destructor_does_not_stop_a_discard() {
    let (pool, heard) = listening();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(4);
    let mut heads = Vec::new();
    for at in 0..4 {
        let (capture, bomb) = (table.capture(at), (at % 2 == 0).then(|| Bomb));
        let (head, _) = add(&mut registrar, move || {
            let _bomb = &bomb;
            capture.ran();
        });
        heads.push(head);
    }
    registrar.discard(heads.remove(0));
    registrar.discard(heads.remove(0));
    sweep(&client, heads);
    assert_eq!(pool.discard_pending(), 2);
    assert_eq!(table.ended_once(), 0);
    let stats = client.stats();
    assert_eq!((stats.discarded, stats.panicked, stats.backlog, stats.armed), (4, 0, 0, 0));
    assert_eq!(heard.lock().unwrap().len(), 2);
}
