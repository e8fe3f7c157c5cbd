//! The program of the scaler, which the tests of its own package build.

use std::path::PathBuf;

pub(crate) fn scaler_program() -> PathBuf {
    // Cargo puts it beside the bridge; a release of the bridge is tested with the scaler of this build.
    let beside = PathBuf::from(env!("CARGO_BIN_EXE_scalebridge")).with_file_name("scalebridge-scaler");
    assert!(
        beside.exists(),
        "{} is missing: run cargo test with --package scalebridge --package scalebridge-scaler",
        beside.display()
    );
    beside
}
