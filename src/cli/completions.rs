//! `scalebridge completions` and `scalebridge man`, generated from clap's definitions.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::{print, usage_error};

/// Print shell completions
///
/// For bash: `source <(scalebridge completions bash)`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Shell to generate completions for
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

impl Completions {
    pub(super) fn run(&self, mut command: Command) -> ExitCode {
        let shell = self.shell.parse().unwrap_or(Shell::Bash);
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "scalebridge", &mut text);
        print(String::from_utf8_lossy(&text));
        ExitCode::SUCCESS
    }
}

/// Print the manual page, or write the pages of all commands
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write scalebridge.1 and one page per command to this directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self, command: Command) -> ExitCode {
        let Some(directory) = &self.directory else {
            let mut page = Vec::new();
            return match clap_mangen::Man::new(command).render(&mut page) {
                Ok(()) => {
                    print(String::from_utf8_lossy(&page));
                    ExitCode::SUCCESS
                }
                Err(error) => usage_error(error),
            };
        };
        let written =
            std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => usage_error(format_args!("cannot write to {}: {error}", directory.display())),
        }
    }
}
