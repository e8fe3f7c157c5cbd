//! What the documents of `deploy/` name exists, and the programs understand the commands in them.

use std::fs;
use std::process::Command;

use crate::support::bridge::program;
use crate::support::repository;
use crate::support::run;
use crate::support::scaler::scaler_program;

const DIRECTORIES: [&str; 4] = ["container", "ecs", "nomad", "systemd"];

/// The commands of the blocks for a shell, each on one line without its comment.
fn commands(readme: &str) -> Vec<String> {
    let text = readme.replace("\\\n", "");
    // Blocks in lists are indented.
    let lines = text.lines().map(str::trim);
    let mut is_command = false;
    let mut commands = Vec::new();
    for line in lines {
        match line.strip_prefix("```") {
            Some(language) => is_command = language == "bash",
            None if is_command => {
                commands.push(line.split("   #").next().unwrap_or_default().trim().to_owned());
            }
            None => {}
        }
    }
    commands
}

#[test]
fn commands_name_files_that_exist_and_arguments_that_the_programs_have() {
    for directory in DIRECTORIES {
        let mut checked = 0;
        let readme =
            fs::read_to_string(repository(&format!("deploy/{directory}/README.md"))).expect("a document");
        for command in commands(&readme) {
            for word in command.split_whitespace() {
                let file = match word.strip_prefix("file://") {
                    Some(file) => format!("deploy/{directory}/{file}"),
                    None if word.starts_with("deploy/") => word.to_owned(),
                    None if word.ends_with(".service") && !word.contains('/') || word.ends_with(".hcl") => {
                        format!("deploy/{directory}/{word}")
                    }
                    None => continue,
                };
                assert!(repository(&file).exists(), "{directory}: {command}: {file}");
                checked += 1;
            }
            let (_, command) = command.split_once(" /usr/local/bin/").unwrap_or(("", &command));
            for (name, program) in [("scalebridge", program()), ("scalebridge-scaler", scaler_program())] {
                if let Some(arguments) = command.strip_prefix(&format!("{name} ")) {
                    // An unknown option is an error, also before --help.
                    run(Command::new(program).args(arguments.split_whitespace()).arg("--help"));
                    checked += 1;
                }
            }
        }
        assert!(checked > 0, "{directory}");
    }
}
