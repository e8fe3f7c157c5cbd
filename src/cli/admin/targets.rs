//! How many targets a pattern covers.

use super::cell;
use crate::cli::client::{ClientError, Server};
use crate::cli::output::print_note;
use crate::ops::api::{CoveredTargets, CoveredTargetsParams};

/// Prints to stderr how many targets the pattern of `--target` covers, if it may be another number than one.
pub(super) fn note_covered(server: &Server, pattern: Option<&String>) -> Result<(), ClientError> {
    let Some(pattern) = pattern else { return Ok(()) };
    let params = CoveredTargetsParams { target: Some(pattern.clone()) };
    let covered: CoveredTargets = server.get("/api/v1/targets/covered", &params)?;
    print_note(note(pattern, &covered));
    Ok(())
}

fn note(pattern: &str, covered: &CoveredTargets) -> String {
    let CoveredTargets { pattern: full, count, is_partial, keys } = covered;
    let shown = if pattern == full { format!("`{full}`") } else { format!("`{pattern}` (`{full}`)") };
    let least = if *is_partial { "at least " } else { "" };
    let listed: Vec<String> = keys.iter().map(|key| cell(key)).collect();
    let more = if *count > keys.len() as u64 { ", …" } else { "" };
    match *count {
        0 => format!("{shown} covers {least}no target that alerts have reached so far"),
        1 => format!("{shown} covers {least}1 target: {}{more}", listed.join(", ")),
        count => format!("{shown} covers {least}{count} targets: {}{more}", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_says_what_a_name_stands_for_and_how_many_targets_it_covers() {
        let covered = |count, is_partial, keys: &[&str]| CoveredTargets {
            pattern: "*/workers".to_owned(),
            count,
            is_partial,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(
            note("workers", &covered(2, false, &["a/workers", "b/workers"])),
            "`workers` (`*/workers`) covers 2 targets: a/workers, b/workers"
        );
        assert_eq!(
            note("*/workers", &covered(7, true, &["a/workers"])),
            "`*/workers` covers at least 7 targets: a/workers, …"
        );
        assert_eq!(
            note("*/workers", &covered(0, false, &[])),
            "`*/workers` covers no target that alerts have reached so far"
        );
    }
}
