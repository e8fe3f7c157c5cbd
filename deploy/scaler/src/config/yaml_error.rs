//! Errors of YAML in the words of the person who writes the file, not of the program that reads it.

use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

use super::ConfigError;

/// A text of any length is not repeated.
const MAX_MESSAGE: usize = 400;
const UNQUOTED_STAR: &str = "a text that begins with `*` or `&` is written in quotes";
const ONE_VALUE: &str = "one value, in quotes if it begins with `{` or `[`,";

/// What is wrong and where.
pub(crate) fn form_error(error: &Error) -> ConfigError {
    let place = error.location();
    let message = message(error.without_snippet());
    // One line; the place is a field.
    let message = message.lines().next().unwrap_or_default().chars().take(MAX_MESSAGE).collect();
    ConfigError {
        line: place.as_ref().map_or(0, serde_saphyr::Location::line),
        column: place.as_ref().map_or(0, serde_saphyr::Location::column),
        message,
    }
}

/// The kind of an error and its place, without anything of the file: it has secrets.
pub(crate) fn kind_and_place(error: &Error) -> String {
    let kind = match error.without_snippet() {
        Error::Eof { .. } => "the file is empty or ends too early".to_owned(),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        Error::SerdeUnknownField { .. } => "a key is unknown".to_owned(),
        Error::DuplicateMappingKey { .. } => "a key is there twice".to_owned(),
        error => expected(error).map_or_else(
            || "it is not valid YAML of this form".to_owned(),
            |text| format!("{text} is expected"),
        ),
    };
    match error.location() {
        Some(place) => format!("line {}, column {}: {kind}", place.line(), place.column()),
        None => kind,
    }
}

fn message(error: &Error) -> String {
    match error {
        Error::Eof { .. } => "the file is empty or ends too early".to_owned(),
        Error::MultipleDocuments { .. } => "one document is expected: remove what follows `---`".to_owned(),
        Error::UnknownAnchor { .. } => UNQUOTED_STAR.to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{key}` is there twice: keep one of them")
        }
        Error::DuplicateMappingKey { key: None, .. } => "a key is there twice: keep one of them".to_owned(),
        Error::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        error => match expected(error) {
            Some(text) => format!("{text} is expected"),
            None => {
                let text = UserMessageFormatter.format_message(error).into_owned();
                if text.contains("scanning an anchor or alias") { UNQUOTED_STAR.to_owned() } else { text }
            }
        },
    }
}

/// The type of value that an error misses.
fn expected(error: &Error) -> Option<&str> {
    Some(match error {
        Error::InvalidScalar { ty, .. } => type_name(ty),
        Error::Unexpected { expected, .. } => type_name(expected),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            type_name(expected)
        }
        Error::NullIntoString { .. } => "a text, which can be in quotes,",
        Error::InvalidBooleanStrict { .. } => "true or false",
        Error::ExpectedStringKeyForExternallyTaggedEnum { .. }
        | Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. }
        | Error::UnexpectedValueForUnitEnumVariant { .. }
        | Error::ExpectedMappingEndAfterEnumVariantValue { .. } => "one word",
        _ => return None,
    })
}

fn type_name(name: &str) -> &str {
    match name {
        "u8" | "u16" | "u64" | "usize" => "a whole number that is not negative",
        "u32" => "a whole number from 0 to 4294967295",
        "i8" | "i16" | "i32" | "i64" | "an integer" => "a whole number",
        "boolean" | "bool" => "true or false",
        "map" => "a map with keys",
        "seq" | "a sequence" => "a list",
        "string" | "a string" => "a text",
        name if name.starts_with("struct ") || name.starts_with("mapping") => "a map with keys",
        name if name.starts_with("sequence") => "a list",
        name if name.contains("scalar") => ONE_VALUE,
        name => name,
    }
}
