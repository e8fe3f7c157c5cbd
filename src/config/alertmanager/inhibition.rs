//! Inhibitions that silence alerts of this bridge.

use super::coverage::By;
use super::matchers::{self, Keys};
use super::space::{Region, Space, intersect};
use super::values::{items, text};
use crate::config::diagnostic::{Code, Diagnostics, Location};
use crate::config::yaml::Node;
use crate::domain::matcher::Matcher;

const SOURCE_KEYS: Keys =
    Keys { matchers: "source_matchers", equal: "source_match", matching: "source_match_re" };
const TARGET_KEYS: Keys =
    Keys { matchers: "target_matchers", equal: "target_match", matching: "target_match_re" };

/// An inhibition: alerts that match `target` are silent while another alert matches `source`, with equal values of some
/// labels.
pub(super) struct Inhibition<'n> {
    location: &'n Location,
    source: Vec<Matcher>,
    target: Vec<Matcher>,
    equal: Vec<&'n str>,
}

impl Inhibition<'_> {
    pub(super) fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.source.iter().chain(&self.target)
    }
}

/// Reads all inhibitions.
pub(super) fn read<'n>(root: &'n Node, diagnostics: &mut Diagnostics) -> Vec<Inhibition<'n>> {
    let rules = items(root.get("inhibit_rules")).iter().map(|node| Inhibition {
        location: &node.location,
        source: matchers::read(node, &SOURCE_KEYS, diagnostics),
        target: matchers::read(node, &TARGET_KEYS, diagnostics),
        equal: items(node.get("equal")).iter().filter_map(text).collect(),
    });
    rules.collect()
}

/// Reports inhibitions that silence some of the alerts that reach this bridge. `all` are those that are needed.
pub(super) fn check(
    by: By<'_>,
    all: &Region,
    reaching: &[Region],
    inhibitions: &[Inhibition<'_>],
    space: &Space,
    diagnostics: &mut Diagnostics,
) {
    for inhibition in inhibitions {
        let Some(silenced) = reaching.iter().find_map(|region| silenced(region, inhibition, space)) else {
            continue;
        };
        // A heartbeat is one alert, which hardly has the labels of other alerts.
        if matches!(by, By::Heartbeat(..)) && space.requires_label(&silenced, all) {
            continue;
        }
        let part = match space.describe(&silenced, all) {
            part if part.is_empty() => part,
            part => format!(" with {part}"),
        };
        let message = format!("{}{part} are silenced while this inhibition applies", by.describe());
        let help = "exclude them in `target_matchers`, or in the matchers of the rule: a silenced alert is neither sent \
                    when it fires nor when it resolves";
        diagnostics.add_with_help(Code::Inhibited, inhibition.location, message, help);
    }
}

/// The part of `region` that can be silenced. An alert that matches both sides is silenced only by those that match the
/// source alone.
fn silenced(region: &Region, inhibition: &Inhibition<'_>, space: &Space) -> Option<Region> {
    let source = space.region(&inhibition.source)?;
    let target = space.region(&inhibition.target)?;
    let targets = intersect(region, &target)?;
    let agree = |alerts: &Region, by: &Region| {
        inhibition.equal.iter().all(|label| space.can_agree(label, alerts, by))
    };
    let one_sided = space.without(&targets, &source).into_iter().find(|alerts| agree(alerts, &source));
    one_sided.or_else(|| {
        let both = intersect(&targets, &source)?;
        space.without(&source, &target).iter().any(|by| agree(&both, by)).then_some(both)
    })
}
