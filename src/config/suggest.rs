//! Suggestions for misspelled words.

/// Suggests the nearest of `known`, or lists all of them.
pub(super) fn did_you_mean(text: &str, known: &[&str]) -> String {
    match (nearest(&text.to_lowercase(), known.iter().copied()), known) {
        (Some(word), _) => format!("did you mean `{word}`?"),
        (None, []) => "remove it".to_owned(),
        (None, _) => format!("expected one of: {}", known.join(", ")),
    }
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
        assert_eq!(
            did_you_mean("scale_up", &["scale_out", "scale_in"]),
            "expected one of: scale_out, scale_in"
        );
    }
}
