//! Hunts for a program that heap and oracle disagree about: many random ones, from seeds that are
//! new in every run.
//!
//! Each program has a seed of its own, and everything in it comes from that. A failure names it,
//! and shows the shortest program that proptest has found to fail likewise:
//!
//! - with `SEXTON_SEED=seed` that one program is shown and run;
//! - `SEXTON_OPS=number` runs about that number of operations;
//! - should the process die without a word, the `seed-*` files in the target directory's `tmp` name
//!   the seeds that were running.
//!
//! A program that takes minutes hangs: its seed is printed, and the process ends.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use sexton_tests::program::{Mutators, Op, Program, Tally, run};
use sexton_tests::quiet;
use sexton_tests::settings::number;

/// A kind of op programs.
pub(crate) trait Language {
    /// Distinguishes its files.
    const NAME: &'static str;
    /// Operations that are run by default.
    const OPS: u64;
    /// How often a program is run before it counts as one that does not fail, when one like it has.
    const TRIES: u32;
    /// What its programs are for.
    const MUTATORS: Mutators;

    /// Any program; what is smaller is simpler.
    fn programs() -> impl Strategy<Value = Program>;
}

/// Runs programs of the language; or, if it is given by its seed, one.
pub(crate) fn hunt<L: Language>() {
    if let Some(seed) = number("SEXTON_SEED") {
        // It has failed, once.
        let tally = run_seed::<L>(seed, L::TRIES, true).unwrap_or_else(|report| panic!("{report}"));
        println!("{} operations took effect", tally.total());
        return;
    }
    let wanted = number("SEXTON_OPS").unwrap_or(L::OPS);
    let base = RandomState::new().build_hasher().finish();
    let (programs_run, operations) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let watch = Watch::new(threads);
    let work = |worker: usize| {
        let running = seed_file::<L>(worker);
        let mut tally = Tally::default();
        while operations.load(Relaxed) < wanted && !watch.is_over() {
            let seed = base.wrapping_add(programs_run.fetch_add(1, Relaxed));
            fs::write(&running, seed.to_string()).expect("the target directory is writable");
            match watch.over(worker, seed, || run_seed::<L>(seed, 1, false)) {
                Ok(more) => {
                    operations.fetch_add(more.total(), Relaxed);
                    tally.add(&more);
                }
                Err(report) => {
                    watch.end();
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
        scope.spawn(|| watch.watch());
        let tallies: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        watch.end();
        for tally in tallies {
            total.add(&tally.unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} operations took effect, in {} programs from seed {base}: \
         {seconds:.1} s, {:.0} a second",
        total.total(),
        programs_run.into_inner(),
        total.total() as f64 / seconds,
    );
    for op in L::MUTATORS.each_op() {
        println!("{:>10} {}", total.of(&op), name(&op));
    }
    assert!(total.total() >= wanted, "{} operations of {wanted}", total.total());
    if wanted >= 100_000 {
        for op in L::MUTATORS.each_op() {
            assert!(total.of(&op) > 0, "{} never had an effect", name(&op));
        }
    }
}

/// Runs the program of one seed `tries` times; if it fails, the answer is a report of the shortest
/// one found.
fn run_seed<L: Language>(seed: u64, tries: u32, show: bool) -> Result<Tally, String> {
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
    let tries = AtomicU32::new(tries);
    // The failures met while shrinking are not worth a line each.
    quiet::quietly(|| {
        let outcome = TestRunner::new_with_rng(config, rng).run(&L::programs(), |program| {
            if show {
                println!("{program:?}");
            }
            for _ in 0..tries.load(Relaxed) {
                match catch_unwind(AssertUnwindSafe(|| run(&program))) {
                    Ok(more) => *tally.lock().expect("it is not poisoned") = more,
                    Err(panic) => {
                        // What is tried from now on is like one that has failed.
                        tries.store(L::TRIES, Relaxed);
                        resume_unwind(panic);
                    }
                }
            }
            Ok(())
        });
        outcome.map_err(|error| match error {
            TestError::Abort(reason) => format!("no program could be made: {reason}"),
            TestError::Fail(reason, program) => format!(
                "heap and oracle disagree: {reason}\nafter this program, the shortest found to \
                 fail:\n{program:#?}\nrun it again with SEXTON_SEED={seed}"
            ),
        })
    })?;
    Ok(tally.into_inner().expect("it is not poisoned"))
}

fn seed_file<L: Language>(worker: usize) -> PathBuf {
    [env!("CARGO_TARGET_TMPDIR"), &format!("seed-{}-{worker}", L::NAME)].iter().collect()
}

fn name(op: &Op) -> String {
    let text = format!("{op:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Watches over workers: a program that hangs cannot be shrunk, but can be named.
struct Watch {
    /// What each runs, and since when.
    running: Vec<Mutex<Option<(u64, Instant)>>>,
    over: AtomicBool,
}

impl Watch {
    /// Longer than a program and all that it is shrunk to.
    const PATIENCE: Duration = Duration::from_secs(180);

    fn new(workers: usize) -> Self {
        Watch {
            running: (0..workers).map(|_| Mutex::new(None)).collect(),
            over: AtomicBool::new(false),
        }
    }

    fn over<T>(&self, worker: usize, seed: u64, f: impl FnOnce() -> T) -> T {
        let note = |running| *self.running[worker].lock().expect("it is not poisoned") = running;
        note(Some((seed, Instant::now())));
        let result = f();
        note(None);
        result
    }

    fn end(&self) {
        self.over.store(true, Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn watch(&self) {
        while !self.is_over() {
            thread::park_timeout(Duration::from_millis(10));
            for running in &self.running {
                let running = *running.lock().expect("it is not poisoned");
                if let Some((seed, since)) = running
                    && since.elapsed() > Self::PATIENCE
                {
                    eprintln!("a program hangs: run it again with SEXTON_SEED={seed}");
                    std::process::abort();
                }
            }
        }
    }
}
