//! The route tree, with the settings that child routes inherit.

use std::time::Duration;

use super::matchers::{self, Keys};
use super::space::{Region, Space, intersect};
use super::values::{flag, items, text_of};
use crate::config::decode::entries;
use crate::config::diagnostic::{Diagnostics, Location};
use crate::config::scalar::duration;
use crate::config::yaml::{Kind, Node};
use crate::domain::labels::Labels;
use crate::domain::matcher::Matcher;

/// Alertmanager's own defaults.
const DEFAULT_GROUP_INTERVAL: Duration = Duration::from_mins(5);
const DEFAULT_REPEAT_INTERVAL: Duration = Duration::from_hours(4);
/// The maximum number of routes; larger trees are checked in part.
const MAX_ROUTES: usize = 100_000;
/// The maximum number of sets of alerts that are followed beside each other through the children of a route. Beyond it
/// a set is not cut, so that it contains too many alerts.
const MAX_REGIONS: usize = 64;

const MATCHER_KEYS: Keys = Keys { matchers: "matchers", equal: "match", matching: "match_re" };

/// A route with its inherited settings.
pub(super) struct Route<'n> {
    pub location: &'n Location,
    pub receiver: Option<&'n str>,
    pub group_interval: (Duration, &'n Location),
    pub repeat_interval: (Duration, &'n Location),
    /// Its own time intervals; they are not inherited.
    pub intervals: Option<(&'static str, &'n Location)>,
    pub matchers: Vec<Matcher>,
    parent: Option<usize>,
    continues: bool,
    children: Vec<usize>,
}

/// Reads the route tree. The first route is the root.
pub(super) fn read<'n>(root: &'n Node, diagnostics: &mut Diagnostics) -> Vec<Route<'n>> {
    let mut routes = Vec::new();
    add(root, None, &mut routes, diagnostics);
    routes
}

/// Adds a route and its children. Returns its index.
fn add<'n>(
    node: &'n Node,
    parent: Option<usize>,
    routes: &mut Vec<Route<'n>>,
    diagnostics: &mut Diagnostics,
) -> Option<usize> {
    if routes.len() >= MAX_ROUTES {
        return None;
    }
    entries(node, diagnostics)?;
    let inherited = parent.map(|parent| &routes[parent]);
    let mut time = |key: &str, inherited: (Duration, &'n Location)| {
        let own = node.get(key).filter(|node| node.kind != Kind::Null);
        own.and_then(|node| Some((duration(node, diagnostics)?, &node.location))).unwrap_or(inherited)
    };
    let defaults = (DEFAULT_GROUP_INTERVAL, DEFAULT_REPEAT_INTERVAL);
    let route = Route {
        location: &node.location,
        receiver: text_of(node, "receiver").or(inherited.and_then(|route| route.receiver)),
        group_interval: time(
            "group_interval",
            inherited.map_or((defaults.0, &node.location), |route| route.group_interval),
        ),
        repeat_interval: time(
            "repeat_interval",
            inherited.map_or((defaults.1, &node.location), |route| route.repeat_interval),
        ),
        intervals: ["mute_time_intervals", "active_time_intervals"].into_iter().find_map(|key| {
            let node = node.get(key)?;
            (!items(Some(node)).is_empty()).then_some((key, &node.location))
        }),
        // The root matches every alert.
        matchers: parent.map_or_else(Vec::new, |_| matchers::read(node, &MATCHER_KEYS, diagnostics)),
        parent,
        continues: node.get("continue").and_then(|node| flag(node, diagnostics)).unwrap_or(false),
        children: Vec::new(),
    };
    let index = routes.len();
    routes.push(route);
    for child in items(node.get("routes")) {
        if let Some(child) = add(child, Some(index), routes, diagnostics) {
            routes[index].children.push(child);
        }
    }
    Some(index)
}

/// The route tree, and the alerts that each route matches.
pub(super) struct Tree<'r, 'n> {
    pub routes: &'r [Route<'n>],
    pub space: &'r Space,
    /// `None` if a route matches no alert.
    regions: Vec<Option<Region>>,
}

/// A set of alerts, and the routes that take them, in order.
pub(super) type Followed = (Region, Vec<usize>);

impl<'r, 'n> Tree<'r, 'n> {
    pub(super) fn new(routes: &'r [Route<'n>], space: &'r Space) -> Self {
        let regions = routes.iter().map(|route| space.region(&route.matchers)).collect();
        Self { routes, space, regions }
    }

    /// Follows a set of alerts from the root. The parts of the result contain all of these alerts, and perhaps, in a large
    /// tree, alerts that take other routes.
    pub(super) fn follow(&self, region: Region) -> Vec<Followed> {
        self.follow_from(0, region)
    }

    fn follow_from(&self, route: usize, region: Region) -> Vec<Followed> {
        let mut passing: Vec<Followed> = vec![(region, Vec::new())];
        let mut stopped = Vec::new();
        for &child in &self.routes[route].children {
            let Some(wanted) = &self.regions[child] else { continue };
            let mut next = Vec::new();
            for (region, taken) in passing {
                let Some(inside) = intersect(&region, wanted) else {
                    next.push((region, taken));
                    continue;
                };
                let mut inner = self.follow_from(child, inside);
                for (_, routes) in &mut inner {
                    *routes = join(&taken, routes);
                }
                let mut outside = self.space.without(&region, wanted);
                let kept = if self.routes[child].continues { inner.len() } else { 0 };
                if next.len() + outside.len() + kept > MAX_REGIONS {
                    let seen = inner.iter().fold(taken.clone(), |all, (_, routes)| join(&all, routes));
                    next.push((region, if self.routes[child].continues { seen } else { taken }));
                } else {
                    next.extend(outside.drain(..).map(|part| (part, taken.clone())));
                    if self.routes[child].continues {
                        next.append(&mut inner);
                    }
                }
                stopped.extend(inner.into_iter().filter(|_| !self.routes[child].continues));
            }
            passing = next;
        }
        let here = |(region, taken): Followed| (region, if taken.is_empty() { vec![route] } else { taken });
        stopped.extend(passing.into_iter().map(here));
        stopped
    }

    /// The alerts that match a route and those around it; `None` if there are none.
    pub(super) fn region(&self, route: usize) -> Option<Region> {
        let own = self.regions[route].as_ref()?;
        match self.routes[route].parent {
            Some(parent) => intersect(&self.region(parent)?, own),
            None => Some(own.clone()),
        }
    }

    /// The routes that take an alert, as Alertmanager's `Route.Match` finds them.
    pub(super) fn routes_of(&self, labels: &Labels) -> Vec<usize> {
        self.routes_from(0, labels)
    }

    fn routes_from(&self, route: usize, labels: &Labels) -> Vec<usize> {
        let mut taken = Vec::new();
        for &child in &self.routes[route].children {
            if self.routes[child].matchers.iter().all(|matcher| matcher.matches(labels)) {
                taken.extend(self.routes_from(child, labels));
                if !self.routes[child].continues {
                    break;
                }
            }
        }
        if taken.is_empty() { vec![route] } else { taken }
    }
}

fn join(before: &[usize], after: &[usize]) -> Vec<usize> {
    let mut all = before.to_vec();
    all.extend(after.iter().filter(|route| !before.contains(route)));
    all
}
