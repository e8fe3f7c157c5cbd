//! Connections to the server.
//!
//! The file with the URL is read for each new connection, with the files that it names: a rotated password or
//! certificate is used without a restart. Connections have no state between transactions, so that a pooler can share
//! them.

mod iam;
mod session;
#[cfg(test)]
mod tests;
mod tls;

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};

use super::commits::Commits;
use super::error::{ConnectError, DbError, ServerError, describe};
use crate::config::{ChannelBinding, DatabaseServer, DatabaseUrl, ServerAddress, ServerTls, UrlError};
use crate::credentials::read_secret;
use crate::store::Error;
use iam::Tokens;
pub(crate) use iam::rds_region;
pub(super) use session::{Param, Session};
use tls::Tls;

/// How long to wait for a connection that is in use.
const WAIT: Duration = Duration::from_secs(5);

/// Receives the payloads of notifications.
type Notices = mpsc::UnboundedSender<String>;

/// A connection of the pool. Dropping it returns it.
pub(super) type Connection = Object<Manager>;

/// Opens connections. Cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<Origin>);

/// What says where the database is.
enum Origin {
    /// A file with its URL, which is read for each connection.
    File { url_file: PathBuf, tokens: Option<Tokens> },
    /// The URL itself.
    Url(Box<DatabaseUrl>),
}

impl Connector {
    /// Connects to the database whose URL is in `url_file`; with `iam` by tokens instead of a password.
    pub fn from_file(url_file: PathBuf, iam: bool) -> Self {
        Self(Arc::new(Origin::File { url_file, tokens: iam.then(Tokens::default) }))
    }

    /// Connects to the database at a URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn from_url(url: &str) -> Result<Self, Vec<UrlError>> {
        Ok(Self(Arc::new(Origin::Url(Box::new(DatabaseUrl::parse(url, false)?)))))
    }

    /// Opens a connection to the first server that accepts it.
    ///
    /// # Errors
    /// Why none of the servers can be used.
    pub(super) async fn connect(&self) -> Result<Client, ConnectError> {
        self.open(None).await
    }

    /// Opens a connection that sends the payloads of notifications to `notices`.
    async fn open(&self, notices: Option<Notices>) -> Result<Client, ConnectError> {
        let target = self.target().await?;
        let mut servers: Vec<&DatabaseServer> = target.url.servers.iter().collect();
        if target.url.random_order {
            fastrand::shuffle(&mut servers);
        }
        let mut refusals = Vec::new();
        for server in servers {
            match self.connect_to(&target, server, notices.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) => refusals.push((server.to_string(), error)),
            }
        }
        Err(ConnectError::Servers(refusals))
    }

    /// Reads the files.
    async fn target(&self) -> Result<Target, ConnectError> {
        let this = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let url = match &*this.0 {
                Origin::File { url_file, tokens } => read_url(url_file, tokens.is_some())?,
                Origin::Url(url) => (**url).clone(),
            };
            let tls = Tls::read(&url)?;
            Ok(Target { url, tls })
        });
        // It fails only if the runtime stops.
        read.await.map_err(|error| ConnectError::Settings(error.to_string()))?
    }

    async fn connect_to(
        &self,
        target: &Target,
        server: &DatabaseServer,
        notices: Option<Notices>,
    ) -> Result<Client, ServerError> {
        let limit = target.url.connect_timeout;
        let connected = async {
            let mut config = config(&target.url, server);
            if let Origin::File { tokens: Some(tokens), .. } = &*self.0 {
                config.password(tokens.token(server, &target.url.user).await.map_err(ServerError::Token)?);
            }
            match target.tls.connector(server.tls) {
                None => start(config.connect(NoTls).await, notices),
                Some(tls) => start(config.connect(tls).await, notices),
            }
        };
        let connected =
            tokio::time::timeout(limit, connected).await.unwrap_or(Err(ServerError::TimedOut(limit)));
        if let (Err(error), Origin::File { tokens: Some(tokens), .. }) = (&connected, &*self.0)
            && error.is_refused_login()
        {
            // The token may have been signed with credentials that were replaced.
            tokens.forget_credentials();
        }
        connected
    }
}

/// What the files say now.
struct Target {
    url: DatabaseUrl,
    tls: Tls,
}

fn read_url(url_file: &Path, iam: bool) -> Result<DatabaseUrl, ConnectError> {
    // Not shown: it can contain the password.
    if url_file.to_string_lossy().contains("://") {
        let cause =
            "`url_file` is a URL: write it into a file that only the bridge can read, and name that file";
        return Err(ConnectError::Settings(cause.to_owned()));
    }
    let error = |cause: String| ConnectError::Settings(format!("{}: {cause}", url_file.display()));
    let text = read_secret(url_file).map_err(error)?;
    DatabaseUrl::parse(text.expose(), iam).map_err(|errors| error(all_errors(&errors)))
}

fn all_errors(errors: &[UrlError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Moves the connection to a task of its own, which ends with the client.
fn start<T>(
    connected: Result<(Client, tokio_postgres::Connection<Socket, T>), tokio_postgres::Error>,
    notices: Option<Notices>,
) -> Result<Client, ServerError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, mut connection) = connected.map_err(ServerError::Postgres)?;
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match (message, &notices) {
                (Ok(AsyncMessage::Notification(notification)), Some(notices)) => {
                    // Nobody listens any more.
                    drop(notices.send(notification.payload().to_owned()));
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    tracing::debug!(error = describe(&error), "a connection to the database has ended");
                    return;
                }
            }
        }
    });
    Ok(client)
}

/// The settings for one server. Without a named statement or a setting of the session.
fn config(url: &DatabaseUrl, server: &DatabaseServer) -> Config {
    let mut config = Config::new();
    match &server.address {
        ServerAddress::Socket(directory) => {
            config.host_path(directory);
        }
        ServerAddress::Tcp { host, address } => {
            config.host(host);
            address.map(|address| config.hostaddr(address));
        }
    }
    config.port(server.port).user(&url.user).dbname(&url.database).application_name(&url.application_name);
    if let Some(password) = &url.password {
        config.password(password.expose());
    }
    if let Some(options) = &url.options {
        config.options(options);
    }
    config.ssl_mode(if server.tls == ServerTls::Off { SslMode::Disable } else { SslMode::Require });
    config.channel_binding(match url.channel_binding {
        ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
        ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
        ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
    });
    if url.read_write {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    let liveness = &url.liveness;
    config.keepalives(liveness.keepalives).keepalives_idle(liveness.idle);
    config.keepalives_interval(liveness.interval).keepalives_retries(liveness.count);
    if let Some(unacknowledged) = liveness.unacknowledged {
        config.tcp_user_timeout(unacknowledged);
    }
    config
}

/// Opens the connections of the pool.
pub(super) struct Manager {
    connector: Connector,
    is_limited: bool,
}

impl managed::Manager for Manager {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        Ok(Session::new(self.connector.connect().await?, self.is_limited))
    }

    /// Without a question to the server: a connection that has died meanwhile fails its transaction, which is run again.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.is_usable() { Ok(()) } else { Err(RecycleError::message("closed")) }
    }
}

/// The pool of connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    connections: managed::Pool<Manager>,
    replica: i64,
    commits: Arc<Commits>,
}

impl Pool {
    /// A pool of up to `max_connections` connections. None is opened yet.
    pub(super) fn new(connector: Connector, max_connections: usize, replica: i64) -> Result<Self, Error> {
        Self::with_manager(Manager { connector, is_limited: true }, max_connections, replica)
    }

    /// A pool of one connection for statements that can take any time.
    pub(super) fn unlimited(connector: Connector) -> Result<Self, Error> {
        Self::with_manager(Manager { connector, is_limited: false }, 1, fastrand::i64(1..))
    }

    fn with_manager(manager: Manager, max_connections: usize, replica: i64) -> Result<Self, Error> {
        let pool = managed::Pool::builder(manager)
            .max_size(max_connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT))
            .build();
        let connections = pool.map_err(|error| Error::Unusable(error.to_string()))?;
        Ok(Self { connections, replica, commits: Arc::default() })
    }

    /// A connection.
    pub(super) async fn get(&self) -> Result<Connection, DbError> {
        self.connections.get().await.map_err(|error| match error {
            PoolError::Backend(error) => DbError::Connect(error),
            PoolError::Timeout(_) => {
                DbError::Pool(format!("no connection was free within {} s", WAIT.as_secs()))
            }
            PoolError::Closed => DbError::Pool("the store is closed".to_owned()),
            error => DbError::Pool(error.to_string()),
        })
    }

    /// Listens to a channel on a connection that is not of the pool: the payloads, until the client is dropped or the
    /// connection ends. A pooler of transactions sends none.
    pub(super) async fn listen(
        &self,
        channel: &str,
    ) -> Result<(Client, mpsc::UnboundedReceiver<String>), DbError> {
        let (notices, received) = mpsc::unbounded_channel();
        let connector = &self.connections.manager().connector;
        let client = connector.open(Some(notices)).await.map_err(DbError::Connect)?;
        client.batch_execute(&format!("LISTEN {channel}")).await?;
        Ok((client, received))
    }

    /// The random number that names this process in the database.
    pub(super) fn replica(&self) -> i64 {
        self.replica
    }

    /// The transactions of this process.
    pub(super) fn commits(&self) -> &Arc<Commits> {
        &self.commits
    }

    /// Whether statements wait a limited time for locks and answers.
    pub(super) fn is_limited(&self) -> bool {
        self.connections.manager().is_limited
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connections.is_closed()
    }

    /// Closes idle connections; no new ones are given.
    pub(super) fn close(&self) {
        self.connections.close();
    }
}
