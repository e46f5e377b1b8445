//! Handles and chains: what stop, run_now and state promise, and what registering reclaims.

use crate::common::*;
use sexton_cleanup::{
    Cleanup, CleanupState, Client, Cycle, Description, Head, LocalBlock, Pool, Registrar, Ticket,
};
use std::sync::Arc;

#[test]
fn everything_may_cross_threads_that_should() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Registrar>();
    send::<LocalBlock>();
    send::<Cycle>();
    sync::<Cycle>();
    send::<Client>();
    sync::<Client>();
    send::<Cleanup>();
    sync::<Cleanup>();
    send::<Ticket>();
    sync::<Ticket>();
    send::<Pool>();
    sync::<Pool>();
    send::<Head>();
    assert_eq!((size_of::<Option<Head>>(), size_of::<Cleanup>()), (4, 16));
}

#[test]
fn a_cleanup_goes_through_its_states() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let seen = Arc::new(std::sync::Mutex::new(None::<Arc<Cleanup>>));
    let inside = seen.clone();
    let (head, handle) = add(&mut registrar, move || {
        let handle = inside.lock().unwrap().take().unwrap();
        assert_eq!(handle.state(), CleanupState::Running);
        assert!(!handle.stop() && !handle.run_now(), "too late from inside");
    });
    let handle = Arc::new(handle);
    *seen.lock().unwrap() = Some(handle.clone());
    assert_eq!(handle.state(), CleanupState::Armed);
    assert_eq!(client.stats().armed, 1);
    sweep(&client, [head]);
    assert_eq!(handle.state(), CleanupState::Queued);
    assert_eq!((client.stats().armed, client.stats().backlog), (0, 1));
    assert_eq!(pool.run_pending(1), 1);
    assert_eq!(handle.state(), CleanupState::Done);
    assert!(!handle.stop() && !handle.run_now(), "too late");
    assert_eq!(client.stats().panicked, 0);
}

#[test]
fn stop_drops_the_captures_at_once_and_for_good() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(2);
    for (at, queued) in [(0, false), (1, true)] {
        let capture = table.capture(at);
        let (head, handle) = add(&mut registrar, move || capture.ran());
        if queued {
            sweep(&client, [head]);
        }
        assert!(handle.stop());
        assert_eq!((table.runs(at), table.drops(at)), (0, 1));
        assert_eq!(handle.state(), CleanupState::Stopped);
        assert!(!handle.stop() && !handle.run_now());
        if !queued {
            assert_eq!(sweep(&client, [head]), 0, "nothing is left to queue");
        }
    }
    let stats = client.stats();
    assert_eq!((stats.stopped, stats.queued, stats.backlog), (2, 1, 0), "counted at once");
    assert_eq!(pool.stats().backlog, 0);
    assert_eq!(pool.run_pending(9), 0);
    let stats = pool.stats();
    assert_eq!((stats.ended_early, stats.executed, stats.backlog), (1, 0, 0), "and not again");
}

#[test]
fn run_now_runs_once_whether_queued_or_not() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(2);
    let mut live = None;
    for at in 0..2 {
        let capture = table.capture(at);
        let (head, handle) = add(&mut registrar, move || {
            assert!(sexton_cleanup::in_cleanup());
            capture.ran();
        });
        if at == 1 {
            sweep(&client, [head]);
        } else {
            live = Some(head);
        }
        assert!(handle.run_now());
        assert!(!handle.run_now() && !handle.stop());
        assert_eq!(handle.state(), CleanupState::Done);
    }
    assert!(!sexton_cleanup::in_cleanup());
    assert_eq!(pool.run_pending(9), 0);
    table.all_ran_once();
    assert_eq!(client.stats().executed, 2);
    assert_eq!(registrar.ended_early(), 1);
    assert!(registrar.has_ended(live.unwrap()));
    assert_eq!(registrar.prune(live.unwrap()), None);
    assert_eq!(registrar.ended_early(), 0);
}

#[test]
fn a_handle_remembers_what_became_of_its_cleanup_when_the_record_serves_another() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (stopped, first) = add(&mut registrar, || {});
    assert!(first.stop());
    assert_eq!(registrar.prune(stopped), None);
    let (run, second) = add(&mut registrar, || {});
    assert_eq!(run, stopped, "the same record");
    assert_eq!(first.state(), CleanupState::Stopped);
    assert!(second.run_now());
    assert_eq!(registrar.prune(run), None);
    let (head, third) = add(&mut registrar, || {});
    assert_eq!(head, run, "the same record");
    let states = [&first, &second, &third].map(Cleanup::state);
    assert_eq!(states, [CleanupState::Stopped, CleanupState::Done, CleanupState::Armed]);
    assert!(!first.stop() && !second.stop() && third.stop());
    registrar.discard(head);
}

#[test]
fn a_description_is_that_of_the_handles_own_cleanup_and_of_no_other() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let (head, first) = add(&mut registrar, || {});
    assert_eq!(first.description(), Description::default(), "none was given");
    registrar.describe(&first, Description::of::<u8>(Some("first"), None));
    assert_eq!(first.description().label, Some("first"));
    assert!(first.stop());
    assert_eq!(first.description().label, Some("first"), "the record serves no other");
    assert_eq!(registrar.prune(head), None);
    let (again, second) = add(&mut registrar, || {});
    assert_eq!(again, head, "the same record");
    registrar.describe(&second, Description::of::<u8>(Some("second"), None));
    assert_eq!(first.description(), Description::default());
    assert_eq!(second.description().label, Some("second"));
    registrar.discard(again);
}

#[test]
fn adding_and_stopping_in_turn_stays_bounded() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let mut chain = None;
    for _ in 0..100_000 {
        let (head, handle) = registrar.register(chain, || {});
        assert!(handle.stop());
        chain = Some(head);
    }
    assert_eq!(registrar.len(chain.unwrap()), 1);
    assert_eq!(registrar.ended_early(), 1);
    assert_eq!(client.stats().stopped, 100_000);
}

#[test]
fn prune_keeps_what_is_armed_and_nothing_else() {
    // Every pattern of ended and armed records in chains of up to five.
    for len in 1..=5_u32 {
        for pattern in 0..1_u32 << len {
            let pool = manual();
            let client = Client::new(&pool);
            let mut registrar = client.registrar();
            let table = BatchTable::new(len as usize);
            let mut chain = None;
            let handles: Vec<_> = (0..len)
                .map(|at| {
                    let capture = table.capture(at as usize);
                    let (head, handle) = registrar.register(chain, move || capture.ran());
                    chain = Some(head);
                    handle
                })
                .collect();
            for (at, handle) in handles.iter().enumerate() {
                if pattern >> at & 1 == 1 {
                    assert!(handle.stop());
                }
            }
            let armed = len - pattern.count_ones();
            let rest = registrar.prune(chain.unwrap());
            assert_eq!(rest.map_or(0, |rest| registrar.len(rest)), armed as usize);
            assert_eq!(registrar.ended_early(), 0);
            assert_eq!(sweep(&client, rest), u64::from(armed));
            assert_eq!(pool.run_pending(usize::MAX), armed as usize);
            assert_eq!(table.ended_once(), armed as usize);
        }
    }
}

#[test]
fn what_is_left_of_a_chain_is_queued_and_spread_over_blocks() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(1000);
    let mut chain = None;
    let mut handles = Vec::new();
    for at in 0..1000 {
        let capture = table.capture(at);
        let (head, handle) = registrar.register(chain, move || capture.ran());
        chain = Some(head);
        handles.push(handle);
    }
    handles.iter().step_by(3).for_each(|handle| assert!(handle.stop()));
    assert_eq!(sweep(&client, chain), 666, "what was stopped is not queued");
    assert_eq!(client.stats().backlog, 666);
    assert_eq!(pool.stats().blocks, 6, "126 to a block");
    handles.iter().skip(1).step_by(3).for_each(|handle| assert!(handle.stop()));
    // In the middle of the chain, the rest goes back to the list.
    assert_eq!(pool.run_pending(100), 100);
    assert_eq!(pool.run_pending(usize::MAX), 233);
    assert_eq!(table.ended_once(), 333);
    let stats = client.stats();
    assert_eq!((stats.stopped, stats.executed, stats.backlog, stats.armed), (667, 333, 0, 0));
    assert!(client.ticket().is_done());
}

#[test]
fn a_handle_survives_its_heap_and_the_next_one() {
    let pool = manual();
    let mut old = Vec::new();
    {
        let client = Client::new(&pool);
        let mut registrar = client.registrar();
        // All of them first: a slot that is freed may be used again by the next registration.
        let added: Vec<_> = (0..200).map(|_| add(&mut registrar, || {})).collect();
        for (at, (head, handle)) in added.into_iter().enumerate() {
            match at % 4 {
                0 => assert!(handle.stop()),
                1 => assert!(handle.run_now()),
                2 => assert_eq!(sweep(&client, [head]), 1),
                _ => {}
            }
            if at % 4 != 2 {
                registrar.discard(head);
            }
            old.push(handle);
        }
        pool.run_pending(usize::MAX);
    }
    let state = |at: usize, reused: bool| match at % 4 {
        0 => CleanupState::Stopped,
        3 if !reused => CleanupState::Stopped,
        _ => CleanupState::Done,
    };
    for (at, handle) in old.iter().enumerate() {
        assert_eq!(handle.state(), state(at, false), "{at}");
    }
    // More heaps than other tests could be using registries: one of them gets the old one.
    let clients: Vec<_> = (0..50).map(|_| Client::new(&pool)).collect();
    let table = BatchTable::new(50 * 300);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(client.stats(), sexton_cleanup::CleanupStats::default(), "accounts begin empty");
        let mut registrar = client.registrar();
        let heads: Vec<_> = (0..300)
            .map(|n| {
                let capture = table.capture(at * 300 + n);
                add(&mut registrar, move || capture.ran()).0
            })
            .collect();
        for handle in &old {
            assert!(!handle.stop() && !handle.run_now());
        }
        sweep(client, heads);
    }
    for (at, handle) in old.iter().enumerate() {
        let now = handle.state();
        assert!(now == state(at, true) || now == state(at, false), "{at} is {now:?}");
    }
    pool.run_pending(usize::MAX);
    table.all_ran_once();
}

#[test]
fn large_captures_are_boxed_and_treated_alike() {
    let pool = manual();
    let client = Client::new(&pool);
    let mut registrar = client.registrar();
    let table = BatchTable::new(3);
    let mut make = |at: usize| {
        let (capture, ballast) = (table.capture(at), [at as u64; 100]);
        add(&mut registrar, move || {
            assert!(ballast.iter().all(|&b| b == at as u64));
            capture.ran();
        })
    };
    let ((run, _), (_, stopped), (discarded, _)) = (make(0), make(1), make(2));
    sweep(&client, [run]);
    pool.run_pending(1);
    assert!(stopped.stop());
    registrar.discard(discarded);
    assert_eq!(table.ended_once(), 1);
    assert_eq!(table.runs(0), 1);
}
