//! `sexton-bench plot FILE`: the record of a run as a picture.
//!
//! A panel for each work, in it a group of bars for each row: Sexton, its peers, and what the
//! machine allows, on one logarithmic scale. It knows nothing of how things were measured.

mod layout;
mod panel;
mod pauses;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::catalogue::{BEST, Work};
use crate::output::{Failure, print};
use crate::run::{Kind, Record};
use crate::values::up_to_1000;
use panel::{ALL, LARGE, Panel};

/// Draws a record that `run --json` or `pauses --json` has written, as an SVG.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The record
    file: PathBuf,
    /// What to draw, such as W1, W3 or memory [default: all that was measured]
    #[arg(value_name = "WORK", value_enum, ignore_case = true)]
    works: Vec<Work>,
    /// Draws the six rows that `run --best` measures, large, each with the 3 best peers
    #[arg(long, conflicts_with = "works")]
    best: bool,
    /// Draws only the N best peers of each row, 1 to 1000
    #[arg(long, allow_negative_numbers = true, value_name = "N", value_parser = up_to_1000())]
    peers: Option<usize>,
    /// Where to draw it [default: FILE with the extension .svg]
    #[arg(long, value_name = "SVG")]
    output: Option<PathBuf>,
}

/// Draws and tells where.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    const RECORD: &str = "a file that `sexton-bench run --json FILE` has written";
    let unusable = |path: &Path, why: String, valid: &str| {
        Failure::Usage(format!("cannot plot {path:?}: {why}; valid is {valid}"))
    };
    let file = args.file.as_path();
    let record = Record::load(file).map_err(|why| unusable(file, why, RECORD))?;
    if record.kind == Kind::Scale {
        let why = format!("it is a record of `scale`, which `sexton-bench table {file:?}` shows");
        return Err(unusable(file, why, RECORD));
    }
    let is_svg = |path: &Path| path.extension() == Some(OsStr::new("svg"));
    if args.output.is_none() && is_svg(file) {
        return Err(unusable(file, "it would be overwritten".into(), "--output SVG"));
    }
    let output = args.output.clone().unwrap_or_else(|| args.file.with_extension("svg"));
    if !is_svg(&output) {
        let why = "the picture is an SVG".into();
        return Err(unusable(&output, why, "a name that ends in .svg"));
    }
    let has_rows = record.kind != Kind::Pauses;
    if !has_rows && (args.best || !args.works.is_empty() || args.peers.is_some()) {
        let why = "it is a record of `pauses`, which has one picture".into();
        return Err(unusable(file, why, "no further argument than --output"));
    }
    let lacks = |work: &&Work| record.rows.iter().all(|row| row.work != work.name());
    if let Some(work) = args.works.iter().find(lacks) {
        let why = format!("it has nothing of {work}");
        return Err(unusable(file, why, "a work that was measured"));
    }
    let picture = if has_rows { draw(&record, args) } else { pauses::draw(&record) };
    let picture = picture.map_err(Failure::Run)?;
    std::fs::write(&output, picture)
        .map_err(|error| unusable(&output, error.to_string(), "the name of a file to write"))?;
    print(format_args!("{}\n", output.display()))
}

/// The picture, as the text of an SVG.
fn draw(record: &Record, args: &Args) -> Result<String, String> {
    let peers = args.peers.or(args.best.then_some(3));
    let is_wanted = |work: &Work| args.works.is_empty() || args.works.contains(work);
    let panels: Vec<Panel> = if let (true, Some(peers)) = (args.best, peers) {
        let panels = BEST.iter().map(|(id, title)| Panel::of_row(record, id, title, peers));
        panels.flatten().collect()
    } else {
        let wanted = Work::ALL.iter().copied().filter(is_wanted);
        wanted.filter_map(|work| Panel::of(record, work, peers)).collect()
    };
    if panels.is_empty() {
        return Err("the record has nothing to draw: no row of Sexton's or of a peer's".into());
    }
    let style = if args.best { &LARGE } else { &ALL };
    layout::draw(&panels, record, peers, style).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Row;
    use crate::run::sample;

    fn args(works: &[Work], best: bool, peers: Option<usize>) -> Args {
        Args { file: "it.json".into(), works: works.to_vec(), best, peers, output: None }
    }

    #[test]
    fn every_peer_of_a_row_has_a_bar_with_its_number() {
        let picture = draw(&sample(), &args(&[], false, None)).unwrap();
        for text in ["sexton", "box", "box@once", "2.00", "12.0", "limit.bump", "goal", "failed"] {
            assert!(picture.contains(text), "{text}: {picture}");
        }
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_picture_may_be_of_some_works_and_of_the_best_peers_only() {
        let mut record = sample();
        record.expect(Row::find("W1").unwrap(), None, "arc").set(1, 11.0);
        let picture = draw(&record, &args(&[Work::W1], false, Some(2))).unwrap();
        // The best variant of a peer, the best two peers; a peer that failed is not among them.
        let drawn = |name: &str| picture.lines().any(|line| line.trim() == name);
        let names = ["sexton", "box@once", "arc", "limit.bump", "box", "gc"];
        assert_eq!(names.map(drawn), [true, true, true, true, false, false], "{picture}");
        assert!(picture.contains("the 2 best peers of each row"), "{picture}");
        assert!(draw(&record, &args(&[Work::W3], false, None)).is_err());
    }

    #[test]
    fn the_small_picture_is_legible_at_the_width_of_a_page() {
        let picture = draw(&sample(), &args(&[], true, None)).unwrap();
        let sizes = picture.split("font-size=\"").skip(1);
        let sizes: Vec<f64> =
            sizes.map(|it| it.split('"').next().unwrap().parse().unwrap()).collect();
        assert!(sizes.len() > 5 && sizes.iter().all(|size| *size >= 14.0), "{sizes:?}");
        let (_, width) = picture.split_once("width=\"").unwrap();
        let width: f64 = width.split('"').next().unwrap().parse().unwrap();
        assert!(width <= 800.0, "{width}");
        assert!(!picture.contains("limit.bump"), "{picture}");
    }

    #[test]
    fn a_record_of_nothing_has_no_picture() {
        let mut record = sample();
        record.rows.clear();
        assert!(draw(&record, &args(&[], false, None)).is_err());
        assert!(draw(&record, &args(&[], true, None)).is_err());
    }
}
