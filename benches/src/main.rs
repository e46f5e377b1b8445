//! The `sexton-bench` command: a demonstration of the heap, a tour on real files, and measurements.
//!
//! Each subcommand is a module with its arguments (`Args`) and a `run`; this file joins them to the
//! command line and turns their failures into one line on standard error and an exit code:
//! 0 success, 1 something went wrong on the way, 2 the arguments cannot be used.

// The one door to unsafe code is in `peers`: it is denied everywhere else.

mod catalogue;
mod cli;
mod demo;
mod grid;
mod heaps;
mod measure;
mod output;
mod pauses;
mod peers;
mod plot;
mod run;
mod scale;
mod sweep;
mod table;
mod tour;
mod values;

use std::process::ExitCode;

use cli::Command;

fn main() -> ExitCode {
    let result = cli::parse().and_then(|command| match command {
        Command::Demo(args) => demo::run(&args),
        Command::Tour(args) => tour::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Pauses(args) => pauses::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Table(args) => table::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Measure(args) => run::one::run(&args),
        Command::MeasurePauses(args) => pauses::run_one(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
