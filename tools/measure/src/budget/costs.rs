//! The columns of the budget: what each one counts, how much it may grow, and the comparison with the record.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::boot::counts::Counts;
use crate::boot::host_instructions::OverBaseLine;
use crate::boot::translation::Translation;
use crate::numbers::grouped;

/// What a boot costs on one machine, measured or recorded: the counts by the keys of their columns. A key is missing if it was not
/// counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Costs(pub BTreeMap<String, u64>);

/// One column, as `columns.toml` describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub key: String,
    pub name: String,
    pub means: String,
    #[serde(default)]
    pub tolerance: u64,
    pub needs: Option<String>,
}

/// The key of the count that only one build of QEMU repeats.
pub const HOST_INSTRUCTIONS: &str = "host_instructions";

/// Every column, in the order of the table and of the record.
pub static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let mut list: BTreeMap<String, _> = toml::from_str(include_str!("columns.toml")).expect("a list of columns");
    list.remove("column").unwrap_or_default()
});

/// A count that is not within its budget.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub text: String,
    /// Whether the count is above the budget, so that the comparison fails.
    pub is_above: bool,
}

impl Costs {
    /// The costs from what was counted.
    pub fn of(counts: &Counts, translation: Option<&Translation>, host: Option<OverBaseLine>) -> Self {
        let executed = translation.map(|translation| translation.executed);
        let all = [
            ("accesses", Some(counts.accesses)),
            ("config_accesses", Some(counts.config_accesses)),
            ("topology_writes", Some(counts.topology_writes)),
            ("dma_transfers", Some(counts.dma_transfers)),
            ("exits", counts.exits),
            ("exits_coalesced", counts.exits_coalesced),
            ("cpuid", executed.map(|[cpuid, ..]| cpuid)),
            ("rdmsr", executed.map(|[_, rdmsr, _]| rdmsr)),
            ("wrmsr", executed.map(|[.., wrmsr]| wrmsr)),
            ("code_pages", translation.map(|translation| translation.code_pages)),
            ("instructions", counts.instructions),
            ("blocks", translation.map(|translation| translation.blocks)),
            (HOST_INSTRUCTIONS, host.map(|host| host.instructions)),
        ];
        Self(all.into_iter().filter_map(|(key, count)| Some((key.to_owned(), count?))).collect())
    }

    pub fn get(&self, column: &Column) -> Option<u64> {
        self.0.get(&column.key).copied()
    }

    /// Without the counts of the columns for which `is_forgotten` holds.
    pub fn without(mut self, is_forgotten: impl Fn(&Column) -> bool) -> Self {
        self.0.retain(|key, _| !COLUMNS.iter().any(|column| column.key == *key && is_forgotten(column)));
        self
    }

    /// Whether this number of host instructions is within the budget, or has none.
    pub fn allows_host_instructions(&self, count: u64) -> bool {
        let costs = Self([(HOST_INSTRUCTIONS.to_owned(), count)].into());
        compare(&costs, self).iter().all(|finding| !finding.is_above)
    }

    /// Copies from `old` what this host cannot count. Returns the columns that were copied.
    ///
    /// # Errors
    /// The first column that every host can count and that was not counted.
    pub fn complete_from(&mut self, old: Option<&Self>) -> Result<Vec<&'static Column>, &'static Column> {
        let missing: Vec<_> = COLUMNS.iter().filter(|column| self.get(column).is_none()).collect();
        for column in &missing {
            if column.needs.is_none() {
                return Err(column);
            }
            self.0.extend(old.and_then(|old| old.get(column)).map(|count| (column.key.clone(), count)));
        }
        Ok(missing)
    }
}

impl Column {
    /// A count and its difference from the budget.
    fn cell(&self, costs: &Costs, budget: &Costs) -> String {
        let Some(count) = costs.get(self) else { return "-".to_owned() };
        let difference = match budget.get(self) {
            Some(budget) if budget != count && self.tolerance == 0 => {
                format!(" ({:+})", i128::from(count) - i128::from(budget))
            }
            Some(budget) if budget != count => format!(" ({:+.1} %)", (count as f64 / budget as f64 - 1.0) * 100.0),
            _ => String::new(),
        };
        format!("{}{difference}", grouped(count))
    }

    fn finding(&self, count: u64, budget: u64) -> Option<Finding> {
        let Self { name, tolerance, .. } = self;
        let (scaled, bound) = (u128::from(count) * 100, |percent| u128::from(budget) * u128::from(percent));
        let is_above = scaled > bound(100 + tolerance);
        let (shown, of) = (grouped(count), grouped(budget));
        let text = if is_above {
            let allowed = if *tolerance == 0 { String::new() } else { format!(" by more than {tolerance} %") };
            format!("{name}: {shown}, above the budget of {of}{allowed}")
        } else if scaled < bound(100 - tolerance) {
            format!("{name}: {shown}, below the budget of {of}: lower it (cargo xtask budget --update)")
        } else {
            return None;
        };
        Some(Finding { text, is_above })
    }
}

/// The counts that are not within their budgets. A count that is missing on either side is not compared.
pub fn compare(costs: &Costs, budget: &Costs) -> Vec<Finding> {
    let finding = |column: &Column| column.finding(costs.get(column)?, budget.get(column)?);
    COLUMNS.iter().filter_map(finding).collect()
}

/// A table with a line for each column, and the machines side by side.
pub fn table(machines: &[(&str, Costs, Costs)]) -> String {
    let head = machines.iter().map(|(name, ..)| format!("{name:>21}")).collect::<String>();
    let mut table = format!("{:<31}{head}", "");
    for column in COLUMNS.iter() {
        let cells = machines.iter().map(|(_, costs, budget)| format!("{:>21}", column.cell(costs, budget)));
        table += &format!("\n{:<31}{}", column.name, cells.collect::<String>());
    }
    table
}

/// What each column counts, one per line.
pub fn explanation(prefix: &str) -> String {
    let line = |column: &Column| {
        let rule = match column.tolerance {
            0 => "exact".to_owned(),
            tolerance => format!("{tolerance} % are allowed"),
        };
        let needs = column.needs.as_ref().map(|needs| format!("; needs {needs}")).unwrap_or_default();
        format!("{prefix}{}: {} ({rule}{needs})\n", column.key, column.means)
    };
    COLUMNS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's costs with all counts.
    fn costs() -> Costs {
        Costs(COLUMNS.iter().map(|column| (column.key.clone(), 100_000)).collect())
    }

    /// The costs with some counts replaced.
    fn with(mut costs: Costs, counts: &[(&str, u64)]) -> Costs {
        costs.0.extend(counts.iter().map(|(key, count)| ((*key).to_owned(), *count)));
        costs
    }

    fn found(key: &str, count: u64) -> Vec<(String, bool)> {
        let findings = compare(&with(costs(), &[(key, count)]), &costs());
        findings.into_iter().map(|finding| (finding.text, finding.is_above)).collect()
    }

    #[test]
    fn a_count_fails_beyond_its_tolerance_and_an_exact_one_by_one() {
        for column in COLUMNS.iter() {
            let most = 100_000 + 1_000 * column.tolerance;
            assert_eq!(found(&column.key, most), []);
            assert!(matches!(found(&column.key, most + 1)[..], [(_, true)]), "{column:?}");
        }
        assert_eq!(COLUMNS.iter().filter(|column| column.tolerance == 0).count(), COLUMNS.len() - 4);
        let text = "guest instructions: 120,000, above the budget of 100,000 by more than 2 %".to_owned();
        assert_eq!(found("instructions", 120_000), [(text, true)]);
    }

    #[test]
    fn a_count_below_its_budget_is_reported_and_does_not_fail() {
        assert!(matches!(&found("accesses", 99_999)[..], [(text, false)] if text.contains("lower it")));
        assert_eq!(found("blocks", 97_000), [], "within the tolerance");
        assert!(matches!(found("blocks", 96_999)[..], [(_, false)]));
    }

    #[test]
    fn a_record_keeps_what_this_host_cannot_count() {
        let without = |keys: &[&str]| costs().without(|column| keys.contains(&column.key.as_str()));
        let mut here = without(&["exits", "host_instructions"]);
        let kept = here.complete_from(Some(&costs())).unwrap();
        assert_eq!(kept.iter().map(|column| column.key.as_str()).collect::<Vec<_>>(), ["exits", "host_instructions"]);
        assert_eq!(here, costs());
        let lacking = without(&["blocks"]).complete_from(Some(&costs()));
        assert_eq!(lacking.unwrap_err().key, "blocks", "every host counts them");
    }
}
