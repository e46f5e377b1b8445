//! The dump: the activity of each thread of a pool, for a person who wonders why a cleanup has not
//! run.
//!
//! It reads data that is there anyway: in-flight records, the list of sleepers and the counters,
//! each at its own moment. It stops no thread.

#![forbid(unsafe_code)]

use crate::account::counters::Runner;
use crate::observe::description::Description;
use crate::observe::stats::PoolStats;
use crate::pool::in_flight::Snapshot;
use crate::pool::state::Pool;
use std::fmt;
use std::time::{Duration, Instant};

/// Shows a pool at one moment. See [`Pool::dump`].
///
/// Its `Display` is a line on the pool and one per runner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolDump {
    /// The counters.
    pub stats: PoolStats,
    /// The workers by index, then the threads that help.
    pub runners: Vec<RunnerDump>,
}

/// Shows a worker, or a thread that helps.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunnerDump {
    /// The worker's index; `None` for a thread that helps, in `run_pending` for one.
    pub worker: Option<usize>,
    /// Its activity.
    pub activity: Activity,
}

/// Tells the activity of a runner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Activity {
    /// It sleeps until it is woken.
    Asleep,
    /// It looks for work, or is about to begin or end a block.
    Awake,
    /// It runs a cleanup of its block, or is between two of them.
    #[non_exhaustive]
    Running {
        /// The cleanup, as far as it is known.
        cleanup: Description,
        /// For how long that cleanup has run at least.
        age: Duration,
        /// How long ago the block was begun: the cleanup runs no longer than that.
        block_age: Duration,
        /// Cleanups of the block that have been begun.
        begun: usize,
        /// Cleanups of the block in all.
        len: usize,
        /// Those not begun have been queued again for others.
        requeued: bool,
    },
}

impl Pool {
    /// Dumps the activity of each thread of the pool, at this moment.
    ///
    /// O(workers); never waits for a cleanup.
    pub fn dump(&self) -> PoolDump {
        PoolDump::of(self)
    }
}

impl PoolDump {
    pub(crate) fn of(pool: &Pool) -> Self {
        if pool.is_inherited() {
            return PoolDump { stats: pool.stats(), runners: Vec::new() };
        }
        let now = Instant::now();
        let asleep = pool.queue().sleep().sleepers();
        let mut runners: Vec<RunnerDump> = pool
            .runners()
            .all()
            .iter()
            .filter_map(|in_flight| match (in_flight.runner(), in_flight.snapshot(now)) {
                (Runner::Worker(index), None) => {
                    let activity =
                        if asleep.contains(&index) { Activity::Asleep } else { Activity::Awake };
                    Some(RunnerDump { worker: Some(index), activity })
                }
                (Runner::Worker(index), Some(snapshot)) => {
                    Some(RunnerDump { worker: Some(index), activity: snapshot.into() })
                }
                (Runner::Guest, snapshot) => {
                    Some(RunnerDump { worker: None, activity: snapshot?.into() })
                }
            })
            .collect();
        runners.sort_by_key(|runner| runner.worker.unwrap_or(usize::MAX));
        PoolDump { stats: pool.stats(), runners }
    }
}

impl From<Snapshot> for Activity {
    fn from(snapshot: Snapshot) -> Self {
        Activity::Running {
            cleanup: snapshot.running.unwrap_or_default(),
            age: snapshot.age,
            block_age: snapshot.block_age,
            begun: snapshot.at,
            len: snapshot.len,
            requeued: snapshot.requeued,
        }
    }
}

impl fmt::Display for PoolDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        write!(
            f,
            "{} of at most {} workers, {} asleep; {} cleanups wait",
            stats.workers, stats.max_workers, stats.asleep, stats.backlog
        )?;
        if let Some(oldest) = stats.oldest {
            write!(f, ", the oldest for {oldest:.1?}")?;
        }
        write!(f, "; {} blocks unclaimed", stats.blocks)?;
        for runner in &self.runners {
            match runner.worker {
                Some(index) => write!(f, "\nworker {index}: ")?,
                None => write!(f, "\na helping thread: ")?,
            }
            write!(f, "{}", runner.activity)?;
        }
        Ok(())
    }
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Asleep => f.write_str("asleep"),
            Activity::Awake => f.write_str("looks for work"),
            Activity::Running { cleanup, age, block_age, begun, len, requeued } => {
                write!(f, "runs {cleanup}, for {age:.1?} to {block_age:.1?}; ")?;
                write!(f, "{begun} of {len} in its block")?;
                if *requeued { f.write_str(", the rest queued again") } else { Ok(()) }
            }
        }
    }
}
