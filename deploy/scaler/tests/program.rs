//! The program as it is deployed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::Command;

/// What `cargo tree` lists as built into a package.
fn built_into(package: &str) -> Vec<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let arguments = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{lib}"];
    let tree = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--manifest-path", manifest, "--package", package])
        .output()
        .expect("cargo");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(|name| name.trim().to_owned()).collect()
}

#[test]
fn the_bridge_has_no_client_of_a_platform_and_the_scaler_nothing_of_the_bridges_server() {
    let (bridge, scaler) = (built_into("scalebridge"), built_into("scalebridge-scaler"));
    let has = |built: &[String], name: &str| built.iter().any(|built| built == name);
    // The list is one of names as `use` has them.
    assert!(has(&bridge, "axum") && has(&bridge, "aws_sdk_lambda") && has(&scaler, "aws_sdk_eks"));
    for client in
        ["aws_sdk_eks", "aws_sdk_autoscaling", "aws_sdk_ecs", "aws_sdk_dynamodb", "kube", "lambda_runtime"]
    {
        assert!(!has(&bridge, client), "the bridge contains {client}");
    }
    for server in ["axum", "tokio_postgres", "aws_sdk_lambda", "jsonwebtoken", "tracing_subscriber"] {
        assert!(!has(&scaler, server), "the scaler contains {server}");
    }
}

/// Amazon Linux 2023, on which `provided.al2023` runs, has glibc 2.34.
#[test]
fn the_program_starts_with_the_glibc_of_lambda() {
    let program = env!("CARGO_BIN_EXE_scalebridge-scaler");
    let needs =
        Command::new("readelf").args(["--wide", "--version-info", program]).output().expect("binutils");
    let needs = String::from_utf8_lossy(&needs.stdout).into_owned();
    let versions: Vec<(u32, u32)> = needs
        .lines()
        // A symbol that may be missing is not needed.
        .filter(|line| !line.contains("Flags: WEAK"))
        .filter_map(|line| line.split("GLIBC_").nth(1))
        .filter_map(|version| version.split_whitespace().next())
        .filter_map(|version| {
            let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
            Some((numbers.next()?, numbers.next()?))
        })
        .collect();
    assert!(!versions.is_empty(), "{needs}");
    let newest = versions.iter().max().unwrap();
    assert!(*newest <= (2, 34), "it needs GLIBC_{}.{}", newest.0, newest.1);
}

#[test]
fn every_command_of_the_document_runs() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let document = std::fs::read_to_string(format!("{root}/docs/scaler.md")).unwrap();
    let blocks = document.split("```bash\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert_eq!(commands.len(), 7, "{commands:?}");
    for command in commands {
        let arguments =
            command.strip_prefix("target/release/scalebridge-scaler ").expect("a command of the scaler");
        let program = Command::new(env!("CARGO_BIN_EXE_scalebridge-scaler"));
        let done = { program }.args(arguments.split(' ')).current_dir(root).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(!done.stdout.is_empty(), "{command} prints nothing");
    }
}
