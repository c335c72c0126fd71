//! The report as a chart: a stacked bar per firmware, one panel a scenario.
//!
//! The chart brings its own background, light or dark as the reader's page is said to be, so that it can be read on
//! either.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Measured, PHASES, Report, Row, shown};

/// The width of the chart, and the heights of its parts, in pixels.
const WIDTH: u32 = 900;
const HEAD: u32 = 76;
const PANEL_HEAD: u32 = 34;
const BAR: u32 = 26;
const AXIS: u32 = 34;

/// Where the bars start, and how much room is right of them for their numbers.
const LEFT: u32 = 110;
const RIGHT: u32 = 150;

/// The colours on a light page, and those that stand for them on a dark one. No two are the same, as they are replaced
/// by name.
const PAGE: Tone = Tone { light: RGBColor(0xff, 0xff, 0xff), dark: "#0d1117" };
const TEXT: Tone = Tone { light: RGBColor(0x1f, 0x23, 0x28), dark: "#e6edf3" };
const QUIET: Tone = Tone { light: RGBColor(0x59, 0x63, 0x6e), dark: "#9198a1" };
const GRID: Tone = Tone { light: RGBColor(0xd1, 0xd9, 0xe0), dark: "#3d444d" };
/// One a phase, told apart by brightness as well as by hue.
const PHASE: [Tone; 4] = [
    Tone { light: RGBColor(0xa8, 0xb1, 0xbb), dark: "#6e7681" },
    Tone { light: RGBColor(0xd2, 0x5a, 0x0b), dark: "#f0883e" },
    Tone { light: RGBColor(0x1f, 0x6f, 0xd6), dark: "#58a6ff" },
    Tone { light: RGBColor(0x2b, 0x8a, 0x3f), dark: "#56d364" },
];

struct Tone {
    light: RGBColor,
    dark: &'static str,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The chart.
///
/// # Errors
/// When the chart library fails.
pub fn render(report: &Report) -> anyhow::Result<String> {
    let height = HEAD + report.scenarios.iter().map(panel_height).sum::<u32>();
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        draw(report, &root).map_err(|error| anyhow!("cannot draw the chart: {error}"))?;
    }
    Ok(with_dark_colours(&text))
}

fn panel_height(measured: &Measured) -> u32 {
    PANEL_HEAD + BAR * u32::try_from(measured.rows.len() + 1).unwrap_or(1) + AXIS
}

fn draw(report: &Report, root: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&PAGE.light)?;
    let (head, mut rest) = root.split_vertically(HEAD);
    legend(report, &head)?;
    for measured in &report.scenarios {
        let (panel, below) = rest.split_vertically(panel_height(measured));
        draw_panel(measured, &panel)?;
        rest = below;
    }
    Ok(())
}

fn legend(report: &Report, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    area.draw(&Text::new("Boot time by phase, medians in ms", (12, 10), font(15.0, &TEXT.light)))?;
    let note = format!("At the end of a bar: the total (and what is over the base line). {}", report.host.qemu);
    area.draw(&Text::new(note, (12, 32), font(11.0, &QUIET.light)))?;
    let linux = report.scenarios.iter().any(|measured| measured.scenario.payload.is_linux());
    let mut x = 12;
    for (phase, tone) in PHASES.iter().zip(&PHASE).take(if linux { 4 } else { 3 }) {
        area.draw(&Rectangle::new([(x, 54), (x + 12, 66)], tone.light.filled()))?;
        area.draw(&Text::new(phase.name, (x + 18, 54), font(12.0, &TEXT.light)))?;
        x += 40 + 8 * i32::try_from(phase.name.len())?;
    }
    Ok(())
}

fn draw_panel(measured: &Measured, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    area.draw(&Text::new(measured.name.clone(), (12, 12), font(13.0, &TEXT.light)))?;
    let rows: Vec<_> = std::iter::once(&measured.base_line).chain(&measured.rows).collect();
    let totals: Vec<_> = rows.iter().map(|row| total(row)).collect();
    let end = axis_end(&totals);

    let count = rows.len();
    let mut chart = ChartBuilder::on(area)
        .margin_top(PANEL_HEAD)
        .margin_right(RIGHT)
        .x_label_area_size(AXIS)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end, count as f64..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&|millis| format!("{millis}"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.light)
        .axis_style(GRID.light)
        .label_style(font(11.0, &QUIET.light))
        .draw()?;

    for (number, row) in rows.iter().enumerate() {
        let (top, bottom) = (number as f64 + 0.18, number as f64 + 0.82);
        let mut from = 0.0;
        for (phase, tone) in PHASES.iter().zip(&PHASE) {
            let Some(time) = (phase.time)(&row.times) else { continue };
            let to = from + time.median;
            if from < end {
                let shape = Rectangle::new([(from, top), (to.min(end), bottom)], tone.light.filled());
                chart.draw_series(std::iter::once(shape))?;
            }
            from = to;
        }
        let label = |text: String, x: f64, offset: i32, side: HPos, tone: &Tone| {
            let style = font(12.0, &tone.light).pos(Pos::new(side, VPos::Center));
            EmptyElement::at((x, number as f64 + 0.5)) + Text::new(text, (offset, 0), style)
        };
        chart.draw_series(std::iter::once(label(
            row.firmware.chars().take(16).collect(),
            0.0,
            -8,
            HPos::Right,
            &TEXT,
        )))?;
        let (text, tone) = note(row, from, end);
        let x = from.min(end);
        chart.draw_series(std::iter::once(label(text, x, 8, HPos::Left, tone)))?;
    }
    Ok(())
}

/// What stands at the end of a bar.
fn note(row: &Row, total: f64, end: f64) -> (String, &'static Tone) {
    let Some(times) = row.times.total else {
        let reason = row.failure.as_deref().unwrap_or("not measured");
        let short = if reason.starts_with("missing") { "missing" } else { reason.split(';').next().unwrap_or(reason) };
        return (short.chars().take(80).collect(), &QUIET);
    };
    let mut text = shown(times.median);
    if total > end {
        text = format!("→ {text} (cut off)");
    } else if let Some(over) = row.times.over_base_line {
        text = format!("{text} (+{})", shown(over.median));
    }
    (text, &TEXT)
}

/// The sum of a row's phases.
fn total(row: &Row) -> f64 {
    PHASES.iter().filter_map(|phase| (phase.time)(&row.times)).map(|time| time.median).sum()
}

/// Where the axis ends: at the longest bar, but one that is far longer than the others is cut off.
fn axis_end(totals: &[f64]) -> f64 {
    let mut sorted = totals.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let longest = match sorted.as_slice() {
        [first, second, ..] if *second > 0.0 && *first > 3.0 * second => 1.5 * second,
        [first, ..] => *first,
        [] => 0.0,
    };
    longest.max(1.0)
}

/// Text of a size in pixels.
fn font(size: f64, colour: &RGBColor) -> TextStyle<'static> {
    // The library's SVG backend divides the size by this, to have it in points.
    const POINTS: f64 = 1.24;
    ("system-ui, sans-serif", size * POINTS).into_font().color(colour)
}

/// Adds the rules that replace the light page's colours on a dark one.
fn with_dark_colours(svg: &str) -> String {
    let tones = [&PAGE, &TEXT, &QUIET, &GRID].into_iter().chain(&PHASE);
    let rules: String = tones
        .map(|tone| {
            let RGBColor(red, green, blue) = tone.light;
            let (light, dark) = (format!("#{red:02X}{green:02X}{blue:02X}"), tone.dark);
            format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
        })
        .collect();
    let style = format!("<style>@media (prefers-color-scheme:dark){{{rules}}}</style>");
    match svg.split_once('>') {
        Some((start, rest)) => format!("{start}>\n{style}{rest}"),
        None => svg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_chart_has_a_bar_for_each_phase_and_a_word_for_each_failure() {
        let svg = render(&example()).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for wanted in ["firstlight", "did not reach the kernel", "cut off", "#D25A0B", "prefers-color-scheme"] {
            assert!(svg.contains(wanted), "{wanted} in {svg}");
        }
        // The firmware's name is escaped.
        assert!(!svg.contains("<broken>"));
    }

    #[test]
    fn every_colour_has_one_for_dark_pages() {
        let svg = render(&example()).unwrap();
        for part in svg.split("fill=\"#").skip(1) {
            let colour = format!("[fill=\"#{}\"]", &part[..6]);
            assert!(svg.contains(&colour), "{colour}");
        }
    }

    #[test]
    fn one_bar_far_longer_than_the_rest_does_not_squeeze_them() {
        assert_eq!(axis_end(&[50.0, 60.0, 3000.0]), 90.0);
        assert_eq!(axis_end(&[50.0, 60.0, 100.0]), 100.0);
        assert_eq!(axis_end(&[0.0, 0.0]), 1.0);
        assert_eq!(axis_end(&[]), 1.0);
    }
}
