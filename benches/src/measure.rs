//! `sexton-bench measure WHO WORK SIZE`: one measurement, for `run`, which starts it as a process of its own.
//!
//! With `--threads` it measures Sexton only, in the way of `scale`.
//!
//! Prints a line `ROW VALUE` for each number. Hidden from the help: its size is whatever `run` says, and it says
//! nothing about how far apart two of its numbers lie.

mod limits;
pub(crate) mod memory;
pub(crate) mod programs;
pub(crate) mod scale;
mod sexton;
mod sexton_cleanups;
mod shared;

use crate::output::{Failure, print};
use crate::run::{Row, Work};
use crate::rust_peers;

/// The name of the subcommand.
pub(crate) const COMMAND: &str = "measure";

/// Measures one peer's share of a work, and prints a line for each number.
#[derive(clap::Args)]
pub(crate) struct Args {
    who: String,
    work: Work,
    size: usize,
    #[arg(long)]
    threads: Option<usize>,
}

/// Where numbers go: to standard output at once, so that those before a crash are not lost.
pub(crate) struct Out {
    failure: Option<Failure>,
}

impl Out {
    /// A number has been measured.
    pub(crate) fn put(&mut self, row: &str, value: f64) {
        if self.failure.is_none() {
            self.failure = print(format_args!("{row} {value}\n")).err();
        }
    }
}

/// One that can be measured in this program.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// The ids of the rows that it measures.
    pub(crate) rows: &'static [&'static str],
    /// Measures all its rows of a work.
    pub(crate) measure: fn(Work, usize, &mut Out) -> Result<(), String>,
}

/// The names of the Rust peers of this build.
pub(crate) fn peers() -> impl Iterator<Item = &'static str> {
    rust_peers::ALL.iter().map(|it| it.name)
}

/// The names of those that it lacks.
pub(crate) const ABSENT: &[&str] = rust_peers::ABSENT;

/// Everybody who can be measured here.
fn all() -> impl Iterator<Item = &'static Builtin> {
    [&sexton::SEXTON, &limits::LIMITS].into_iter().chain(rust_peers::ALL.iter().copied())
}

/// What one of them measures.
pub(crate) fn rows(name: &str) -> impl Iterator<Item = &'static Row> {
    let builtin = all().find(move |it| it.name == name);
    builtin.into_iter().flat_map(|it| it.rows).filter_map(|id| Row::find(id))
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(builtin) = all().find(|it| it.name == args.who) else {
        return Err(Failure::Usage(format!("unknown peer '{}'", args.who)));
    };
    end_with_the_parent();
    let mut out = Out { failure: None };
    let done = match args.threads {
        None => (builtin.measure)(args.work, args.size, &mut out),
        Some(threads) => scale::measure(args.work, args.size, threads, &mut out),
    };
    out.failure.map_or(done.map_err(Failure::Run), Err)
}

/// Has the system end this process when the one that started it is gone: nobody would read the numbers.
fn end_with_the_parent() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_by_name_and_measure_rows_that_exist() {
        for builtin in all() {
            let known = rows(builtin.name).count();
            assert_eq!(known, builtin.rows.len(), "{}", builtin.name);
        }
        assert!(ABSENT.iter().all(|name| peers().all(|it| it != *name)));
    }
}
