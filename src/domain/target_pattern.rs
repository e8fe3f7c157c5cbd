//! Patterns for the keys of targets.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::target::{PartialTarget, TargetKey};

/// A pattern for target keys, such as `eks/nodegroup/*/prod-eu/*`. `*` matches any number of characters,
/// including `/`; all other characters match themselves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetPattern(String);

impl TargetPattern {
    /// The maximum length of a pattern in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// Creates a pattern; `None` if `text` is empty or longer than [`Self::MAX_BYTES`].
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= Self::MAX_BYTES).then(|| Self(text.to_owned()))
    }

    /// Creates a pattern as an operator writes it: a text without `/` and `*` is the name of a target, in any
    /// cluster. `None` as for [`Self::new`].
    pub fn from_operator(text: &str) -> Option<Self> {
        let is_name = !text.is_empty() && !text.contains(['/', '*']);
        if is_name { Self::new(&format!("*/{}", TargetKey::encode_part(text))) } else { Self::new(text) }
    }

    /// The text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches a key.
    pub fn covers(&self, key: &TargetKey) -> bool {
        self.matches(key.as_str())
    }

    /// Whether the pattern matches the keys of all targets that have these fields, whatever the others are.
    pub fn covers_all(&self, targets: &PartialTarget) -> bool {
        // Only a `*` of the pattern matches the `*` of a field that can have any value.
        self.matches(&targets.key_pattern())
    }

    /// Takes time proportional to at most the product of both lengths.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where to continue if the text after the last `*` does not match: the `*` then matches one more
        // character.
        let mut retry: Option<(usize, usize)> = None;
        while read < text.len() {
            if pattern.get(at) == Some(&b'*') {
                retry = Some((at + 1, read));
                at += 1;
            } else if pattern.get(at) == Some(&text[read]) {
                at += 1;
                read += 1;
            } else if let Some((after, matched)) = retry {
                retry = Some((after, matched + 1));
                (at, read) = (after, matched + 1);
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::target::Platform;

    #[test]
    fn a_star_is_any_number_of_characters() {
        let key = TargetKey::from_stored("eks/nodegroup/-/eu-west-1/prod-eu/-/workers");
        let covers = |pattern: &str| TargetPattern::new(pattern).unwrap().covers(&key);
        for pattern in
            ["*", "eks/*", "*/workers", "eks/*/prod-eu/*", key.as_str(), "**", "*-*-*", "*workers*"]
        {
            assert!(covers(pattern), "{pattern}");
        }
        for pattern in ["eks", "workers", "*/worker", "ecs/*", "*/prod-us/*", "eks/*workers/", "?*"] {
            assert!(!covers(pattern), "{pattern}");
        }
    }

    #[test]
    fn an_operator_can_give_the_name_alone() {
        let key = |text| TargetKey::from_stored(text);
        let pattern = TargetPattern::from_operator("workers").unwrap();
        assert_eq!(pattern.as_str(), "*/workers");
        assert!(pattern.covers(&key("eks/nodegroup/-/-/prod-eu/-/workers")));
        assert!(pattern.covers(&key("eks/nodegroup/-/-/prod-us/-/workers")));
        assert!(!pattern.covers(&key("eks/nodegroup/-/-/prod-eu/-/more-workers")));
        let pattern = TargetPattern::from_operator("queue:a b").unwrap();
        assert!(pattern.covers(&key("custom/queue/-/-/-/-/queue%3Aa%20b")), "{pattern}");
        assert_eq!(TargetPattern::from_operator("eks/*").unwrap().as_str(), "eks/*");
        assert_eq!(TargetPattern::from_operator(""), None);
    }

    #[test]
    fn a_pattern_covers_a_hold_only_if_it_matches_whatever_the_hold_could_cover() {
        let all = PartialTarget::default();
        let in_cluster = |cluster: &str| PartialTarget { cluster: Some(cluster.into()), ..all.clone() };
        let eks = PartialTarget { platform: Some(Platform::Eks), ..in_cluster("prod-eu") };
        let named = PartialTarget { name: Some("a*b".into()), ..eks.clone() };
        let covers = |pattern: &str| {
            let pattern = TargetPattern::new(pattern).unwrap();
            [&all, &in_cluster("prod-eu"), &eks, &named].map(|hold| pattern.covers_all(hold))
        };
        assert_eq!(covers("*"), [true; 4]);
        assert_eq!(covers("*/*/*/*/*/*/*"), [true; 4]);
        assert_eq!(covers("*/*/*/*/prod-eu/*/*"), [false, true, true, true]);
        assert_eq!(covers("*/*/*/*/prod-*/*/*"), [false, true, true, true]);
        assert_eq!(covers("eks/*/*/*/prod-eu/*/*"), [false, false, true, true]);
        assert_eq!(covers("eks/*/a%2Ab"), [false, false, false, true]);
        assert_eq!(covers("eks/*/workers"), [false; 4], "other names");
        assert_eq!(covers("eks/nodegroup/*"), [false; 4], "other kinds");
        assert_eq!(covers("*/prod-us/*"), [false; 4]);
        assert_eq!(covers("-/-/-/-/-/-/-"), [false; 4], "an absent field is one of many values");
    }
}
