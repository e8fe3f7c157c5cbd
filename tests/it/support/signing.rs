//! HMAC-SHA256 by its definition (RFC 2104), apart from the library that the bridge uses.

use sha2::{Digest as _, Sha256};

/// The HMAC-SHA256 of a message.
pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() <= block.len() {
        block[..key.len()].copy_from_slice(key);
    } else {
        block[..32].copy_from_slice(&Sha256::digest(key));
    }
    let padded = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = Sha256::digest([&padded(0x36), message].concat());
    Sha256::digest([&padded(0x5c), &inner[..]].concat()).into()
}

/// The same in hexadecimal.
pub(crate) fn hmac_hex(key: &str, message: &[u8]) -> String {
    hmac_sha256(key.as_bytes(), message).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_hmac_of_the_tests_is_that_of_rfc_4231() {
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hmac_hex("Jefe", b"what do ya want for nothing?"), expected);
}
