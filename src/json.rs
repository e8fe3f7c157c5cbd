//! Serializes compact JSON to memory, with the same output as serde_json but faster. (And [`Object`], for
//! parsing JSON from outside.)
//!
//! Much of the processor time per alert is spent writing JSON: the event, the state, the record, and the
//! event once more as a string in the call to SQS. serde_json checks each byte for escapes and passes each
//! piece to a writer; here eight bytes are copied and checked at once.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde::ser::{self, Error as _};
use serde_json::{Error, Result};

#[cfg(feature = "server")]
mod object;

#[cfg(feature = "server")]
pub(crate) use object::Object;

/// The struct name with which [`serde_json::value::RawValue`] is passed to any serializer.
const RAW_VALUE_TOKEN: &str = "$serde_json::private::RawValue";

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Serializes a value into a string with an initial capacity of `capacity` bytes.
///
/// # Errors
///
/// Errors of the value's `Serialize`; map keys that are not strings.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T, capacity: usize) -> Result<String> {
    let mut json = Vec::with_capacity(capacity);
    value.serialize(Writer { json: &mut json, raw: false })?;
    Ok(into_string(json))
}

/// Converts the bytes that this module has written to a string.
pub(crate) fn into_string(json: Vec<u8>) -> String {
    // Strings are UTF-8, and everything between their characters is ASCII.
    String::from_utf8(json).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Escapes the characters outside of XML's `Char`, which transports such as SQS reject. JSON already escapes
/// control characters, and surrogates cannot occur, but U+FFFE and U+FFFF are legal in JSON.
pub(crate) fn xml_safe(json: String) -> String {
    // 0xEF is rare: it is the first byte of U+F000 to U+FFFF. Such characters occur only in strings.
    if !json.as_bytes().contains(&0xEF) {
        return json;
    }
    json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff")
}

/// The longest prefix of `text` that takes at most `max` bytes within a JSON string.
pub(crate) fn truncate_escaped(text: &str, max: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|&(_, c)| {
        taken += match c {
            '"' | '\\' => 2,
            '\0'..='\x1f' | '\u{FFFE}' | '\u{FFFF}' => 6,
            _ => c.len_utf8(),
        };
        taken > max
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Encoded JSON that a serializer of serde_json's kind copies, as serde_json's own `RawValue`, but without
/// parsing it.
pub(crate) struct Raw<'a>(pub &'a str);

impl Serialize for Raw<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW_VALUE_TOKEN, 1)?;
        ser::SerializeStruct::serialize_field(&mut raw, RAW_VALUE_TOKEN, self.0)?;
        ser::SerializeStruct::end(raw)
    }
}

/// Appends a string with its quotation marks.
pub(crate) fn push_string(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    push_escaped(json, text.as_bytes());
    json.push(b'"');
}

fn push_escaped(json: &mut Vec<u8>, mut rest: &[u8]) {
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        json.extend_from_slice(word);
        match first_to_escape(*word) {
            None => rest = after,
            Some(at) => {
                json.truncate(json.len() - 8 + at);
                push_escape(json, word[at]);
                rest = &rest[at + 1..];
            }
        }
    }
    let mut word = [b' '; 8];
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    // The usual case, which writes all of it at once.
    if first_to_escape(word).is_none() {
        let length = json.len() + rest.len();
        json.extend_from_slice(&word);
        json.truncate(length);
        return;
    }
    for &byte in rest {
        if matches!(byte, b'"' | b'\\' | 0..b' ') {
            push_escape(json, byte);
        } else {
            json.push(byte);
        }
    }
}

/// The index of the first of eight bytes that has to be escaped in a JSON string.
fn first_to_escape(word: [u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(word);
    // Sets the high bit of each byte that is 0, or less than a space. A borrow can set wrong bits only above
    // the first correct one, and only the first is used.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let control = word.wrapping_sub(ONES * b' ' as u64) & !word & HIGH;
    let found = control | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64));
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

#[cold]
fn push_control(json: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => return json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
    };
    json.extend_from_slice(&[b'\\', short]);
}

fn push_escape(json: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
        byte => push_control(json, byte),
    }
}

/// Escapes the output of [`fmt::Display`] as part of a string.
struct EscapingWriter<'a>(&'a mut Vec<u8>);

impl fmt::Write for EscapingWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(self.0, text.as_bytes());
        Ok(())
    }
}

struct Writer<'a> {
    json: &'a mut Vec<u8>,
    /// Strings are already encoded JSON.
    raw: bool,
}

impl<'a> Writer<'a> {
    fn open(self, begin: &str, end: &'static str) -> Compound<'a> {
        self.json.extend_from_slice(begin.as_bytes());
        Compound { json: self.json, first: true, end }
    }

    /// Writes `{"variant":` and begins the content of the variant.
    fn variant(self, variant: &str, begin: &str, end: &'static str) -> Compound<'a> {
        self.json.push(b'{');
        push_string(self.json, variant);
        self.json.push(b':');
        self.open(begin, end)
    }

    fn plain(self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }
}

/// A list or map that is being written.
struct Compound<'a> {
    json: &'a mut Vec<u8>,
    first: bool,
    /// The closing brackets.
    end: &'static str,
}

impl Compound<'_> {
    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.json.push(b',');
        }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(Writer { json: self.json, raw: false })
    }

    /// Field names are identifiers without characters to escape.
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        debug_assert!(!key.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..b' ')), "{key}");
        self.json.extend_from_slice(if std::mem::take(&mut self.first) { b"\"" } else { b",\"" });
        self.json.extend_from_slice(key.as_bytes());
        self.json.extend_from_slice(b"\":");
        self.value(value)
    }

    fn close(self) {
        self.json.extend_from_slice(self.end.as_bytes());
    }
}

/// A struct, or a raw value, which is serialized as a struct.
enum StructSerializer<'a> {
    Struct(Compound<'a>),
    Raw(&'a mut Vec<u8>),
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<()> {
            self.plain(itoa::Buffer::new().format(value));
            Ok(())
        })*
    };
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = StructSerializer<'a>;
    type SerializeStructVariant = Compound<'a>;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64
    }

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.plain(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        serde_json::to_writer(self.json, &value)
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        serde_json::to_writer(self.json, &value)
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<()> {
        if self.raw {
            self.plain(text);
        } else {
            push_string(self.json, text);
        }
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<()> {
        self.collect_seq(bytes)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<()> {
        self.json.push(b'"');
        write!(EscapingWriter(self.json), "{value}").map_err(Error::custom)?;
        self.json.push(b'"');
        Ok(())
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.plain("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let mut compound = self.variant(variant, "", "}");
        compound.value(value)?;
        compound.close();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a>> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a>> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a>> {
        Ok(self.open("[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>> {
        Ok(self.variant(variant, "[", "]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a>> {
        Ok(self.open("{", "}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<StructSerializer<'a>> {
        Ok(if name == RAW_VALUE_TOKEN {
            StructSerializer::Raw(self.json)
        } else {
            StructSerializer::Struct(self.open("{", "}"))
        })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a>> {
        Ok(self.variant(variant, "{", "}}"))
    }
}

/// Serde has four traits for sequences.
macro_rules! lists {
    ($($list:ident::$method:ident),*) => {
        $(impl ser::$list for Compound<'_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.comma();
                self.value(value)
            }

            fn end(self) -> Result<()> {
                self.close();
                Ok(())
            }
        })*
    };
}

lists!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.comma();
        let begin = self.json.len();
        self.value(key)?;
        // A key is valid if it was serialized as a string.
        if self.json.get(begin) != Some(&b'"') {
            return Err(Error::custom("a map key is not a string"));
        }
        self.json.push(b':');
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.value(value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for StructSerializer<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        match self {
            Self::Struct(compound) => compound.field(key, value),
            Self::Raw(json) => value.serialize(Writer { json, raw: true }),
        }
    }

    fn end(self) -> Result<()> {
        if let Self::Struct(compound) = self {
            compound.close();
        }
        Ok(())
    }
}

impl ser::SerializeStructVariant for Compound<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.field(key, value)
    }

    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    /// All types of serde's data model.
    #[derive(Serialize)]
    struct All<'a> {
        texts: (&'a str, char, Option<&'a str>, Option<()>),
        numbers: (i8, i16, i32, i64, u8, u16, u32, u64, f32, f64),
        shown: Shown<'a>,
        raw: Box<serde_json::value::RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<bool>,
        map: BTreeMap<&'a str, Vec<Kind<'a>>>,
        unit: Unit,
    }

    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Wrapped<'a>(&'a str);
    #[derive(Serialize)]
    struct Pair(bool, bool);

    #[derive(Serialize)]
    enum Kind<'a> {
        Bare,
        Wraps(Wrapped<'a>),
        Lists(u8, &'a str),
        Names { text: &'a str, pair: Pair },
    }

    struct Shown<'a>(&'a str);

    impl Serialize for Shown<'_> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("{}-{}", self.0, self.0))
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|map| map.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_serde_json_writes_it(value in any_json(), text: String, number: i64, float: f64) {
            prop_assert_eq!(to_string(&value, 0).unwrap(), serde_json::to_string(&value).unwrap());
            let all = All {
                texts: (&text, text.chars().next().unwrap_or('"'), Some(&text), None),
                numbers: (number as i8, number as i16, number as i32, number, number as u8, number as u16,
                    number as u32, number as u64, float as f32, float),
                shown: Shown(&text),
                raw: to_raw_value(&value).unwrap(),
                absent: None,
                map: [(&*text, vec![
                    Kind::Bare,
                    Kind::Wraps(Wrapped(&text)),
                    Kind::Lists(7, &text),
                    Kind::Names { text: &text, pair: Pair(true, false) },
                ])].into(),
                unit: Unit,
            };
            prop_assert_eq!(to_string(&all, 0).unwrap(), serde_json::to_string(&all).unwrap());
        }

        #[test]
        fn any_byte_at_any_place_is_escaped_as_serde_json_does(
            text in "[\\x00-\\x7fü\u{fffe}🦀]{0,40}", before in 0_usize..16,
        ) {
            let text = format!("{}{text}", "x".repeat(before));
            let mut json = b"before".to_vec();
            push_string(&mut json, &text);
            let expected = format!("before{}", serde_json::to_string(&text).unwrap());
            prop_assert_eq!(String::from_utf8(json).unwrap(), expected);
        }
    }

    #[test]
    fn a_key_that_is_not_a_string_is_an_error() {
        assert!(to_string(&BTreeMap::from([(Some(1), 2)]), 0).is_err());
        assert!(to_string(&BTreeMap::from([(vec!["a"], 2)]), 0).is_err());
        assert_eq!(to_string(&json!({ "a": {} }), 0).unwrap(), r#"{"a":{}}"#);
    }
}
