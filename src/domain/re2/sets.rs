//! Sets of characters with a name: `\d` and `\p{Greek}`.

/// A class that matches no character.
pub(super) const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";
/// A class that matches every character.
pub(super) const EVERYTHING: &str = r"[\x{0}-\x{10FFFF}]";

/// The general categories of Unicode that Go has; a name that is none of them is a script.
const CATEGORIES: [&str; 37] = [
    "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "LC", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
    "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl",
    "Zp",
];

/// The class of `\d`, `\s`, `\w` and their negations: ASCII, and `\s` is without the vertical tab.
pub(super) const fn perl(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[\t\n\f\r\x20]",
        'S' => r"[^\t\n\f\r\x20]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

/// The class of a general category or script; `None` if there is none of this name.
pub(super) fn unicode(name: &str, is_negated: bool) -> Option<String> {
    let p = if is_negated { 'P' } else { 'p' };
    if name == "Cs" {
        // Surrogates, which no text contains.
        return Some(if is_negated { EVERYTHING } else { NOTHING }.to_owned());
    }
    if name == "Any" || name == "Zs" || CATEGORIES.contains(&name) {
        return Some(format!("\\{p}{{{name}}}"));
    }
    let is_word = name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let class = format!("\\{p}{{Script={name}}}");
    (is_word && !name.is_empty() && regex::Regex::new(&class).is_ok()).then_some(class)
}
