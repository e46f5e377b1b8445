//! `sexton-bench measure WHO WORK SIZE`: one measurement, for `run`, which starts it as a process
//! of its own.
//!
//! With `--threads` it measures Sexton only, in the way of `scale`.
//!
//! Prints a line `ROW VALUE` for each number. Hidden from the help: its size is whatever `run`
//! says, and it says nothing about how far apart two of its numbers lie.

use crate::catalogue::{Builtin, Out, Row, Work};
use crate::output::Failure;
use crate::{measure, peers};

/// The name of the subcommand.
pub(crate) const COMMAND: &str = "measure";

/// Measures one peer's share of a work, and prints a line for each number.
#[derive(clap::Args)]
pub(crate) struct Args {
    who: String,
    #[arg(value_enum)]
    work: Work,
    size: usize,
    /// Measures this row only.
    #[arg(long)]
    row: Option<String>,
    #[arg(long)]
    threads: Option<usize>,
}

/// All that can be measured here.
fn all() -> impl Iterator<Item = &'static Builtin> {
    measure::ALL.iter().chain(peers::ALL).copied()
}

/// What one of them measures.
pub(crate) fn rows(name: &str) -> impl Iterator<Item = &'static Row> {
    let builtin = all().find(move |it| it.name == name);
    builtin.into_iter().flat_map(|it| (it.rows)())
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let Some(builtin) = all().find(|it| it.name == args.who) else {
        return Err(Failure::Usage(format!("unknown peer '{}'", args.who)));
    };
    end_with_the_parent();
    if let Some(threads) = args.threads {
        return measure::scale::measure(args.work, args.size, threads);
    }
    let mut out = Out::new(&args.row);
    let done = (builtin.measure)(args.work, args.size, &mut out);
    out.finish().and(done.map_err(Failure::Run))
}

/// Has the system end this process when its parent is gone: then the numbers have no reader.
pub(crate) fn end_with_the_parent() {
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
        all().for_each(|it| assert!(rows(it.name).next().is_some(), "{}", it.name));
        assert!(peers::ABSENT.iter().all(|name| peers::ALL.iter().all(|it| it.name != *name)));
    }
}
