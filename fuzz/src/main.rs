//! The fuzzer: runs the target that `FUZZ_TARGET` names with inputs of libFuzzer, whose options are the arguments.
//!
//! `fuzz/run` builds it with the instrumentation that libFuzzer needs, and CONTRIBUTING.md says how to use it.

#![no_main]
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::LazyLock;

use scalebridge::fuzzing::{Fuzzing, TARGETS, Target};

/// The target of this process, and what it needs.
static RUN: LazyLock<(Fuzzing, Target)> = LazyLock::new(|| {
    let configuration =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/config/alertmanager/bridge.yaml"));
    let fuzzing = Fuzzing::new(configuration).unwrap_or_else(|error| panic!("{error}"));
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.into_iter().find(|(known, _)| *known == name);
    let names = TARGETS.map(|(name, _)| name).join(", ");
    (fuzzing, target.unwrap_or_else(|| panic!("FUZZ_TARGET is `{name}`, and has to be one of {names}")))
});

libfuzzer_sys::fuzz_target!(init: { LazyLock::force(&RUN); }, |input: &[u8]| {
    let (fuzzing, (_, target)) = &*RUN;
    target(fuzzing, input);
});
