//! Lists of calls: a line for each, with its arguments, ` = ` and the result.

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::intended::{ABSENT, CALLS, Difference};

/// The line after the last call of a boot.
const END: &str = "end: ExitBootServices";

/// Calls for memory. How much memory is asked for follows from other results, so those that succeed are not compared.
const MEMORY: [&str; 4] = ["BS.AllocatePool(", "BS.FreePool(", "BS.AllocatePages(", "BS.FreePages("];

/// Whether the list has the end of boot services.
pub fn is_complete(printed: &str) -> bool {
    printed.lines().next_back() == Some(END)
}

/// The calls and their results. A call that is made again at once, with the same result, counts once: how often a loader
/// looks at a key depends on time.
fn read(printed: &str) -> (Vec<&str>, Vec<&str>) {
    let lines = printed.lines().filter_map(|line| line.rsplit_once(" = "));
    let is_compared =
        |(call, result): &(&str, &str)| *result != "SUCCESS" || !MEMORY.iter().any(|name| call.starts_with(name));
    let mut calls: Vec<_> = lines.filter(is_compared).collect();
    calls.dedup();
    calls.into_iter().unzip()
}

/// The calls with different results, and those that only one side has. Each is there once.
pub fn differences(ovmf: &str, firstlight: &str) -> Vec<Difference> {
    let ((their_calls, theirs), (our_calls, ours)) = (read(ovmf), read(firstlight));
    let mut found: Vec<Difference> = Vec::new();
    let mut add = |call: &str, other: &str, firstlight: &str| {
        let (key, other, firstlight) = (call.to_owned(), other.to_owned(), firstlight.to_owned());
        let difference = Difference { section: CALLS, key, other, firstlight };
        if difference.other != difference.firstlight && !found.contains(&difference) {
            found.push(difference);
        }
    };
    for op in capture_diff_slices(Algorithm::Myers, &their_calls, &our_calls) {
        let (their_range, our_range) = (op.old_range(), op.new_range());
        if matches!(op, DiffOp::Equal { .. }) {
            their_range.zip(our_range).for_each(|(i, j)| add(their_calls[i], theirs[i], ours[j]));
        } else {
            their_range.for_each(|i| add(their_calls[i], theirs[i], ABSENT));
            our_range.for_each(|j| add(our_calls[j], ABSENT, ours[j]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The differences as text.
    fn compared(ovmf: &str, firstlight: &str) -> Vec<String> {
        let all = differences(ovmf, firstlight);
        all.iter().map(|one| format!("{}: {} | {}", one.key, one.other, one.firstlight)).collect()
    }

    const CALLS: &str = "a() = SUCCESS\nb(x) = NOT_FOUND\na() = SUCCESS\nc() = SUCCESS 0x8\nend: ExitBootServices\n";

    #[test]
    fn the_same_calls_have_no_difference() {
        assert_eq!(compared(CALLS, CALLS), [""; 0]);
        assert!(is_complete(CALLS) && !is_complete("a() = SUCCESS\nend: too many calls\n"));
    }

    #[test]
    fn a_call_with_another_result_is_one_difference() {
        assert_eq!(compared(CALLS, &CALLS.replace("0x8", "0x10")), ["c(): SUCCESS 0x8 | SUCCESS 0x10"]);
        let twice = CALLS.repeat(2);
        assert_eq!(compared(&twice, &twice.replace("NOT_FOUND", "SUCCESS")), ["b(x): NOT_FOUND | SUCCESS"]);
    }

    #[test]
    fn a_call_of_one_side_does_not_hide_what_follows() {
        let more = CALLS.replace("c()", "d() = SUCCESS\nb(x) = SUCCESS\nc()").replace("0x8", "0x10");
        assert_eq!(
            compared(CALLS, &more),
            ["d(): absent | SUCCESS", "b(x): absent | SUCCESS", "c(): SUCCESS 0x8 | SUCCESS 0x10"]
        );
        let other_arguments = CALLS.replace("b(x)", "b(y)");
        assert_eq!(compared(CALLS, &other_arguments), ["b(x): NOT_FOUND | absent", "b(y): absent | NOT_FOUND"]);
    }

    #[test]
    fn repeated_calls_and_memory_that_is_there_do_not_count() {
        let more = format!("BS.AllocatePool(0x2) = SUCCESS\na() = SUCCESS\n{CALLS}");
        assert_eq!(compared(CALLS, &more), [""; 0]);
        let fails = format!("BS.FreePool(null) = INVALID_PARAMETER\n{CALLS}");
        assert_eq!(compared(CALLS, &fails), ["BS.FreePool(null): absent | INVALID_PARAMETER"]);
    }
}
