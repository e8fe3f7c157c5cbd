//! The files of the bridge itself: configuration, store, secrets, certificates. A destination that writes to one of them
//! would destroy it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::access::{
    AdminAuth, ClientAuth, HttpAuthorization, HttpClient, JwksLocation, JwtAuth, ListenerAccess, SourceAuth,
};
use super::diagnostic::{Code, Diagnostics, Location};
use super::file_stamp::{FileStamp, inode};
use super::kinds::DestinationSettings;
use super::settings::{Settings, Store};
use super::yaml::Node;
use crate::domain::name::Name;

/// Files that the bridge reads or writes for itself, and what each of them is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnFiles(Vec<(PathBuf, &'static str)>);

impl OwnFiles {
    /// The files of a configuration; `files` are those that it was read from.
    pub fn new<D: DestinationSettings, S>(settings: &Settings<D, S>, files: &[FileStamp]) -> Self {
        let mut own = Self(
            files
                .iter()
                .flat_map(FileStamp::paths)
                .map(|path| (path.to_owned(), "the configuration"))
                .collect(),
        );
        own.0.extend(store_files(&settings.store).map(|path| (path, "the store")));
        if let Store::Postgres(postgres) = &settings.store {
            own.add([&postgres.url_file], "a secret");
        }
        own.add_listener(&settings.server.access);
        own.add_listener(&settings.admin.access);
        own.add_admin(&settings.admin.auth);
        settings.source_auth.values().for_each(|auth| own.add_source(auth));
        settings.alertmanagers.values().for_each(|api| own.add_client(&api.http));
        for destination in settings.destinations.values() {
            own.add(destination.settings.key_files(), "a secret");
            destination.settings.http_client().into_iter().for_each(|client| own.add_client(client));
        }
        own
    }

    /// What the file at `path` is, if the bridge uses it: whatever links lead to it. Does not open it.
    pub fn find(&self, path: &Path) -> Option<&'static str> {
        let found = fs::metadata(path).ok().map(|found| inode(&found));
        let resolved = found.is_none().then(|| resolve(path));
        let is_same = |own: &Path| match (&found, &resolved) {
            (Some(found), _) => fs::metadata(own).is_ok_and(|own| inode(&own) == *found),
            (None, resolved) => resolved.as_ref() == Some(&resolve(own)),
        };
        self.0.iter().find(|(own, _)| is_same(own)).map(|(_, what)| *what)
    }

    fn add<'p>(&mut self, paths: impl IntoIterator<Item = &'p PathBuf>, what: &'static str) {
        self.0.extend(paths.into_iter().map(|path| (path.clone(), what)));
    }

    fn add_listener(&mut self, access: &ListenerAccess) {
        self.add(access.web_config.as_ref().map(|web_config| &web_config.path), "a `web_config_file`");
        let Some(tls) = &access.tls else { return };
        self.add([&tls.cert_file, &tls.key_file], "a certificate or key");
        if let ClientAuth::VerifyClientCertIfGiven(ca) | ClientAuth::RequireAndVerifyClientCert(ca) =
            &tls.client_auth
        {
            self.add([ca], "a certificate or key");
        }
    }

    fn add_source(&mut self, auth: &SourceAuth) {
        let SourceAuth { bearer_token_files, basic_auth_users_file, client_cert: _, jwt, hmac } = auth;
        let key_files = hmac.iter().flat_map(|hmac| &hmac.key_files);
        self.add(bearer_token_files.iter().chain(basic_auth_users_file).chain(key_files), "a secret");
        jwt.iter().for_each(|jwt| self.add_jwt(jwt));
    }

    fn add_admin(&mut self, auth: &AdminAuth) {
        self.add(auth.tokens.iter().map(|token| &token.token_file).chain(&auth.users_file), "a secret");
        auth.jwt.iter().for_each(|jwt| self.add_jwt(&jwt.token));
    }

    fn add_jwt(&mut self, jwt: &JwtAuth) {
        match &jwt.keys {
            JwksLocation::File(path) => self.add([path], "a key set"),
            JwksLocation::Url { http, .. } => self.add_client(http),
        }
    }

    fn add_client(&mut self, client: &HttpClient) {
        let HttpClient { authorization, ca_file, client_cert, .. } = client;
        self.add(ca_file, "a certificate or key");
        self.add(client_cert.iter().flat_map(|(cert, key)| [cert, key]), "a certificate or key");
        self.add(
            authorization.iter().map(|authorization| match authorization {
                HttpAuthorization::Credentials { credentials_file, .. } => credentials_file,
                HttpAuthorization::Basic { password_file, .. } => password_file,
            }),
            "a secret",
        );
    }
}

/// The files of the store, at least those that it has at some time.
pub(super) fn store_files(store: &Store) -> impl Iterator<Item = PathBuf> + use<> {
    // SQLite puts its files beside the file that a link leads to, and the bridge its lock beside the link.
    let paths = match store {
        Store::Sqlite { path } => vec![path.clone(), resolve(path)],
        Store::Postgres(_) => Vec::new(),
    };
    ["", "-wal", "-shm", "-journal", ".lock"].into_iter().flat_map(move |suffix| {
        let with_suffix = |path: &PathBuf| {
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        paths.iter().map(with_suffix).collect::<Vec<_>>()
    })
}

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// The path with all links followed, also one that leads to a missing file.
pub(super) fn resolve(path: &Path) -> PathBuf {
    let mut existing = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (mut missing, mut links): (Vec<OsString>, usize) = (Vec::new(), 0);
    loop {
        if let Ok(real) = fs::canonicalize(&existing) {
            return missing.iter().rev().fold(real, |path, name| match path.parent() {
                Some(parent) if name == ".." => parent.to_owned(),
                _ => path.join(name),
            });
        }
        let Some(parent) = existing.parent().map(Path::to_owned) else { return existing };
        match fs::read_link(&existing) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                existing = parent.join(target);
            }
            _ => {
                let last = existing.components().next_back();
                missing.extend(last.map(|last| last.as_os_str().to_owned()));
                existing = parent;
            }
        }
    }
}

/// The location of the file of a destination.
pub(super) fn file_location<'n, D: DestinationSettings>(
    root: &'n Node,
    destination: &Name,
    key: &str,
) -> &'n Location {
    let node = root.get("destinations").and_then(|node| node.get(destination.as_str()));
    let kinds = D::KINDS.iter();
    let path = node
        .and_then(|node| kinds.filter_map(|kind| node.get(kind.key)).find_map(|settings| settings.get(key)));
    &path.unwrap_or(root).location
}

/// Reports destinations that write to a file of the bridge.
pub(super) fn check<D: DestinationSettings, S>(
    settings: &Settings<D, S>,
    files: &[FileStamp],
    root: &Node,
    diagnostics: &mut Diagnostics,
) {
    let own = OwnFiles::new(settings, files);
    for (name, destination) in &settings.destinations {
        let Some((key, path)) = destination.settings.exclusive_file() else { continue };
        let location = file_location::<D>(root, name, key);
        if let Some(what) = own.find(path).filter(|_| !diagnostics.has_error_at(location)) {
            let message = format!("`{}` is a file of {what}, which events would destroy", path.display());
            diagnostics.add_with_help(Code::Contradiction, location, message, "use a different file");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_found_by_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("token"), "secret").unwrap();
        symlink("token", at("soft")).unwrap();
        symlink("missing", at("dangling")).unwrap();
        fs::hard_link(at("token"), at("hard")).unwrap();
        let own = OwnFiles(vec![(at("token"), "a secret"), (at("bridge.db-wal"), "the store")]);
        symlink("../bridge.db-wal", at("sub/early")).unwrap();
        for name in ["token", "soft", "hard", "./sub/../token", "sub/../soft"] {
            assert_eq!(own.find(&at(name)), Some("a secret"), "{name}");
        }
        for name in ["bridge.db-wal", "sub/../bridge.db-wal", "new/../bridge.db-wal", "sub/early"] {
            assert_eq!(own.find(&at(name)), Some("the store"), "{name}, before it exists");
        }
        for name in ["events.jsonl", "dangling", "sub", "new/events.jsonl"] {
            assert_eq!(own.find(&at(name)), None, "{name}");
        }
    }
}
