//! The report as a chart: a stacked bar per firmware, one panel a scenario.
//!
//! The chart is as wide as the page, and its text is readable at 400 pixels. It has its own background, light or dark as the
//! page's color scheme. Screen readers get the totals in words.

use maud::{Markup, PreEscaped, html};

use super::{Measured, PHASES, Report, Row, Run};
use crate::numbers::{millions, shown};

/// The width of the chart in its own units. A smaller width makes the text larger.
const WIDTH: f64 = 520.0;
/// The heights of a line of text, a panel's title, a bar's line, and the axis below the bars.
const LINE: f64 = 20.0;
const PANEL_HEAD: f64 = 36.0;
const BAR: f64 = 26.0;
const AXIS: f64 = 30.0;
/// The space around everything.
const MARGIN: f64 = 12.0;

/// Where the bars start and end. On the right is room for their numbers.
const LEFT: f64 = 122.0;
const RIGHT: f64 = WIDTH - 116.0;

/// The approximate width of a character, to break lines and to place the legend.
const CHARACTER: f64 = 7.6;

/// Each class with its colour on a light page and on a dark one. The first four are the phases, which differ in brightness as well
/// as in hue.
const TONES: [(&str, &str, &str); 8] = [
    ("p0", "#a8b1bb", "#6e7681"),
    ("p1", "#d25a0b", "#f0883e"),
    ("p2", "#1f6fd6", "#58a6ff"),
    ("p3", "#2b8a3f", "#56d364"),
    ("page", "#ffffff", "#0d1117"),
    ("text", "#1f2328", "#e6edf3"),
    ("quiet", "#59636e", "#9198a1"),
    ("grid", "#d1d9e0", "#3d444d"),
];

/// The chart, as a file of its own or as part of a page.
pub fn render(report: &Report) -> String {
    let mut y = MARGIN;
    let head = head(report, &mut y);
    let panels: Vec<_> = report.scenarios.iter().map(|measured| panel(measured, &mut y)).collect();
    let markup = html! {
        svg.chart xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (y + MARGIN) } role="img"
            aria-labelledby="chart-title chart-text" {
            title #chart-title { "Boot time by phase" }
            desc #chart-text { (in_words(report)) }
            style { (PreEscaped(style())) }
            rect.page width="100%" height="100%" {}
            (head)
            @for panel in panels { (panel) }
        }
    };
    markup.into_string() + "\n"
}

/// The rules for text and colours. They apply inside the chart only, also if it is part of a page.
fn style() -> String {
    let rules = |pick: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        TONES.iter().map(|tone| format!(".chart .{}{{fill:{}}}", tone.0, pick(tone))).collect::<String>()
    };
    format!(
        ".chart text{{font:14px system-ui,sans-serif}}.chart .title{{font-size:17px;font-weight:600}}\
         .chart .name{{font-weight:600}}{}@media (prefers-color-scheme:dark){{{}}}",
        rules(|tone| tone.1),
        rules(|tone| tone.2)
    )
}

/// The totals in words.
fn in_words(report: &Report) -> String {
    let scenario = |measured: &Measured| {
        let rows = std::iter::once(&measured.base_line).chain(&measured.rows).map(|row| match row.median_run {
            Some(run) => {
                let host = row.host_instructions.map(|host| shown(millions(host.instructions)));
                let host = host.map(|host| format!(", {host} M host instructions")).unwrap_or_default();
                format!("{} {} ms{host}", row.firmware, shown(run.total()))
            }
            None => format!("{}: {}", row.firmware, reason(row)),
        });
        format!("{}: {}.", measured.name, rows.collect::<Vec<_>>().join("; "))
    };
    report.scenarios.iter().map(scenario).collect::<Vec<_>>().join(" ")
}

/// The title, the legend and the caption. Moves `y` below them.
fn head(report: &Report, y: &mut f64) -> Markup {
    let linux = report.scenarios.iter().any(|measured| measured.scenario.payload.is_linux());
    let mut line = || {
        *y += LINE;
        *y
    };
    let title = line();
    let mut legend = Vec::new();
    let (mut x, mut row) = (MARGIN, line() + 4.0);
    for (number, name) in PHASES.iter().enumerate().take(if linux { 4 } else { 3 }) {
        let width = 20.0 + CHARACTER * name.len() as f64 + MARGIN;
        if x + width > WIDTH {
            (x, row) = (MARGIN, line() + 4.0);
        }
        legend.push((number, name, x, row));
        x += width;
    }
    let host = if report.has_host_instructions() {
        "; behind it are the host instructions over the base line, in millions (M), which do not depend on the load of the \
         machine"
    } else {
        ""
    };
    let caption = format!(
        "Each bar is the run with the median total, with that total in ms behind it{host}; → means that the bar is longer. {} {}",
        report.noise(),
        report.host.qemu
    );
    let caption: Vec<_> = wrapped(&caption).into_iter().map(|text| (text, line() + 6.0)).collect();
    *y += LINE;
    html! {
        text.text.title x=(MARGIN) y=(title) { "Boot time by phase, ms" }
        @for (number, name, x, y) in legend {
            rect class={ "p" (number) } x=(x) y=(y - 11.0) width="12" height="12" {}
            text.text x=(x + 18.0) y=(y) { (name) }
        }
        @for (text, y) in caption { text.quiet x=(MARGIN) y=(y) { (text) } }
    }
}

/// A scenario. Moves `y` below it.
fn panel(measured: &Measured, y: &mut f64) -> Markup {
    let title: Vec<_> = wrapped(&measured.name).into_iter().enumerate().collect();
    let first = *y + LINE;
    let top = *y + PANEL_HEAD + LINE * (title.len() as f64 - 1.0);
    let rows: Vec<_> = std::iter::once(&measured.base_line).chain(&measured.rows).collect();
    let totals: Vec<_> = rows.iter().filter_map(|row| row.median_run.as_ref().map(Run::total)).collect();
    let end = axis_end(&totals);
    let bottom = top + BAR * rows.len() as f64;
    *y = bottom + AXIS;
    html! {
        @for (number, text) in title { text.text.name x=(MARGIN) y=(first + LINE * number as f64) { (text) } }
        @for tick in ticks(end) {
            rect.grid x=(tenths(at(tick, end) - 0.5)) y=(top) width="1" height=(bottom - top) {}
            text.quiet x=(tenths(at(tick, end))) y=(bottom + 16.0) text-anchor="middle" { (tick) }
        }
        @for (number, row) in rows.iter().enumerate() { (bar(row, top + BAR * number as f64, end)) }
    }
}

/// The bar of a firmware below `y`, on an axis that ends at `end` milliseconds.
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
        None => reason(row).chars().take(46).collect(),
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

/// In a few words, why a row has no times.
fn reason(row: &Row) -> &str {
    let reason = row.failure.as_deref().unwrap_or("not measured");
    if reason.starts_with("missing") { "missing" } else { reason.split(';').next().unwrap_or(reason) }
}

/// Where a time is on the axis.
fn at(millis: f64, end: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * millis / end
}

/// A number with one decimal, for the file.
fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// The end of the axis: the longest bar. A bar that is far longer than the others is cut off.
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

/// Up to six round numbers from zero to `end`, in equal steps of 1, 2 or 5 times a power of ten.
fn ticks(end: f64) -> Vec<f64> {
    let power = 10_f64.powf((end / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| end / step <= 5.0);
    let step = step.unwrap_or(end);
    // Removes the last digits of binary fractions.
    let rounded = |tick: f64| (tick * 1e3).round() / 1e3;
    (0..6).map(|number| rounded(f64::from(number) * step)).filter(|tick| *tick <= end).collect()
}

/// A text in lines that fit the chart.
fn wrapped(text: &str) -> Vec<String> {
    let most = ((WIDTH - 2.0 * MARGIN) / CHARACTER) as usize;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < most => {
                line.extend([if line.is_empty() { "" } else { " " }, word]);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
