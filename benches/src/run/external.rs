//! Peers in other languages: programs that are built from a folder each, and print what they
//! measured.
//!
//! `peers/README.md` says what one of them is asked, and how it answers.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use super::child;
use super::contender::Contender;
use crate::catalogue::Row;

/// A row that a peer measures, perhaps a variant of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) row: &'static Row,
    pub(crate) variant: Option<String>,
}

impl Listed {
    /// Reads `ROW` or `ROW@VARIANT`.
    fn parse(id: &str) -> Option<Self> {
        let (id, variant) = match id.split_once('@') {
            Some((id, variant)) => (id, Some(variant.to_owned())),
            None => (id, None),
        };
        Some(Listed { row: Row::find(id)?, variant })
    }

    /// What it is asked for by.
    pub(crate) fn id(&self) -> String {
        self.name(self.row.id)
    }

    /// What one called `by` is shown as here.
    pub(crate) fn name(&self, by: &str) -> String {
        self.variant.as_ref().map_or_else(|| by.to_owned(), |variant| format!("{by}@{variant}"))
    }
}

/// Building may have to compile, for the first time.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// The toolchain is missing; by the interface.
const MISSING: i32 = 3;

/// Where the peers are unless something else is said: beside this package's sources.
pub(crate) fn default_folder() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").filter(|_| is_run_by_cargo());
    let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.join("peers")
}

/// Whether Cargo started this package's program, and not another's.
fn is_run_by_cargo() -> bool {
    env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"))
}

/// The names of the peers in a folder, sorted.
///
/// # Errors
///
/// If the folder cannot be listed; in one line.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| {
        format!("the peers in other languages: their folder cannot be listed: {error}")
    })?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("build.sh").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Builds a peer and asks what it can measure.
///
/// # Errors
///
/// Why it is absent, in one line.
pub(crate) fn build(folder: &Path, name: &str) -> Result<Contender, String> {
    let out = output_folder(name)?;
    let script = folder.join(name).join("build.sh");
    let built = child::run("bash".as_ref(), [&script, &out], BUILD_PATIENCE)?;
    match built.status.code() {
        Some(0) => {}
        Some(MISSING) => return Err(built.reason()),
        _ => return Err(format!("it cannot be built: {}", built.reason())),
    }
    let program = out.join(name);
    let listed = child::run(program.as_ref(), ["--list"], PATIENCE)?;
    if !listed.status.success() {
        return Err(format!("it does not tell what it measures: {}", listed.reason()));
    }
    let ids = listed.out.split_whitespace();
    let rows = ids.map(|id| Listed::parse(id).ok_or(format!("it lists an unknown row: {id}")));
    let (rows, version) = (rows.collect::<Result<_, _>>()?, version(&program));
    Ok(Contender { name: name.to_owned(), rows, are_few: false, version, program: Some(program) })
}

/// The line that a peer prints about itself, if it does.
fn version(program: &Path) -> Option<String> {
    let told = child::run(program.as_ref(), ["--version"], PATIENCE).ok()?;
    only_line(&told.out).filter(|_| told.status.success())
}

fn only_line(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next().filter(|_| lines.next().is_none()).map(str::to_owned)
}

/// A folder for the program, among the other results of the build.
fn output_folder(name: &str) -> Result<PathBuf, String> {
    let make = || {
        let folder = env::current_exe()?.with_file_name("peers").join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    make().map_err(|error: std::io::Error| format!("there is no place to build it: {error}"))
}

const PATIENCE: Duration = Duration::from_secs(60);

/// The numbers among what a peer has printed.
///
/// # Errors
///
/// The first line that is none, in words.
pub(crate) fn numbers(out: &str) -> Result<Vec<(Listed, f64)>, String> {
    let parse = |line: &str| {
        let (id, value) = line.trim().split_once(char::is_whitespace)?;
        let value: f64 = value.trim().parse().ok()?;
        let is_sane = value.is_finite() && value >= 0.0;
        Some((Listed::parse(id)?, value)).filter(|_| is_sane)
    };
    out.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| parse(line).ok_or_else(|| format!("printed no row and value: {line:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_known_rows_and_sane_values() {
        let found = numbers("W1 5.5\n\nW3.random@1  175\nW7.rss\t74e0\n").unwrap();
        let found: Vec<_> =
            found.iter().map(|(it, value)| (it.id(), it.name("go"), *value)).collect();
        let expected = [("W1", "go", 5.5), ("W3.random@1", "go@1", 175.0), ("W7.rss", "go", 74.0)];
        assert_eq!(found, expected.map(|(id, by, value)| (id.to_owned(), by.to_owned(), value)));
        for wrong in ["W1", "W1 fast", "W0 1", "W1 NaN", "W1 -1", "W1 1 2", "hello"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_without_its_path() {
        let error = names(Path::new("/no/such/folder")).unwrap_err();
        assert!(error.contains("cannot be listed") && !error.contains("/no/such"), "{error}");
    }
}
