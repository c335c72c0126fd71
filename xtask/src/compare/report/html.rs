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
caption, th:first-child { text-align: left; }
caption { color: var(--quiet); } th[scope=row] { font-weight: normal; }
td small { color: var(--quiet); display: block; white-space: nowrap; }
pre { background: var(--code); padding: .6rem; overflow-x: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; }
.failure { color: var(--quiet); }
svg { display: block; width: 100%; max-width: 45rem; }
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
                (PreEscaped(chart))
                @for overview in table::overviews(report) {
                    (words(&overview, &format!("{}: every firmware in every scenario", overview[0][0])))
                }
                p { (report.explanation()) }
                p { (report.noise()) }
                @for measured in &report.scenarios {
                    h2 { (measured.name) }
                    (words(&table::times(measured, &report.reference), &format!("Times: {}", measured.name)))
                    @if measured.rows.iter().any(|row| row.counts.is_some()) {
                        (words(&table::counts(measured), &format!("Counts: {}", measured.name)))
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

/// A table with its caption. The first line and the first word of each line are headings.
fn words(words: &table::Words, caption: &str) -> Markup {
    html! {
        div.wide {
            table {
                caption { (caption) }
                @for (number, line) in words.iter().enumerate() {
                    tr {
                        @for (column, word) in line.iter().enumerate() {
                            @if number == 0 { th scope="col" { (word) } }
                            @else if column == 0 { th scope="row" { (word) } }
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
        @for why in row.failure.iter().chain(&row.not_counted) {
            p.failure { (row.firmware) ": " (why) }
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
    fn every_table_has_a_caption_and_headings_of_rows_and_columns() {
        let mut report = example();
        report.scenarios[0].rows[1].not_counted = vec!["exits (KVM): why".to_owned()];
        let page = render(&report, "");
        let tables: Vec<_> = page.split("<table>").skip(1).collect();
        assert!(tables.len() > 3);
        for table in tables {
            assert!(table.starts_with("<caption>") && table.contains("scope=\"col\""), "{table}");
            assert!(table.contains("scope=\"row\"") && !table.contains("<th>"), "{table}");
        }
        assert!(page.contains("Noise: ") && page.contains("seabios: exits (KVM): why"));
    }

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
