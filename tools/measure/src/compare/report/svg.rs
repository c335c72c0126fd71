//! The report as a chart: a stacked bar per firmware, one panel a scenario.
//!
//! The chart is as wide as the page, and its text is readable at 400 pixels. It has its own background, light or dark as the
//! page's color scheme. The total is behind each bar, so there is no axis.

use maud::{Markup, PreEscaped, html};

use super::{Measured, PHASES, Report, Row, Run};
use crate::numbers::{millions, shown};

/// The width of the chart in its own units. A smaller width makes the text larger.
const WIDTH: f64 = 520.0;
/// The heights of a line of text, a panel's title and a bar's line.
const LINE: f64 = 20.0;
const PANEL_HEAD: f64 = 36.0;
const BAR: f64 = 26.0;
/// The space around everything.
const MARGIN: f64 = 12.0;

/// Where the bars start and end. On the right is room for their numbers.
const LEFT: f64 = 122.0;
const RIGHT: f64 = WIDTH - 116.0;

/// The approximate width of a character, to place the legend.
const CHARACTER: f64 = 7.0;

/// The text and the colours, on a light page and on a dark one. `p0` to `p3` are the phases, which differ in brightness as well as
/// in hue.
const STYLE: &str = "\
.chart text{font:14px system-ui,sans-serif}.chart .title{font-size:17px;font-weight:600}.chart .name{font-weight:600}\
.chart .p0{fill:#a8b1bb}.chart .p1{fill:#d25a0b}.chart .p2{fill:#1f6fd6}.chart .p3{fill:#2b8a3f}\
.chart .page{fill:#ffffff}.chart .text{fill:#1f2328}.chart .quiet{fill:#59636e}\
@media (prefers-color-scheme:dark){\
.chart .p0{fill:#6e7681}.chart .p1{fill:#f0883e}.chart .p2{fill:#58a6ff}.chart .p3{fill:#56d364}\
.chart .page{fill:#0d1117}.chart .text{fill:#e6edf3}.chart .quiet{fill:#9198a1}}";

/// The chart.
pub fn render(report: &Report) -> String {
    let linux = report.scenarios.iter().any(|measured| measured.scenario.payload.is_linux());
    let mut x = MARGIN;
    let legend = PHASES.iter().take(if linux { 4 } else { 3 }).enumerate().map(|(number, name)| {
        let start = x;
        x += 20.0 + CHARACTER * name.len() as f64 + MARGIN;
        (number, name, start)
    });
    let mut y = MARGIN + 2.0 * LINE;
    let panels: Vec<_> = report.scenarios.iter().map(|measured| panel(measured, &mut y)).collect();
    let markup = html! {
        svg.chart xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (y + MARGIN) } role="img"
            aria-labelledby="chart-title" {
            title #chart-title { "Boot time by phase, ms" }
            style { (PreEscaped(STYLE)) }
            rect.page width="100%" height="100%" {}
            text.text.title x=(MARGIN) y=(MARGIN + LINE - 4.0) { "Boot time by phase, ms" }
            @for (number, name, x) in legend {
                rect class={ "p" (number) } x=(x) y=(MARGIN + 2.0 * LINE - 11.0) width="12" height="12" {}
                text.text x=(x + 18.0) y=(MARGIN + 2.0 * LINE) { (name) }
            }
            @for panel in panels { (panel) }
        }
    };
    markup.into_string() + "\n"
}

/// A scenario. Moves `y` below it.
fn panel(measured: &Measured, y: &mut f64) -> Markup {
    let top = *y;
    let totals: Vec<_> = measured.all_rows().filter_map(|row| Some(row.median_run.as_ref()?.total())).collect();
    let end = axis_end(&totals);
    *y += PANEL_HEAD + BAR * measured.all_rows().count() as f64;
    html! {
        text.text.name x=(MARGIN) y=(top + PANEL_HEAD - 8.0) { (measured.name) }
        @for (number, row) in measured.all_rows().enumerate() { (bar(row, top + PANEL_HEAD + BAR * number as f64, end)) }
    }
}

/// The bar of a firmware below `y`, where `end` milliseconds are at the right end.
fn bar(row: &Row, y: f64, end: f64) -> Markup {
    let mut parts = Vec::new();
    let mut from = 0.0;
    let phases = row.median_run.as_ref().map(Run::phases).unwrap_or_default();
    for (number, time) in phases.into_iter().enumerate() {
        let to = from + time.unwrap_or(0.0);
        if from < end {
            parts.push((number, at(from, end), at(to.min(end), end)));
        }
        from = to;
    }
    let note = match &row.median_run {
        None => row.failure.as_deref().unwrap_or("not measured").chars().take(46).collect(),
        Some(run) => {
            let goes_on = if run.total() > end { "→ " } else { "" };
            let host = row.host_instructions.map(|host| format!(" · {} M", shown(millions(host.instructions))));
            format!("{goes_on}{}{}", shown(run.total()), host.unwrap_or_default())
        }
    };
    let tone = if row.median_run.is_some() { "text" } else { "quiet" };
    html! {
        text.text x=(LEFT - 8.0) y=(y + 18.0) text-anchor="end" { (row.firmware.chars().take(14).collect::<String>()) }
        @for (number, start, end) in parts {
            rect class={ "p" (number) } x=(tenths(start)) y=(y + 4.0) width=(tenths(end - start)) height=(BAR - 8.0) {}
        }
        text class=(tone) x=(tenths(at(from.min(end), end) + 6.0)) y=(y + 18.0) { (note) }
    }
}

/// Where a time is.
fn at(millis: f64, end: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * millis / end
}

/// A number with one decimal, for the file.
fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// The time at the right end: the longest bar. A bar that is far longer than the others is cut off.
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
