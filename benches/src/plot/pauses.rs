//! The pauses of a program over time: a panel for each way to collect, on the same scales.

use plotters::chart::ChartBuilder;
use plotters::element::Circle;
use plotters::prelude::{IntoDrawingArea, SVGBackend, WHITE};
use plotters::style::Color;

use super::layout::describe;
use super::panel::{ALL, Area, Drawn, FAINT, OTHERS, SEXTONS, Style, TEXT};
use crate::catalogue::{PauseShape, Way};
use crate::run::{Record, Timeline};

/// The ways that are drawn, in reading order.
const WAYS: [Way; 4] = [Way::LocalStop, Way::Local, Way::Local200us, Way::Shared];

const SIZE: (u32, u32) = (800, 620);
const STYLE: Style = Style { text: 12, title: 14, ..ALL };
const HEAD_HEIGHT: u32 = 64;

/// Draws the sessions of the random graph.
pub(super) fn draw(record: &Record) -> Result<String, String> {
    let of = |way: Way| record.timelines.iter().find(|it| it.by == way.name());
    let panels: Vec<(Way, &Timeline)> =
        WAYS.into_iter().filter_map(|way| Some((way, of(way)?))).collect();
    if panels.is_empty() {
        return Err("the record has nothing to draw: no random graph".into());
    }
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw_all(&root, record, &panels).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

fn draw_all(root: &Area<'_>, record: &Record, panels: &[(Way, &Timeline)]) -> Drawn {
    root.fill(&WHITE)?;
    let nodes = PauseShape::Random.size(record.quick).nodes;
    let heading = format!(
        "The longest sessions of a program with {} live objects in a random graph",
        indicatif::HumanCount(nodes as u64)
    );
    root.draw_text(&heading, &STYLE.font(STYLE.head).color(&TEXT), (14, 10))?;
    let machine = describe(record);
    root.draw_text(&machine, &STYLE.font(STYLE.text - 1).color(&FAINT), (14, 38))?;

    let moments = || panels.iter().flat_map(|(_, timeline)| &timeline.longest);
    let seconds = moments().map(|it| it.0).fold(1.0, f64::max);
    let least = moments().map(|it| it.1).fold(0.01, f64::min).log10().floor();
    let most = moments().map(|it| it.1).fold(1.0, f64::max).log10().ceil();

    let areas = root.margin(HEAD_HEIGHT, 6, 6, 6).split_evenly((2, 2));
    for (area, (way, timeline)) in areas.iter().zip(panels) {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .caption(way.title(), STYLE.font(STYLE.title).color(&TEXT))
            .x_label_area_size(40)
            .y_label_area_size(58)
            .build_cartesian_2d(0.0..seconds, least..most)?;
        let decades = (most - least) as usize + 1;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .y_labels(decades)
            .x_labels(6)
            .x_desc("seconds since the heap was built")
            .y_desc("ms")
            .y_label_formatter(&|power| figure(*power))
            .label_style(STYLE.font(STYLE.text).color(&FAINT))
            .axis_desc_style(STYLE.font(STYLE.text).color(&FAINT))
            .draw()?;
        let is_stopping = *way == way.stopping();
        let colour = if is_stopping { OTHERS } else { SEXTONS };
        let points = timeline.longest.iter();
        chart.draw_series(
            points.map(|(end, took)| Circle::new((*end, took.log10()), 2, colour.filled())),
        )?;
    }
    root.present()
}

/// A power of ten, as a number of milliseconds.
fn figure(power: f64) -> String {
    let digits = (-power.round()).max(0.0) as usize;
    format!("{:.digits$}", 10_f64.powf(power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pauses::sample;

    #[test]
    fn every_way_that_was_measured_has_a_panel() {
        let picture = draw(&sample()).unwrap();
        let has = |way: Way| picture.contains(way.title());
        assert_eq!(WAYS.map(has), [true, true, false, false], "{picture}");
        assert!(picture.matches("<circle").count() == 4, "{picture}");
        let mut record = sample();
        record.timelines.clear();
        assert!(draw(&record).is_err());
    }

    #[test]
    fn powers_are_numbers() {
        assert_eq!([-2.0, 0.0, 3.0].map(figure), ["0.01", "1", "1000"]);
    }
}
