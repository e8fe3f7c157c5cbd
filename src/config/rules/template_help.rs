//! Fixes for invalid templates and conditions, above all for what is valid in Go templates or in PromQL.

use std::sync::LazyLock;

use regex::Regex;

use super::super::suggest::nearest;
use crate::domain::template::{Error, FILTERS, ROOTS, Templates, Unknown};

/// The fix for `source`, which is not a valid template.
pub(super) fn for_template(source: &str, error: &Error) -> String {
    let rewritten = from_go(source);
    if rewritten != source && Templates::new().template(&rewritten).is_ok() {
        return format!("use Jinja's syntax: `{}`{}", quoted(&rewritten), value_annotation(source));
    }
    if rewritten != source || source.contains("{{ range") || source.contains("{{ end") {
        return "this is a Go template, and rules have Jinja templates: use `{{ labels.NAME }}` for `{{ .Labels.NAME }}`, \
                `{{ annotations.NAME }}` for `{{ .Annotations.NAME }}`"
            .to_owned();
    }
    for_unknown(source, error).unwrap_or_else(|| {
        "use a Jinja template such as `\"{{ labels.nodegroup }}\"`; `scalebridge explain E018` lists its variables and \
         filters"
            .to_owned()
    })
}

/// The fix for `source`, which is not a valid condition.
pub(super) fn for_condition(source: &str, error: &Error) -> String {
    let trimmed = source.trim();
    let bare = trimmed.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map_or(trimmed, str::trim);
    // `=` for `==`; within a text it may stand beside others.
    let has_operator = ["==", "!=", "<=", ">=", "=~"].iter().any(|operator| bare.contains(operator));
    let bare = if has_operator { bare.to_owned() } else { bare.replace('=', "==") };
    let rewritten = from_promql(&from_go(&format!("{{{{ {bare} }}}}")));
    let rewritten =
        rewritten.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map_or("", str::trim);
    let is_valid = !rewritten.is_empty() && Templates::new().condition(rewritten).is_ok();
    if is_valid && rewritten != trimmed {
        return format!("use `when: {rewritten}`{}", value_annotation(source));
    }
    if let Some(matcher) = regex_comparison(source) {
        return format!("compare with a regular expression in `matchers`: `matchers: ['{matcher}']`");
    }
    for_unknown(source, error).unwrap_or_else(|| {
        "use an expression without braces, for example `annotations.value | float >= 1`".to_owned()
    })
}

/// The first comparison with a regular expression, as a matcher.
fn regex_comparison(source: &str) -> Option<String> {
    static COMPARISON: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"labels\.(\w+)\s*(=~|!~)\s*["']([^"']*)["']"#).ok());
    match COMPARISON.as_ref().and_then(|comparison| comparison.captures(source)) {
        Some(found) => Some(format!("{} {} \"{}\"", &found[1], &found[2], &found[3])),
        None if source.contains("=~") || source.contains("!~") => Some("instance =~ \"web.*\"".to_owned()),
        None => None,
    }
}

/// The fix for an unknown name.
fn for_unknown(source: &str, error: &Error) -> Option<String> {
    let (what, name) = error.unknown_name()?;
    Some(match what {
        Unknown::Filter | Unknown::Method => {
            let (near, kind) = (foreign_filter(name), if what == Unknown::Filter { "" } else { "| " });
            match near.or_else(|| nearest(&name.to_lowercase(), FILTERS.into_iter())) {
                Some("startingwith") => "use a test: `labels.x is startingwith \"a\"`".to_owned(),
                Some("endingwith") => "use a test: `labels.x is endingwith \"a\"`".to_owned(),
                Some(near) => format!("did you mean `{kind}{near}`?"),
                None => format!("available are, among others: {}", FILTERS.join(", ")),
            }
        }
        Unknown::Test => {
            "available are, among others: defined, startingwith, endingwith, in, odd, even, divisibleby \
                          and the comparisons"
                .to_owned()
        }
        Unknown::Number => format!("convert it: `{name} | float`"),
        Unknown::Field if matches!(name, "labels" | "annotations") => {
            format!("use `{name}.NAME` without `alert.`")
        }
        Unknown::Variable | Unknown::Field => variable(source, what, name)?,
    })
}

/// The fix for an unknown variable, or for an unknown field of `alert` or `source`.
fn variable(source: &str, what: Unknown, name: &str) -> Option<String> {
    static DASHED: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"\b(labels|annotations)\.(\w+(?:[-./:]\w+)+)").ok());
    let dashed = DASHED.as_ref().and_then(|dashed| dashed.captures(source));
    if let Some((root, label)) = dashed.and_then(|found| Some((found.get(1)?, found.get(2)?)))
        && label.as_str().split(['-', '.', '/', ':']).any(|part| part == name)
    {
        return Some(format!(
            "a label with a dash or a dot is written as `{}[\"{}\"]`",
            root.as_str(),
            label.as_str()
        ));
    }
    if what == Unknown::Field {
        return (name == "name").then(|| "use `labels.alertname` for the name of the alert".to_owned());
    }
    if let Some(root) =
        ["labels", "annotations"].into_iter().find(|root| source.contains(&format!("{root}[{name}]")))
    {
        return Some(format!("quote the name in brackets: `{root}[\"{name}\"]`"));
    }
    match nearest(&name.to_lowercase(), ROOTS.into_iter()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if source.contains(&format!("{name}(")) => {
            Some(format!("there are no functions, only filters: {}", FILTERS.join(", ")))
        }
        None if name == "value" => Some(format!("use `annotations.value`{}", value_annotation("$value"))),
        None => Some(format!("use `labels.{name}` or `annotations.{name}`")),
    }
}

/// Where the value of an alert has to come from, if `source` uses Prometheus' `$value`.
fn value_annotation(source: &str) -> &'static str {
    if source.contains("$value") || source.contains(".Value") {
        ", and add the annotation `value: \"{{ $value }}\"` to the alerting rule in Prometheus"
    } else {
        ""
    }
}

/// Rewrites what Go templates of Prometheus and Alertmanager have into Jinja's syntax, as far as it has a counterpart.
fn from_go(source: &str) -> String {
    /// Patterns within braces, and their replacements.
    const REWRITES: [(&str, &str); 21] = [
        (r#"\(?\bindex\s+[.$]+(?:Common|Group)?[Ll]abels\s+("[^"]*"|'[^']*')\)?"#, "labels[$1]"),
        (r#"\(?\bindex\s+[.$]+(?:Common)?[Aa]nnotations\s+("[^"]*"|'[^']*')\)?"#, "annotations[$1]"),
        (r"\$?\.(?:Common|Group)?Labels\b|\$labels\b|\bLabels\b", "labels"),
        (r"\$?\.(?:Common)?Annotations\b|\$annotations\b|\bAnnotations\b", "annotations"),
        (r"\blabels\.(?:Values|Names)\b", "labels"),
        (r"\$value\b|\$?\.Value\b", "annotations.value"),
        (r"\.Status\b", "alert.status"),
        (r"\.GeneratorURL\b", "alert.generator_url"),
        (r"\.Fingerprint\b", "alert.fingerprint"),
        (r"\.StartsAt\b", "alert.starts_at"),
        (r"\.EndsAt\b", "alert.ends_at"),
        (r"\balert\.(labels|annotations)\b", "$1"),
        (r"\|\s*(?:toUpper|upper_case|uppercase)\b", "| upper"),
        (r"\|\s*(?:toLower|lower_case|lowercase)\b", "| lower"),
        (r"\|\s*(?:trimSpace|strip|trim_space)\b", "| trim"),
        (r"\|\s*(?:toFloat|float64|parseFloat|number|to_float|toNumber)\b", "| float"),
        (r"\|\s*(?:atoi|toInt|int64|to_int)\b", "| int"),
        (r"\{\{(-?)\s*if\s+eq\s+(\S+)\s+(\S+?)\s*(-?)\}\}", "{%$1 if $2 == $3 $4%}"),
        (r"\{\{(-?)\s*if\s+(.*?)\s*(-?)\}\}", "{%$1 if $2 $3%}"),
        (r"\{\{(-?)\s*else\s*(-?)\}\}", "{%$1 else $2%}"),
        (r"\{\{(-?)\s*end\s*(-?)\}\}", "{%$1 endif $2%}"),
    ];
    static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        REWRITES.iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, *with))).collect()
    });
    COMPILED
        .iter()
        .fold(source.to_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

/// Rewrites the operators of Go and C, and comparisons of text with a number, for a condition.
fn from_promql(source: &str) -> String {
    const REWRITES: [(&str, &str); 5] = [
        (r"\s*&&\s*", " and "),
        (r"\s*\|\|\s*", " or "),
        (r"!\s*([\w(])", "not $1"),
        (
            r#"\b((?:labels|annotations)(?:\.\w+|\["[^"]*"\]|\['[^']*'\]))(\s*(?:[<>]=?|==|!=)\s*[-+]?\d)"#,
            "$1 | float$2",
        ),
        (
            r#"(\d\s*(?:[<>]=?|==|!=)\s*)((?:labels|annotations)(?:\.\w+|\["[^"]*"\]|\['[^']*'\]))(\s*(?:$|\}|\)|and|or))"#,
            "$1($2 | float)$3",
        ),
    ];
    static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        REWRITES.iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, *with))).collect()
    });
    COMPILED
        .iter()
        .fold(source.to_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

/// The filter for what a filter or method of another template language does.
fn foreign_filter(name: &str) -> Option<&'static str> {
    Some(match name.to_lowercase().as_str() {
        "toupper" | "uppercase" | "upcase" => "upper",
        "tolower" | "lowercase" | "downcase" => "lower",
        "tofloat" | "parsefloat" | "number" | "to_float" | "float64" | "to_number" | "tonumber" => "float",
        "toint" | "atoi" | "to_int" | "int64" => "int",
        "strip" | "trimspace" | "trimsuffix" | "trimprefix" => "trim",
        "rereplaceall" | "regex_replace" | "replaceall" | "sub" => "replace",
        "len" | "size" => "length",
        "startswith" | "hasprefix" | "starts_with" => "startingwith",
        "endswith" | "hassuffix" | "ends_with" => "endingwith",
        _ => return None,
    })
}

/// The template that a text without double braces was meant to be: `labels.x`, `$labels.x`, `{labels.x}`, `${x}`.
pub(super) fn missing_braces(text: &str) -> Option<String> {
    static PLAIN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"\$?\{{1,2}\s*[.$]?([\w.\[\]]+)\s*\}{1,2}|[.$]?\b((?:[lL]abels|[aA]nnotations|source|alert)\.\w+)|\$(\w+)").ok()
    });
    let plain = PLAIN.as_ref()?;
    if !plain.is_match(text) {
        return None;
    }
    let with_braces = plain.replace_all(text, |found: &regex::Captures<'_>| {
        let name =
            found.get(1).or_else(|| found.get(2)).or_else(|| found.get(3)).map_or("", |it| it.as_str());
        let name = name
            .trim_start_matches(['$', '.'])
            .replace("Labels", "labels")
            .replace("Annotations", "annotations");
        let root = if name == "value" { "annotations." } else { "labels." };
        let root = if name.contains('.') { "" } else { root };
        format!("{{{{ {root}{name} }}}}")
    });
    Templates::new().template(&with_braces).is_ok().then(|| quoted(&with_braces))
}

/// A text as a scalar of YAML.
fn quoted(text: &str) -> String {
    if text.contains('"') { format!("'{}'", text.replace('\'', "''")) } else { format!("\"{text}\"") }
}
