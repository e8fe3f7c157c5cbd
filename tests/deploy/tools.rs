//! The programs that check `deploy/` are those that its documents name.

use crate::support::run;
use crate::support::tools::tool;

#[test]
fn every_program_starts() {
    for (program, argument) in [
        ("bin/helm", "version"),
        ("bin/kubectl", "version"),
        ("bin/umoci", "--version"),
        ("bin/systemd-analyze", "--version"),
        ("deploy/bin/cfn-lint", "--version"),
        ("deploy/bin/hadolint", "--version"),
    ] {
        let mut command = tool(program);
        command.arg(argument);
        if program == "bin/kubectl" {
            command.arg("--client");
        }
        assert!(run(&mut command).contains(char::is_numeric), "{program}");
    }
}
