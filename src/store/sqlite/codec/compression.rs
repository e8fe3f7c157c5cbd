//! Compression of long texts with LZ4: the cost of a commit is the number of bytes that it writes and syncs,
//! and the texts of one notification are much alike.
//!
//! A text is stored uncompressed where compression does not pay, so a column has values of both types: `TEXT`
//! is plain, `BLOB` is compressed: the length in four bytes, little-endian, and one LZ4 block.

use std::borrow::Cow;

use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// Shorter texts are compressed only with a dictionary: they have little repetition, and stay readable in the
/// file.
pub(crate) const MIN_COMPRESS_BYTES: usize = 2048;
/// The maximum ratio of LZ4. A block that claims a larger one is damaged.
const MAX_COMPRESSION_RATIO: usize = 255;

/// A text in its stored form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Encoded {
    Plain(String),
    Compressed(Vec<u8>),
}

impl Encoded {
    pub(crate) fn from_text(text: String) -> Self {
        compress(text.as_bytes()).map_or(Self::Plain(text), Self::Compressed)
    }
}

impl ToSql for Encoded {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Plain(text) => text.to_sql(),
            Self::Compressed(compressed) => compressed.to_sql(),
        }
    }
}

/// Compresses bytes if that saves at least a quarter.
pub(crate) fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < MIN_COMPRESS_BYTES {
        return None;
    }
    let mut compressed = lz4_flex::block::compress_prepend_size(bytes);
    // Allocated for the worst case, and alive until the commit.
    compressed.shrink_to_fit();
    (compressed.len() < bytes.len() / 4 * 3).then_some(compressed)
}

/// Compresses a text with a dictionary, which decompression needs too, if that saves at least
/// a quarter.
pub(crate) fn compress_with_dictionary(text: &str, dictionary: &str) -> Option<Vec<u8>> {
    let compressed = lz4_flex::block::compress_prepend_size_with_dict(text.as_bytes(), dictionary.as_bytes());
    (compressed.len() < text.len() / 4 * 3).then_some(compressed)
}

/// Decompresses with the dictionary of the compression; empty for none.
///
/// # Errors
/// If the bytes are not valid.
pub(crate) fn decompress(compressed: &[u8], dictionary: &[u8]) -> FromSqlResult<Vec<u8>> {
    let broken = |error: lz4_flex::block::DecompressError| FromSqlError::Other(Box::new(error));
    let (bytes, block) = lz4_flex::block::uncompressed_size(compressed).map_err(broken)?;
    if bytes > block.len().saturating_mul(MAX_COMPRESSION_RATIO) {
        return Err(FromSqlError::Other("the length of a compressed text exceeds the maximum".into()));
    }
    lz4_flex::block::decompress_with_dict(block, bytes, dictionary).map_err(broken)
}

/// Decodes a value that was compressed without a dictionary, or not at all.
///
/// # Errors
/// If the value is damaged or has another type.
pub(crate) fn decode(value: ValueRef<'_>) -> FromSqlResult<Cow<'_, str>> {
    decode_with_dictionary(value, None)
}

/// Decodes a value that may have been compressed with a dictionary.
///
/// # Errors
/// If the value is damaged, has another type, or was compressed with another dictionary.
pub(crate) fn decode_with_dictionary<'a>(
    value: ValueRef<'a>,
    dictionary: Option<&str>,
) -> FromSqlResult<Cow<'a, str>> {
    match value {
        ValueRef::Blob(compressed) => {
            let text = String::from_utf8(decompress(compressed, dictionary.unwrap_or_default().as_bytes())?);
            text.map(Cow::Owned).map_err(|error| FromSqlError::Other(Box::new(error)))
        }
        value => value.as_str().map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(encoded: &Encoded) -> String {
        let value = match encoded {
            Encoded::Plain(text) => ValueRef::Text(text.as_bytes()),
            Encoded::Compressed(compressed) => ValueRef::Blob(compressed),
        };
        decode(value).unwrap().into_owned()
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(part in "\\PC{0,400}", times in 0_usize..40) {
            let text = part.repeat(times);
            prop_assert_eq!(read(&Encoded::from_text(text.clone())), text);
        }

        /// Text and dictionary are built of the same parts, in any order.
        #[test]
        fn what_is_compressed_with_a_dictionary_is_read_back_with_it(
            parts in prop::collection::vec("\\PC{0,60}", 1..6),
            text in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            dictionary in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            own in "\\PC{0,60}",
        ) {
            let join = |picks: &[prop::sample::Index]| -> String {
                picks.iter().map(|pick| pick.get(&parts).as_str()).collect()
            };
            let (text, dictionary) = (join(&text) + &own, join(&dictionary));
            if let Some(compressed) = compress_with_dictionary(&text, &dictionary) {
                let read = decode_with_dictionary(ValueRef::Blob(&compressed), Some(&dictionary)).unwrap();
                prop_assert_eq!(read, text);
            }
        }

        #[test]
        fn damage_is_an_error_and_nothing_worse(
            part in "[a-z]{1,40}",
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let text = part.repeat(4096 / part.len() + 1);
            let Encoded::Compressed(mut compressed) = Encoded::from_text(text.clone()) else { panic!("it is long and repeats") };
            let at = at.index(compressed.len());
            compressed[at] = to;
            compressed.truncate(cut.index(compressed.len()) + 1);
            // The output, if any, is bounded by the input.
            if let Ok(read) = decompress(&compressed, b"") {
                prop_assert!(read.len() <= compressed.len() * MAX_COMPRESSION_RATIO);
            }
        }
    }

    #[test]
    fn short_texts_and_those_without_repetition_stay_as_they_are() {
        let short = "{}".repeat(1000);
        assert_eq!(Encoded::from_text(short.clone()), Encoded::Plain(short));
        let mut random = fastrand::Rng::with_seed(7);
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(10_000).collect();
        assert_eq!(Encoded::from_text(noise.clone()), Encoded::Plain(noise));
        let long = "workers-7 ".repeat(1000);
        let Encoded::Compressed(compressed) = Encoded::from_text(long.clone()) else { panic!("it repeats") };
        assert!(compressed.len() < 200, "{} bytes", compressed.len());
    }

    #[test]
    fn a_length_that_cannot_be_true_takes_no_memory() {
        let error = decompress(&[0xff, 0xff, 0xff, 0xff, 0x10, 0x61], b"").unwrap_err();
        assert!(error.to_string().contains("exceeds the maximum"), "{error}");
        decompress(&[1, 2], b"").unwrap_err();
        decompress(&[], b"").unwrap_err();
    }
}
