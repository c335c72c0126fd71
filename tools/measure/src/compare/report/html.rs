//! The report as one self-contained HTML file: the chart, the terminal's tables, and how it was made.

use maud::{DOCTYPE, PreEscaped, html};

use super::{Report, table};

/// Plain text for a light and a dark page.
const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
pre { overflow-x: auto; font-size: 13px; line-height: 1.2; }
svg { display: block; width: 100%; max-width: 45rem; }
";

/// The page. `chart` is the chart's SVG.
pub fn render(report: &Report, chart: &str) -> String {
    let commands = report.scenarios.iter().flat_map(|measured| {
        std::iter::once(&measured.base_line).chain(&measured.rows).filter(|row| !row.command.is_empty())
    });
    let topology = report.scenarios.iter().flat_map(|measured| {
        let rows = measured.rows.iter().filter_map(|row| Some((row, row.counts.as_ref()?)));
        rows.flat_map(|(row, counts)| counts.topology.iter().map(|write| (&measured.name, &row.firmware, write)))
    });
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
                pre { (table::render(report, None)) }
                h2 { "Writes after which QEMU rebuilt the guest's memory topology" }
                pre { @for (name, firmware, write) in topology { (name) ", " (firmware) ": " (write) "\n" } }
                h2 { "QEMU command lines" }
                pre { @for row in commands { (row.firmware) " (" (row.runs) " runs): " (row.command) "\n" } }
                h2 { "Versions and machine" }
                pre {
                    @for firmware in &report.firmware { (firmware.name) ": " (firmware.version) "\n" }
                    (report.host.qemu) "\n" (report.host.cpu) " (" (report.host.cpus) ")\n"
                    (report.host.system) ", Linux " (report.host.kernel) "\n"
                }
            }
        }
    };
    markup.into_string()
}
