//! `store.postgres`: its values, and what is said about the file with the URL.

use std::path::PathBuf;

use crate::config::diagnostic::Code;
use crate::config::{Diagnostics, PostgresStore, Store};
use crate::kinds::load;

const RULES: &str = "rules: [{ name: one, matchers: [alertname = One], target: { platform: eks, kind: nodegroup, name: one }, \
                     on_firing: { scale_out: { by: 1 } }, send_to: [journal] }]\n";
const PASSWORD: &str = "hunter2-hunter2";

/// A directory with a configuration, whose `url_file` has this text.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new(url: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("database-url", url);
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(directory.path().join("database-url"), permissions).unwrap();
        write("rules.yaml", RULES);
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads it with this text of `store`.
    fn load(&self, store: &str, environment: &[(&str, &str)]) -> Result<(Store, Diagnostics), Diagnostics> {
        let text = format!(
            "store: {store}\nsources: {{ local: {{}} }}\nrules: [rules.yaml]\n\
             destinations: {{ journal: {{ file: {{ path: \"-\" }} }} }}\n"
        );
        std::fs::write(self.path("scalebridge.yaml"), text).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load(&self.path("scalebridge.yaml"), environment)?;
        Ok((loaded.settings.store, loaded.warnings))
    }
}

#[test]
fn the_defaults_and_the_environment() {
    let fixture = Fixture::new("postgres://bridge@localhost/scale");
    let (store, warnings) = fixture.load("{ postgres: { url_file: database-url } }", &[]).unwrap();
    let url_file = fixture.path("database-url");
    let defaults = PostgresStore { url_file: url_file.clone(), max_connections: 8, iam: false, notify: true };
    assert_eq!(store, Store::Postgres(defaults));
    assert!(!warnings.iter().any(|warning| warning.code == Code::UnusableFile), "{warnings}");

    // Without anything in the file, and beside the default of `sqlite`.
    let file = url_file.to_str().unwrap();
    let environment = [
        ("SCALEBRIDGE__STORE__POSTGRES__URL_FILE", file),
        ("SCALEBRIDGE__STORE__POSTGRES__MAX_CONNECTIONS", "20"),
        ("SCALEBRIDGE__STORE__POSTGRES__NOTIFY", "false"),
    ];
    let (store, _) = fixture.load("{}", &environment).unwrap();
    assert_eq!(
        store,
        Store::Postgres(PostgresStore { url_file, max_connections: 20, iam: false, notify: false })
    );
}

#[test]
fn an_invalid_url_is_an_error_of_its_file_and_is_never_shown() {
    let fixture = Fixture::new(&format!("postgres://bridge:{PASSWORD}@db.example/scale?sslmod=verify-full"));
    let errors = fixture.load("{ postgres: { url_file: database-url } }", &[]).unwrap_err().to_string();
    let place =
        format!("{}: error[E007]: parameter 1 of the URL is unknown", fixture.path("database-url").display());
    assert!(errors.contains(&place) && errors.contains("did you mean `sslmode`?"), "{errors}");
    assert!(!errors.contains(PASSWORD), "{errors}");
}

#[test]
fn a_password_beside_iam_is_an_error() {
    let fixture = Fixture::new(&format!("postgres://bridge:{PASSWORD}@db.example/scale"));
    let errors =
        fixture.load("{ postgres: { url_file: database-url, iam: true } }", &[]).unwrap_err().to_string();
    assert!(errors.contains("remove the password") && !errors.contains(PASSWORD), "{errors}");
}

#[test]
fn files_that_are_missing_are_warnings() {
    let fixture = Fixture::new("postgres://bridge@db.example/scale?sslrootcert=missing.pem");
    for (file, what) in [("missing", "cannot read the URL"), ("database-url", "cannot read the certificate")]
    {
        let (_, warnings) = fixture.load(&format!("{{ postgres: {{ url_file: {file} }} }}"), &[]).unwrap();
        let warning = warnings.iter().find(|warning| warning.code == Code::UnusableFile).unwrap();
        assert!(warning.message.contains(what), "{warning}");
        assert_eq!(warning.help.as_deref(), Some("the bridge does not start without it"));
    }
}
