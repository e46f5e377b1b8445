//! Op programs against the oracle: a million operations by default, from seeds that are new in every run.
//!
//! Each program has a seed of its own, and everything in it comes from that. A failure names it, and shows the
//! shortest program that proptest has found to fail likewise:
//!
//! - `SEXTON_SEED=seed cargo test -p sexton-tests program:: -- --nocapture` shows that one program and runs it;
//! - `SEXTON_OPS=number` runs about so many operations instead of a million;
//! - should the process die without a word, the `seed-*` files in the target directory's `tmp` name the seeds
//!   that were running.
//!
//! Programs with a manual pool, three in four, do the same whenever they are run. The others have workers, and
//! may need more than one try.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use sexton_tests::program::{OPS, Op, Program, Tally, run};
use sexton_tests::quiet;
use sexton_tests::settings::number;

/// Programs have up to so many operations.
const LENGTH: usize = 300;

/// Any program, as words: smaller numbers spell simpler operations.
fn programs() -> impl Strategy<Value = Program> {
    let word = || any::<(u8, u8, u8, u8)>().prop_map(|(op, a, b, c)| [op, a, b, c]);
    (word(), prop::collection::vec(word(), 1..=LENGTH))
        .prop_map(|(first, ops)| Program::spelled(first, ops))
}

/// Runs the program of one seed; if it fails, the answer is a report of the shortest one found.
fn run_seed(
    strategy: &impl Strategy<Value = Program>,
    seed: u64,
    show: bool,
) -> Result<Tally, String> {
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let tally = Mutex::new(Tally::default());
    // The failures met while shrinking are not worth a line each.
    let outcome = quiet::quietly(|| {
        TestRunner::new_with_rng(config, rng).run(strategy, |program| {
            if show {
                println!("{program:?}");
            }
            *tally.lock().expect("nobody panics with it") = run(&program);
            Ok(())
        })
    });
    match outcome {
        Ok(()) => Ok(tally.into_inner().expect("nobody panics with it")),
        Err(TestError::Abort(reason)) => Err(format!("no program could be made: {reason}")),
        Err(TestError::Fail(reason, program)) => Err(format!(
            "heap and oracle disagree: {reason}\nafter this program, the shortest found to fail:\n\
             {program:#?}\nrun it again with SEXTON_SEED={seed}"
        )),
    }
}

#[test]
fn programs_agree_with_the_oracle() {
    if let Some(seed) = number("SEXTON_SEED") {
        let tally = run_seed(&programs(), seed, true).unwrap_or_else(|report| panic!("{report}"));
        println!("{} operations took effect", tally.total());
        return;
    }
    let wanted = number("SEXTON_OPS").unwrap_or(1_000_000);
    let base = RandomState::new().build_hasher().finish();
    let (programs_run, operations, failed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = |worker: usize| {
        let strategy = programs();
        let running = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("seed-{worker}"));
        let mut tally = Tally::default();
        while operations.load(Relaxed) < wanted && !failed.load(Relaxed) {
            let seed = base.wrapping_add(programs_run.fetch_add(1, Relaxed));
            fs::write(&running, seed.to_string()).expect("the target directory is writable");
            match run_seed(&strategy, seed, false) {
                Ok(more) => {
                    operations.fetch_add(more.total(), Relaxed);
                    tally.add(&more);
                }
                Err(report) => {
                    failed.store(true, Relaxed);
                    let before = operations.load(Relaxed);
                    panic!("{report}\nfound after {before} operations of this run");
                }
            }
        }
        let _ = fs::remove_file(&running);
        tally
    };
    let mut total = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|worker| scope.spawn(move || work(worker))).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(&tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} operations took effect, in {} programs from seed {base}: {seconds:.1} s, {:.0} a second",
        total.total(),
        programs_run.into_inner(),
        total.total() as f64 / seconds,
    );
    for op in each_op() {
        println!("{:>10} {}", total.of(&op), name(&op));
    }
    assert!(total.total() >= wanted, "{} operations of {wanted}", total.total());
    if wanted >= 100_000 {
        for op in each_op() {
            assert!(total.of(&op) > 0, "{} never had an effect", name(&op));
        }
    }
}

/// An operation of each kind.
fn each_op() -> impl Iterator<Item = Op> {
    OPS.iter().map(|&(_, make)| make(0, 0, 0))
}

fn name(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}
