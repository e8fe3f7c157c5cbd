//! The `scalebridge` binary: runs the command line and returns its exit code.

use std::process::ExitCode;

/// The system allocator is slow for many small allocations that are freed on other threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    scalebridge::run()
}
