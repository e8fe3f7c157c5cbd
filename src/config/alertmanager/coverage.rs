//! Which routes the alerts of rules and heartbeats take.

use std::collections::BTreeSet;

use super::routes::{Followed, Tree};
use super::space::{Region, Space};
use super::webhooks::Webhooks;
use crate::config::diagnostic::{Code, Diagnostics, Location};
use crate::config::settings::Settings;
use crate::domain::matcher::Matcher;
use crate::domain::rule::{Mode, Rule};
use crate::domain::source::{HeartbeatSettings, Source};

/// The maximum number of routes that are reported for the alerts of a rule.
const MAX_REPORTED: usize = 5;

/// The alerts that a rule or a heartbeat needs.
pub(super) struct Needed<'s> {
    pub by: By<'s>,
    /// The sources from which they can come.
    pub sources: Vec<&'s Source>,
    /// Matchers of labels that Alertmanager knows.
    matchers: Vec<&'s Matcher>,
}

#[derive(Clone, Copy)]
pub(super) enum By<'s> {
    Rule(&'s Rule),
    Heartbeat(&'s Source, &'s HeartbeatSettings),
}

impl By<'_> {
    /// Names the alerts in a message.
    pub(super) fn describe(self) -> String {
        match self {
            Self::Rule(rule) => format!("alerts of rule `{}`", rule.name),
            Self::Heartbeat(source, _) => format!("alerts of the heartbeat of source `{}`", source.name),
        }
    }
}

/// The alerts that the configured rules and heartbeats need from the sources to which Alertmanager sends.
pub(super) fn needed<'s, D, S>(settings: &'s Settings<D, S>, webhooks: &Webhooks<'_>) -> Vec<Needed<'s>> {
    let is_served = |source: &&Source| {
        let of_source = |webhook: &super::webhooks::Webhook<'_>| webhook.source == Some(source.name.as_str());
        webhooks.known.iter().any(of_source) || (webhooks.known.is_empty() && !webhooks.uncertain.is_empty())
    };
    let served: Vec<&Source> = settings.sources.values().filter(is_served).collect();
    let heartbeats = served.iter().filter_map(|source| {
        let heartbeat = source.heartbeat.as_ref()?;
        let matchers = known_to_alertmanager(&heartbeat.matchers, source)?;
        Some(Needed { by: By::Heartbeat(source, heartbeat), sources: vec![source], matchers })
    });
    let rules = settings.rules.rules().iter().filter(|rule| rule.mode != Mode::Disabled);
    let rules = rules.filter_map(|rule| {
        let sources = served.iter().filter(|source| rule.sees(source)).copied();
        let possible: Vec<(&Source, Vec<&Matcher>)> = sources
            .filter_map(|source| Some((source, known_to_alertmanager(&rule.matchers, source)?)))
            .collect();
        let (_, matchers) = possible.first()?;
        let matchers = matchers.clone();
        Some(Needed {
            by: By::Rule(rule),
            sources: possible.into_iter().map(|(source, _)| source).collect(),
            matchers,
        })
    });
    heartbeats.chain(rules).collect()
}

/// The matchers of labels that the source does not set; `None` if what it sets does not match.
fn known_to_alertmanager<'s>(matchers: &'s [Matcher], source: &Source) -> Option<Vec<&'s Matcher>> {
    let is_set = |matcher: &&Matcher| !source.labels.get(matcher.label()).is_empty();
    let (set, own): (Vec<&Matcher>, Vec<&Matcher>) = matchers.iter().partition(is_set);
    set.iter().all(|matcher| matcher.matches(&source.labels)).then_some(own)
}

impl<'s> Needed<'s> {
    pub(super) fn matchers(&self) -> impl Iterator<Item = &'s Matcher> {
        self.matchers.iter().copied()
    }

    /// All of these alerts; `None` if there are none.
    pub(super) fn region(&self, space: &Space) -> Option<Region> {
        // Every alert has a name.
        space.with_label(space.region(self.matchers())?, "alertname")
    }
}

/// The parts of the alerts that a rule or a heartbeat needs, and the routes to this bridge that they take.
pub(super) struct Covered {
    pub reaching: Vec<Region>,
    pub routes: BTreeSet<usize>,
}

/// Follows the alerts and reports those that do not reach this bridge, at the route that they take.
pub(super) fn check(
    needed: &Needed<'_>,
    all: &Region,
    tree: &Tree<'_, '_>,
    webhooks: &Webhooks<'_>,
    diagnostics: &mut Diagnostics,
) -> Covered {
    let reaches = |route: usize| {
        webhooks.of(tree.routes[route].receiver).any(|webhook| {
            webhook.source.is_none_or(|name| needed.sources.iter().any(|source| source.name.as_str() == name))
        })
    };
    let (reaching, elsewhere): (Vec<Followed>, Vec<Followed>) = tree
        .follow(all.clone())
        .into_iter()
        .partition(|(_, routes)| routes.iter().any(|route| reaches(*route)));
    // A heartbeat is one alert, which hardly has the labels of other alerts.
    let is_likely = |region: &Region| {
        reaching.is_empty() || matches!(needed.by, By::Rule(_)) || !tree.space.requires_label(region, all)
    };
    let mut lost: Vec<(usize, &Region)> = Vec::new();
    for (region, _) in elsewhere.iter().filter(|(region, _)| is_likely(region)) {
        // A set can contain too much, so its example is tried.
        let routes = tree.routes_of(&tree.space.example(region));
        if let Some(&last) = routes.last().filter(|_| !routes.iter().any(|route| reaches(*route)))
            && lost.iter().all(|(route, _)| *route != last)
        {
            lost.push((last, region));
        }
    }
    if reaching.is_empty() {
        if let Some((route, _)) = lost.first() {
            report_all(needed.by, tree.routes[*route].location, diagnostics);
        }
    } else {
        for (at, (route, region)) in lost.iter().take(MAX_REPORTED).enumerate() {
            let others = if at + 1 == MAX_REPORTED { lost.len() - MAX_REPORTED } else { 0 };
            let part = tree.space.describe(region, all);
            report_part(needed.by, &part, others, tree.routes[*route].location, diagnostics);
        }
    }
    let routes =
        reaching.iter().flat_map(|(_, routes)| routes).copied().filter(|route| reaches(*route)).collect();
    Covered { reaching: reaching.into_iter().map(|(region, _)| region).collect(), routes }
}

/// Reports that none of the alerts arrive.
fn report_all(by: By<'_>, location: &Location, diagnostics: &mut Diagnostics) {
    let (message, help) = match by {
        By::Rule(rule) => (
            format!("no route sends the alerts of rule `{}` to this bridge", rule.name),
            "add a route for these alerts, or widen an existing one; they take this route, and an earlier route \
             without `continue: true` hides alerts from later ones",
        ),
        By::Heartbeat(source, _) => (
            format!("no route sends the heartbeat of source `{}` to this bridge", source.name),
            "add a route for it, since it takes this one: while the heartbeat is absent, no alert of this source can \
             decrease capacity",
        ),
    };
    diagnostics.add_with_help(Code::Unrouted, location, message, help);
}

/// Reports that a part of the alerts takes a route, and perhaps others that are not reported.
fn report_part(by: By<'_>, part: &str, others: usize, location: &Location, diagnostics: &mut Diagnostics) {
    let alerts = match part {
        "" => format!("some {}", by.describe()),
        part => format!("{} with {part}", by.describe()),
    };
    let others = match others {
        0 => String::new(),
        1 => "; others take 1 more route".to_owned(),
        others => format!("; others take {others} more routes"),
    };
    let message = format!("{alerts} take this route, which does not lead to this bridge{others}");
    let help = match by {
        By::Rule(_) => {
            "if the rule should act on them, send them to this bridge too, by an earlier route with `continue: true`; \
             if not, exclude them in the `matchers` of the rule"
        }
        By::Heartbeat(..) => {
            "send them to this bridge too, by an earlier route with `continue: true`, or exclude them in the matchers \
             of the heartbeat"
        }
    };
    diagnostics.add_with_help(Code::Unrouted, location, message, help);
}
