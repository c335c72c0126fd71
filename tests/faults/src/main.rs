//! Prints the result of every fault, on the fakes and in the test VMM.
//!
//! With an argument, it prints only the faults whose names contain it. `FIRSTLIGHT_IMAGE` names the image's file. With
//! `--names` it prints only their names.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, ensure};
use comfy_table::presets::ASCII_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use faults::{FAULTS, Fakes, Vmm, run};

/// Columns of the terminal that the table takes.
const WIDTH: u16 = 150;

/// What asks for the names.
const NAMES: &str = "--names";

fn main() -> ExitCode {
    // In one sentence, without the trace that a `Result` would be printed with.
    print_faults().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_faults() -> anyhow::Result<ExitCode> {
    let image = env::var_os("FIRSTLIGHT_IMAGE").map(fs::read).transpose().context("FIRSTLIGHT_IMAGE cannot be read")?;
    let wanted = env::args().nth(1).unwrap_or_default();
    if wanted == NAMES {
        FAULTS.iter().for_each(|fault| println!("{}", fault.name));
        return Ok(ExitCode::SUCCESS);
    }
    let (mut fakes, mut vmm) = (Fakes::default(), Vmm::new(image));
    let mut table = Table::new();
    table.load_style(ASCII_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["fault, and what the host does", "on the fakes", "in the test VMM"]);
    let (mut tried, mut problems) = (0, Vec::new());
    for fault in FAULTS.iter().filter(|fault| fault.name.contains(&wanted)) {
        let reports = [run(fault, &mut fakes), run(fault, &mut vmm)];
        let [on_fakes, in_vmm] = reports.each_ref().map(|report| report.happened.as_str());
        let in_vmm = if in_vmm == on_fakes { "the same" } else { in_vmm };
        table.add_row([&format!("{}: {}", fault.name, fault.what), on_fakes, in_vmm]);
        tried += 1;
        for (report, place) in reports.iter().zip(["on the fakes", "in the test VMM"]) {
            problems.extend(report.problems.iter().map(|problem| format!("{} {place}: {problem}", fault.name)));
        }
    }
    ensure!(tried > 0, "no fault has {wanted} in its name");
    println!("{table}");
    println!("\nThe heap was never fuller than {} of {} bytes.", fakes.most_heap, Fakes::HEAP);
    for problem in &problems {
        eprintln!("{problem}");
    }
    println!("{tried} faults tried, {} findings.", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
