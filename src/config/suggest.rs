//! Suggestions for misspelled words.

/// Suggests the nearest of `known`, or lists all of them.
pub(super) fn did_you_mean(text: &str, known: &[&str]) -> String {
    let near = synonym(text, known).or_else(|| nearest(&text.to_lowercase(), known.iter().copied()));
    match (near, known) {
        (Some(word), _) => format!("did you mean `{word}`?"),
        (None, []) => "remove it".to_owned(),
        (None, _) => format!("expected one of: {}", known.join(", ")),
    }
}

/// The word of `known` that means what `text` means elsewhere.
fn synonym<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    /// Words without case, dashes and underscores.
    const SYNONYMS: [(&str, &[&str]); 14] = [
        ("kubernetes", &["k8s", "kube", "aks", "gke", "openshift"]),
        ("ec2", &["asg", "autoscaling", "aws"]),
        ("ecs", &["fargate"]),
        ("eks", &["nodegroup", "awseks"]),
        ("shadow", &["dryrun", "test", "simulate", "observe"]),
        ("active", &["enabled", "on", "enforce"]),
        ("disabled", &["off", "inactive", "paused"]),
        ("never", &["once", "no", "none"]),
        ("while_firing", &["always", "repeat", "firing"]),
        ("on_growth", &["growth", "grow"]),
        ("scale_in", &["scaledown", "down", "decrease", "decreases", "in"]),
        ("scale_out", &["scaleup", "up", "increase", "increases", "out"]),
        ("warn", &["warning"]),
        ("text", &["logfmt", "plain", "console"]),
    ];
    let plain: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    let (word, _) =
        SYNONYMS.iter().find(|(word, others)| known.contains(word) && others.contains(&&*plain))?;
    known.iter().copied().find(|known| known == word)
}

/// The word of `known` that `text` most likely is a typo of, by edit distance. `None` if two are equally
/// near: `scale_in` must not be suggested for `scale_up`.
pub(super) fn nearest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let typed: String = text.chars().take(128).collect();
    let mut near: Vec<(usize, &str)> = known
        .map(|word| (strsim::damerau_levenshtein(&typed, word), word))
        .filter(|(distance, word)| *distance <= word.len().max(typed.len()) / 3)
        .collect();
    near.sort_unstable();
    near.dedup();
    match near[..] {
        [(first, _), (second, _), ..] if first == second => None,
        _ => near.first().map(|(_, word)| *word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_near_and_another_word_is_not() {
        let known = ["listen", "late_window", "max_age"];
        assert_eq!(did_you_mean("lisen", &known), "did you mean `listen`?");
        assert_eq!(did_you_mean("Late_Windwo", &known), "did you mean `late_window`?");
        assert_eq!(did_you_mean("priority", &known), "expected one of: listen, late_window, max_age");
        assert_eq!(did_you_mean("priority", &[]), "remove it");
        assert_eq!(nearest("scale_up", ["scale_out", "scale_in"].into_iter()), None);
        assert_eq!(did_you_mean("Scale-Up", &["scale_out", "scale_in"]), "did you mean `scale_out`?");
        assert_eq!(did_you_mean("k8s", &["eks", "kubernetes"]), "did you mean `kubernetes`?");
    }
}
