//! Diagnostics: errors and warnings about a configuration, each with location, cause and fix.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::redact;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// A file as a whole, for errors without a line.
    WholeFile(Arc<Path>),
    /// A position in a file.
    File {
        /// The path with which the file was opened.
        file: Arc<Path>,
        /// Counted from 1.
        line: u32,
        /// Counted from 1, in characters.
        column: u32,
    },
    /// The environment variable of this name.
    Env(Arc<str>),
    /// The built-in defaults.
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

/// Whether a diagnostic prevents the use of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is rejected.
    Error,
    /// The configuration is accepted, but probably does not do what was intended.
    Warning,
    /// Something that could not be checked, or that can be improved.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Defines the diagnostic codes. A code is never reused for another diagnostic, so that references to it
/// remain valid.
macro_rules! codes {
    ($($name:ident = $text:literal, $description:literal;)+) => {
        /// The code of a diagnostic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $description] $name),+ }

        impl Code {
            /// All codes, sorted by text.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The text of the code, such as `E004` or `W001`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// A short description of the diagnostic, ending with a full stop.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description),+ }
            }

            /// The page that `explain` prints, in Markdown: the meaning, an example, and the corrected
            /// example.
            pub const fn page(self) -> &'static str {
                match self { $(Self::$name => include_str!(concat!("pages/", $text, ".md"))),+ }
            }
        }
    };
}

codes! {
    Unreadable = "E001", "An unreadable file.";
    Syntax = "E002", "A file that is not valid YAML.";
    DuplicateKey = "E003", "A duplicate key.";
    UnknownKey = "E004", "An unknown key.";
    Missing = "E005", "A required key that is missing.";
    Type = "E006", "A value of the wrong type.";
    Value = "E007", "An invalid value, such as a malformed duration, address or name, or an unknown keyword.";
    Range = "E008", "A number, a duration or a text that is out of range.";
    ExactlyOne = "E009", "None or several of a group of keys of which exactly one is required.";
    Unsupported = "E010", "A key that this version does not support.";
    Environment = "E011", "An environment variable that does not match any setting.";
    Unauthenticated = "E012", "A non-loopback listener without authentication.";
    Contradiction = "E013", "Two values that contradict each other.";
    UnknownName = "E014", "A reference to a source, a rule or a destination that is not configured.";
    DuplicateName = "E015", "A duplicate name or list item.";
    Empty = "E016", "No sources, destinations, rules or tests.";
    Matcher = "E017", "An invalid matcher.";
    Template = "E018", "An invalid template or condition.";
    Steps = "E019", "Steps that are empty, out of order or in `on_resolved`.";
    NoDestination = "E020", "A rule with an action and no destination.";
    NoRoute = "E021", "An Alertmanager configuration without a route to this bridge.";
    ResolvedUnsent = "E022", "A receiver that does not send resolved alerts.";
    TruncatedAlerts = "E023", "A receiver that truncates notifications.";
    LongTimeout = "E024", "A receiver whose `timeout` leaves no time for a retry.";
    LongRepeatInterval = "E025", "A route whose alerts expire before it repeats them.";
    UnknownSource = "E026", "A receiver that sends to a source that is not configured.";
    ReplacedBody = "E027", "A receiver whose `payload` replaces the notification.";
    ShortLateWindow = "E028", "A `late_window` that is not longer than Alertmanager's `group_interval`.";
    InlineSecret = "E040", "A secret that is written into the configuration.";
    UncertainAddress = "N001", "A receiver whose address cannot be read from the configuration.";
    NoHeartbeatTimeout = "N002", "A source whose heartbeat has no `heartbeat_timeout`.";
    NoEffect = "N003", "A setting that has no effect.";
    DoesNothing = "W001", "A rule without an action.";
    DuplicateActing = "W002", "A rule that sends its events to more than one acting destination.";
    NoHeartbeat = "W003", "A source without a heartbeat whose alerts can decrease capacity.";
    OrderNotGuaranteed = "W004", "An order of events that is not guaranteed end to end.";
    Unreachable = "W005", "A rule whose alerts are all matched by an earlier rule.";
    Unused = "W006", "A destination that no rule uses.";
    NeverRenders = "W007", "A template with a label that none of its alerts has.";
    NeverMatches = "W008", "Matchers that contradict each other.";
    NoStabilization = "W009", "A decrease without a stabilization window.";
    ShortCooldown = "W010", "A cooldown that is shorter than Alertmanager's `group_interval`.";
    Unrouted = "W012", "A rule or heartbeat whose alerts, or some of them, no route sends to this bridge.";
    Drift = "W013", "A fixed scale-in that does not take back what its rule has added.";
    NeverLowers = "W014", "A `set_capacity` in `on_resolved` that never lowers the capacity.";
    ShortWindow = "W015", "A decrease of a source without a heartbeat that acts within its `late_window`.";
    UnlimitedHold = "W016", "A hold without a maximum duration.";
    UnknownKind = "W017", "A kind that its platform does not have.";
    Muted = "W018", "A route to this bridge that is muted at times.";
    Inhibited = "W019", "An inhibition that silences alerts of a rule or a heartbeat.";
    ShortHeartbeatTimeout = "W020", "A heartbeat that is repeated too rarely for its `heartbeat_timeout`.";
    SingleQuotes = "W021", "A matcher of Alertmanager with single quotes, which are part of the value.";
    PatternInEquality = "W030", "A regular expression that is compared as text.";
    AboveLimits = "W031", "An amount that does not fit between the limits.";
    FallingSteps = "W032", "Steps whose amount falls while the metric rises.";
    RemovesAll = "W033", "A decrease by 100 percent without a minimum capacity.";
    IndistinctTargets = "W034", "Targets of several sources that cannot be told apart.";
    NotATemplate = "W035", "A text that looks like a template and is none.";
    NoFile = "W040", "A pattern for files that matches none.";
    Unreached = "W041", "A rule that sees the alerts of no source.";
    UnusableFile = "W045", "A file with a secret, a key or a certificate that cannot be used.";
    ReadableSecret = "W046", "A file with a secret that every user of the machine can read.";
    PlainHttp = "W047", "Credentials over plain HTTP.";
    SharedCredential = "W048", "A credential that is valid for more than one source.";
    UnknownUser = "W049", "A scope of a user that does not exist.";
    AnySubject = "W050", "JSON Web Tokens of any subject are accepted.";
    Replayable = "W055", "Signatures of a sender without the time at which they were made.";
}

impl Code {
    /// Parses a code such as `E012`, ignoring case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text))
    }

    /// The severity, given by the first letter of the code.
    pub fn severity(self) -> Severity {
        match self.as_str().as_bytes()[0] {
            b'W' => Severity::Warning,
            b'N' => Severity::Note,
            _ => Severity::Error,
        }
    }
}

/// An error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The code, which has a page.
    pub code: Code,
    /// The value that the message is about.
    pub location: Location,
    /// The cause, on one line.
    pub message: String,
    /// The fix.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, location, message, help } = self;
        write!(f, "{location}: {}[{}]: {message}", code.severity(), code.as_str())?;
        help.as_ref().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
    }
}

/// The errors of the system that say nothing about a file: no memory, too many open files in the process or on the
/// machine, and a device that does not answer.
const PASSING_ERRORS: [i32; 4] =
    [5 /* EIO */, 12 /* ENOMEM */, 23 /* ENFILE */, 24 /* EMFILE */];

/// The diagnostics of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics {
    /// Sorted by location and without duplicates.
    list: Vec<Diagnostic>,
    /// The texts of files that contain secrets, without these, to be shown instead of what is in the file.
    redacted: BTreeMap<Arc<Path>, String>,
    is_incomplete: bool,
}

impl Diagnostics {
    /// Adds a diagnostic whose message implies the fix.
    pub fn add(&mut self, code: Code, location: &Location, message: impl Into<String>) {
        self.push(Diagnostic { code, location: location.clone(), message: message.into(), help: None });
    }

    /// Adds a diagnostic with a fix.
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

    /// Records why a file cannot be read, beside the diagnostic about it.
    pub(super) fn record_read_error(&mut self, error: &io::Error) {
        self.is_incomplete |= may_pass(error);
    }

    /// Whether a file could not be read for a reason that may pass without a change of the file. Then these are not
    /// the diagnostics of the configuration, and reading it again can give others.
    pub const fn are_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// Sets what is shown of a file that contains secrets.
    pub(super) fn show_redacted(&mut self, file: &Path, text: String) {
        self.redacted.insert(file.into(), text);
    }

    /// The text of a file without its secrets, if it is known to contain any.
    pub fn redacted(&self, file: &Path) -> Option<&str> {
        self.redacted.get(file).map(String::as_str)
    }

    /// Adds `diagnostic` after those of the same location. An identical one is dropped: a value that several
    /// items inherit is checked once for each of them.
    fn push(&mut self, mut diagnostic: Diagnostic) {
        diagnostic.message = redact::message(diagnostic.message);
        diagnostic.help = diagnostic.help.map(redact::message);
        // Control characters of quoted text are escaped, so that a message is one line.
        if diagnostic.message.contains(char::is_control) {
            let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            diagnostic.message = diagnostic.message.chars().map(shown).collect();
        }
        let at =
            self.list.partition_point(|known| known.location.cmp(&diagnostic.location) != Ordering::Greater);
        let same = self.list[..at].iter().rev().take_while(|known| known.location == diagnostic.location);
        if !same.into_iter().any(|known| *known == diagnostic) {
            self.list.insert(at, diagnostic);
        }
    }

    /// Adds all diagnostics of `others`.
    pub fn append(&mut self, others: Self) {
        others.list.into_iter().for_each(|one| self.push(one));
        self.redacted.extend(others.redacted);
        self.is_incomplete |= others.is_incomplete;
    }

    /// The diagnostics in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// The number of diagnostics.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are no diagnostics.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a diagnostic is an error.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// Whether there is an error at this location.
    pub(super) fn has_error_at(&self, location: &Location) -> bool {
        let from = self.list.partition_point(|known| known.location < *location);
        let here = self.list[from..].iter().take_while(|known| known.location == *location);
        here.into_iter().any(|known| known.code.severity() == Severity::Error)
    }

    /// The number of errors.
    pub fn errors(&self) -> usize {
        self.iter().filter(|diagnostic| diagnostic.code.severity() == Severity::Error).count()
    }
}

/// Whether an attempt to read the same file may succeed later.
pub(super) fn may_pass(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| PASSING_ERRORS.contains(&code))
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
        diagnostics.add_with_help(Code::UnknownKey, &at(2), "first", "fix it");
        diagnostics.add(Code::Missing, &at(10), "behind the last\u{1b}\n");
        diagnostics.add(Code::DoesNothing, &at(10), "last");
        assert_eq!(
            diagnostics.to_string(),
            "a.yaml:2:3: error[E004]: first\n  help: fix it\n\
             a.yaml:10:3: warning[W001]: last\na.yaml:10:3: error[E005]: behind the last\\u{1b}\\n"
        );
        assert!(diagnostics.has_errors());
    }
}
