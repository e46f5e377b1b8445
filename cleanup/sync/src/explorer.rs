//! Shuttle's explorer: schedules of a model, and how to see one of them again.
//!
//! A random schedule chooses among the runnable threads at every step. PCT ("probabilistic
//! concurrency testing") gives each thread a priority, and lets the first runnable one go on. At
//! `depth - 1` random moments it demotes the one that runs. So there are few preemptions, but long
//! ones, as on a real machine.
//!
//! `SHUTTLE_ITERATIONS` is the number of schedules of each test. They are others in each run.
//!
//! # To see a failure again
//!
//! Set one of two variables, and call `.ci/shuttle.sh 1 TEST`, so that no other test takes part:
//!
//! - `SHUTTLE_REPLAY`: the failing schedule, or the name of a file that holds it, runs that
//!   schedule alone. Shuttle prints it with the failure, as many lines of hexadecimal digits.
//! - `SHUTTLE_RANDOM_SEED`: the "failing seed" of a random schedule, which then is the first. Or
//!   the seed of a whole test under PCT, where each schedule depends on those before.
//!
//! `SHUTTLE_CAPTURE_BACKTRACE=1` tells where each thread is in a deadlock.

use shuttle::scheduler::{
    PctScheduler, RandomScheduler, ReplayScheduler, Scheduler,
    UncontrolledNondeterminismCheckScheduler,
};
use shuttle::{Config, Runner};
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Chooses schedules.
#[derive(Clone, Copy, Debug)]
pub enum Strategy {
    /// A random choice at each step.
    Random,
    /// With this depth.
    Pct(usize),
    /// A tenth as many random ones, each twice, to see whether anything but the schedule decides.
    Twice,
}

/// The schedules of each test, unless `SHUTTLE_ITERATIONS` gives another number.
const ITERATIONS: usize = 2000;

/// Runs `model` in some schedules of each strategy, or in the one that `SHUTTLE_REPLAY` gives.
pub fn explore(strategies: &[Strategy], model: impl Fn() + Send + Sync + Clone + 'static) {
    if let Ok(schedule) = env::var("SHUTTLE_REPLAY") {
        let schedule = std::fs::read_to_string(&schedule).unwrap_or(schedule);
        return run(ReplayScheduler::new_from_encoded(&schedule), model);
    }
    let iterations = number("SHUTTLE_ITERATIONS").map_or(ITERATIONS, |n| n as usize);
    for &strategy in strategies {
        let fresh = || RandomState::new().hash_one("a seed");
        let seed = number("SHUTTLE_RANDOM_SEED").unwrap_or_else(fresh);
        println!("{strategy:?}: SHUTTLE_RANDOM_SEED={seed}");
        if let Err(failure) = check(strategy, seed, iterations / strategies.len(), model.clone()) {
            resume_unwind(failure);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Gives the failure, if one of `n` schedules fails.
fn check(
    strategy: Strategy,
    seed: u64,
    n: usize,
    model: impl Fn() + Send + Sync + 'static,
) -> std::thread::Result<()> {
    let tried = Arc::new(AtomicUsize::new(0));
    let trying = tried.clone();
    let counted = move || {
        // `.ci/mutants.sh` asks for this line.
        if trying.fetch_add(1, Ordering::Relaxed) == 1 {
            println!("the first schedule passes");
        }
        model();
    };
    let random = |n| RandomScheduler::new_from_seed(seed, n);
    let twice = || UncontrolledNondeterminismCheckScheduler::new(random(n / 10));
    let outcome = catch_unwind(AssertUnwindSafe(|| match strategy {
        Strategy::Random => run(random(n), counted),
        Strategy::Pct(depth) => run(PctScheduler::new_from_seed(seed, depth, n), counted),
        Strategy::Twice => run(twice(), counted),
    }));
    if outcome.is_err() {
        println!("{strategy:?}: schedule {} of {n} fails", tried.load(Ordering::Relaxed));
    }
    outcome
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // The warning that orderings are not modelled: the crate's documentation says so, too.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model);
}

/// A test per strategy for each model.
#[macro_export]
macro_rules! explored {
    ($($(#[$doc:meta])* $name:ident: $model:expr;)*) => {
        $($(#[$doc])*
        mod $name {
            use super::*;
            use $crate::explorer::{Strategy, explore};

            #[test]
            fn at_random() {
                explore(&[Strategy::Random], $model);
            }

            #[test]
            fn with_few_preemptions() {
                explore(&[Strategy::Pct(3), Strategy::Pct(4), Strategy::Pct(5)], $model);
            }
        })*
    };
}
