//! The command line: its grammar, and its errors as single lines.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use crate::output::Failure;
use crate::{demo, pauses, plot, run, scale, sweep, table, tour};

/// Shows and measures the Sexton heap.
///
/// Without a subcommand it gives the demo: a program on the heap, and what each part of it costs.
#[derive(Parser)]
#[command(name = "sexton-bench", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Tour(tour::Args),
    Sweep(sweep::Args),
    Run(run::Args),
    Scale(scale::Args),
    Pauses(pauses::Args),
    Plot(plot::Args),
    Table(table::Args),
    #[command(name = run::one::COMMAND, hide = true)]
    Measure(run::one::Args),
    #[command(name = pauses::ONE, hide = true)]
    MeasurePauses(pauses::OneArgs),
}

/// The command that the process was started with.
pub(crate) fn parse() -> Result<Command, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(cli.command.unwrap_or(Command::Demo(demo::Args {}))),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &clap::Error) -> Failure {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            crate::output::print(error.render()).err().unwrap_or(Failure::Done)
        }
        ErrorKind::InvalidSubcommand => Failure::Usage(unknown_subcommand(error)),
        _ => Failure::Usage(one_line(&error.render().to_string())),
    }
}

/// With what was meant, perhaps.
fn unknown_subcommand(error: &clap::Error) -> String {
    let line = one_line(&error.render().to_string());
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return line;
    };
    if Path::new(word).exists() {
        return format!("{line}; did you mean `tour {word}`?");
    }
    match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(similar)) if !similar.is_empty() => {
            format!("{line}; did you mean `{}`?", similar.join("` or `"))
        }
        _ => line,
    }
}

/// The first paragraph of clap's message, without line breaks: the rest repeats the usage.
fn one_line(message: &str) -> String {
    let paragraph = message.strip_prefix("error: ").unwrap_or(message);
    let paragraph = paragraph.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    format!("{} (see --help)", words.join(" "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line() {
        let error = Cli::command().try_get_matches_from(["sexton-bench", "--no-such"]).unwrap_err();
        let line = one_line(&error.render().to_string());
        assert_eq!(line, "unexpected argument '--no-such' found (see --help)");
    }
}
