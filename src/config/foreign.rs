//! Fixes for what is valid in the configurations of Prometheus, Alertmanager, Helm, Kubernetes and AWS, and not here.

use super::yaml::{Key, Kind, Node};

/// The fix for the unknown key `key` in the map `path`, if it is one that other programs have.
pub(super) fn key_help(path: &str, key: &Key, value: &Node) -> Option<String> {
    let plain: String = key.name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    match (path, plain.as_str()) {
        ("rules.*", "match" | "matchequals" | "labels" | "selector" | "matchlabels") => {
            Some(format!("use `matchers: {}`", matchers_of(value, "=")))
        }
        ("rules.*", "matchre") => Some(format!("use `matchers: {}`", matchers_of(value, "=~"))),
        ("rules.*", "alert" | "alertname" | "alerts") => {
            let name = scalar(value).unwrap_or_else(|| "NAME".to_owned());
            Some(format!("use `matchers: [alertname = {name}]`"))
        }
        _ => counterpart(path, &plain).map(ToOwned::to_owned),
    }
}

/// The fix for a map `path` that is written as a single value or a list.
pub(super) fn map_help(path: &str, value: &Node) -> Option<String> {
    let text = scalar(value);
    let text = text.as_deref();
    let of_destination = path.strip_prefix("destinations.*.").and_then(|kind| destination_help(kind, text));
    let of_one = of_destination.or_else(|| rule_help(path, value, text));
    if of_one.is_some() {
        return of_one;
    }
    match path {
        "server" | "admin" => text.map(|text| match text.trim_start_matches(':') {
            port if port.parse::<u16>().is_ok() => format!("use `{{ listen: \"127.0.0.1:{port}\" }}`"),
            address => format!("use `{{ listen: \"{address}\" }}`"),
        }),
        "store" => Some("use `{ sqlite: { path: data/scalebridge.db } }`".to_owned()),
        "store.postgres" => Some("use `{ url_file: FILE }`, and write the URL into that file".to_owned()),
        "sources.*" => Some("use `{}` for a source with the default settings".to_owned()),
        "sources.*.alertmanager" => Some(match text {
            // Not repeated: it may contain a secret.
            Some(_) => {
                "use `{ urls: [URL, …] }`, with the URL of each Alertmanager of the cluster".to_owned()
            }
            None => "use `{ urls: ['http://alertmanager:9093'] }`".to_owned(),
        }),
        "destinations.*" => Some("name the kind: `{ file: { path: \"-\" } }`".to_owned()),
        _ => {
            let (key, value) = text.and_then(|text| text.split_once(':').or_else(|| text.split_once(' ')))?;
            let is_key = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            is_key.then(|| format!("write a key, a colon and a space: `{key}: {}`", value.trim_start()))
        }
    }
}

/// The fix for a map of a rules file.
fn rule_help(path: &str, value: &Node, text: Option<&str>) -> Option<String> {
    match path {
        "rules.*.amount" => Some(match text {
            Some("revert") => "use `{ revert: true }`".to_owned(),
            Some(text) => match text.strip_suffix('%') {
                Some(percent) => format!("use `{{ by_percent: {percent} }}`"),
                None if text.parse::<u32>().is_ok() => format!("use `{{ by: {text} }}`"),
                None => "use `{ by: 2 }`, `{ by_percent: 25 }` or `metric` with `steps`".to_owned(),
            },
            None => "use `{ by: 2 }`, `{ by_percent: 25 }` or `metric` with `steps`".to_owned(),
        }),
        "rules.*.set_capacity" => Some(format!(
            "use `{{ to: {} }}`",
            text.filter(|text| text.parse::<u32>().is_ok()).unwrap_or("4")
        )),
        "rules.*.on_firing" | "rules.*.on_resolved" => Some(match text {
            Some("scale_in") if path.ends_with("resolved") => {
                "use `{ scale_in: { revert: true } }`".to_owned()
            }
            Some("notify") => "use `{ notify: {} }`".to_owned(),
            Some("hold") => "use `{ hold: {} }`".to_owned(),
            Some(action @ ("scale_out" | "scale_in")) => format!("use `{{ {action}: {{ by: 1 }} }}`"),
            _ if matches!(value.kind, Kind::List(_)) => {
                "a rule has one action, without a list: `{ scale_out: { by: 1 } }`".to_owned()
            }
            _ => "use an action, for example `{ scale_out: { by: 1 } }`".to_owned(),
        }),
        "rules.*.on_firing.hold" => {
            Some("use `{}`, or `{ blocks: [scale_in], max_duration: 4h }`".to_owned())
        }
        "rules.*.notify" => Some("use `{}`".to_owned()),
        "rules.*.step" => Some("use `{ from: 0, by: 1 }`".to_owned()),
        "rules.*.target" => {
            Some("use `{ platform: eks, kind: nodegroup, name: \"{{ labels.nodegroup }}\" }`".to_owned())
        }
        "rules.*.limits" => Some("use `{ min_capacity: 2, max_capacity: 40 }`".to_owned()),
        "rules.*.budget" => Some(format!(
            "use `{{ events: {}, per: 1h }}`",
            text.filter(|text| text.parse::<u32>().is_ok()).unwrap_or("20")
        )),
        "rules" if matches!(value.kind, Kind::List(_)) => Some(
            "a rules file is a map with the list `rules`: put `rules:` above the list, and indent it"
                .to_owned(),
        ),
        "rules" => Some("a rules file is a map with the list `rules`".to_owned()),
        "rules.*" => Some(match text.and_then(|text| text.split_once(':')) {
            Some((key, value)) => format!("put a space after the colon: `{key}: {}`", value.trim_start()),
            None => "a rule is a map that begins with its name: `- name: unschedulable-pods`".to_owned(),
        }),
        _ => None,
    }
}

/// The fix for the settings of a destination that are written as a single value: the key that they need.
fn destination_help(kind: &str, text: Option<&str>) -> Option<String> {
    let (key, example) = match kind {
        "file" => ("path", "-"),
        "sqs" => ("queue_url", "https://…"),
        "lambda" => ("function", "NAME"),
        "eventbridge" => ("bus", "NAME"),
        "sns" => ("topic_arn", "ARN"),
        "step_functions" => ("state_machine_arn", "ARN"),
        _ => return None,
    };
    Some(format!("use `{{ {key}: {:?} }}`", text.unwrap_or(example)))
}

/// The fix for a list that is written as a single value or as a map.
pub(super) fn list_help(value: &Node) -> Option<String> {
    let items = match &value.kind {
        Kind::Text(text) if text.contains(',') => {
            text.split(',').map(|item| flow_item(item.trim())).collect()
        }
        Kind::Map(entries) if entries.iter().all(|(_, node)| node.kind == Kind::Null) => {
            entries.iter().map(|(key, _)| flow_item(&key.name)).collect()
        }
        Kind::Map(entries) if !entries.is_empty() => return map_for_list(entries),
        _ => vec![flow_item(&scalar(value)?)],
    };
    Some(format!("use a list: `[{}]`", items.join(", ")))
}

/// The fix for a map in the place of a list: the map is its only item, or its keys are where steps begin.
fn map_for_list(entries: &[(Key, Node)]) -> Option<String> {
    let scalars: Option<Vec<(&str, String)>> =
        entries.iter().map(|(key, node)| Some((key.name.as_str(), scalar(node)?))).collect();
    let items: Vec<String> = match scalars {
        Some(steps) if steps.iter().all(|(from, _)| from.parse::<f64>().is_ok()) => {
            steps.iter().map(|(from, by)| format!("{{ from: {from}, by: {by} }}")).collect()
        }
        Some(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}: {}", flow_item(value))).collect();
            vec![format!("{{ {} }}", fields.join(", "))]
        }
        None => return Some("begin each item of the list with `- `".to_owned()),
    };
    Some(format!("use a list: `[{}]`", items.join(", ")))
}

/// The fix for a condition that is written as a list of conditions, or as a map of labels and values.
pub(super) fn condition_help(value: &Node) -> Option<String> {
    match &value.kind {
        Kind::List(items) => {
            let conditions: Option<Vec<String>> = items.iter().map(scalar).collect();
            Some(format!("use one expression: `when: {}`", conditions?.join(" and ")))
        }
        Kind::Map(_) => {
            Some(format!("labels are compared in matchers: `matchers: {}`", matchers_of(value, "=")))
        }
        _ => None,
    }
}

/// The fix for a list of what has a name, such as sources, which belong in a map by name.
pub(super) fn named_help(list: &Node) -> Option<String> {
    let Kind::List(items) = &list.kind else { return None };
    let names: Vec<String> = items
        .iter()
        .filter_map(|item| item.get("name").and_then(scalar).or_else(|| scalar(item)))
        .map(|name| format!("{}: {{ … }}", flow_item(&name)))
        .collect();
    let example = if names.is_empty() { "NAME: { … }".to_owned() } else { names.join(", ") };
    Some(format!("use a map by name: `{{ {example} }}`"))
}

/// The fix for matchers that are written as a map: of labels and values, or as in Kubernetes' `AlertmanagerConfig`.
pub(super) fn matchers_help(value: &Node, is_item: bool) -> String {
    let named = value.get("name").and_then(scalar).zip(value.get("value").and_then(scalar));
    let matchers = match named {
        Some((name, wanted)) if is_item => {
            let operator = value.get("matchType").or_else(|| value.get("match_type")).and_then(scalar);
            let is_regex = value.get("regex").or_else(|| value.get("isRegex"));
            let is_regex = is_regex.is_some_and(|node| node.kind == Kind::Bool(true));
            let operator = operator.unwrap_or_else(|| if is_regex { "=~" } else { "=" }.to_owned());
            vec![flow_item(&matcher(&name, &operator, &wanted))]
        }
        _ => matcher_list(value, "="),
    };
    match (is_item, &matchers[..]) {
        (true, [one]) => format!("write a matcher as text: `- {one}`"),
        (true, several) => format!("write each matcher as text: `[{}]`", several.join(", ")),
        (false, _) => format!("use a list of matchers: `[{}]`", matchers.join(", ")),
    }
}

/// A flow list of the matchers that a map of labels and values means.
fn matchers_of(value: &Node, operator: &str) -> String {
    let matchers = match &value.kind {
        Kind::Map(_) => matcher_list(value, operator),
        _ => vec![format!("alertname {operator} {}", scalar(value).unwrap_or_else(|| "NAME".to_owned()))],
    };
    format!("[{}]", matchers.join(", "))
}

fn matcher_list(value: &Node, operator: &str) -> Vec<String> {
    let Kind::Map(entries) = &value.kind else { return Vec::new() };
    let one = |(key, node): &(Key, Node)| {
        let wanted = match &node.kind {
            Kind::List(items) => {
                let words: Vec<String> = items.iter().filter_map(scalar).collect();
                return flow_item(&matcher(&key.name, "=~", &words.join("|")));
            }
            _ => scalar(node).unwrap_or_default(),
        };
        flow_item(&matcher(&key.name, operator, &wanted))
    };
    entries.iter().map(one).collect()
}

fn matcher(name: &str, operator: &str, value: &str) -> String {
    let is_bare = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
    };
    let quote = |text: &str| if is_bare(text) { text.to_owned() } else { format!("{text:?}") };
    format!("{} {operator} {}", quote(name), quote(value))
}

/// A text as an item of a flow list, quoted where YAML needs it.
fn flow_item(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !text.contains([',', '[', ']', '{', '}', '"', '\'', '#', ':', '`', '|', '*', '&', '%', '@'])
        && !text.starts_with(['!', '-', '?', '>', ' '])
        && !text.contains(" !");
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

fn scalar(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.chars().take(80).collect()),
        Kind::Int(number) => Some(number.to_string()),
        Kind::Float(number) => Some(number.to_string()),
        Kind::Bool(flag) => Some(flag.to_string()),
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}

/// Keys of other programs, without case, dashes and underscores, by the map in which they are found.
#[rustfmt::skip] // a table, one row per line
const COUNTERPARTS: &[(&str, &[&str], &str)] = &[
    ("", &["receivers", "receiver", "outputs", "sinks"], "use `destinations: { NAME: { file: { path: \"-\" } } }`"),
    ("server", &["address", "addr", "bind", "host", "port", "http", "listenaddress"], "use `listen: \"127.0.0.1:9096\"`"),
    ("admin", &["address", "addr", "bind", "host", "port", "http", "listenaddress"], "use `listen: \"127.0.0.1:9097\"`"),
    ("", &["rulefiles", "rulesfiles"], "use `rules: [rules.yaml]`"),
    ("", &["listen", "listenaddress", "http", "web", "port"], "use `server: { listen: \"127.0.0.1:9096\" }`"),
    ("", &["global"], "use the sections `delivery` and `engine`"),
    ("", &["route", "routes"], "routes are part of Alertmanager's configuration: pass that file to `--alertmanager`"),
    ("", &["defaults"], "`defaults` is a key of rules files; use `delivery` here"),
    ("", &["database", "db", "storage"], "use `store: { sqlite: { path: data/scalebridge.db } }`"),
    ("", &["logging", "loglevel"], "use `log: { level: info }`"),
    ("", &["alertmanagers", "alertmanager", "alerting"], "use `sources: { NAME: {} }`; Alertmanager sends to `/webhook/NAME`"),
    ("", &["sourcesfiles", "sourcefile", "sourceincludes"], "use `source_files: [sources/*.yaml]`"),
    ("source_files.*", &["labels", "auth", "kind", "heartbeat", "heartbeattimeout", "heartbeatgrace", "latewindow", "occurrencettl", "ignorelabels", "rules", "targets"], "indent it below the name of a source: `sources: { NAME: { … } }`"),
    ("source_files.*", &["server", "admin", "store", "destinations", "delivery", "engine", "retention", "log", "sourcedefaults", "sourcefiles"], "this key belongs in the configuration file"),
    ("sources.*", &["url", "webhookurl", "address"], "remove it: Alertmanager sends to the bridge, at `/webhook/NAME`"),
    ("sources.*", &["externallabels", "staticlabels", "addlabels"], "use `labels`"),
    ("sources.*", &["type"], "use `kind`"),
    ("sources.*", &["watchdog", "deadmansswitch"], "use `heartbeat: ['alertname = \"Watchdog\"']`"),
    ("sources.*", &["repeatinterval", "resolvetimeout"], "use `occurrence_ttl`, longer than Alertmanager's `repeat_interval`"),
    ("sources.*", &["groupinterval", "groupwait"], "use `late_window`, longer than Alertmanager's `group_interval`"),
    ("sources.*", &["replicalabels", "droplabels", "dedupelabels"], "use `ignore_labels`"),
    ("destinations.*", &["type", "kind"], "name the kind as a key: `sqs: { … }`, `lambda: { … }` or `file: { … }`"),
    ("destinations.*", &["url", "queueurl", "queue"], "use `sqs: { queue_url: \"https://…\" }`"),
    ("destinations.*", &["function", "functionname", "functionarn", "arn"], "use `lambda: { function: … }`"),
    ("destinations.*", &["bus", "eventbus", "eventbusname", "putevents", "events"], "use `eventbridge: { bus: … }`"),
    ("destinations.*", &["topic", "topicarn", "snsconfigs"], "use `sns: { topic_arn: … }`"),
    ("destinations.*", &["sfn", "states", "statemachine", "statemachinearn", "stepfunction"], "use `step_functions: { state_machine_arn: … }`"),
    ("destinations.*", &["path", "stdout"], "use `file: { path: \"-\" }`"),
    ("destinations.*", &["webhook", "http", "webhookconfigs", "kafka"], "this version sends to `sqs`, `lambda`, `eventbridge`, `sns`, `step_functions` and `file`"),
    ("destinations.*", &["retries", "maxretries", "retry", "maxattempts"], "use `max_age`: an event is retried for this long"),
    ("rules", &["groups"], "these are alerting rules of Prometheus; a rules file of the bridge has the list `rules`"),
    ("rules", &["route", "receivers"], "this is a configuration of Alertmanager: pass it to `check --alertmanager`"),
    ("rules", &["apiversion", "metadata", "spec"], "this is a Kubernetes manifest; a rules file has the list `rules` at its top"),
    ("rules", &["server", "admin", "store", "sources", "destinations", "delivery", "engine", "retention"], "this key belongs in the configuration file"),
    ("rules", &["tests"], "these are tests of rules: run them with `scalebridge test`"),
    ("rules.defaults", &["receiver", "receivers", "destination", "destinations", "to"], "use `send_to: [NAME]`"),
    ("rules.*", &["receiver", "receivers", "destination", "destinations", "to", "send", "output"], "use `send_to: [NAME]`"),
    ("rules.*", &["source", "from", "clusters"], "use `sources: [NAME]`"),
    ("rules.*", &["if", "condition", "expr", "filter"], "use `when`, or `matchers`"),
    ("rules.*", &["for"], "`for` belongs in the alerting rule in Prometheus; to delay an action here, set `stabilization_window` in `on_firing`"),
    ("rules.*", &["action", "actions", "firing", "onfire", "onalert", "do", "then", "scaleup"], "use `on_firing: { scale_out: { by: 1 } }`"),
    ("rules.*", &["scaleout", "setcapacity", "notify"], "indent it below `on_firing:`, as in `on_firing: { scale_out: { by: 1 } }`"),
    ("rules.*", &["resolved", "onresolve", "onrecovery", "scalein", "scaledown"], "use `on_resolved: { scale_in: { revert: true } }`"),
    ("rules.*", &["cooldown", "repeat", "stabilizationwindow", "maxemissions"], "move it into `on_firing` or `on_resolved`; in `defaults` at the top of the file, `cooldown` and `stabilization_window` are for all rules"),
    ("rules.*", &["repeatinterval"], "use `repeat: while_firing` with a `cooldown` in `on_firing`"),
    ("rules.*", &["enabled", "disabled", "active", "paused"], "use `mode: active` or `mode: disabled`"),
    ("rules.*", &["dryrun", "shadow"], "use `mode: shadow`"),
    ("rules.*", &["annotations", "params", "args", "extra", "metadata", "payload"], "use `parameters: { NAME: \"{{ annotations.NAME }}\" }`"),
    ("rules.*", &["min", "max", "minreplicas", "maxreplicas", "minsize", "maxsize", "mincapacity", "maxcapacity"], "use `limits: { min_capacity: 2, max_capacity: 40 }`"),
    ("rules.*", &["ratelimit", "maxevents"], "use `budget: { events: 20, per: 1h }`"),
    ("rules.*", &["platform", "kind", "cluster", "region", "namespace", "account", "resource"], "move it into `target`"),
    ("rules.*", &["hold"], "indent it below `on_firing:`, as in `on_firing: { hold: {} }`"),
    ("rules.*", &["routes", "rules"], "rules are not nested: list them one after the other, the narrower ones first"),
    ("rules.*", &["ttl", "expiry", "timeout", "maxage"], "use `expires_after`"),
    ("rules.*.target", &["type", "resource", "resourcetype"], "use `kind`"),
    ("rules.*.target", &["provider", "cloud"], "use `platform`"),
    ("rules.*.target", &["nodegroup", "nodegroupname"], "use `kind: nodegroup` and `name: …`"),
    ("rules.*.target", &["asg", "autoscalinggroup", "autoscalinggroupname"], "use `platform: ec2`, `kind: autoscaling-group` and `name: …`"),
    ("rules.*.target", &["service", "deployment", "statefulset", "job", "id"], "use `kind: …` and `name: …`"),
    ("rules.*.target", &["apiversion", "group"], "use the plural and group as `kind`, for example `rollouts.argoproj.io`"),
    ("rules.*.target", &["clustername"], "use `cluster`"),
    ("rules.*.target", &["accountid", "awsaccount"], "use `account`"),
    ("rules.*.target", &["awsregion", "zone", "az"], "use `region`"),
    ("rules.*.on_firing", &["scaleup", "scale", "add", "increase", "up", "grow"], "use `scale_out: { by: 1 }`"),
    ("rules.*.on_firing", &["scaledown", "remove", "decrease", "down", "shrink"], "use `scale_in: { by: 1 }`"),
    ("rules.*.on_firing", &["set", "replicas", "desired", "desiredcapacity", "setreplicas", "capacity"], "use `set_capacity: { to: 4 }`"),
    ("rules.*.on_firing", &["for", "delay", "wait", "window", "stabilizationwindowseconds"], "use `stabilization_window`"),
    ("rules.*.on_firing", &["interval", "repeatinterval", "every", "period", "cooldownseconds"], "use `cooldown`, with `repeat: while_firing` to act again"),
    ("rules.*.on_firing", &["by", "bypercent", "steps", "metric"], "move it into the action: `scale_out: { by: 1 }`"),
    ("rules.*.on_firing", &["freeze", "block", "pause", "silence"], "use `hold: { blocks: [scale_in] }`"),
    ("rules.*.on_firing", &["sendto", "destination", "destinations"], "move it to the rule: `send_to: [NAME]`"),
    ("rules.*.on_resolved", &["scaledown", "remove", "decrease", "down", "shrink", "revert", "undo"], "use `scale_in: { revert: true }`"),
    ("rules.*.on_resolved", &["scaleup", "add", "increase", "up"], "use `scale_out: { by: 1 }`"),
    ("rules.*.on_resolved", &["set", "replicas", "desired", "desiredcapacity", "capacity", "reset"], "use `set_capacity: { to: 4, allow_decrease: true }`"),
    ("rules.*.on_resolved", &["for", "delay", "wait", "after", "window", "stabilizationwindowseconds"], "use `stabilization_window`"),
    ("rules.*.on_resolved", &["repeat", "maxemissions"], "remove it: `on_resolved` acts once, when the episode closes"),
    ("rules.*.on_resolved", &["hold"], "remove it: a hold ends when its alerts resolve"),
    ("rules.*.on_resolved", &["by", "bypercent"], "move it into the action: `scale_in: { by: 1 }`"),
    ("rules.*.amount", &["percent", "percentage", "pct"], "use `by_percent`"),
    ("rules.*.amount", &["count", "amount", "value", "units", "nodes", "replicas", "instances", "step", "add", "num"], "use `by`"),
    ("rules.*.amount", &["min", "minimum", "minadjustmentmagnitude", "minmagnitude"], "use `at_least`, beside `by_percent`"),
    ("rules.*.amount", &["to", "desired"], "use `set_capacity: { to: 4 }` in place of this action"),
    ("rules.*.amount", &["max", "maximum", "mincapacity", "maxcapacity"], "use `limits: { min_capacity: 2, max_capacity: 40 }` of the rule"),
    ("rules.*.amount", &["cooldown", "stabilizationwindow", "repeat", "maxemissions"], "move it beside the action, into `on_firing` or `on_resolved`"),
    ("rules.*.step", &["to", "upperbound", "metricintervalupperbound", "max"], "remove it: a step ends where the next one begins"),
    ("rules.*.step", &["lowerbound", "metricintervallowerbound", "min", "threshold", "above", "at"], "use `from`"),
    ("rules.*.step", &["scalingadjustment", "adjustment", "count", "amount"], "use `by`"),
    ("rules.*.set_capacity", &["by", "value", "capacity", "desired", "replicas", "count"], "use `to`"),
    ("rules.*.set_capacity", &["cooldown", "stabilizationwindow"], "move it beside the action, into `on_firing` or `on_resolved`"),
    ("rules.*.limits", &["min", "minimum", "minsize", "minreplicas", "minnodes", "lower"], "use `min_capacity`"),
    ("rules.*.limits", &["max", "maximum", "maxsize", "maxreplicas", "maxnodes", "upper"], "use `max_capacity`"),
    ("rules.*.budget", &["max", "count", "limit", "maxevents"], "use `events`"),
    ("rules.*.budget", &["window", "interval", "period", "every", "in"], "use `per`"),
    ("rules.*.on_firing.hold", &["direction", "directions", "block"], "use `blocks: [scale_in]`"),
    ("rules.*.on_firing.hold", &["duration", "for", "timeout", "until", "maxage"], "use `max_duration`"),
    ("rules.*.on_firing.hold", &["target", "targets", "cluster"], "move it to the rule: `target: { cluster: … }`"),
    ("log", &["leveldebug", "verbosity"], "use `level`"),
];

fn counterpart(path: &str, key: &str) -> Option<&'static str> {
    COUNTERPARTS.iter().find(|(of, keys, _)| *of == path && keys.contains(&key)).map(|(.., help)| *help)
}
