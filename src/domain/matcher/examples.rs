//! Values that a regular expression matches.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind};

/// The maximum number of examples of an expression.
const MAX_EXAMPLES: usize = 16;
/// The maximum length of an example.
const MAX_BYTES: usize = 256;

/// A few values that probably match the expression, each with another of its alternatives. Assertions such as `\b` are
/// not regarded, so the caller tries the values.
pub(super) fn examples(expression: &str, nest_limit: u32) -> Vec<String> {
    let parsed = ParserBuilder::new().nest_limit(nest_limit).build().parse(expression);
    let mut found = parsed.map_or_else(|_| Vec::new(), |hir| of(&hir));
    found.sort();
    found.dedup();
    found
}

/// The depth is limited by the parser.
fn of(hir: &Hir) -> Vec<String> {
    let mut found = match hir.kind() {
        HirKind::Literal(literal) => vec![String::from_utf8_lossy(&literal.0).into_owned()],
        HirKind::Class(class) => of_class(class),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Repetition(repetition) => {
            let once = of(&repetition.sub);
            let least = once.iter().map(|text| text.repeat(repetition.min as usize));
            let optional = once.iter().filter(|_| repetition.min == 0 && repetition.max != Some(0)).cloned();
            least.chain(optional).collect()
        }
        HirKind::Concat(parts) => parts.iter().fold(vec![String::new()], |before, part| {
            let next = of(part);
            let texts = before.iter().flat_map(|start| next.iter().map(move |end| format!("{start}{end}")));
            texts.filter(|text| text.len() <= MAX_BYTES).take(MAX_EXAMPLES).collect()
        }),
        HirKind::Alternation(parts) => parts.iter().flat_map(of).collect(),
        // Nothing, and assertions.
        _ => vec![String::new()],
    };
    found.retain(|text| text.len() <= MAX_BYTES);
    found.truncate(MAX_EXAMPLES);
    found
}

/// All characters of a small class, else one.
fn of_class(class: &Class) -> Vec<String> {
    let Class::Unicode(class) = class else { return Vec::new() };
    let ranges = class.ranges();
    let contains = |c: &char| ranges.iter().any(|range| (range.start()..=range.end()).contains(c));
    let characters: Vec<char> =
        ranges.iter().flat_map(|range| range.start()..=range.end()).take(MAX_EXAMPLES).collect();
    let all = if characters.len() <= 4 { characters } else { Vec::new() };
    let one =
        ['x', 'X', '1', '-'].into_iter().find(contains).or(ranges.first().map(ClassUnicodeRange::start));
    let chosen = if all.is_empty() { one.into_iter().collect() } else { all };
    chosen.into_iter().map(String::from).collect()
}
