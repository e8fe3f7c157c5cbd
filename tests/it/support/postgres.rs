//! PostgreSQL and PgBouncer for the tests, which `deploy/tools.sh` installs.
//!
//! Shared with the unit tests of `store`. A server has a directory of its own and a free port of 127.0.0.1, and ends with
//! the process of the tests, however that ends: its guard waits for the end of a pipe. PostgreSQL refuses to run as root,
//! so for root it runs as the user nobody. `SCALEBRIDGE_TEST_POSTGRES` names another server to use, by the URL of its
//! superuser.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The user nobody of Debian, and its group.
const NOBODY: u32 = 65_534;
/// Small and fast, but as safe as in production: the store refuses `fsync = off`.
const SETTINGS: [&str; 12] = [
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "shared_buffers=32MB",
    "max_wal_size=256MB",
    "min_wal_size=32MB",
    "wal_init_zero=off",
    "jit=off",
    "max_wal_senders=4",
    "wal_keep_size=64MB",
    "deadlock_timeout=200ms",
    "log_min_messages=warning",
    "log_line_prefix=%m [%p] %q%a %u@%d ",
];

/// A running PostgreSQL. Dropping it stops it.
pub(crate) struct PostgresServer {
    /// Without a name of a database.
    base_url: String,
    /// None if it is not ours.
    process: Option<Guarded>,
    /// Its files while it is stopped.
    stopped: Option<Directory>,
    port: u16,
}

impl PostgresServer {
    /// The server that all tests of this process share. Started by the first; never dropped.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("SCALEBRIDGE_TEST_POSTGRES") {
            Ok(url) => Self::at(&url),
            Err(_) => Self::start(&[], "host all all 127.0.0.1/32 trust\n", |_| {}),
        })
    }

    fn at(url: &str) -> Self {
        let (base_url, _) = url.rsplit_once('/').expect("SCALEBRIDGE_TEST_POSTGRES is a URL with a database");
        let port = base_url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(5432);
        Self { base_url: base_url.to_owned(), process: None, stopped: None, port }
    }

    /// Starts a server with further settings and these lines in `pg_hba.conf`; the superuser may always connect by its
    /// Unix socket. `prepare` can write files to its directory first.
    pub(crate) fn start(settings: &[&str], hba: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = Directory::create("postgres");
        let data = directory.0.join("data");
        let initdb = as_server_user(&program("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--wal-segsize=4", "--pgdata"])
            .arg(&data)
            .current_dir("/")
            .output();
        checked("initdb", initdb);
        prepare(&data);
        fs::write(data.join("pg_hba.conf"), format!("local all,replication postgres trust\n{hba}"))
            .expect("pg_hba.conf");
        Self::run(directory, settings)
    }

    /// Starts a standby that follows this server.
    pub(crate) fn standby(&self, settings: &[&str]) -> Self {
        let directory = Directory::create("standby");
        let copy = as_server_user(&program("pg_basebackup"))
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(directory.0.join("data"))
            .args([
                "--host",
                &self.socket_directory(),
                "--username=postgres",
                "--port",
                &self.port.to_string(),
            ])
            .current_dir("/")
            .output();
        checked("pg_basebackup", copy);
        Self::run(directory, settings)
    }

    /// Another process may take a port between its choice and its use.
    fn run(directory: Directory, settings: &[&str]) -> Self {
        let mut directory = Some(directory);
        for _ in 0..5 {
            let place = directory.take().expect("a directory");
            let port = free_port();
            let command = postgres(&place.0, port, settings);
            let process = Guarded::start(place, &command, "INT");
            let mut server = Self {
                base_url: format!("postgres://postgres@127.0.0.1:{port}"),
                process: Some(process),
                stopped: None,
                port,
            };
            match server.wait_ready() {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => {
                    directory = server.process.take().map(Guarded::into_directory);
                }
                Err(log) => panic!("PostgreSQL does not start:\n{log}"),
            }
        }
        panic!("no free port for PostgreSQL");
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.try_sql("postgres", "SELECT 1").status.success() {
            let process = self.process.as_mut().expect("a process of ours");
            if process.has_ended() || Instant::now() > deadline {
                return Err(process.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The port of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket.
    pub(crate) fn socket_directory(&self) -> String {
        self.directory().display().to_string()
    }

    /// Its directory, which it removes at its end. Only of a server that was started here.
    pub(crate) fn directory(&self) -> &Path {
        &self.process.as_ref().expect("a server of ours").directory.0
    }

    /// The superuser's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base_url)
    }

    /// Creates a database with a name of its own, empty or as a copy of `template`.
    pub(crate) fn create_database(&self, template: Option<&str>) -> String {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        let template = template.map(|template| format!(" TEMPLATE {template}")).unwrap_or_default();
        self.sql("postgres", &format!("CREATE DATABASE {name}{template}"));
        name
    }

    /// Runs SQL as the superuser. Returns the rows, with `|` between columns.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let done = self.try_sql(database, sql);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{sql}: {error}");
        String::from_utf8(done.stdout).expect("UTF-8").trim_end().to_owned()
    }

    fn try_sql(&self, database: &str, sql: &str) -> Output {
        let url = match &self.process {
            Some(process) => {
                let directory = process.directory.0.display();
                format!("postgres:///{database}?host={directory}&port={}&user=postgres", self.port)
            }
            None => self.url(database),
        };
        let mut psql = Command::new(program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]);
        psql.env_remove("PGOPTIONS").stdin(Stdio::null()).output().expect("psql")
    }

    /// Stops it, and keeps its files and its port for [`Self::restart`].
    pub(crate) fn stop(&mut self) {
        let process = self.process.take().expect("a server of ours");
        self.stopped = Some(process.into_directory());
    }

    /// [`Self::stop`], but as a crash: it recovers when it is started again.
    pub(crate) fn crash(&mut self) {
        let file = self.directory().join("data/postmaster.pid");
        let text = fs::read_to_string(file).expect("the id of its process");
        let id = text.lines().next().expect("an id");
        checked("kill", Command::new("kill").args(["-QUIT", id]).output());
        self.stop();
    }

    /// Makes a standby the primary.
    pub(crate) fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote()"), "t");
    }

    /// Confirms no transaction any more before a standby has it. Waits until one follows.
    pub(crate) fn require_standby(&self) {
        self.configure("synchronous_standby_names = '*'");
        self.wait_sql("SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state = 'sync'");
    }

    /// Lets a standby receive nothing any more.
    pub(crate) fn stop_following(&self) {
        self.configure("primary_conninfo = ''");
        self.wait_sql("SELECT count(*) = 0 FROM pg_stat_wal_receiver");
    }

    /// Waits until a standby has everything that this server has.
    pub(crate) fn wait_followed_by(&self, standby: &Self) {
        let position = self.sql("postgres", "SELECT pg_current_wal_lsn()");
        standby.wait_sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"));
    }

    fn configure(&self, setting: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    fn wait_sql(&self, condition: &str) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.sql("postgres", condition) != "t" {
            assert!(Instant::now() < deadline, "{condition}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self, settings: &[&str]) {
        let directory = self.stopped.take().expect("a stopped server");
        let command = postgres(&directory.0, self.port, settings);
        self.process = Some(Guarded::start(directory, &command, "INT"));
        self.wait_ready().unwrap_or_else(|log| panic!("PostgreSQL does not start again:\n{log}"));
    }
}

/// A running PgBouncer in transaction mode. Dropping it stops it.
pub(crate) struct Pooler {
    _process: Guarded,
    port: u16,
}

impl Pooler {
    /// Starts it before a server. `users` are lines of its `auth_file`, with their passwords; `settings` are lines of its
    /// section `[pgbouncer]`.
    pub(crate) fn start(server: &PostgresServer, databases: &str, users: &str, settings: &str) -> Self {
        let directory = Directory::create("pgbouncer");
        let port = free_port();
        fs::write(directory.0.join("users"), users).expect("a file");
        let path = directory.0.join("pgbouncer.ini");
        let databases = databases.replace("SERVER", &format!("host=127.0.0.1 port={}", server.port));
        let configuration = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             pool_mode = transaction\nmax_client_conn = 500\ndefault_pool_size = 20\nauth_file = {users}\n{settings}\n",
            users = directory.0.join("users").display()
        );
        fs::write(&path, configuration).expect("a file");
        directory.give_to_server_user();
        let mut command = as_server_user(&program("pgbouncer"));
        command.arg(&path);
        let mut process = Guarded::start(directory, &command, "TERM");
        let deadline = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(!process.has_ended() && Instant::now() < deadline, "PgBouncer: {}", process.log());
            thread::sleep(Duration::from_millis(10));
        }
        Self { _process: process, port }
    }

    /// The port of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

/// A child that ends with this process, even if that is killed. Its standard input is a pipe that nothing is written to.
struct Guarded {
    /// The guard, `sh`.
    child: Child,
    directory: Directory,
}

impl Guarded {
    /// Starts the command with a guard: `sh`, which ends with the command. At the end of the pipe it stops the command and,
    /// unless it has read a line, removes the directory.
    fn start(directory: Directory, command: &Command, stop_signal: &str) -> Self {
        const GUARD: &str = r#"trap '' INT TERM HUP
            directory=$1 signal=$2; shift 2
            exec 3<&0 </dev/null
            "$@" 3<&- & child=$!
            (
                read -r _ <&3 && keep=1 || keep=
                while kill "-$signal" $child 2>/dev/null; do sleep 0.1; done
                [ "$keep" ] || rm -rf "$directory"
            ) & wait $child"#;
        directory.give_to_server_user();
        let log = File::options().create(true).append(true).open(directory.0.join("log")).expect("a log");
        let child = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&directory.0)
            .arg(stop_signal)
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            // Ctrl-C in a terminal is for the tests.
            .process_group(0)
            .spawn()
            .expect("sh");
        Self { child, directory }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.0.join("log")).unwrap_or_default()
    }

    fn stop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }

    /// Stops it, and keeps its files.
    fn into_directory(mut self) -> Directory {
        let line = self.child.stdin.as_mut().map(|pipe| pipe.write_all(b"keep\n"));
        // It fails only if the guard is gone, which then removes nothing.
        drop(line);
        self.stop();
        Directory(std::mem::take(&mut self.directory.0))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A directory that is removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn create(name: &str) -> Self {
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("scalebridge-{name}-{}-{number}", std::process::id()));
        // Of a process that was killed, and had the same id.
        drop(fs::remove_dir_all(&path));
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        let directory = Self(path);
        directory.give_to_server_user();
        directory
    }

    /// Lets the user of the server own all of it.
    fn give_to_server_user(&self) {
        if is_root() {
            let chown =
                Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(&self.0).output();
            checked("chown", chown);
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command that runs as a user that PostgreSQL accepts.
fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program);
    command
}

fn postgres(directory: &Path, port: u16, settings: &[&str]) -> Command {
    let mut command = as_server_user(&program("postgres"));
    command.arg("-D").arg(directory.join("data")).args(["-p", &port.to_string(), "-k"]).arg(directory);
    SETTINGS.iter().chain(settings).for_each(|setting| {
        command.args(["-c", setting]);
    });
    command
}

fn checked(name: &str, output: std::io::Result<Output>) {
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A program of PostgreSQL, or PgBouncer: that of `deploy/tools.sh`, in a copy if the user of the server cannot execute it
/// where it is.
fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let own = std::env::current_exe().expect("the path of this program");
        let installed = own.ancestors().map(|parent| parent.join("tools/postgresql"));
        let Some(installed) = installed.into_iter().find(|tools| tools.join("bin/psql").exists()) else {
            assert!(
                std::env::var_os("SCALEBRIDGE_TEST_POSTGRES").is_some(),
                "PostgreSQL is missing: run deploy/tools.sh"
            );
            return PathBuf::new();
        };
        let can_run = |directory: &Path| {
            let version =
                as_server_user(&directory.join("bin/postgres")).arg("--version").current_dir("/").output();
            version.is_ok_and(|version| version.status.success())
        };
        if can_run(&installed) {
            return installed;
        }
        let copy = std::env::temp_dir().join("scalebridge-test-postgresql");
        if !can_run(&copy) {
            let partial = copy.with_extension(std::process::id().to_string());
            checked(
                "cp",
                Command::new("cp").args([OsStr::new("-rT"), installed.as_ref(), partial.as_ref()]).output(),
            );
            // Another process may have been faster.
            if fs::rename(&partial, &copy).is_err() {
                drop(fs::remove_dir_all(&partial));
            }
        }
        assert!(can_run(&copy), "{} cannot be executed by the user nobody", copy.display());
        copy
    });
    let in_bin = directory.join("bin").join(name);
    // On PATH, if the server is not ours.
    if in_bin.exists() { in_bin } else { PathBuf::from(name) }
}
