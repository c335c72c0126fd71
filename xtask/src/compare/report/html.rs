//! The report as one HTML file that needs no other.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Report, Row, shown, table};

/// Colours for a light and a dark page.
const STYLE: &str = "
:root { color-scheme: light dark; --text: #1f2328; --page: #ffffff; --line: #d1d9e0; --quiet: #59636e; --code: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --page: #0d1117; --line: #3d444d; --quiet: #9198a1; --code: #151b23; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td small { color: var(--quiet); display: block; white-space: nowrap; }
pre { background: var(--code); padding: .6rem; overflow-x: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; }
.failure { color: var(--quiet); }
svg { max-width: 100%; height: auto; }
";

/// The page. `chart` is the chart's SVG.
pub fn render(report: &Report, chart: &str) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Boot time compared" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Boot time compared" }
                p { "Made by " code { (report.command) } " on " (report.date) "." }
                div.wide { (PreEscaped(chart)) }
                @for overview in table::overviews(report) { (words(&overview)) }
                p { (report.explanation()) }
                @for measured in &report.scenarios {
                    h2 { (measured.name) }
                    (words(&table::times(measured, &report.reference)))
                    @if measured.rows.iter().any(|row| row.counts.is_some()) {
                        (words(&table::counts(measured)))
                    }
                    @for row in &measured.rows { (remarks(row)) }
                    details {
                        summary { "QEMU command lines" }
                        @for row in std::iter::once(&measured.base_line).chain(&measured.rows) {
                            @if !row.command.is_empty() {
                                p { (row.firmware) " (" (row.runs) " runs):" }
                                pre { (row.command) }
                            }
                        }
                    }
                }
                h2 { "Versions and machine" }
                dl {
                    @for firmware in &report.firmware {
                        dt { (firmware.name) }
                        dd { (firmware.version) }
                    }
                    dt { "QEMU" }
                    dd { (report.host.qemu) }
                    dt { "CPU" }
                    dd { (report.host.cpu) " (" (report.host.cpus) ")" }
                    dt { "System" }
                    dd { (report.host.system) ", Linux " (report.host.kernel) }
                }
            }
        }
    };
    markup.into_string()
}

fn words(words: &table::Words) -> Markup {
    html! {
        div.wide {
            table {
                @for (number, line) in words.iter().enumerate() {
                    tr {
                        @for word in line {
                            @if number == 0 { th { (word) } }
                            @else { (cell(word)) }
                        }
                    }
                }
            }
        }
    }
}

/// A cell; what stands in its second line is less important.
fn cell(word: &str) -> Markup {
    match word.split_once('\n') {
        Some((first, second)) => html! { td { (first) small { (second) } } },
        None => html! { td { (word) } },
    }
}

fn remarks(row: &Row) -> Markup {
    html! {
        @if let Some(failure) = &row.failure {
            p.failure { (row.firmware) ": " (failure) }
        }
        @if let Some(counts) = &row.counts {
            @if !counts.topology.is_empty() {
                details {
                    summary { (row.firmware) ": topology writes" }
                    pre { @for write in &counts.topology { (write) "\n" } }
                }
            }
        }
        @if !row.trace_points.is_empty() {
            p { (row.firmware) ": trace points" }
            ul {
                @for point in &row.trace_points {
                    li { (shown(point.at)) " ms: " (point.meaning()) " (" (point.code) ")" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_escapes_what_it_shows() {
        let page = render(&example(), "<svg></svg>");
        assert!(page.contains("<svg></svg>"));
        assert!(page.contains("&lt;broken&gt;") && !page.contains("<broken>"));
        assert!(page.contains("'a &amp; b'"));
        for outside in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
