//! Faults of a host while the firmware runs: a list of them, what is expected of each, and two ways to try them.
//!
//! Each fault of [`FAULTS`] is tried on the whole boot: against the library's fakes ([`Fakes`]), with a heap as small as the
//! image's, and with the image in the test VMM ([`Vmm`]), if there is a KVM. A boot must continue or stop as expected, print
//! only what is expected, and write only the firmware's own memory and what it was asked to fill (`written.rs`).
//!
//! There is one test for each fault, with its name, which runs it on the fakes. The program prints a table of all of it
//! (`cargo xtask faults`).

mod disks;
mod efi;
mod heap;
mod host;
mod in_vmm;
mod list;
mod on_fakes;
mod outside;
mod pci;
mod written;

use std::collections::BTreeMap;
use std::fmt::{self, Write};

pub use in_vmm::Vmm;
pub use list::FAULTS;
pub use on_fakes::Fakes;

use host::Host;

/// The most lines that a boot may print: a fault's warnings must not hide another fault.
const MOST_LINES: usize = 12;

/// How many lines of a boot are in the table.
const SHOWN_LINES: usize = 3;

/// A fault.
pub struct Fault {
    /// Its name, and that of its test.
    pub name: &'static str,
    /// What the host does.
    pub what: &'static str,
    cases: Cases,
    host: fn(u32) -> Host,
    expected: Expected,
    vmm: InVmm,
}

/// For which numbers a fault is tried.
#[derive(Clone, Copy)]
enum Cases {
    /// From 0 up to this, exclusive.
    Below(u32),
    /// For the number of each DMA transfer that a boot makes, from 1 on.
    Transfers,
    /// For the number of each allocation that a boot makes, from 1 on.
    Allocations,
}

/// What is expected.
#[derive(Clone, Copy)]
struct Expected {
    may_go_on: bool,
    may_stop: bool,
    /// Whether a kernel has what the host has for it.
    intact: bool,
    /// What is printed: each line has one of these in it, and each of these is in a line of some case.
    lines: &'static [&'static str],
}

impl Expected {
    /// The boot goes on, the kernel and what goes with it are as the host has them, and these lines are printed.
    const fn goes_on(lines: &'static [&'static str]) -> Self {
        Self { may_go_on: true, may_stop: false, intact: true, lines }
    }

    /// The boot stops, with one of these lines.
    const fn stops(lines: &'static [&'static str]) -> Self {
        Self { may_go_on: false, may_stop: true, intact: false, lines }
    }

    /// Some cases stop, others continue with everything as the host has it.
    const fn either(lines: &'static [&'static str]) -> Self {
        Self { may_go_on: true, may_stop: true, intact: true, lines }
    }

    /// Some cases stop, others continue with what was loaded of kernel, initrd and command line: the fault is in these.
    const fn either_in_part(lines: &'static [&'static str]) -> Self {
        Self { intact: false, ..Self::either(lines) }
    }
}

/// Whether the VMM runs it too.
#[derive(Clone, Copy)]
enum InVmm {
    /// All cases.
    All,
    /// One case of so many.
    Every(u32),
    /// None, because of this.
    No(&'static str),
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// In a kernel.
    WentOn,
    /// With a line that says why.
    Stopped,
    /// In another way, which is a defect.
    Other(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WentOn => f.write_str("went on"),
            Self::Stopped => f.write_str("stopped"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// One boot.
struct Boot {
    end: End,
    /// What was printed.
    lines: Vec<String>,
    /// DMA transfers that were started.
    transfers: u32,
    /// Allocations that were asked for, where that is known.
    allocations: u32,
    /// What was wrong in any case.
    problems: Vec<String>,
    /// What a kernel got that differs from what the host has.
    different: Vec<String>,
}

/// A way to boot a host.
pub trait Runner {
    /// Why it does not run here, if it does not.
    fn why_not(&self) -> Option<String>;
    /// Whether what is printed must be all that is expected: where every case is run.
    #[doc(hidden)]
    fn is_complete(&self) -> bool;
    /// Whether it runs this case of a fault; the reason where it runs none.
    #[doc(hidden)]
    fn takes(&self, fault: &Fault, case: u32) -> Result<bool, &'static str>;
    #[doc(hidden)]
    fn boot(&mut self, host: &Host) -> BootResult;
}

#[doc(hidden)]
pub struct BootResult(Boot);

/// The result of a fault.
#[derive(Default)]
pub struct Report {
    /// What happened, in words; the reason where nothing was tried.
    pub happened: String,
    /// How many cases were tried.
    pub cases: u32,
    /// What was not as expected.
    pub problems: Vec<String>,
}

/// More transfers and allocations than a boot makes.
const MOST_NUMBERS: u32 = 1000;

/// Tries a fault.
pub fn run(fault: &Fault, runner: &mut dyn Runner) -> Report {
    if let Some(why) = runner.why_not() {
        return Report { happened: format!("skipped: {why}"), ..Report::default() };
    }
    let mut report = Report::default();
    let mut outcomes = Outcomes::new();
    let mut unseen: Vec<_> = fault.expected.lines.to_vec();
    let cases = match fault.cases {
        Cases::Below(end) => 0..end,
        Cases::Transfers | Cases::Allocations => 1..MOST_NUMBERS,
    };
    for case in cases {
        match runner.takes(fault, case) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                report.happened = format!("not run: {why}");
                return report;
            }
        }
        let BootResult(boot) = runner.boot(&(fault.host)(case));
        let there_are = match fault.cases {
            Cases::Below(end) => end,
            Cases::Transfers => boot.transfers,
            Cases::Allocations => boot.allocations,
        };
        if there_are < case {
            break;
        }
        report.cases += 1;
        let problems = judge(fault.expected, &boot);
        report.problems.extend(problems.into_iter().map(|problem| format!("case {case}: {problem}")));
        unseen.retain(|wanted| !boot.lines.iter().any(|line| line.contains(wanted)));
        let kind = boot.lines.iter().map(|line| without_numbers(line)).collect::<Vec<_>>();
        outcomes.entry((boot.end, kind)).or_insert((boot.lines, 0)).1 += 1;
    }
    if report.cases == 0 {
        report.problems.push("nothing was tried".to_owned());
    }
    if runner.is_complete() {
        report.problems.extend(unseen.iter().map(|line| format!("nothing with {line:?} was printed")));
    }
    report.happened = words(&outcomes);
    report
}

/// What is not as expected of one boot.
fn judge(expected: Expected, boot: &Boot) -> Vec<String> {
    let mut problems = boot.problems.clone();
    if expected.intact {
        problems.extend(boot.different.iter().cloned());
    }
    let as_expected = match &boot.end {
        End::WentOn => expected.may_go_on,
        End::Stopped => expected.may_stop,
        End::Other(_) => false,
    };
    if !as_expected {
        problems.push(format!("it {}; printed: {:?}", boot.end, boot.lines));
    }
    let unexpected = |line: &&String| !expected.lines.iter().any(|wanted| line.contains(wanted));
    problems.extend(boot.lines.iter().filter(unexpected).take(2).map(|line| format!("not expected: {line}")));
    let not_one = boot.lines.iter().filter(|line| line.chars().any(char::is_control));
    problems.extend(not_one.map(|line| format!("not one line: {line:?}")));
    let errors = boot.lines.iter().filter(|line| line.starts_with("error: ")).count();
    if errors != usize::from(boot.end == End::Stopped) {
        problems.push(format!("{errors} lines with an error"));
    }
    if boot.lines.len() > MOST_LINES {
        problems.push(format!("{} lines", boot.lines.len()));
    }
    problems
}

/// Text in which all numbers are the same.
fn without_numbers(line: &str) -> String {
    let number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !number(word)).collect()
}

/// By how a boot ended and what was printed, without the numbers: the lines of the first such boot, and how many there were.
type Outcomes = BTreeMap<(End, Vec<String>), (Vec<String>, u32)>;

fn words(outcomes: &Outcomes) -> String {
    let mut text = String::new();
    for ((end, _), (lines, cases)) in outcomes {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let _ = match cases {
            1 => write!(text, "{end}"),
            cases => write!(text, "{end} ({cases} cases)"),
        };
        let (shown, rest) = lines.split_at(lines.len().min(SHOWN_LINES));
        for (number, line) in shown.iter().enumerate() {
            let _ = write!(text, "{} {line}", if number == 0 { ":" } else { " /" });
        }
        if !rest.is_empty() {
            let _ = write!(text, " / and {} more lines", rest.len());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPS: Expected = Expected::stops(&["error: no"]);

    fn boot(end: End, lines: &[&str]) -> Boot {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Boot { end, lines, transfers: 0, allocations: 0, problems: Vec::new(), different: Vec::new() }
    }

    #[test]
    fn an_unexpected_boot_is_a_finding() {
        let found = |expected, boot: Boot| !judge(expected, &boot).is_empty();
        assert!(!found(STOPS, boot(End::Stopped, &["error: no RAM"])));
        assert!(found(STOPS, boot(End::Stopped, &["error: what"])));
        assert!(found(STOPS, boot(End::Stopped, &["warning: error: no RAM"])));
        assert!(found(STOPS, boot(End::Stopped, &["error: no\u{7}"])));
        assert!(found(STOPS, boot(End::Stopped, &["error: no"; 2])));
        assert!(found(STOPS, boot(End::WentOn, &[])));
        assert!(found(STOPS, boot(End::Other("panicked".to_owned()), &["error: no"])));

        const GOES_ON: Expected = Expected::goes_on(&["warning"]);
        assert!(!found(GOES_ON, boot(End::WentOn, &["warning"; MOST_LINES])));
        assert!(found(GOES_ON, boot(End::WentOn, &["warning"; MOST_LINES + 1])));
        assert!(found(GOES_ON, Boot { different: vec![String::new()], ..boot(End::WentOn, &[]) }));
        assert!(found(GOES_ON, Boot { problems: vec![String::new()], ..boot(End::WentOn, &[]) }));
    }

    #[test]
    fn an_expected_line_that_is_never_printed_is_a_finding() {
        let never = Fault {
            name: "never",
            what: "",
            cases: Cases::Below(2),
            host: |_| Host::sound(),
            expected: Expected::goes_on(&["never printed"]),
            vmm: InVmm::All,
        };
        let report = run(&never, &mut Fakes::default());
        assert_eq!((report.cases, report.happened.as_str()), (2, "went on (2 cases)"));
        assert_eq!(report.problems, ["nothing with \"never printed\" was printed"]);
    }

    #[test]
    fn a_fault_that_cannot_run_is_skipped_with_the_reason() {
        let report = run(&FAULTS[0], &mut Vmm::new(None));
        assert_eq!((report.happened.as_str(), report.cases), ("skipped: no image was given", 0));
        assert!(report.problems.is_empty());
    }

    /// The first two cells of the rows of the table of docs/faults.md.
    fn described(page: &str) -> Vec<[&str; 2]> {
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| {
            let (name, rest) = row.split_once("` | ")?;
            Some([name, rest.split_once(" | ")?.0])
        })
        .collect()
    }

    #[test]
    fn the_page_lists_every_fault_once_and_no_other() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/faults.md")).unwrap();
        let described = described(&page);
        for fault in FAULTS {
            assert!(
                described.contains(&[fault.name, fault.what]),
                "docs/faults.md lacks {}: {}",
                fault.name,
                fault.what
            );
        }
        for row in &described {
            assert!(FAULTS.iter().any(|fault| [fault.name, fault.what] == *row), "docs/faults.md has {row:?}");
        }
        assert_eq!(described.len(), FAULTS.len(), "docs/faults.md has a fault twice");
    }

    #[test]
    fn no_two_faults_have_the_same_name() {
        let names: std::collections::BTreeSet<_> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
    }

    #[test]
    fn the_small_heap_holds_what_the_images_heap_holds() {
        let _turn = on_fakes::turn();
        heap::start(None);
        let fits = |len: usize| heap::inside(|| Vec::<u8>::new().try_reserve_exact(len).is_ok());
        assert!(fits(1000) && fits(1 << 18) && !fits(heap::SIZE + 16));
        assert!(heap::outside(|| Vec::<u8>::new().try_reserve_exact(heap::SIZE).is_ok()));
    }
}
