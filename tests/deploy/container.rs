//! `deploy/container`: the images start as their user, with a root file system that nobody can write.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::bridge::{notification, pending_pod, post, program};
use crate::support::scaler::scaler_program;
use crate::support::tools::{LocalAws, Port, eventually, get, tool};
use crate::support::{repository, run};

const CONTAINERFILE: &str = "deploy/container/Containerfile";

#[test]
fn the_containerfile_has_no_findings_and_checks_liveness_without_a_shell() {
    run(tool("deploy/bin/hadolint").arg(repository(CONTAINERFILE)));
    let text = fs::read_to_string(repository(CONTAINERFILE)).expect("a file");
    let joined = text.replace("\\\n", "");
    let checks: Vec<&str> = joined.lines().filter(|line| line.starts_with("HEALTHCHECK ")).collect();
    assert_eq!(checks.len(), 2);
    for (check, program) in checks.iter().zip(["scalebridge-scaler", "scalebridge"]) {
        assert!(check.ends_with(&format!("CMD [\"/usr/local/bin/{program}\", \"healthcheck\"]")), "{check}");
    }
    assert!(!joined.contains(":latest") && joined.matches("\nFROM scratch AS ").count() == 2);
}

/// An image that was built by `image.sh`, and its files.
struct Image {
    directory: TempDir,
}

impl Image {
    fn build(kind: &str, program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut build = Command::new(repository("deploy/container/image.sh"));
        build.args([kind.as_ref(), program.as_os_str()]).arg(directory.path().join("image:test"));
        build.env("UMOCI", tool("bin/umoci").get_program()).env("TMPDIR", directory.path());
        run(&mut build);
        Self { directory }
    }

    /// A JSON document of the image.
    fn blob(&self, digest: &Value) -> Value {
        let digest = digest["digest"].as_str().expect("a digest").replace(':', "/");
        let path = self.directory.path().join("image/blobs").join(digest);
        serde_json::from_slice(&fs::read(path).expect("a blob")).expect("JSON")
    }

    /// The digest of the manifest, in `index.json`.
    fn manifest(&self) -> Value {
        let index = fs::read(self.directory.path().join("image/index.json")).expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        index["manifests"][0].clone()
    }

    fn config(&self) -> Value {
        self.blob(&self.blob(&self.manifest())["config"])["config"].clone()
    }

    /// Unpacks the files. Owners are those of the test, which need not be root.
    fn unpack(&self) -> PathBuf {
        let bundle = self.directory.path().join("bundle");
        let image = self.directory.path().join("image:test");
        run(tool("bin/umoci").args(["unpack", "--rootless", "--image"]).arg(image).arg(&bundle));
        bundle.join("rootfs")
    }
}

/// Mounts the root without write access, and starts the program in the directory of the volume, with no capability but that
/// of changing the root.
const MOUNT_AND_RUN: &str = r#"
set -e
root=$1 data=$2
shift 2
mount --bind "$root" "$root"
mount --bind "$data" "$root/var/lib/scalebridge"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
! touch "$root/etc/x" 2>/dev/null
exec setpriv --no-new-privs --bounding-set -all,+sys_chroot --inh-caps -all,+sys_chroot --ambient-caps -all,+sys_chroot \
  unshare --root="$root" --wd=/var/lib/scalebridge "$@"
"#;

/// A container of an image, without a runtime of containers: a user namespace in which the user is 65532.
struct Container {
    root: PathBuf,
    /// The volume at `/var/lib/scalebridge`.
    data: TempDir,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Container {
    fn new(image: &Image, environment: Vec<(&'static str, String)>) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        Self { root: image.unpack(), data, environment, child: None }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-user=65532", "--map-group=65532", "--keep-caps"])
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", MOUNT_AND_RUN, "sh"])
            .arg(&self.root)
            .arg(self.data.path())
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.data.path().with_extension("log")
    }

    fn start(&mut self, words: &[&str]) {
        let log = File::create(self.log()).expect("a log");
        let errors = log.try_clone().expect("a second handle");
        self.child = Some(self.command(words).stdout(log).stderr(errors).spawn().expect("unshare"));
    }

    /// Runs a program in the container until it ends.
    fn exec(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("unshare")
    }

    async fn wait_ready(&mut self, port: &Port) {
        let url = format!("http://127.0.0.1:{}/-/ready", port.number);
        eventually("readiness", async || {
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("a status");
            assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(self.log()).unwrap_or_default());
            matches!(get(&url).await, Ok((200, _))).then_some(())
        })
        .await;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- the log ---\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
        drop(fs::remove_file(self.log()));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_the_bridge_is_ready_with_a_read_only_root() {
    let image = Image::build("bridge", &program());
    let config = image.config();
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/scalebridge"]));
    assert_eq!(config["Cmd"], json!(["serve"]));
    let (webhook, admin) = (Port::reserve(), Port::reserve());
    let variable =
        config["Env"][0].as_str().and_then(|variable| variable.strip_prefix("SCALEBRIDGE_CONFIG="));
    let mut container = Container::new(
        &image,
        vec![
            ("SCALEBRIDGE_CONFIG", variable.expect("the path of the configuration").to_owned()),
            ("SCALEBRIDGE__SERVER__LISTEN", format!("0.0.0.0:{}", webhook.number)),
            ("SCALEBRIDGE__SERVER__ALLOW_UNAUTHENTICATED", "true".to_owned()),
            ("SCALEBRIDGE__ADMIN__LISTEN", format!("127.0.0.1:{}", admin.number)),
        ],
    );
    assert!(!container.root.join("bin").exists(), "there is no shell");
    container.start(&["/usr/local/bin/scalebridge", "serve"]);
    container.wait_ready(&webhook).await;

    let body = notification(&[pending_pod("workers", "a")]);
    let sent =
        post(format!("http://127.0.0.1:{}/webhook/local", webhook.number), &[], body.into_bytes()).await;
    assert_eq!(sent.status, 200, "it is stored: {}", sent.body);
    for arguments in [&["healthcheck"][..], &["healthcheck", "--ready"]] {
        let done = container.exec(&[&["/usr/local/bin/scalebridge"], arguments].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    drop(container.child.take().map(|mut child| child.kill().and_then(|()| child.wait())));
    let done = container.exec(&["/usr/local/bin/scalebridge", "healthcheck"]);
    assert_eq!(done.status.code(), Some(1), "the check notices that it has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_the_scaler_is_ready_with_a_read_only_root() {
    let image = Image::build("scaler", &scaler_program());
    let command = json!(["worker", "--config", "/etc/scalebridge/scaler.yaml"]);
    assert_eq!((&image.config()["User"], &image.config()["Cmd"]), (&json!("65532:65532"), &command));
    let directory = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(directory.path()).await;
    let queue = aws.create_fifo_queue("scaling.fifo").await;
    let port = Port::reserve();
    let settings = format!(
        "queue: {{ queue_url: \"{queue}\" }}\nledger: {{ sqlite: {{ path: ledger.db }} }}\n\
         targets: [{{ match: \"nomad/job/*\", dry_run: true }}]\n"
    );
    let mut container = Container::new(
        &image,
        vec![
            ("SCALEBRIDGE_SCALER_CONFIG", settings),
            ("AWS_ENDPOINT_URL", aws.url()),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ],
    );
    let program = "/usr/local/bin/scalebridge-scaler";
    let done = container.exec(&[program, "check", "--config", "/etc/scalebridge/scaler.yaml"]);
    assert!(done.status.success(), "the example in the image is valid: {}", text(&done.stderr));
    let listen = format!("0.0.0.0:{}", port.number);
    container.start(&[program, "worker", "--listen", &listen]);
    container.wait_ready(&port).await;
    for arguments in
        [&["healthcheck", "--listen", &listen][..], &["healthcheck", "--ready", "--listen", &listen]]
    {
        let done = container.exec(&[&[program], arguments].concat());
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    drop(container.child.take().map(|mut child| child.kill().and_then(|()| child.wait())));
    assert_eq!(container.exec(&[program, "healthcheck", "--listen", &listen]).status.code(), Some(1));
}

#[test]
fn the_same_files_make_the_same_image_with_owners_that_the_builder_need_not_have() {
    // Any program of this machine is linked with the same library.
    let program = fs::canonicalize("/bin/ls").expect("a program");
    let [first, second] = [(); 2].map(|()| Image::build("bridge", &program));
    assert_eq!(first.manifest()["digest"], second.manifest()["digest"]);
    let layer = &first.blob(&first.manifest())["layers"][0]["digest"];
    let layer = layer.as_str().expect("a digest").replace(':', "/");
    let layer = first.directory.path().join("image/blobs").join(layer);
    let files = run(Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--gzip", "--file"])
        .arg(layer));
    let owners =
        |owner: &str| files.lines().filter(|line| line.split_whitespace().nth(1) == Some(owner)).count();
    assert_eq!(owners("65532/65532"), 1, "{files}");
    assert_eq!(owners("0/0"), files.lines().count() - 1, "{files}");
    assert!(files.contains("./var/lib/scalebridge/") && files.contains("ca-certificates.crt"), "{files}");
}
