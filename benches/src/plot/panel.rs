//! One panel: the rows of a work, each with a bar for everybody who measured it.

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, DrawingBackend, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, TextStyle};

use super::line;
use crate::catalogue::{SEXTON, Work};
use crate::run::{Measured, Record, RowRecord, figure, limit, sorted};

pub(super) const SEXTONS: RGBColor = RGBColor(0xd1, 0x49, 0x28);
pub(super) const OTHERS: RGBColor = RGBColor(0x8f, 0xa9, 0xc4);
pub(super) const LIMIT: RGBColor = RGBColor(0x7f, 0xa8, 0x6b);
pub(super) const GOAL: RGBColor = RGBColor(0x2a, 0x2a, 0x2a);
pub(super) const TEXT: RGBColor = RGBColor(0x22, 0x26, 0x2b);
pub(super) const FAINT: RGBColor = RGBColor(0x55, 0x5c, 0x64);
const FRAME: RGBColor = RGBColor(0xd5, 0xda, 0xe0);
const GRID: RGBColor = RGBColor(0xdd, 0xe2, 0xe8);

const TITLE: i32 = 30;
const HEADING: i32 = 22;
const BAR: i32 = 16;
const AFTER_ROW: i32 = 7;
const AXIS: i32 = 22;
/// Where bars begin, and how much is left behind the longest for its number.
const NAMES: i32 = 112;
const NUMBERS: i32 = 92;
const MARGIN: i32 = 10;

/// What a panel shows.
pub(super) struct Panel {
    title: String,
    rows: Vec<Row>,
    scale: (f64, f64),
}

struct Row {
    heading: String,
    goal: Option<f64>,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    is_sextons: bool,
    colour: RGBColor,
    /// Median, least and greatest, or why there are none.
    values: Result<[f64; 3], &'static str>,
}

impl Panel {
    /// The panel of a work, if anything was measured of it. The machine's limits have none: they are bars of the
    /// works that they limit.
    pub(super) fn of(record: &Record, work: Work, best: Option<usize>) -> Option<Panel> {
        if work == Work::Limits {
            return None;
        }
        let rows = record.rows.iter().filter(|row| row.work == work.name());
        let rows: Vec<Row> = rows.filter_map(|row| Row::of(record, row, best)).collect();
        let values = rows.iter().flat_map(Row::values).filter(|value| *value > 0.0);
        let (low, high) = values
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return None;
        }
        let title = match (work.name(), work.title()) {
            (name, title) if name.eq_ignore_ascii_case(title) => title.to_owned(),
            (name, title) => format!("{name}: {title}"),
        };
        Some(Panel { title, rows, scale: decades(low, high) })
    }

    /// In pixels.
    pub(super) fn height(&self) -> u32 {
        let rows: i32 = self.rows.iter().map(Row::height).sum();
        (TITLE + rows + AXIS) as u32
    }

    /// Draws it into an area of its height.
    pub(super) fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
    ) -> Result<(), String> {
        let (width, height) = area.dim_in_pixel();
        let (width, height) = (width as i32, height as i32);
        let frame = Rectangle::new([(0, 0), (width - 1, height - 1)], FRAME);
        area.draw(&frame).map_err(line::<B>)?;
        let bold = style(15).color(&TEXT);
        area.draw_text(&self.title, &bold, (MARGIN, 8)).map_err(line::<B>)?;

        let (first, last) = (NAMES + MARGIN, width - NUMBERS);
        let x = |value: f64| self.x(value, first, last);
        self.draw_axis(area, &x, height)?;
        let mut y = TITLE;
        for row in &self.rows {
            row.draw(area, &x, y)?;
            y += row.height();
        }
        Ok(())
    }

    /// Where a value lies between two pixels.
    fn x(&self, value: f64, first: i32, last: i32) -> i32 {
        let (low, high) = (self.scale.0.log10(), self.scale.1.log10());
        let share = (value.max(self.scale.0).log10() - low) / (high - low);
        first + (share * f64::from(last - first)).round() as i32
    }

    /// A line for each power of ten.
    fn draw_axis<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: &impl Fn(f64) -> i32,
        height: i32,
    ) -> Result<(), String> {
        let label = style(11).color(&FAINT).pos(Pos::new(HPos::Center, VPos::Top));
        let count = (self.scale.1 / self.scale.0).log10().round() as i32;
        for nth in 0..=count {
            let value = self.scale.0 * 10_f64.powi(nth);
            let at = x(value);
            let grid = PathElement::new([(at, TITLE), (at, height - AXIS)], GRID);
            area.draw(&grid).map_err(line::<B>)?;
            // So many that they do not touch.
            if count <= 6 || nth % 2 == 0 {
                area.draw_text(&power(value), &label, (at, height - AXIS + 5))
                    .map_err(line::<B>)?;
            }
        }
        Ok(())
    }
}

impl Row {
    fn of(record: &Record, row: &RowRecord, best: Option<usize>) -> Option<Row> {
        let mut drawn = sorted(row);
        if let Some(best) = best {
            keep_the_best(&mut drawn, best);
        }
        let mut bars: Vec<Bar> = drawn.into_iter().map(|it| Bar::of(record, row, it)).collect();
        bars.iter().find(|bar| bar.values.is_ok())?;
        if let Some((name, value)) = limit(record, &row.id) {
            let values = Ok([value; 3]);
            bars.push(Bar { name: name.to_owned(), is_sextons: false, colour: LIMIT, values });
        }
        let more = if row.more_is_better { "; more is better" } else { "" };
        let heading = format!("{}: {}, {}{more}", row.id, row.title, row.unit);
        Some(Row { heading, goal: row.goal, bars })
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.bars.iter().filter_map(|bar| bar.values.ok()).flatten().chain(self.goal)
    }

    fn height(&self) -> i32 {
        HEADING + BAR * self.bars.len() as i32 + AFTER_ROW
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: &impl Fn(f64) -> i32,
        top: i32,
    ) -> Result<(), String> {
        let heading = style(12).color(&FAINT);
        area.draw_text(&self.heading, &heading, (MARGIN, top + 5)).map_err(line::<B>)?;
        let first = top + HEADING;
        for (nth, bar) in self.bars.iter().enumerate() {
            // The goal is Sexton's, and so is its mark.
            let goal = self.goal.filter(|_| bar.is_sextons);
            bar.draw(area, x, first + BAR * nth as i32, goal)?;
        }
        Ok(())
    }
}

/// Keeps Sexton and so many peers, of each the best variant; who has no value is none of the best.
fn keep_the_best(sorted: &mut Vec<&Measured>, count: usize) {
    let mut peers: Vec<&str> = Vec::new();
    sorted.retain(|it| {
        let peer = it.peer();
        let is_one = it.spread().is_some() && !peers.contains(&peer) && peers.len() < count;
        if is_one && peer != SEXTON {
            peers.push(peer);
        }
        is_one || peer == SEXTON
    });
}

impl Bar {
    fn of(record: &Record, row: &RowRecord, measured: &Measured) -> Bar {
        let is_sextons = measured.peer() == SEXTON;
        let colour = if is_sextons { SEXTONS } else { OTHERS };
        let values = measured.spread().map(|it| [it.median, it.min, it.max]);
        let values = values.ok_or_else(|| record.lack(row, measured).0);
        Bar { name: measured.by.clone(), is_sextons, colour, values }
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: &impl Fn(f64) -> i32,
        top: i32,
        goal: Option<f64>,
    ) -> Result<(), String> {
        let middle = top + BAR / 2;
        let name = style(12).color(&TEXT).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw_text(&self.name, &name, (NAMES, middle)).map_err(line::<B>)?;
        let number = style(11).color(&FAINT).pos(Pos::new(HPos::Left, VPos::Center));
        let [median, min, max] = match self.values {
            Ok(values) => values,
            Err(why) => {
                let at = (NAMES + MARGIN + 4, middle);
                return area.draw_text(why, &number, at).map_err(line::<B>);
            }
        };
        let (from, to) = (NAMES + MARGIN, x(median).max(NAMES + MARGIN + 1));
        let bar = Rectangle::new([(from, top + 2), (to, top + BAR - 2)], self.colour.filled());
        area.draw(&bar).map_err(line::<B>)?;
        if min < max {
            let spread = PathElement::new([(x(min), middle), (x(max), middle)], TEXT);
            area.draw(&spread).map_err(line::<B>)?;
        }
        let mut end = to.max(x(max));
        if let Some(at) = goal.map(x) {
            let mark = PathElement::new([(at, top), (at, top + BAR)], GOAL.stroke_width(2));
            area.draw(&mark).map_err(line::<B>)?;
            // The number stands beside the mark, not on it.
            let width = 8 * figure(median).len() as i32;
            if (end..end + width).contains(&at) {
                end = at;
            }
        }
        area.draw_text(&figure(median), &number, (end + 5, middle)).map_err(line::<B>)
    }
}

/// A key for a colour: a box, or for the goal its line.
pub(super) fn swatch<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): (i32, i32),
    colour: RGBColor,
    is_line: bool,
) -> Result<(), String> {
    if is_line {
        let goal = PathElement::new([(x + 6, y - 2), (x + 6, y + 13)], GOAL.stroke_width(2));
        return area.draw(&goal).map_err(line::<B>);
    }
    let key = Rectangle::new([(x, y), (x + 12, y + 11)], colour.filled());
    area.draw(&key).map_err(line::<B>)
}

fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().into()
}

/// The powers of ten around a range; at least one apart.
fn decades(low: f64, high: f64) -> (f64, f64) {
    // A bar for the least is to have a length, too.
    let first = (low * 0.8).log10().floor();
    let last = high.log10().ceil().max(first + 1.0);
    (10_f64.powf(first), 10_f64.powf(last))
}

/// A power of ten in short.
fn power(value: f64) -> String {
    match value {
        _ if value >= 0.9e6 => format!("{:.0}M", value / 1e6),
        _ if value >= 0.9e3 => format!("{:.0}k", value / 1e3),
        _ if value >= 0.9 => format!("{value:.0}"),
        _ => {
            let digits = -value.log10().round() as usize;
            format!("{value:.digits$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_begin_and_end_at_powers_of_ten() {
        let close = |(low, high): (f64, f64), (l, h): (f64, f64)| {
            assert!((low / l - 1.0).abs() < 1e-9 && (high / h - 1.0).abs() < 1e-9, "{low} {high}");
        };
        close(decades(0.05, 120.0), (0.01, 1000.0));
        close(decades(3.0, 3.0), (1.0, 10.0));
        // Not at the least itself: its bar would be empty.
        close(decades(1.0, 10.0), (0.1, 10.0));
    }

    #[test]
    fn powers_are_short() {
        for (value, text) in
            [(0.001, "0.001"), (1.0, "1"), (100.0, "100"), (1e4, "10k"), (1e6, "1M")]
        {
            assert_eq!(power(value), text);
        }
    }
}
