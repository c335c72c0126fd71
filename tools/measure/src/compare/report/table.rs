//! The report as tables for a terminal.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use super::{COUNTS, Measured, NONE, Report, Row, Words, extras};
use crate::compare::stats::Summary;
use crate::numbers::{grouped, millions, shown};

/// The tables of every scenario, and the explanation, for a terminal of this width.
pub fn render(report: &Report, width: Option<u16>) -> String {
    let mut text = String::new();
    for measured in &report.scenarios {
        text.push_str(&format!("\n{}\n", measured.name));
        text.push_str(&format!("{}\n", lay_out(&times(measured), width)));
        if measured.rows.iter().any(|row| row.counts.is_some()) {
            text.push_str(&format!("{}\n", lay_out(&counts(measured), width)));
        }
        for row in &measured.rows {
            for why in row.failure.iter().chain(&row.not_counted) {
                text.push_str(&format!("{}: {why}\n", row.firmware));
            }
        }
    }
    for overview in overviews(report).into_iter().chain(extras::tables(report)) {
        text.push_str(&format!("\n{}\n", lay_out(&overview, width)));
    }
    text.push('\n');
    text.push_str(&measured_version(report));
    text.push_str(&format!("{} {}\n", report.explanation(), report.noise()));
    text
}

/// The overviews in Markdown, for a README.
pub fn markdown(report: &Report) -> String {
    let tables = overviews(report).into_iter().chain(extras::tables(report)).map(|words| {
        let mut table = lay_out(&words, None);
        table.load_style(ASCII_MARKDOWN);
        table.to_string()
    });
    tables.collect::<Vec<_>>().join("\n\n") + "\n" + &measured_version(report)
}

/// The line that names the measured version, if this firmware was measured.
fn measured_version(report: &Report) -> String {
    report.version.as_ref().map(|version| format!("\nMeasured: {version}.\n")).unwrap_or_default()
}

/// A value of a row for an overview.
type Value = fn(&Row) -> Option<String>;

/// For the most important values, a table of every firmware in every scenario.
pub fn overviews(report: &Report) -> Vec<Words> {
    let values: [(&str, Value); 4] = [
        ("time over base line, ms", |row| row.times.over_base_line.map(|over| shown(over.median))),
        ("host instructions over base line, M", |row| Some(shown(millions(row.host_instructions?.instructions)))),
        ("exits (KVM)", |row| row.counts.as_ref()?.exits.map(grouped)),
        ("instructions", |row| row.counts.as_ref()?.instructions.map(grouped)),
    ];
    let tables = values.into_iter().map(|(name, value)| overview(report, name, value));
    // The first row has the heads, and the first column the scenarios.
    tables.filter(|words| words.iter().skip(1).any(|line| line.iter().skip(1).any(|word| word != NONE))).collect()
}

fn overview(report: &Report, name: &str, value: Value) -> Words {
    let heads = std::iter::once(name.to_owned()).chain(report.firmware.iter().cloned());
    let mut words = vec![heads.collect::<Vec<_>>()];
    for measured in &report.scenarios {
        let values = measured.rows.iter().map(|row| value(row).unwrap_or_else(|| NONE.to_owned()));
        words.push(std::iter::once(measured.name.clone()).chain(values).collect());
    }
    words
}

/// The times of a scenario.
fn times(measured: &Measured) -> Words {
    let linux = measured.scenario.payload.is_linux();
    let host = measured.rows.iter().any(|row| row.host_instructions.is_some());
    let mut heads = vec!["times in ms", "QEMU start", "firmware", "kernel loading"];
    heads.extend(linux.then_some("kernel to user space"));
    heads.extend(["total", "over base line"]);
    heads.extend(host.then_some("host instructions, M"));
    heads.push("entry");
    let mut words = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for row in measured.all_rows() {
        let times = &row.times;
        let [qemu, firmware, loading, kernel] = row.median_run.map(|run| run.phases()).unwrap_or_default();
        let mut line = vec![row.firmware.clone()];
        line.extend([(qemu, times.qemu), (firmware, times.firmware), (loading, times.loading)].map(in_spread));
        line.extend(linux.then(|| in_spread((kernel, times.kernel))));
        line.push(in_spread((row.median_run.map(|run| run.total()), times.total)));
        line.push(in_spread((times.over_base_line.map(|all| all.median), times.over_base_line)));
        line.extend(host.then(|| host_instructions(row)));
        line.push(outcome(row));
        words.push(line);
    }
    words
}

/// The counts of a scenario.
fn counts(measured: &Measured) -> Words {
    let heads = ["counts"].into_iter().chain(COUNTS.map(|(head, _)| head));
    let mut words = vec![heads.map(str::to_owned).collect()];
    for row in &measured.rows {
        let Some(counts) = &row.counts else { continue };
        let numbers = COUNTS.map(|(_, of)| of(counts).map_or_else(|| NONE.to_owned(), grouped));
        words.push(std::iter::once(row.firmware.clone()).chain(numbers).collect());
    }
    words
}

/// A time, with the minimum and the maximum of all runs below it.
fn in_spread((time, all): (Option<f64>, Option<Summary>)) -> String {
    time.zip(all).map_or_else(
        || NONE.to_owned(),
        |(time, all)| format!("{}\n{}–{}", shown(time), shown(all.min), shown(all.max)),
    )
}

/// The host instructions over the base line, with the spread of the runs below them.
fn host_instructions(row: &Row) -> String {
    row.host_instructions.map_or_else(
        || NONE.to_owned(),
        |host| format!("{}\nspread {}", shown(millions(host.instructions)), shown(millions(host.noise))),
    )
}

/// The entry point that was used, or what went wrong.
fn outcome(row: &Row) -> String {
    match (&row.failure, &row.end) {
        (Some(failure), _) if failure.starts_with("missing") => "missing".to_owned(),
        (Some(failure), _) if failure.starts_with("has no") => "no image".to_owned(),
        (Some(_), _) => "does not boot".to_owned(),
        (None, Some(end)) => end.clone(),
        (None, None) => NONE.to_owned(),
    }
}

fn lay_out(words: &Words, width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for (number, line) in words.iter().enumerate() {
        let cells = line.iter().enumerate().map(|(column, word)| {
            let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
            Cell::new(word).set_alignment(alignment)
        });
        if number == 0 {
            table.set_header(cells);
        } else {
            table.add_row(cells);
        }
    }
    table
}
