//! JSON Web Key Sets.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The maximum size of a key set.
pub(super) const MAX_KEY_SET_BYTES: usize = 256 * 1024;

/// The maximum number of keys in a set: a token without a key id is checked with all of them.
const MAX_KEYS: usize = 64;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The keys of a set that can verify signatures.
pub(in crate::credentials) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The algorithms that the type of the key and its `alg` allow.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// What is signed, and how.
pub(super) struct Signed<'t> {
    pub algorithm: Algorithm,
    /// The id of the key that is named.
    pub key_id: Option<&'t str>,
    pub message: &'t str,
    pub signature: &'t str,
}

/// The result of checking a signature.
#[derive(Clone, Copy)]
pub(super) enum Signature {
    Valid,
    Invalid,
    /// No key has the id of the token, or the token has no id and no key fits.
    UnknownKey,
}

#[cfg(test)]
thread_local! {
    /// How often this thread has checked a signature with a key set.
    pub(in crate::credentials) static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Keys {
    /// Parses a key set. Keys of types that are not supported, and keys for encryption, are ignored.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Ok(set) = serde_json::from_str::<Set>(text) else {
            return Err("not a JSON Web Key Set: expected a JSON object with `keys`".to_owned());
        };
        if set.keys.len() > MAX_KEYS {
            return Err(format!("the key set has {} keys, at most {MAX_KEYS} are allowed", set.keys.len()));
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(
                "the key set has no usable key: RSA of at least 2048 bits, EC (P-256, P-384) or Ed25519"
                    .to_owned(),
            );
        }
        Ok(Self(keys))
    }

    pub(super) fn verify(&self, token: &Signed<'_>) -> Signature {
        #[cfg(test)]
        VERIFICATIONS.set(VERIFICATIONS.get() + 1);
        let has_id = |key: &&Key| token.key_id.is_none() || key.id.as_deref() == token.key_id;
        let mut candidates = self.0.iter().filter(has_id).peekable();
        if candidates.peek().is_none() {
            return Signature::UnknownKey;
        }
        let verifies = |key: &Key| {
            let (algorithm, message) = (token.algorithm, token.message.as_bytes());
            key.algorithms.contains(&algorithm)
                && jsonwebtoken::crypto::verify(token.signature, message, &key.key, algorithm)
                    .unwrap_or(false)
        };
        match (candidates.any(verifies), token.key_id) {
            (true, _) => Signature::Valid,
            (false, Some(_)) => Signature::Invalid,
            (false, None) => Signature::UnknownKey,
        }
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let is_for_signatures =
        common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|allowed| allowed.contains(&KeyOperations::Verify));
    let by_type: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA,
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let algorithms = match common.key_algorithm {
        None => by_type.to_vec(),
        Some(own) => by_type.iter().copied().filter(|allowed| own == (*allowed).into()).collect(),
    };
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    (is_for_signatures && !algorithms.is_empty() && is_strong(&key)).then(|| Key {
        id: common.key_id.clone(),
        algorithms,
        key,
    })
}

/// The cryptography refuses RSA keys below 2048 bits; a set with only such keys is reported when it is read.
fn is_strong(key: &DecodingKey) -> bool {
    const MIN_MODULUS_BYTES: usize = 2048 / 8;
    match key.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => {
            n.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS_BYTES
        }
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
    }
}
