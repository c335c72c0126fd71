//! The columns of the budget: what each one counts, how much it may grow, and the comparison with the record.

use serde::{Deserialize, Serialize};

use crate::boot::counts::Counts;
use crate::boot::host_instructions::OverBaseLine;
use crate::boot::translation::Translation;
use crate::numbers::grouped;

/// What a boot costs on one machine, measured or recorded. `None` is what was not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    accesses: Option<u64>,
    config_accesses: Option<u64>,
    topology_writes: Option<u64>,
    dma_transfers: Option<u64>,
    exits: Option<u64>,
    exits_coalesced: Option<u64>,
    cpuid: Option<u64>,
    rdmsr: Option<u64>,
    wrmsr: Option<u64>,
    code_pages: Option<u64>,
    instructions: Option<u64>,
    blocks: Option<u64>,
    host_instructions: Option<u64>,
}

/// One column.
pub struct Column {
    /// Its name in the record.
    pub key: &'static str,
    /// What it counts, for a reader of the table.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub means: &'static str,
    /// How far above the budget it may be, in percent. Zero is for counts that are exact.
    pub tolerance: u64,
    /// What the host needs for it, beside QEMU. Without that the column is left out.
    pub needs: Option<&'static str>,
    /// Its count.
    pub get: fn(&Costs) -> Option<u64>,
    get_mut: fn(&mut Costs) -> &mut Option<u64>,
}

macro_rules! column {
    ($field:ident, $name:literal, $tolerance:literal, $needs:expr, $means:literal) => {
        Column {
            key: stringify!($field),
            name: $name,
            means: $means,
            tolerance: $tolerance,
            needs: $needs,
            get: |costs| costs.$field,
            get_mut: |costs| &mut costs.$field,
        }
    };
}

/// Every column, in the order of the table and of the record.
pub const COLUMNS: [Column; 13] = [
    column!(accesses, "device accesses", 0, None, "reads and writes of ports and of device registers in memory"),
    column!(config_accesses, "of these, PCI configuration", 0, None, "those that reach PCI configuration space"),
    column!(
        topology_writes,
        "changes of the memory map",
        0,
        None,
        "writes after which QEMU builds the guest's memory map anew, about 100 us each on hardware"
    ),
    column!(dma_transfers, "DMA transfers", 0, None, "transfers of fw_cfg's DMA"),
    column!(exits, "exits to QEMU", 0, Some("a KVM"), "times that KVM hands the guest over to QEMU, some us each"),
    column!(
        exits_coalesced,
        "of these, with 0xcf8 coalesced",
        0,
        Some("a KVM"),
        "exits that are left where KVM coalesces the writes to port 0xcf8, as Linux does"
    ),
    column!(cpuid, "CPUID", 0, None, "executed CPUID instructions, each an exit inside KVM of about 1 us"),
    column!(rdmsr, "RDMSR", 0, None, "executed RDMSR instructions, which may be the same"),
    column!(wrmsr, "WRMSR", 0, None, "executed WRMSR instructions, which may be the same"),
    column!(
        code_pages,
        "code pages",
        10,
        None,
        "pages of 4 KiB of the image with executed code, each mapped by the host at its first use; where they grow, `cargo \
         xtask order` orders the functions anew"
    ),
    column!(instructions, "guest instructions", 2, None, "executed instructions of the guest"),
    column!(
        blocks,
        "translated blocks",
        3,
        None,
        "blocks of guest code that TCG translates: most of a boot's time under TCG"
    ),
    column!(
        host_instructions,
        "host instructions",
        3,
        Some("valgrind"),
        "instructions of the whole QEMU process under TCG with a kernel of 256 KiB, over those for an image that ends at \
         its first instruction; held against the same build of QEMU only"
    ),
];

/// A count beyond its budget.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// What to tell the user.
    pub text: String,
    /// Whether it is above the budget, so that the comparison fails.
    pub is_above: bool,
}

impl Costs {
    /// What was counted.
    pub fn of(counts: &Counts, translation: Option<&Translation>, host: Option<OverBaseLine>) -> Self {
        let executed = translation.map(|translation| translation.executed);
        Self {
            accesses: Some(counts.accesses),
            config_accesses: Some(counts.config_accesses),
            topology_writes: Some(counts.topology_writes),
            dma_transfers: Some(counts.dma_transfers),
            exits: counts.exits,
            exits_coalesced: counts.exits_coalesced,
            cpuid: executed.map(|executed| executed.cpuid),
            rdmsr: executed.map(|executed| executed.rdmsr),
            wrmsr: executed.map(|executed| executed.wrmsr),
            code_pages: translation.map(|translation| translation.code_pages),
            instructions: counts.instructions,
            blocks: translation.map(|translation| translation.blocks),
            host_instructions: host.map(|host| host.instructions),
        }
    }

    /// Forgets the count that only one build of QEMU repeats.
    pub fn forget_host_instructions(&mut self) {
        self.host_instructions = None;
    }

    /// Forgets the counts that only one target repeats. They are those with a tolerance.
    pub fn forget_code(&mut self) {
        COLUMNS.iter().filter(|column| column.tolerance != 0).for_each(|column| *(column.get_mut)(self) = None);
    }

    /// Whether so many host instructions are within these budgets, or there is no budget for them.
    pub fn allows_host_instructions(&self, count: u64) -> bool {
        let costs = Self { host_instructions: Some(count), ..Self::default() };
        compare(&costs, self).iter().all(|finding| !finding.is_above)
    }

    /// Takes over from `old` what was not counted for want of something on the host. Returns the columns taken over.
    ///
    /// # Errors
    /// The first column that every host can count and that was not counted.
    pub fn complete_from(&mut self, old: Option<&Self>) -> Result<Vec<&'static Column>, &'static Column> {
        let mut kept = Vec::new();
        for column in &COLUMNS {
            if (column.get)(self).is_some() {
                continue;
            }
            if column.needs.is_none() {
                return Err(column);
            }
            *(column.get_mut)(self) = old.and_then(column.get);
            kept.push(column);
        }
        Ok(kept)
    }
}

impl Column {
    /// Whether a count is so far above its budget that the comparison fails.
    pub fn is_above(&self, count: u64, budget: u64) -> bool {
        u128::from(count) * 100 > u128::from(budget) * u128::from(100 + self.tolerance)
    }

    /// Whether a count is so far below its budget that the budget should be lowered.
    fn is_below(&self, count: u64, budget: u64) -> bool {
        u128::from(count) * 100 < u128::from(budget) * u128::from(100 - self.tolerance)
    }

    /// A count, and how far it is from its budget.
    fn cell(&self, costs: &Costs, budget: &Costs) -> String {
        let Some(count) = (self.get)(costs) else { return "-".to_owned() };
        let difference = match (self.get)(budget) {
            Some(budget) if budget == count => String::new(),
            Some(budget) if self.tolerance == 0 => format!(" ({:+})", i128::from(count) - i128::from(budget)),
            Some(budget) => format!(" ({:+.1} %)", (count as f64 / budget as f64 - 1.0) * 100.0),
            None => String::new(),
        };
        format!("{}{difference}", grouped(count))
    }

    fn finding(&self, count: u64, budget: u64) -> Option<Finding> {
        let Self { name, tolerance, .. } = self;
        let (shown, of) = (grouped(count), grouped(budget));
        let is_above = self.is_above(count, budget);
        let text = if is_above {
            let allowed = if *tolerance == 0 { String::new() } else { format!(" by more than {tolerance} %") };
            format!("{name}: {shown}, above the budget of {of}{allowed}")
        } else if self.is_below(count, budget) {
            format!("{name}: {shown}, below the budget of {of}: lower it (cargo xtask budget --update)")
        } else {
            return None;
        };
        Some(Finding { text, is_above })
    }
}

/// The counts that are not within their budgets. What was not counted, here or for the record, is not compared.
pub fn compare(costs: &Costs, budget: &Costs) -> Vec<Finding> {
    let finding = |column: &Column| column.finding((column.get)(costs)?, (column.get)(budget)?);
    COLUMNS.iter().filter_map(finding).collect()
}

/// The columns as lines of a table, with a row a machine's costs and budget beside each other.
pub fn table(machines: &[(&str, Costs, Costs)]) -> String {
    let head = std::iter::once(String::new()).chain(machines.iter().map(|(name, ..)| (*name).to_owned())).collect();
    let line = |column: &Column| {
        let cells = machines.iter().map(|(_, costs, budget)| column.cell(costs, budget));
        std::iter::once(column.name.to_owned()).chain(cells).collect()
    };
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(COLUMNS.iter().map(line)).collect();
    let text = lines.iter().map(|line| {
        let cells = line.iter().enumerate();
        let padded =
            cells.map(|(number, cell)| if number == 0 { format!("{cell:<31}") } else { format!("{cell:>21}") });
        padded.collect::<String>()
    });
    text.collect::<Vec<_>>().join("\n")
}

/// What each column counts, a line each.
pub fn explanation(prefix: &str) -> String {
    let line = |column: &Column| {
        let rule = match column.tolerance {
            0 => "exact".to_owned(),
            tolerance => format!("{tolerance} % are allowed"),
        };
        let needs = column.needs.map(|needs| format!("; needs {needs}")).unwrap_or_default();
        format!("{prefix}{}: {} ({rule}{needs})\n", column.key, column.means)
    };
    COLUMNS.iter().map(line).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::boot::translation::Exiting;

    /// A machine's costs, all counted.
    pub fn costs() -> Costs {
        let counts = Counts {
            accesses: 111,
            config_accesses: 89,
            topology_writes: 3,
            dma_transfers: 16,
            instructions: Some(50_000),
            exits: Some(110),
            exits_coalesced: Some(63),
            topology: Vec::new(),
            not_counted: Vec::new(),
        };
        let translation =
            Translation { blocks: 1_000, executed: Exiting { cpuid: 6, rdmsr: 2, wrmsr: 17 }, code_pages: 29 };
        Costs::of(&counts, Some(&translation), Some(OverBaseLine { instructions: 90_000_000, noise: 1_000_000 }))
    }

    impl Costs {
        /// Costs of which only the host instructions were counted.
        pub fn of_host_instructions(count: u64) -> Self {
            Self { host_instructions: Some(count), ..Self::default() }
        }
    }

    fn found(costs: &Costs) -> Vec<(String, bool)> {
        compare(costs, &self::costs()).into_iter().map(|finding| (finding.text, finding.is_above)).collect()
    }

    #[test]
    fn an_exact_count_fails_by_one() {
        assert_eq!(found(&costs()), []);
        for column in COLUMNS.iter().filter(|column| column.tolerance == 0) {
            let mut costs = costs();
            *(column.get_mut)(&mut costs).as_mut().unwrap() += 1;
            let found = found(&costs);
            assert!(matches!(found.as_slice(), [(text, true)] if text.starts_with(column.name)), "{found:?}");
        }
        assert_eq!(COLUMNS.iter().filter(|column| column.tolerance == 0).count(), COLUMNS.len() - 4);
    }

    #[test]
    fn instructions_fail_beyond_2_percent_and_translation_beyond_3() {
        for (instructions, is_above) in [(51_000, false), (51_001, true)] {
            assert_eq!(!found(&Costs { instructions: Some(instructions), ..costs() }).is_empty(), is_above);
        }
        for (blocks, is_above) in [(1_030, false), (1_031, true)] {
            assert_eq!(!found(&Costs { blocks: Some(blocks), ..costs() }).is_empty(), is_above);
        }
        for (host, is_above) in [(92_700_000, false), (92_700_001, true)] {
            assert_eq!(!found(&Costs { host_instructions: Some(host), ..costs() }).is_empty(), is_above);
        }
        for (pages, is_above) in [(31, false), (32, true)] {
            assert_eq!(!found(&Costs { code_pages: Some(pages), ..costs() }).is_empty(), is_above);
        }
        let found = found(&Costs { instructions: Some(60_000), ..costs() });
        assert_eq!(
            found,
            [("guest instructions: 60,000, above the budget of 50,000 by more than 2 %".to_owned(), true)]
        );
    }

    #[test]
    fn a_count_below_its_budget_is_told_but_is_no_failure() {
        let found = |costs| found(&costs);
        let told = found(Costs { accesses: Some(100), ..costs() });
        assert!(matches!(told.as_slice(), [(text, false)] if text.contains("lower it")), "{told:?}");
        assert_eq!(found(Costs { blocks: Some(975), ..costs() }), [], "within the tolerance");
        assert!(matches!(found(Costs { blocks: Some(969), ..costs() }).as_slice(), [(_, false)]));
    }

    #[test]
    fn a_record_keeps_what_this_host_cannot_count() {
        let mut here = Costs { exits: None, host_instructions: None, ..costs() };
        let kept = here.complete_from(Some(&costs())).unwrap_or_else(|column| panic!("{}", column.key));
        assert_eq!(kept.iter().map(|column| column.key).collect::<Vec<_>>(), ["exits", "host_instructions"]);
        assert_eq!(here, costs());
        let lacking = Costs { blocks: None, ..costs() }.complete_from(Some(&costs()));
        assert_eq!(lacking.err().map(|column| column.key), Some("blocks"), "every host counts them");
    }
}
