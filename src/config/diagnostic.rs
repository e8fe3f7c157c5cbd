//! What is wrong with a configuration: where, what, and how to mend it.

use std::cmp::Ordering;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A file as a whole, where there is no line to speak of.
    WholeFile(Arc<Path>),
    /// In a file.
    File {
        /// Its path, as it was given.
        file: Arc<Path>,
        /// From 1.
        line: u32,
        /// From 1, in characters.
        column: u32,
    },
    /// In an environment variable of this name.
    Env(Arc<str>),
    /// Nowhere: it is built in.
    Default,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WholeFile(file) => write!(f, "{}", file.display()),
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Env(name) => write!(f, "${name}"),
            Self::Default => f.write_str("built-in defaults"),
        }
    }
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but hardly means what it says.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Error { "error" } else { "warning" })
    }
}

/// The one table of codes. A code is never given to another fault, so that what was written about it
/// stays true.
macro_rules! codes {
    ($($name:ident = $text:literal, $description:literal;)+) => {
        /// Which fault it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $description] $name),+ }

        impl Code {
            /// All codes, in the order of their text.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// `E004`, `W001`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// In a sentence, which fault it is.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description),+ }
            }

            /// Its page, in Markdown: what it means, an example, and the example mended.
            pub const fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("pages/", $text, ".md"))),+ }
            }
        }
    };
}

codes! {
    Unreadable = "E001", "A file that cannot be read.";
    Syntax = "E002", "A file that is not YAML.";
    DuplicateKey = "E003", "A key that is given twice.";
    UnknownKey = "E004", "A key that does not exist.";
    Missing = "E005", "A key that has to be given.";
    Type = "E006", "A value of another type than expected.";
    Value = "E007", "A value that cannot be read: no duration, no address, no name, no such word.";
    Range = "E008", "A number, a duration or a text outside its bounds.";
    ExactlyOne = "E009", "None or several of keys of which exactly one is needed.";
    Unsupported = "E010", "Something that this version does not support yet.";
    Environment = "E011", "An environment variable that reaches no setting.";
    Unauthenticated = "E012", "A listener beyond loopback without credentials.";
    Contradiction = "E013", "Two values that do not go together.";
    UnknownName = "E014", "A source or destination that is not configured.";
    DuplicateName = "E015", "A name or an item that is given twice.";
    Empty = "E016", "No source, no destination or no rule.";
    Matcher = "E017", "A matcher that cannot be read.";
    Template = "E018", "A template or a condition that cannot be read.";
    Steps = "E019", "Steps that make no sense.";
    NoDestination = "E020", "A rule that acts and sends to no destination.";
    NoRoute = "E021", "An Alertmanager of which no route leads to this bridge.";
    ResolvedUnsent = "E022", "A receiver that does not send what has resolved.";
    TruncatedAlerts = "E023", "A receiver that leaves alerts out.";
    LongTimeout = "E024", "A receiver whose `timeout` leaves no time for another try.";
    LongRepeatInterval = "E025", "A route that repeats itself after the bridge has forgotten its alerts.";
    UnknownSource = "E026", "A receiver that sends to a source which is not configured.";
    DoesNothing = "W001", "A rule that never does anything.";
    DuplicateActing = "W002", "A rule that sends one adjustment to two destinations that act.";
    NoHeartbeat = "W003", "A source without a heartbeat that a rule which takes capacity away listens to.";
    OrderNotGuaranteed = "W004", "An order of events that holds only for a part of their way.";
    Unreachable = "W005", "A rule that never sees an alert, since an earlier one takes them all.";
    Unused = "W006", "A destination that no rule sends to.";
    NeverRenders = "W007", "A template that asks for what its alerts never have.";
    NeverMatches = "W008", "Matchers that cannot all hold.";
    NoStabilization = "W009", "Capacity is taken away without waiting for calm.";
    ShortCooldown = "W010", "A cooldown that is over before Alertmanager can tell what has changed.";
    ShortLateWindow = "W011", "A `late_window` that is over before the other Alertmanager speaks.";
    Unrouted = "W012", "Alerts of a rule, or a heartbeat, that no route leads to this bridge.";
}

impl Code {
    /// The code of a text such as `E012`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// How bad it is, which its first letter says.
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which fault it is.
    pub code: Code,
    /// Where.
    pub location: Location,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, location, message, help } = self;
        write!(f, "{location}: {}[{}]: {message}", code.severity(), code.as_str())?;
        help.as_ref().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
    }
}

/// All faults of a configuration, in the order of their places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Adds a fault that needs no help.
    pub fn add(&mut self, code: Code, location: &Location, message: impl Into<String>) {
        self.push(Diagnostic { code, location: location.clone(), message: message.into(), help: None });
    }

    /// Adds a fault and how to mend it.
    pub fn add_with_help(
        &mut self,
        code: Code,
        location: &Location,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let help = Some(help.into());
        self.push(Diagnostic { code, location: location.clone(), message: message.into(), help });
    }

    /// Adds `diagnostic` behind those of the same place. The very same one twice is kept once: what
    /// several values inherit is judged with each of them.
    fn push(&mut self, mut diagnostic: Diagnostic) {
        // A message is one line, whatever the text is that it repeats.
        if diagnostic.message.contains(char::is_control) {
            let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            diagnostic.message = diagnostic.message.chars().map(shown).collect();
        }
        let at =
            self.0.partition_point(|known| known.location.cmp(&diagnostic.location) != Ordering::Greater);
        let same = self.0[..at].iter().rev().take_while(|known| known.location == diagnostic.location);
        if !same.into_iter().any(|known| *known == diagnostic) {
            self.0.insert(at, diagnostic);
        }
    }

    /// Adds all of `others`.
    pub fn append(&mut self, others: Self) {
        others.0.into_iter().for_each(|one| self.push(one));
    }

    /// All of them in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one that forbids the use of the configuration.
    pub fn has_errors(&self) -> bool {
        self.iter().any(|diagnostic| diagnostic.code.severity() == Severity::Error)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(texts.windows(2).all(|pair| pair[0] < pair[1]), "{texts:?}");
    }

    #[test]
    fn diagnostics_are_sorted_by_location_and_listed_once() {
        let at = |line| Location::File { file: Path::new("a.yaml").into(), line, column: 3 };
        let mut diagnostics = Diagnostics::default();
        diagnostics.add(Code::DoesNothing, &at(10), "last");
        diagnostics.add_with_help(Code::UnknownKey, &at(2), "first", "mend it");
        diagnostics.add(Code::Missing, &at(10), "behind the last\u{1b}\n");
        diagnostics.add(Code::DoesNothing, &at(10), "last");
        assert_eq!(
            diagnostics.to_string(),
            "a.yaml:2:3: error[E004]: first\n  help: mend it\n\
             a.yaml:10:3: warning[W001]: last\na.yaml:10:3: error[E005]: behind the last\\u{1b}\\n"
        );
        assert!(diagnostics.has_errors());
    }
}
