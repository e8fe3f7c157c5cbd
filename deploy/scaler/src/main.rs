//! The program; see the library.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use scalebridge_scaler::cli::{Io, run};

fn main() -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut io = Io {
        out: &mut std::io::stdout(),
        err: &mut std::io::stderr(),
        config_text: std::env::var("SCALEBRIDGE_SCALER_CONFIG").ok(),
        // Not the one that sudo runs as.
        user: ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()),
        now_millis: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        is_function: std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some(),
    };
    run(std::env::args_os(), &mut io)
}
