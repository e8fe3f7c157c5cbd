//! Prometheus and Alertmanager, of the oldest and of the newest release that the bridge is tested with.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use serde_json::{Value, json};

use super::tools::{Server, installed, tool};

/// Makes the tests `NAME::old` and `NAME::new` of each `async fn NAME(release: Release)`. Their names are neighbours, so
/// that the test harness runs them at the same time.
macro_rules! on_old_and_new {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::support::prometheus::Release;

            #[tokio::test(flavor = "multi_thread")]
            async fn old() {
                super::$name(Release::Old).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn new() {
                super::$name(Release::New).await;
            }
        }
    )+};
}
pub(crate) use on_old_and_new;

/// A release of Prometheus and Alertmanager; `deploy/tools.sh` says which versions these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    Old,
    New,
}

impl Release {
    pub(crate) const ALL: [Self; 2] = [Self::Old, Self::New];

    /// The program `prometheus`, `promtool`, `alertmanager` or `amtool`.
    pub(crate) fn tool(self, name: &str) -> Command {
        if self == Self::New {
            self.is_replaced();
        }
        tool(&format!("{}/{name}", self.directory()))
    }

    /// Whether the newest release could not be installed, so that the oldest takes its place.
    pub(crate) fn is_replaced(self) -> bool {
        static NOTE: Once = Once::new();
        let is_replaced = installed(self.directory()).is_symlink();
        if is_replaced {
            NOTE.call_once(|| {
                note("the newest Prometheus and Alertmanager are missing (see deploy/tools.sh): the oldest replace them");
            });
        }
        is_replaced
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// The notification reason that events contain: Alertmanager sends it since 0.33.
    pub(crate) fn reason(self, reason: &str) -> Value {
        let printed = self.tool("alertmanager").arg("--version").output().expect("alertmanager");
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let version = printed.strip_prefix("alertmanager, version ").expect("a version");
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().expect("a number"));
        let version = (numbers.next().expect("major"), numbers.next().expect("minor"));
        if version >= (0, 33) { json!(reason) } else { Value::Null }
    }

    /// Starts Alertmanager without clustering.
    pub(crate) async fn start_alertmanager(self, dir: &Path, config: &str) -> Server {
        let file = dir.join("alertmanager.yml");
        fs::write(&file, config).expect("its configuration");
        Server::start("alertmanager", dir, "/-/ready", |port| {
            let mut command = self.tool("alertmanager");
            command.arg(format!("--config.file={}", file.display()));
            command.arg(format!("--storage.path={}", dir.join("alertmanager").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg(format!("--web.external-url=http://127.0.0.1:{port}"));
            command.arg("--cluster.listen-address=");
            command
        })
        .await
    }

    /// Starts Prometheus. The configuration refers to the rules as `rules.yml`.
    pub(crate) async fn start_prometheus(self, dir: &Path, config: &str, rules: &str) -> Server {
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("its configuration");
        fs::write(dir.join("rules.yml"), rules).expect("its rules");
        Server::start("prometheus", dir, "/-/ready", |port| {
            let mut command = self.tool("prometheus");
            command.arg(format!("--config.file={}", file.display()));
            command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg(format!("--web.external-url=http://127.0.0.1:{port}"));
            command.arg("--rules.alert.resend-delay=1s");
            command
        })
        .await
    }
}

/// Prints a note past the test harness, which shows only what failed tests print.
pub(crate) fn note(text: &str) {
    writeln!(io::stderr(), "note: {text}").expect("stderr");
}
