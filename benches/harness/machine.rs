//! Description of the machine that a run is measured on.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::results::Machine;

/// Describes this machine. `folder` is on the file system of the stores.
pub(crate) fn describe(folder: &Path) -> io::Result<Machine> {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let kib = memory.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
    let folder_text = folder.display().to_string();
    Ok(Machine {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        commit: output("git", &["rev-parse", "--short", "HEAD"]),
        processor: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: kib.unwrap_or(f64::NAN) / (1 << 20) as f64,
        kernel: output("uname", &["-sr"]),
        filesystem: output("stat", &["-f", "-c", "%T", &folder_text]),
        sync_ms: sync_ms(folder)?,
    })
}

/// Standard output of a command; empty if it fails.
fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Median time of a 4 KiB write with `fdatasync`, in milliseconds.
fn sync_ms(folder: &Path) -> io::Result<f64> {
    let path = folder.join("sync");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
