//! One panel: a title, and below it rows, each with a bar for every contender that measured it.

use std::io;

use plotters::chart::{ChartBuilder, ChartContext, LabelAreaPosition};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::prelude::{DrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontStyle, IntoFont, RGBColor};

use crate::catalogue::{self, SEXTON, Work};
use crate::run::{Measured, Record, RowRecord, figure, limit, sorted};

pub(super) const SEXTONS: RGBColor = RGBColor(0xd1, 0x49, 0x28);
pub(super) const OTHERS: RGBColor = RGBColor(0x8f, 0xa9, 0xc4);
pub(super) const LIMIT: RGBColor = RGBColor(0x7f, 0xa8, 0x6b);
pub(super) const GOAL: RGBColor = RGBColor(0x2a, 0x2a, 0x2a);
pub(super) const TEXT: RGBColor = RGBColor(0x22, 0x26, 0x2b);
pub(super) const FAINT: RGBColor = RGBColor(0x55, 0x5c, 0x64);
const FRAME: RGBColor = RGBColor(0xd5, 0xda, 0xe0);
const GRID: RGBColor = RGBColor(0xdd, 0xe2, 0xe8);

/// How large everything is, in pixels.
pub(super) struct Style {
    pub(super) head: u32,
    pub(super) title: u32,
    pub(super) text: u32,
    pub(super) column: u32,
    pub(super) most_columns: usize,
    pub(super) bar: i32,
    /// Where bars begin, and how much is left behind the longest for its number.
    pub(super) names: i32,
    pub(super) numbers: i32,
    /// Whether scales are logarithmic, with an axis; else they begin at 0.
    pub(super) is_logarithmic: bool,
}

/// A page of all rows, to be looked at in full size.
pub(super) const ALL: Style = Style {
    head: 17,
    title: 13,
    text: 10,
    column: 460,
    most_columns: 3,
    bar: 16,
    names: 122,
    numbers: 76,
    is_logarithmic: true,
};

/// A picture that is read at a width of 800 pixels.
pub(super) const LARGE: Style = Style {
    head: 19,
    title: 16,
    text: 15,
    column: 373,
    most_columns: 2,
    bar: 24,
    names: 124,
    numbers: 72,
    is_logarithmic: false,
};

/// From the edge of a panel to what is in it.
const MARGIN: i32 = 10;

impl Style {
    /// A font whose letters are of that size in an SVG, for which plotters divides sizes by 1.24.
    pub(super) fn font(&self, size: u32) -> FontDesc<'static> {
        ("sans-serif", f64::from(size) * 1.24).into_font()
    }

    fn title_height(&self) -> i32 {
        2 * self.title as i32
    }

    fn axis_height(&self) -> i32 {
        if self.is_logarithmic { 22 } else { 0 }
    }
}

/// What a panel shows.
pub(super) struct Panel {
    title: String,
    lines: Vec<Line>,
}

enum Line {
    /// What the bars below are of.
    Heading(String),
    Bar(Bar),
}

struct Bar {
    name: String,
    colour: RGBColor,
    /// Median, least and greatest, or why there are none.
    values: Result<[f64; 3], &'static str>,
    /// The goal is Sexton's, and so is its mark.
    goal: Option<f64>,
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Drawn, or what went wrong.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;
/// Across: the logarithm of a value, or the value. Down: lines.
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl Panel {
    /// The panel of a work, if any of it was measured, with all peers or the best of each row. The
    /// machine's limits have none: they are bars of the works that they limit.
    pub(super) fn of(record: &Record, work: Work, best: Option<usize>) -> Option<Panel> {
        let mut lines = Vec::new();
        for row in record.rows.iter().filter(|row| row.work == work.name()) {
            let Some(bars) = bars(record, row, best) else { continue };
            let more = if row.more_is_better { "; more is better" } else { "" };
            lines.push(Line::Heading(format!("{}: {}, {}{more}", row.id, row.title, row.unit)));
            lines.extend(bars.into_iter().map(Line::Bar));
            if let Some((name, value)) = limit(record, &row.id) {
                let (name, values) = (name.to_owned(), Ok([value; 3]));
                lines.push(Line::Bar(Bar { name, colour: LIMIT, values, goal: None }));
            }
        }
        let title = match (work.name(), work.title()) {
            (name, title) if name == title => title.to_owned(),
            (name, title) => format!("{name}: {title}"),
        };
        (work != Work::Limits && !lines.is_empty()).then_some(Panel { title, lines })
    }

    /// The panel of one row, if it was measured, in words for readers new to the rows.
    pub(super) fn of_row(record: &Record, id: &str, title: &str, best: usize) -> Option<Panel> {
        let row = record.row(id)?;
        let bars = bars(record, row, Some(best))?.into_iter();
        let bars = bars.map(|bar| Line::Bar(Bar { goal: None, ..bar }));
        let heading = Line::Heading(row.unit.clone());
        let title = catalogue::Row::find(id)?.sized(title, record.quick);
        Some(Panel { title, lines: [heading].into_iter().chain(bars).collect() })
    }

    pub(super) fn height(&self, style: &Style) -> u32 {
        let lines = style.bar * self.lines.len() as i32;
        (style.title_height() + lines + style.axis_height() + MARGIN / 2) as u32
    }

    /// Draws it into an area of its height.
    pub(super) fn draw(&self, area: &Area<'_>, style: &Style) -> Drawn {
        let (width, height) = area.dim_in_pixel();
        area.draw(&Rectangle::new([(0, 0), (width as i32 - 1, height as i32 - 1)], FRAME))?;
        let bold = style.font(style.title).style(FontStyle::Bold).color(&TEXT);
        area.draw_text(&self.title, &bold, (MARGIN, 8))?;

        let (first, last) = self.range(style);
        let lines = self.lines.len() as f64;
        let below = height as i32 - style.title_height() - style.axis_height();
        let mut chart = ChartBuilder::on(area)
            .margin_top(style.title_height())
            .margin_bottom((below - style.bar * self.lines.len() as i32).max(0))
            .margin_right(style.numbers)
            .set_label_area_size(LabelAreaPosition::Left, style.names)
            .set_label_area_size(LabelAreaPosition::Bottom, style.axis_height())
            .build_cartesian_2d(first..last, lines..0.0)?;
        if style.is_logarithmic {
            let mut mesh = chart.configure_mesh();
            mesh.disable_y_mesh().disable_y_axis().light_line_style(GRID.mix(0.0));
            mesh.bold_line_style(GRID).axis_style(GRID).x_label_style(style.font(9).color(&FAINT));
            mesh.x_labels((last - first) as usize + 1)
                .x_label_formatter(&|power| short(10_f64.powf(*power)));
            mesh.draw()?;
        }
        for (nth, line) in self.lines.iter().enumerate() {
            let middle = nth as f64 + 0.5;
            match line {
                Line::Heading(heading) => {
                    let at = EmptyElement::at((first, middle));
                    let text = style.font(style.text).color(&FAINT).pos(LEFT);
                    let to_edge = MARGIN - style.names;
                    chart.draw_series([at + Text::new(heading.clone(), (to_edge, 0), text)])?;
                }
                Line::Bar(bar) => bar.draw(&mut chart, style, middle)?,
            }
        }
        Ok(())
    }

    /// Where the scale begins and ends.
    fn range(&self, style: &Style) -> (f64, f64) {
        let bars = self.lines.iter().filter_map(|line| match line {
            Line::Heading(_) => None,
            Line::Bar(bar) => Some(bar.values.ok().into_iter().flatten().chain(bar.goal)),
        });
        let (low, high) = bars
            .flatten()
            .filter(|value| *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        match (high > 0.0, style.is_logarithmic) {
            (false, _) => (0.0, 1.0),
            (true, false) => (0.0, high),
            (true, true) => decades(low, high),
        }
    }
}

const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };

/// The bars of a row, of all peers or of the best, if one has a value.
fn bars(record: &Record, row: &RowRecord, best: Option<usize>) -> Option<Vec<Bar>> {
    let mut drawn = sorted(row);
    if let Some(best) = best {
        keep_the_best(&mut drawn, best);
    }
    let bars = drawn.into_iter().map(|measured| {
        let is_sextons = measured.peer() == SEXTON;
        let values = measured.spread().map(|it| [it.median, it.min, it.max]);
        Bar {
            name: measured.by.clone(),
            colour: if is_sextons { SEXTONS } else { OTHERS },
            values: values.ok_or_else(|| record.lack(row, measured).0),
            goal: row.goal.filter(|_| is_sextons),
        }
    });
    let bars: Vec<Bar> = bars.collect();
    bars.iter().any(|bar| bar.values.is_ok()).then_some(bars)
}

/// Keeps Sexton and the best peers, of each its best variant. A peer without a value is none.
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
    fn draw(&self, chart: &mut Chart<'_, '_>, style: &Style, middle: f64) -> Drawn {
        let (first, last) = (chart.x_range().start, chart.x_range().end);
        let pixel = (last - first) / f64::from(chart.plotting_area().dim_in_pixel().0.max(1));
        let across = |value: f64| {
            let at = if style.is_logarithmic { value.log10() } else { value };
            at.clamp(first, last)
        };
        let name = style.font(style.text).color(&TEXT).pos(RIGHT);
        let name = Text::new(self.name.clone(), (-MARGIN, 0), name);
        chart.draw_series([EmptyElement::at((first, middle)) + name])?;
        let (text, mut end) = match self.values {
            Err(why) => (why.to_owned(), first),
            Ok([median, min, max]) => {
                // However small: it was measured.
                let to = across(median).max(first + 3.0 * pixel);
                let corners = [(first, middle - 0.38), (to, middle + 0.38)];
                chart.draw_series([Rectangle::new(corners, self.colour.filled())])?;
                let spread = [(across(min), middle), (across(max), middle)];
                chart.draw_series([PathElement::new(spread, TEXT)])?;
                (figure(median), to.max(across(max)))
            }
        };
        if let Some(at) = self.goal.map(across) {
            let mark = [(at, middle - 0.5), (at, middle + 0.5)];
            chart.draw_series([PathElement::new(mark, GOAL.stroke_width(2))])?;
            // The number stands beside the mark, not on it.
            if (end..end + pixel * 8.0 * text.len() as f64).contains(&at) {
                end = at;
            }
        }
        let number = style.font(style.text - 1).color(&FAINT).pos(LEFT);
        let number = EmptyElement::at((end, middle)) + Text::new(text, (5, 0), number);
        chart.draw_series([number]).map(drop)
    }
}

/// The powers of ten around a range; at least one apart. The least value has a bar, too.
fn decades(low: f64, high: f64) -> (f64, f64) {
    let first = (low * 0.8).log10().floor();
    (first, high.log10().ceil().max(first + 1.0))
}

/// A power of ten in short.
fn short(value: f64) -> String {
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
        assert_eq!(decades(0.05, 120.0), (-2.0, 3.0));
        assert_eq!(decades(3.0, 3.0), (0.0, 1.0));
        // Not at the least itself: its bar would be empty.
        assert_eq!(decades(1.0, 10.0), (-1.0, 1.0));
    }

    #[test]
    fn powers_are_short() {
        for (value, text) in
            [(0.001, "0.001"), (1.0, "1"), (100.0, "100"), (1e4, "10k"), (1e6, "1M")]
        {
            assert_eq!(short(value), text);
        }
    }
}
