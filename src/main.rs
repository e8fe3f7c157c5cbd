//! Parse, run, exit code.

use std::process::ExitCode;

/// Small allocations by the thousand, freed on other threads: what the system's allocator does worst.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    scalebridge::run()
}
