//! Where the panels stand: in columns, to be read from top to bottom and then to the right, as
//! equally long as the order allows, under a head that says what it is.

use std::io;

use plotters::drawing::DrawingAreaErrorKind;
use plotters::element::Rectangle;
use plotters::prelude::{IntoDrawingArea, SVGBackend, WHITE};
use plotters::style::{Color, RGBColor};

use super::panel::{Area, Drawn, FAINT, GOAL, LIMIT, OTHERS, Panel, SEXTONS, Style, TEXT};
use crate::run::Record;
use crate::values::counted;

const GAP: u32 = 18;

/// Draws the head, and below it the panels.
pub(super) fn draw(
    panels: &[Panel],
    record: &Record,
    peers: Option<usize>,
    style: &Style,
) -> Result<String, DrawingAreaErrorKind<io::Error>> {
    let tallest = panels.iter().map(|panel| panel.height(style)).max().unwrap_or(0);
    let height = |panel: &Panel| {
        // All alike: a grid.
        GAP + if style.is_logarithmic { panel.height(style) } else { tallest }
    };
    let columns = columns(panels, height, style.most_columns);
    let longest = columns.iter().map(|column| column.iter().map(&height).sum::<u32>()).max();
    // Two lines, and in a picture of all rows the keys.
    let head_height = if style.is_logarithmic { 84 } else { 72 };
    let width = GAP + columns.len() as u32 * (style.column + GAP);
    let size = (width, head_height + longest.unwrap_or(0));

    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        head(&root, record, peers, style)?;
        let below = root.margin(head_height, 0, GAP / 2, GAP / 2);
        for (area, column) in below.split_evenly((1, columns.len())).into_iter().zip(columns) {
            let mut rest = area.margin(0, 0, GAP / 2, GAP / 2);
            for panel in column {
                let (own, below) = rest.split_vertically(height(panel) - GAP);
                panel.draw(&own, style)?;
                rest = below.margin(GAP, 0, 0, 0);
            }
        }
        root.present()?;
    }
    Ok(text)
}

/// Puts the panels into columns, in their order, each of about its share of the whole length.
fn columns<T>(panels: &[T], height: impl Fn(&T) -> u32, count: usize) -> Vec<&[T]> {
    let total: u32 = panels.iter().map(&height).sum();
    let mut above = 0;
    // A panel goes where its middle lies.
    let column = panels.iter().map(|panel| {
        let middle = above + height(panel) / 2;
        above += height(panel);
        middle as usize * count / total.max(1) as usize
    });
    let of: Vec<usize> = column.collect();
    let mut rest = panels;
    of.chunk_by(|a, b| a == b).filter_map(|column| rest.split_off(..column.len())).collect()
}

/// The head: what was measured where, and in a picture of all rows what the colours mean.
fn head(area: &Area<'_>, record: &Record, best: Option<usize>, style: &Style) -> Drawn {
    let title = style.font(style.head).color(&TEXT);
    let small = style.font(style.text).color(&FAINT);
    let left = GAP as i32;
    let whose = match best {
        None => "its peers".to_owned(),
        Some(1) => "the best peer of each row".to_owned(),
        Some(best) => format!("the {best} best peers of each row"),
    };
    let heading = format!("Sexton and {whose}: medians of one run, less is better");
    area.draw_text(&heading, &title, (left, 12))?;
    area.draw_text(&describe(record), &small, (left, 40))?;
    if !style.is_logarithmic {
        return Ok(());
    }
    let keys: [(&str, RGBColor); 4] =
        [("Sexton", SEXTONS), ("peer", OTHERS), ("limit of the machine", LIMIT), ("goal", GOAL)];
    let mut x = left;
    for (name, colour) in keys {
        // The goal is a line, the others are bars.
        let corners =
            if name == "goal" { [(x + 5, 59), (x + 7, 74)] } else { [(x, 61), (x + 12, 72)] };
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        area.draw_text(name, &small, (x + 18, 60))?;
        x += 36 + 6 * name.len() as i32;
    }
    let scales = "scales are logarithmic";
    area.draw_text(scales, &small, (x, 60))
}

pub(super) fn describe(record: &Record) -> String {
    let machine = &record.machine;
    let date = record.date.split('T').next().unwrap_or_default();
    let gib = machine.memory_mib as f64 / 1024.0;
    let cpu = machine.cpu.split(" (").next().unwrap_or_default();
    let rustc = machine.rustc.split(" (").next().unwrap_or_default();
    let (cores, rounds) = (counted(machine.cores, "core"), counted(record.rounds, "round"));
    let size = if record.quick { ", a sixteenth of the full sizes" } else { "" };
    let partial = if record.partial { "; partial: the run was broken off" } else { "" };
    format!("{date}; {cores} of {cpu}, {gib:.0} GiB; {rustc}; {rounds}{size}{partial}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_keep_the_order_and_are_about_equally_long() {
        let columns = |heights: &[u32]| -> Vec<usize> {
            super::columns(heights, |it| *it, 3).iter().map(|column| column.len()).collect()
        };
        assert_eq!(columns(&[5, 5, 5]), [1, 1, 1]);
        assert_eq!(columns(&[9, 1, 1, 1, 6, 3, 3]), [1, 4, 2]);
        assert_eq!(columns(&[4, 4]), [1, 1]);
        assert_eq!(columns(&[4]), [1]);
    }
}
