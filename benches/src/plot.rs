//! `sexton-bench plot FILE`: the record of a run as a picture.
//!
//! A panel for each work, in it a group of bars for each row: Sexton, its peers, and what the machine allows, on
//! one logarithmic scale. It knows nothing of how things were measured.

mod layout;
mod panel;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use plotters::prelude::{DrawingBackend, IntoDrawingArea, SVGBackend, WHITE};

use crate::output::{Failure, print};
use crate::run::{Record, Work};

/// Draws a record that `run --json` has written, as an SVG.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The record
    file: PathBuf,
    /// Where to draw it [default: FILE with the extension .svg]
    #[arg(long, value_name = "SVG")]
    output: Option<PathBuf>,
}

/// Draws and tells where.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let unusable = |path: &Path, why: String, valid: &str| {
        Failure::Usage(format!("cannot plot {path:?}: {why}; valid is {valid}"))
    };
    let record = Record::load(&args.file).map_err(|why| {
        let why = why.split('\n').next().unwrap_or_default().to_owned();
        unusable(&args.file, why, "a file that `sexton-bench run --json FILE` has written")
    })?;
    if args.output.is_none() && args.file.extension() == Some(OsStr::new("svg")) {
        return Err(unusable(&args.file, "it would be overwritten".into(), "--output SVG"));
    }
    let output = args.output.clone().unwrap_or_else(|| args.file.with_extension("svg"));
    let picture = draw(&record).map_err(Failure::Run)?;
    std::fs::write(&output, picture)
        .map_err(|error| unusable(&output, error.to_string(), "the name of a file to write"))?;
    print(format_args!("{}\n", output.display()))
}

/// The picture, as the text of an SVG.
fn draw(record: &Record) -> Result<String, String> {
    let panels: Vec<panel::Panel> =
        Work::ALL.into_iter().filter_map(|work| panel::Panel::of(record, work)).collect();
    if panels.is_empty() {
        return Err("the record has nothing to draw: no row of Sexton's or of a peer's".into());
    }
    let plan = layout::plan(&panels);
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, plan.size).into_drawing_area();
        let result = root.fill(&WHITE).map_err(|error| error.to_string());
        result.and_then(|()| layout::head(&root, record))?;
        for (panel, place) in panels.iter().zip(&plan.places) {
            let area = root.clone().shrink(place.at, place.size);
            panel.draw(&area)?;
        }
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// What goes wrong while drawing, in a line.
fn line<B: DrawingBackend>(error: plotters::drawing::DrawingAreaErrorKind<B::ErrorType>) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests_sample;

    #[test]
    fn every_peer_of_a_row_has_a_bar_with_its_number() {
        let picture = draw(&tests_sample()).unwrap();
        for text in ["sexton", "box", "box@once", "2.00", "12.0", "limit.bump", "goal", "failed"] {
            assert!(picture.contains(text), "{text}: {picture}");
        }
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_record_of_nothing_has_no_picture() {
        let mut record = tests_sample();
        record.rows.clear();
        assert!(draw(&record).is_err());
    }
}
