//! Where the panels stand: in columns, to be read from top to bottom and then to the right, as
//! equally long as the order allows, under a head that says what it is.

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, DrawingBackend};
use plotters::style::RGBColor;

use super::panel::{FAINT, GOAL, LIMIT, OTHERS, Panel, SEXTONS, Style, TEXT, line, swatch};
use crate::run::Record;
use crate::values::counted;

/// The picture's size, and the place of each panel.
pub(super) struct Plan {
    pub(super) size: (u32, u32),
    pub(super) places: Vec<Place>,
}

/// A rectangle, in pixels.
pub(super) struct Place {
    pub(super) at: (i32, i32),
    pub(super) size: (u32, u32),
}

const GAP: u32 = 18;

/// The height of the head.
fn head_height(style: &Style) -> u32 {
    // Two lines, and in a picture of all rows the keys.
    if style.is_logarithmic { 84 } else { 72 }
}

/// Gives each panel a place.
pub(super) fn plan(panels: &[Panel], style: &Style) -> Plan {
    let mut heights: Vec<u32> = panels.iter().map(|panel| panel.height(style) + GAP).collect();
    if !style.is_logarithmic {
        // A grid.
        let tallest = heights.iter().copied().max().unwrap_or(0);
        heights.fill(tallest);
    }
    let columns = columns(&heights, style.most_columns);
    let mut places = Vec::new();
    let mut nth = 0;
    for (column, &count) in columns.iter().enumerate() {
        let left = GAP + column as u32 * (style.column + GAP);
        let mut top = head_height(style);
        for &height in &heights[nth..nth + count] {
            places
                .push(Place { at: (left as i32, top as i32), size: (style.column, height - GAP) });
            top += height;
        }
        nth += count;
    }
    let bottoms = places.iter().map(|place| place.at.1 as u32 + place.size.1);
    let height = bottoms.max().unwrap_or(head_height(style)) + GAP;
    let width = GAP + columns.len().max(1) as u32 * (style.column + GAP);
    Plan { size: (width, height), places }
}

/// How many of the panels stand in each column, so that the longest column is as short as it can
/// be: the least height into which all go, found by halving.
fn columns(heights: &[u32], most_columns: usize) -> Vec<usize> {
    let fill = |most: u32| {
        let mut counts = vec![0];
        let mut height = 0;
        for &next in heights {
            if height + next > most && height > 0 {
                counts.push(0);
                height = 0;
            }
            height += next;
            *counts.last_mut().expect("the first column") += 1;
        }
        counts
    };
    let (mut low, mut high) = (heights.iter().copied().max().unwrap_or(0), heights.iter().sum());
    while low < high {
        let middle = u32::midpoint(low, high);
        if fill(middle).len() <= most_columns { high = middle } else { low = middle + 1 }
    }
    fill(low)
}

/// The head: what was measured where, and in a picture of all rows what the colours mean.
pub(super) fn head<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    record: &Record,
    best: Option<usize>,
    style: &Style,
) -> Result<(), String> {
    let title = style.font(style.head).color(&TEXT);
    let small = style.font(style.text).color(&FAINT);
    let left = GAP as i32;
    let whose = match best {
        None => "its peers".to_owned(),
        Some(1) => "the best peer of each row".to_owned(),
        Some(best) => format!("the {best} best peers of each row"),
    };
    let heading = format!("Sexton and {whose}: medians of one run, less is better");
    area.draw_text(&heading, &title, (left, 12)).map_err(line::<B>)?;
    area.draw_text(&describe(record), &small, (left, 40)).map_err(line::<B>)?;
    if !style.is_logarithmic {
        return Ok(());
    }
    let keys: [(&str, RGBColor); 4] =
        [("Sexton", SEXTONS), ("peer", OTHERS), ("limit of the machine", LIMIT), ("goal", GOAL)];
    let mut x = left;
    for (name, colour) in keys {
        swatch(area, (x, 61), colour, name == "goal")?;
        area.draw_text(name, &small, (x + 18, 60)).map_err(line::<B>)?;
        x += 36 + 6 * name.len() as i32;
    }
    let scales = "scales are logarithmic";
    area.draw_text(scales, &small, (x, 60)).map_err(line::<B>)
}

fn describe(record: &Record) -> String {
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
    use super::super::panel::ALL;
    use super::*;
    use crate::catalogue::Work;
    use crate::run::sample;

    #[test]
    fn columns_keep_the_order_and_are_equally_long() {
        assert_eq!(columns(&[5, 5, 5], 3), [1, 1, 1]);
        assert_eq!(columns(&[9, 1, 1, 1, 6, 3, 3], 3), [1, 4, 2]);
        assert_eq!(columns(&[1, 1, 9], 3), [2, 1]);
        assert_eq!(columns(&[4], 3), [1]);
    }

    #[test]
    fn panels_do_not_overlap_and_fit() {
        let record = sample();
        let panels: Vec<Panel> =
            (0..7).map(|_| Panel::of(&record, Work::W1, None).expect("W1 was measured")).collect();
        let Plan { size, places } = plan(&panels, &ALL);
        let edges = |place: &Place| {
            let (x, y) = (place.at.0 as u32, place.at.1 as u32);
            (x, y, x + place.size.0, y + place.size.1)
        };
        for (n, place) in places.iter().enumerate() {
            let (left, top, right, bottom) = edges(place);
            assert!(right <= size.0 && bottom <= size.1 && top >= head_height(&ALL), "{n}");
            for other in &places[..n] {
                let (l, t, r, b) = edges(other);
                assert!(right <= l || r <= left || bottom <= t || b <= top, "{n}");
            }
        }
    }
}
