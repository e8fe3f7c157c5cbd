//! Templates and conditions of rules, in Jinja's syntax by `minijinja`.
//!
//! Strict: using a label or annotation that the alert lacks is an error, not an empty string, because an
//! event about a node group named "" is useless. An empty label counts as absent, as in Prometheus. Rendering
//! is limited in steps and bytes, because annotations are untrusted input.

mod usage;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};

use super::labels::Labels;
use super::name::Name;
use super::notification::Alert;

/// The maximum number of steps of one rendering.
const MAX_RENDER_FUEL: u64 = 20_000;
/// The maximum size of a rendered text in bytes.
pub const MAX_RENDERED_BYTES: usize = 64 * 1024;

/// An error in a template, or in rendering it for an alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    unknown: Option<(Unknown, String)>,
}

impl Error {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), unknown: None }
    }

    fn unknown(what: Unknown, name: &str, message: String) -> Self {
        Self { message, unknown: Some((what, name.to_owned())) }
    }

    /// The name that the template uses and that nothing has, if that is the error.
    pub fn unknown_name(&self) -> Option<(Unknown, &str)> {
        self.unknown.as_ref().map(|(what, name)| (*what, name.as_str()))
    }
}

/// What an unknown name in a template was used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// A filter: `| name`.
    Filter,
    /// A test: `is name`.
    Test,
    /// A method: `.name()`.
    Method,
    /// A variable or function.
    Variable,
    /// A field of a variable that has fixed fields.
    Field,
    /// A number: the label or annotation of this name is text.
    Number,
}

/// Filters that are useful in rules, for suggestions.
pub const FILTERS: [&str; 14] = [
    "abs", "default", "first", "float", "int", "join", "last", "length", "lower", "replace", "round",
    "split", "trim", "upper",
];

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template {
    source: Arc<str>,
    form: Form,
}

/// Fast paths: most templates are a constant or a single label and need no interpreter.
#[derive(Debug, Clone)]
enum Form {
    Constant,
    Label(String),
    Annotation(String),
    Compiled { names: BTreeSet<String> },
}

/// A compiled boolean expression.
#[derive(Debug, Clone)]
pub struct Condition {
    shown: Arc<str>,
    template: Template,
}

/// All compiled templates of one rule table.
pub struct Templates {
    environment: Environment<'static>,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates").field("count", &self.environment.templates().count()).finish()
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new()
    }
}

/// The variables of a template.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The source's name.
    pub source: &'a Name,
    /// The source's labels.
    pub source_labels: &'a Arc<Labels>,
    /// The alert, whose labels have already been overridden by those of the source.
    pub alert: &'a Alert,
}

/// The names of the variables.
pub const ROOTS: [&str; 4] = ["labels", "annotations", "source", "alert"];
const ALERT_FIELDS: [&str; 5] = ["status", "fingerprint", "starts_at", "ends_at", "generator_url"];
const SOURCE_FIELDS: [&str; 2] = ["name", "labels"];

impl Template {
    /// The source text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables, such as `labels.zone`, without which rendering fails. Empty if the template tests for
    /// absence, since then none is certainly required.
    pub fn required_names(&self) -> Vec<String> {
        match &self.form {
            Form::Compiled { .. }
                if ["default", "{%", " if ", " or ", "defined"]
                    .iter()
                    .any(|word| self.source.contains(word)) =>
            {
                Vec::new()
            }
            _ => self.names(),
        }
    }

    /// The variables that the template uses, such as `labels.zone`.
    pub fn names(&self) -> Vec<String> {
        match &self.form {
            Form::Constant => Vec::new(),
            Form::Label(name) => vec![format!("labels.{name}")],
            Form::Annotation(name) => vec![format!("annotations.{name}")],
            Form::Compiled { names } => names.iter().cloned().collect(),
        }
    }

    /// The text, if it is the same for all alerts.
    pub fn constant(&self) -> Option<&str> {
        matches!(self.form, Form::Constant).then_some(&*self.source)
    }
}

impl Condition {
    /// The source text.
    pub fn source(&self) -> &str {
        &self.shown
    }
}

impl Templates {
    /// An empty set.
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(MAX_RENDER_FUEL));
        // Templates are named by their source text, which may look like a file name.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_filter("float", float);
        environment.add_filter(TRUTH, truth);
        // These functions can produce text of any size.
        for function in ["range", "namespace", "debug", "cycler", "joiner", "lipsum"] {
            environment.remove_global(function);
        }
        Self { environment }
    }

    /// Compiles a template and adds it to the set.
    ///
    /// # Errors
    /// Invalid syntax, an unknown filter or an unknown variable.
    pub fn template(&mut self, source: &str) -> Result<Template, Error> {
        let text: Arc<str> = source.into();
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Ok(Template { source: text, form: Form::Constant });
        }
        let names = self.compile(source.to_owned())?;
        let form = match lone_field(source) {
            Some(("labels", name)) => Form::Label(name.to_owned()),
            Some((_, name)) => Form::Annotation(name.to_owned()),
            None => Form::Compiled { names },
        };
        Ok(Template { source: text, form })
    }

    /// Compiles a boolean expression such as `annotations.value | float >= 1` and adds it to the set.
    ///
    /// # Errors
    /// As for [`Templates::template`].
    pub fn condition(&mut self, source: &str) -> Result<Condition, Error> {
        // Compiled alone first: `1) }} {{ (2` is not an expression, but would be one between parentheses.
        self.environment.compile_expression_owned(source.to_owned()).map_err(|error| syntax(&error))?;
        let wrapped = format!("{{{{ ({source}) | {TRUTH} }}}}");
        let names = self.compile(wrapped.clone())?;
        let template = Template { source: wrapped.into(), form: Form::Compiled { names } };
        Ok(Condition { shown: source.into(), template })
    }

    fn compile(&mut self, source: String) -> Result<BTreeSet<String>, Error> {
        self.environment
            .add_template_owned(source.clone(), source.clone())
            .map_err(|error| syntax(&error))?;
        let template = self.environment.get_template(&source).map_err(|error| syntax(&error))?;
        let names: BTreeSet<String> = template.undeclared_variables(true).into_iter().collect();
        let functions: BTreeSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        for name in &names {
            let mut parts = name.split('.');
            let (root, field) = (parts.next().unwrap_or_default(), parts.next());
            let fields: &[&str] = match root {
                "alert" => &ALERT_FIELDS,
                "source" => &SOURCE_FIELDS,
                _ => &[],
            };
            if !ROOTS.contains(&root) && !functions.contains(root) {
                let message = format!("unknown variable `{root}`; available are {}", ROOTS.join(", "));
                return Err(Error::unknown(Unknown::Variable, root, message));
            }
            if let Some(field) = field
                && !fields.is_empty()
                && !fields.contains(&field)
            {
                let message = format!("`{root}` has no field `{field}`; available are {}", fields.join(", "));
                return Err(Error::unknown(Unknown::Field, field, message));
            }
        }
        usage::check(&source, &self.environment)?;
        Ok(names)
    }

    /// Renders a template.
    ///
    /// # Errors
    /// A label or annotation that the alert lacks, a filter that fails, a result of more than
    /// [`MAX_RENDERED_BYTES`] bytes.
    pub fn render(&self, template: &Template, scope: &Scope<'_>) -> Result<String, Error> {
        let field = |what: &str, labels: &Labels, name: &str| match labels.get(name) {
            "" => Err(Error::new(format!("the alert has no {what} `{name}`"))),
            value => Ok(value.to_owned()),
        };
        let text = match &template.form {
            Form::Constant => return Ok(template.source.as_ref().to_owned()),
            Form::Label(name) => field("label", &scope.alert.labels, name)?,
            Form::Annotation(name) => field("annotation", &scope.alert.annotations, name)?,
            Form::Compiled { names } => {
                let compiled = self.environment.get_template(&template.source);
                let compiled = compiled.map_err(|error| syntax(&error))?;
                let mut bounded = Bounded(Vec::new());
                let done = compiled.render_captured_to(scope.value(), &mut bounded).map(drop);
                done.map_err(|error| runtime(&error, names, scope))?;
                String::from_utf8(bounded.0).map_err(|error| Error::new(error.to_string()))?
            }
        };
        if text.len() > MAX_RENDERED_BYTES {
            return Err(Error::new(format!(
                "the result of `{}` has more than {MAX_RENDERED_BYTES} bytes",
                template.source
            )));
        }
        Ok(text)
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As for [`Templates::render`], and a result that is neither true nor false.
    pub fn is_true(&self, condition: &Condition, scope: &Scope<'_>) -> Result<bool, Error> {
        let text = self.render(&condition.template, scope);
        text.map(|text| text == "1").map_err(|error| Error::new(format!("`{}`: {error}", condition.shown)))
    }
}

/// `("labels", "x")` for exactly `{{ labels.x }}`, likewise for annotations.
fn lone_field(source: &str) -> Option<(&'static str, &str)> {
    let inner = source.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let (root, name) = inner.split_once('.')?;
    let root = ROOTS[..2].iter().find(|known| **known == root)?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let starts = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    (plain && starts).then_some((*root, name))
}

const TRUTH: &str = "__truth";

fn truth(value: &Value) -> Result<&'static str, minijinja::Error> {
    match bool::try_from(value.clone()) {
        Ok(true) if value.kind() == minijinja::value::ValueKind::Bool => Ok("1"),
        Ok(false) if value.kind() == minijinja::value::ValueKind::Bool => Ok("0"),
        _ => Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("a condition must be true or false, got a {}", value.kind()),
        )),
    }
}

/// Jinja's `float`, except that an absent value is an error instead of 0, and NaN is rejected, since it would
/// compare greater than every number.
fn float(value: &Value) -> Result<f64, minijinja::Error> {
    let not_a_number = || {
        let text = format!("`{value}` is not a number");
        minijinja::Error::new(ErrorKind::InvalidOperation, text)
    };
    let number = match value.as_str() {
        Some(text) => text.trim().parse().map_err(|_| not_a_number())?,
        None if value.is_number() => f64::try_from(value.clone())?,
        None if value.is_undefined() => return Err(minijinja::Error::from(ErrorKind::UndefinedError)),
        None => return Err(not_a_number()),
    };
    if f64::is_nan(number) { Err(not_a_number()) } else { Ok(number) }
}

impl Scope<'_> {
    fn value(&self) -> Value {
        let alert = self.alert;
        minijinja::context! {
            labels => Value::from_dyn_object(alert.labels.clone()),
            annotations => Value::from_dyn_object(alert.annotations.clone()),
            source => minijinja::context! {
                name => self.source.as_str(),
                labels => Value::from_dyn_object(self.source_labels.clone()),
            },
            alert => minijinja::context! {
                status => alert.status.as_str(),
                fingerprint => &*alert.fingerprint,
                starts_at => alert.starts_at.to_string(),
                ends_at => alert.ends_at.map(|at| at.to_string()),
                generator_url => &*alert.generator_url,
            },
        }
    }

    /// Whether `labels.x` or `annotations.x` is present; true for all other names.
    fn has(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some(("labels", label)) => !self.alert.labels.get(label).is_empty(),
            Some(("annotations", annotation)) => !self.alert.annotations.get(annotation).is_empty(),
            _ => true,
        }
    }
}

impl Object for Labels {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(self.get(key.as_str()?)).filter(|value| !value.is_empty()).map(Value::from)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.iter().map(|(name, _)| Value::from(name)).collect())
    }
}

/// Aborts a rendering that exceeds [`MAX_RENDERED_BYTES`], to limit memory.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn syntax(error: &minijinja::Error) -> Error {
    Error::new(error.detail().map_or_else(|| error.kind().to_string(), ToOwned::to_owned))
}

fn runtime(error: &minijinja::Error, names: &BTreeSet<String>, scope: &Scope<'_>) -> Error {
    match error.kind() {
        ErrorKind::UndefinedError => {
            let missing: Vec<_> = names.iter().filter(|name| !scope.has(name)).cloned().collect();
            if missing.is_empty() {
                Error::new("it uses a value that the alert does not have".to_owned())
            } else {
                Error::new(format!("the alert has no {}", missing.join(", no ")))
            }
        }
        ErrorKind::OutOfFuel => Error::new(format!("rendering takes more than {MAX_RENDER_FUEL} steps")),
        ErrorKind::WriteFailure => Error::new(format!("the result has more than {MAX_RENDERED_BYTES} bytes")),
        _ => syntax(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notification::Status;
    use crate::domain::time::Time;

    fn alert() -> Alert {
        Alert {
            status: Status::Firing,
            labels: Arc::new([("nodegroup", "workers"), ("empty", "")].into_iter().collect()),
            annotations: Arc::new([("value", "3"), ("nan", "NaN")].into_iter().collect()),
            starts_at: Time::parse("2026-11-22T16:55:15Z").unwrap(),
            ends_at: None,
            valid_until: None,
            absence: None,
            generator_url: "http://prom:9090".into(),
            fingerprint: "8a27e5ec1094d7f3".into(),
        }
    }

    fn render(source: &str) -> Result<String, String> {
        let mut templates = Templates::new();
        let template = templates.template(source).map_err(|error| format!("rejected: {error}"))?;
        let (name, labels) = (Name::new("prod-eu").unwrap(), Arc::default());
        let scope = Scope { source: &name, source_labels: &labels, alert: &alert() };
        templates.render(&template, &scope).map_err(|error| error.to_string())
    }

    fn is_true(source: &str) -> Result<bool, String> {
        let mut templates = Templates::new();
        let condition = templates.condition(source).map_err(|error| format!("rejected: {error}"))?;
        let (name, labels) = (Name::new("prod-eu").unwrap(), Arc::default());
        let scope = Scope { source: &name, source_labels: &labels, alert: &alert() };
        templates.is_true(&condition, &scope).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_annotations_source_and_alert_are_available() {
        assert_eq!(render("workers"), Ok("workers".into()));
        assert_eq!(render("{{ labels.nodegroup }}"), Ok("workers".into()));
        assert_eq!(
            render(
                "{{ source.name }}/{{ labels['nodegroup'] | upper }}/{{ annotations.value }}/{{ alert.fingerprint }}"
            ),
            Ok("prod-eu/WORKERS/3/8a27e5ec1094d7f3".into())
        );
    }

    #[test]
    fn an_absent_or_empty_value_is_an_error_that_names_it() {
        assert_eq!(render("{{ labels.zone }}"), Err("the alert has no label `zone`".into()));
        assert_eq!(render("{{ labels.empty }}"), Err("the alert has no label `empty`".into()));
        assert_eq!(render("ng-{{ labels.zone }}"), Err("the alert has no labels.zone".into()));
        assert_eq!(render("{{ labels.zone | default('a') }}"), Ok("a".into()));
    }

    #[test]
    fn errors_of_a_template_are_found_before_any_alert() {
        for source in [
            "{{ labels.x",
            "{{ lables.x }}",
            "{{ alert.name }}",
            "{{ labels.x | nosuch }}",
            "{{ labels.x | upper | nosuch(1) }}",
            "{% if labels.x is defined %}{{ labels['a|b'] | nosuch }}{% endif %}",
            "{% if labels.x is nosuch %}a{% endif %}",
            "{% if labels.x is not nosuch %}a{% endif %}",
            "{% filter nosuch %}a{% endfilter %}",
            "{{ labels.x.startswith('a') }}",
            "{{ nosuch(labels.x) }}",
        ] {
            assert!(render(source).unwrap_err().starts_with("rejected: "), "{source}");
        }
        for source in [
            "annotations.value >",
            "1) }}{{ (2",
            "{{ labels.x }}",
            "annotations.value | flaot > 1",
            "annotations.value > 1",
            "annotations['value'] == -1.5",
            "5 <= source.labels.size",
        ] {
            assert!(is_true(source).unwrap_err().starts_with("rejected: "), "{source}");
        }
    }

    #[test]
    fn known_filters_and_tests_are_accepted_wherever_they_stand() {
        for filter in FILTERS {
            let known = Templates::new().template(&format!("{{{{ labels.x | {filter} }}}}"));
            assert!(known.is_ok(), "{filter}: {known:?}");
        }
        for (source, rendered) in [
            ("{# labels.x | nosuch #}a", "a"),
            ("{% raw %}{{ x | nosuch }}{% endraw %}", "{{ x | nosuch }}"),
            ("{{ 'a | nosuch' }}", "a | nosuch"),
            ("{{ 'is' if labels.nodegroup is startingwith 'w' else 'b' }}", "is"),
            ("{% for a in [1, 2] %}{{ loop.cycle('a', 'b') }}{% endfor %}", "ab"),
            ("{{- labels.nodegroup | upper -}}", "WORKERS"),
        ] {
            assert_eq!(render(source), Ok(rendered.into()), "{source}");
        }
        assert_eq!(is_true("1 < annotations.value | float and annotations.value == '3'"), Ok(true));
        assert_eq!(is_true("(annotations.value | int) > 2"), Ok(true));
        assert_eq!(is_true("labels.nodegroup | length == 7"), Ok(true));
    }

    #[test]
    fn a_condition_is_true_or_false_and_nothing_else() {
        assert_eq!(is_true("annotations.value | float >= 1"), Ok(true));
        assert_eq!(is_true("annotations.value | float >= 4 or labels.nodegroup == 'x'"), Ok(false));
        assert!(is_true("annotations.value").unwrap_err().contains("true or false"));
        assert!(is_true("annotations.missing | float >= 1").is_err());
        assert!(is_true("annotations.nan | float >= 1").unwrap_err().contains("`NaN` is not a number"));
    }

    #[test]
    fn a_rendering_is_bounded() {
        assert!(render("{{ labels.nodegroup * 100000 }}").is_err());
        assert!(render("{% for a in 'x' * 30000 %}{{ a }}{% endfor %}").is_err());
    }
}
