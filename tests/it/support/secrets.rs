//! Secrets of the tests, and the promise that the bridge shows none of them: whatever a bridge has logged, printed,
//! answered and stored is searched for each.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Files in directories of this name, and those with these extensions, are what a test gives to the bridge. They are not
/// searched.
const GIVEN: &str = "secrets";
const GIVEN_EXTENSIONS: [&str; 3] = ["token", "users", "yaml"];

/// Registers a secret.
pub(crate) fn secret(text: impl Into<String>) -> String {
    let text = text.into();
    assert!(text.len() >= 8, "{text} would be found by chance");
    SECRETS.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
    text
}

/// Panics if there is a secret in `bytes`.
pub(crate) fn assert_no_secret(place: &str, bytes: &[u8]) {
    let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for secret in secrets {
        assert!(
            memchr::memmem::find(bytes, secret.as_bytes()).is_none(),
            "the secret {secret} is in {place}"
        );
    }
}

fn is_given(path: &Path) -> bool {
    path.extension().is_some_and(|extension| GIVEN_EXTENSIONS.iter().any(|given| extension == *given))
}

/// Panics if there is a secret in a file below `directory`.
pub(crate) fn assert_no_secret_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != GIVEN => assert_no_secret_below(&path),
            Ok(kind) if kind.is_file() && !is_given(&path) => {
                let bytes = fs::read(&path).unwrap_or_default();
                assert_no_secret(&path.display().to_string(), &bytes);
            }
            _ => {}
        }
    }
}
