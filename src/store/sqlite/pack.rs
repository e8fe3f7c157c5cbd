//! Long texts are kept compressed: what a commit costs is the bytes that it writes and syncs, and texts of
//! one notification are much alike.
//!
//! A text of which compressing gains nothing is kept as it is, so a column of texts holds both: `TEXT` as
//! it is, `BLOB` for a packed one, which is its length as four bytes, little-endian, and one LZ4 block.

use std::borrow::Cow;

use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// Shorter ones stay as they are: there is little in them to be found twice, and people can read them.
pub const AT_LEAST: usize = 2048;
/// A block of LZ4 tells no more than this of each of its bytes. What claims more is damaged.
const AT_MOST_TIMES: usize = 255;

/// A text as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    Text(String),
    Packed(Vec<u8>),
}

impl Kept {
    pub fn of(text: String) -> Self {
        pack(text.as_bytes()).map_or(Self::Text(text), Self::Packed)
    }
}

impl ToSql for Kept {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Packed(packed) => packed.to_sql(),
        }
    }
}

/// Packs bytes, if that gains at least a quarter.
pub fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < AT_LEAST {
        return None;
    }
    let mut packed = lz4_flex::block::compress_prepend_size(bytes);
    // It was made for the worst case, and waits for its commit.
    packed.shrink_to_fit();
    (packed.len() < bytes.len() / 4 * 3).then_some(packed)
}

/// Packs a text that is much like another, which unpacking needs too; if that makes it less than half.
pub fn pack_like(text: &str, like: &str) -> Option<Vec<u8>> {
    let packed = lz4_flex::block::compress_prepend_size_with_dict(text.as_bytes(), like.as_bytes());
    (packed.len() < text.len() / 2).then_some(packed)
}

/// What was packed, with the text that it was packed with.
///
/// # Errors
/// If these are no packed bytes.
pub fn unpack(packed: &[u8], like: &[u8]) -> FromSqlResult<Vec<u8>> {
    let broken = |error: lz4_flex::block::DecompressError| FromSqlError::Other(Box::new(error));
    let (bytes, block) = lz4_flex::block::uncompressed_size(packed).map_err(broken)?;
    if bytes > block.len().saturating_mul(AT_MOST_TIMES) {
        return Err(FromSqlError::Other("a packed text claims to be longer than it can be".into()));
    }
    lz4_flex::block::decompress_with_dict(block, bytes, like).map_err(broken)
}

/// The text in a column that holds both.
///
/// # Errors
/// If it is none, or damaged.
pub fn text(value: ValueRef<'_>) -> FromSqlResult<Cow<'_, str>> {
    text_like(value, None)
}

/// The text in a column that holds both, where a packed one may have been packed with another.
///
/// # Errors
/// If it is none, or damaged, or was packed with something else.
pub fn text_like<'a>(value: ValueRef<'a>, like: Option<&str>) -> FromSqlResult<Cow<'a, str>> {
    match value {
        ValueRef::Blob(packed) => {
            let text = String::from_utf8(unpack(packed, like.unwrap_or_default().as_bytes())?);
            text.map(Cow::Owned).map_err(|error| FromSqlError::Other(Box::new(error)))
        }
        value => value.as_str().map(Cow::Borrowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(kept: &Kept) -> String {
        let value = match kept {
            Kept::Text(text) => ValueRef::Text(text.as_bytes()),
            Kept::Packed(packed) => ValueRef::Blob(packed),
        };
        text(value).unwrap().into_owned()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_back(part in "\\PC{0,400}", times in 0_usize..40) {
            let text = part.repeat(times);
            prop_assert_eq!(read(&Kept::of(text.clone())), text);
        }

        /// The texts have parts in common, or not, in any place.
        #[test]
        fn what_is_packed_with_another_text_is_read_back_with_it(
            parts in prop::collection::vec("\\PC{0,60}", 1..6),
            text in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            like in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
            own in "\\PC{0,60}",
        ) {
            let of = |places: &[prop::sample::Index]| -> String {
                places.iter().map(|place| place.get(&parts).as_str()).collect()
            };
            let (text, like) = (of(&text) + &own, of(&like));
            if let Some(packed) = pack_like(&text, &like) {
                let read = text_like(ValueRef::Blob(&packed), Some(&like)).unwrap();
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
            let Kept::Packed(mut packed) = Kept::of(text.clone()) else { panic!("it is long and repeats") };
            let at = at.index(packed.len());
            packed[at] = to;
            packed.truncate(cut.index(packed.len()) + 1);
            // Whatever comes out is no longer than the bytes can tell.
            if let Ok(read) = unpack(&packed, b"") {
                prop_assert!(read.len() <= packed.len() * AT_MOST_TIMES);
            }
        }
    }

    #[test]
    fn short_texts_and_those_without_repetition_stay_as_they_are() {
        let short = "{}".repeat(1000);
        assert_eq!(Kept::of(short.clone()), Kept::Text(short));
        let mut random = fastrand::Rng::with_seed(7);
        let noise: String = std::iter::repeat_with(|| random.alphanumeric()).take(10_000).collect();
        assert_eq!(Kept::of(noise.clone()), Kept::Text(noise));
        let long = "workers-7 ".repeat(1000);
        let Kept::Packed(packed) = Kept::of(long.clone()) else { panic!("it repeats") };
        assert!(packed.len() < 200, "{} bytes", packed.len());
    }

    #[test]
    fn a_length_that_cannot_be_true_takes_no_memory() {
        let told = unpack(&[0xff, 0xff, 0xff, 0xff, 0x10, 0x61], b"").unwrap_err();
        assert!(told.to_string().contains("longer than it can be"), "{told}");
        unpack(&[1, 2], b"").unwrap_err();
        unpack(&[], b"").unwrap_err();
    }
}
