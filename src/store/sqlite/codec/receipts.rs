//! Receipts: when deliveries arrived, after how many calls, and what the destination answered. Those of one settlement
//! share a row, since a row for each would cost as much as the event.

use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

use super::compression;
use super::varint;
use crate::domain::time::Time;
use crate::store::EventSeq;

/// The maximum difference between the events of a block, so that the block of an event is near its key.
pub(crate) const MAX_BLOCK_SPAN: i64 = 1024;

/// The first byte of a block: whether the rest is compressed.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// A delivery that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub seq: EventSeq,
    pub at: Time,
    /// Calls, including the successful one.
    pub attempts: u32,
    pub answer: Option<String>,
}

/// A block of receipts in its stored form.
pub(crate) struct EncodedReceipts {
    pub first: i64,
    pub last: i64,
    pub block: Vec<u8>,
}

/// Encodes receipts in blocks.
pub(crate) fn encode(mut receipts: Vec<Receipt>) -> Vec<EncodedReceipts> {
    receipts.sort_by_key(|receipt| receipt.seq);
    let mut blocks = Vec::new();
    let mut rest = receipts.as_slice();
    while let Some(first) = rest.first() {
        let end = rest.partition_point(|receipt| receipt.seq.0 - first.seq.0 < MAX_BLOCK_SPAN);
        let (block, behind) = rest.split_at(end);
        let last = block.last().map_or(first.seq.0, |last| last.seq.0);
        blocks.push(EncodedReceipts { first: first.seq.0, last, block: encode_block(first.at, block) });
        rest = behind;
    }
    blocks
}

/// The time of the first receipt in eight bytes, little-endian; for each receipt, as integers of variable length: the
/// difference to the event before it, the difference of its time to the first, the attempts, and one more than the
/// length of the answer, 0 for none, which follows.
fn encode_block(base: Time, receipts: &[Receipt]) -> Vec<u8> {
    let mut bytes = vec![PLAIN];
    bytes.extend(base.as_nanos().to_le_bytes());
    let mut before = receipts.first().map_or(0, |first| first.seq.0);
    for Receipt { seq, at, attempts, answer } in receipts {
        varint::put(&mut bytes, (seq.0 - before).cast_unsigned());
        varint::put_signed(&mut bytes, at.as_nanos().wrapping_sub(base.as_nanos()));
        varint::put(&mut bytes, u64::from(*attempts));
        varint::put(&mut bytes, answer.as_ref().map_or(0, |answer| answer.len() as u64 + 1));
        bytes.extend(answer.iter().flat_map(|answer| answer.bytes()));
        before = seq.0;
    }
    match compression::compress(&bytes[1..]) {
        Some(compressed) => [&[COMPRESSED], compressed.as_slice()].concat(),
        None => bytes,
    }
}

/// Decodes a block.
///
/// # Errors
/// If it is damaged.
pub(crate) fn decode(first: i64, block: ValueRef<'_>) -> FromSqlResult<Vec<Receipt>> {
    let damaged = || FromSqlError::Other(format!("the receipts of event {first} are damaged").into());
    let plain;
    let bytes = match block.as_blob()?.split_first().ok_or_else(damaged)? {
        (&PLAIN, bytes) => bytes,
        (&COMPRESSED, bytes) => {
            plain = compression::decompress(bytes, b"")?;
            plain.as_slice()
        }
        _ => return Err(damaged()),
    };
    let (base, mut rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
    let base = i64::from_le_bytes(*base);
    let mut receipts = Vec::new();
    let mut seq = first;
    while !rest.is_empty() {
        let receipt = take_receipt(&mut rest, base, &mut seq).ok_or_else(damaged)?;
        receipts.push(receipt);
    }
    Ok(receipts)
}

fn take_receipt(rest: &mut &[u8], base: i64, seq: &mut i64) -> Option<Receipt> {
    *seq = seq.checked_add_unsigned(varint::take(rest)?)?;
    let at = Time::from_nanos(base.wrapping_add(varint::take_signed(rest)?));
    let attempts = u32::try_from(varint::take(rest)?).ok()?;
    let answer = match varint::take(rest)?.checked_sub(1) {
        None => None,
        Some(length) => {
            let (answer, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            *rest = behind;
            Some(std::str::from_utf8(answer).ok()?.to_owned())
        }
    };
    Some(Receipt { seq: EventSeq(*seq), at, attempts, answer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receipt() -> impl Strategy<Value = Receipt> {
        (0..5000_i64, any::<i64>(), any::<u32>(), prop::option::of("\\PC{0,60}")).prop_map(
            |(seq, at, attempts, answer)| Receipt {
                seq: EventSeq(seq),
                at: Time::from_nanos(at),
                attempts,
                answer,
            },
        )
    }

    /// The figures of ADR 0002.
    #[test]
    fn a_receipt_costs_few_bytes() {
        let bytes = |answer: fn(i64) -> Option<String>| -> usize {
            let receipts = (1..=500).map(|seq| Receipt {
                seq: EventSeq(seq),
                at: Time::from_nanos(1_795_366_500_000_000_000),
                attempts: 1,
                answer: answer(seq),
            });
            encode(receipts.collect()).iter().map(|encoded| encoded.block.len()).sum()
        };
        assert!(bytes(|_| None) < 500 * 5);
        // Random, like SQS' message ids.
        let message_id = |seq: i64| {
            let digits =
                u128::from(seq.cast_unsigned()).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            Some(format!("{digits:032x}0000"))
        };
        assert!(bytes(message_id) < 500 * 41);
        assert!(bytes(|_| Some("200 OK".to_owned())) < 500 * 3, "equal answers are compressed");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_no_block_is_wide(mut receipts in prop::collection::vec(receipt(), 0..80)) {
            receipts.sort_by_key(|receipt| receipt.seq);
            receipts.dedup_by_key(|receipt| receipt.seq);
            let mut decoded = Vec::new();
            for EncodedReceipts { first, last, block } in encode(receipts.clone()) {
                let block = decode(first, ValueRef::Blob(&block)).unwrap();
                prop_assert_eq!((block[0].seq.0, block[block.len() - 1].seq.0), (first, last));
                prop_assert!(last - first < MAX_BLOCK_SPAN);
                decoded.extend(block);
            }
            prop_assert_eq!(decoded, receipts);
        }

        #[test]
        fn damaged_blocks_are_errors_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(decode(1, ValueRef::Blob(&bytes)));
        }
    }
}
