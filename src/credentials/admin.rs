//! Who may use the admin listener.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use subtle::{Choice, ConditionallySelectable as _};

use super::file::{FileError, MAX_AGE};
use super::header::{Authorization, MAX_TOKEN_BYTES, authorization, single};
use super::jwt::{Rejection, Token, Verifier};
use super::password::{Attempt, Outcome, UserTable};
use super::registry::{Registry, TokenFile, Users};
use super::token::TokenDigest;
use super::{AuthFailure, Denied, Presented, Principal, challenge, unix_now};
use crate::config::access::{AdminAuth, AdminClientCert, AdminJwt, Scope, WebConfig};

/// The name of the principal where no credential is configured.
const ANONYMOUS: &str = "anonymous";

/// The credentials of the admin listener. Reads files and starts requests for key sets, so it is made within the
/// runtime.
pub(crate) struct AdminCredentials {
    tokens: Vec<(Principal, TokenFile)>,
    users: Option<Users>,
    /// The users of the listener's `web_config_file`.
    web_users: Option<Users>,
    scopes: BTreeMap<String, Scope>,
    certificates: Vec<AdminClientCert>,
    jwt: Vec<(AdminJwt, Verifier)>,
    /// The names of tokens, users and certificates, which no JWT may have, nor that of a user of `users`.
    own_names: BTreeSet<String>,
    /// The users of `users` when the file could be read last.
    last_users: Mutex<Option<Arc<UserTable>>>,
    registry: Registry,
}

impl AdminCredentials {
    /// The credentials of the settings. A file that cannot be read is logged, and denies requests until it can.
    pub(crate) fn new(auth: &AdminAuth, web_config: Option<&WebConfig>) -> Self {
        let none = Registry::new();
        Self::build(none.successor(), &none, auth, web_config)
    }

    /// The credentials of reloaded settings, with the caches of what did not change.
    pub(crate) fn reloaded(&self, auth: &AdminAuth, web_config: Option<&WebConfig>) -> Self {
        let new = Self::build(self.registry.successor(), &self.registry, auth, web_config);
        if new.users.is_some() {
            new.last_users.lock().clone_from(&self.last_users.lock());
        }
        new
    }

    fn build(
        mut registry: Registry,
        old: &Registry,
        auth: &AdminAuth,
        web_config: Option<&WebConfig>,
    ) -> Self {
        let mut token = |token: &crate::config::access::AdminToken| {
            let principal = Principal { name: token.name.clone(), scope: token.scope };
            (principal, registry.token(old, &token.token_file, &format!("admin token {}", token.name)))
        };
        let tokens = auth.tokens.iter().map(&mut token).collect();
        let mut verifier = |jwt: &AdminJwt| (jwt.clone(), registry.verifier(old, &jwt.token, "admin jwt"));
        let jwt = auth.jwt.iter().map(&mut verifier).collect();
        Self {
            tokens,
            users: auth.users_file.as_ref().map(|path| registry.users(old, path, "admin users")),
            web_users: registry.web_users(old, web_config),
            scopes: auth.users.iter().map(|user| (user.name.clone(), user.scope)).collect(),
            certificates: auth.client_certs.clone(),
            jwt,
            own_names: own_names(auth, web_config),
            last_users: Mutex::default(),
            registry,
        }
    }

    /// Whether requests need no credential.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty() && !self.has_users() && self.certificates.is_empty() && self.jwt.is_empty()
    }

    fn has_users(&self) -> bool {
        self.users.is_some() || self.web_users.is_some()
    }

    /// Who presents these credentials. Without any configured credential that is `anonymous`, who may operate.
    ///
    /// Tokens in headers of their own come first, since a proxy sets them, then `Authorization`. Only where neither is
    /// presented the certificate counts: it may be that of a proxy, and the actor is the user.
    ///
    /// # Errors
    /// Why the request is denied.
    pub(crate) async fn check(&self, presented: Presented<'_>) -> Result<Principal, Denied> {
        let presented = presented.at(unix_now());
        if self.is_open() {
            return Ok(Principal { name: ANONYMOUS.to_owned(), scope: Scope::Operate });
        }
        let credentials =
            authorization(presented.headers).map_err(|_| self.unauthenticated(AuthFailure::Malformed))?;
        let by_header = self.check_headers(&presented).await;
        if let Ok(Some(principal)) = by_header {
            return Ok(principal);
        }
        match &credentials {
            Authorization::Bearer(token) if !self.tokens.is_empty() || self.has_bearer_jwt() => {
                return self.check_bearer(token).await;
            }
            Authorization::Basic { user, password } if self.has_users() => {
                let attempt = Attempt { peer: presented.peer, user, password };
                return self.check_password(attempt).await;
            }
            _ => by_header?,
        };
        let Some(certificate) = presented.client_certificate else {
            let failure = match credentials {
                Authorization::Missing => AuthFailure::Missing,
                Authorization::Unknown => AuthFailure::Malformed,
                Authorization::Bearer(_) | Authorization::Basic { .. } => AuthFailure::Wrong,
            };
            return Err(self.unauthenticated(failure));
        };
        let known = self.certificates.iter().find(|known| certificate.has_san(&known.sans));
        known
            .map(|known| Principal { name: known.name.clone(), scope: known.scope })
            .ok_or_else(|| self.unauthenticated(AuthFailure::UnknownCertificate))
    }

    fn unauthenticated(&self, failure: AuthFailure) -> Denied {
        let has_bearer = !self.tokens.is_empty() || self.has_bearer_jwt();
        Denied::Unauthenticated { failure, challenge: challenge(has_bearer, self.has_users()) }
    }

    fn has_bearer_jwt(&self) -> bool {
        self.jwt.iter().any(|(settings, _)| settings.header == "authorization")
    }

    async fn check_bearer(&self, token: &[u8]) -> Result<Principal, Denied> {
        let digest = TokenDigest::of(token);
        let mut error = self.refresh(MAX_AGE).await.err();
        if let Some(principal) = self.matching(&digest) {
            return Ok(principal);
        }
        // Before a request is denied, the files are looked at again.
        if !self.tokens.is_empty() {
            error = self.refresh(Duration::ZERO).await.err();
            if let Some(principal) = self.matching(&digest) {
                return Ok(principal);
            }
        }
        let verified = if self.has_bearer_jwt() {
            self.verify("authorization", token).await
        } else {
            Err(self.unauthenticated(AuthFailure::Wrong))
        };
        match (verified, error) {
            (Err(Denied::Unauthenticated { .. }), Some(error)) => {
                Err(Denied::Unavailable(format!("admin: {error}")))
            }
            (verified, _) => verified,
        }
    }

    /// Reads the tokens that have changed. An error if one cannot be read: it might be the one that is presented.
    async fn refresh(&self, max_age: Duration) -> Result<(), FileError> {
        let mut result = Ok(());
        for (_, file) in &self.tokens {
            result = result.and(file.current(max_age).await.map(|_| ()));
        }
        result
    }

    /// The first token that matches. All are compared, whichever matches.
    fn matching(&self, digest: &TokenDigest) -> Option<Principal> {
        let (mut found, mut index) = (Choice::from(0), 0_u64);
        for ((_, file), at) in self.tokens.iter().zip(0_u64..) {
            let matches = file.last().map_or(Choice::from(0), |token| token.matches(digest));
            index = u64::conditional_select(&index, &at, matches & !found);
            found |= matches;
        }
        let index = bool::from(found).then_some(usize::try_from(index).ok()?)?;
        self.tokens.get(index).map(|(principal, _)| principal.clone())
    }

    async fn check_password(&self, attempt: Attempt<'_>) -> Result<Principal, Denied> {
        let (outcome, tables) = self.compare(attempt, MAX_AGE, None).await?;
        let outcome = match outcome {
            (Outcome::Wrong, _) => self.compare(attempt, Duration::ZERO, Some(&tables)).await?.0,
            outcome => outcome,
        };
        let user = attempt.user;
        let scope = self.scopes.get(user).copied();
        match outcome {
            (Outcome::Matches, is_web) => {
                // A user of the web_config_file may operate unless listed.
                let scope = scope.or(is_web.then_some(Scope::Operate));
                let scope = scope.ok_or(Denied::Forbidden(AuthFailure::Scope))?;
                Ok(Principal { name: user.to_owned(), scope })
            }
            (Outcome::Wrong, _) => Err(self.unauthenticated(AuthFailure::Wrong)),
            (Outcome::Busy, _) => Err(Denied::Busy),
        }
    }

    /// Compares a password with the table that has the user, unless it is one of `known`; and whether that is the one of
    /// the `web_config_file`.
    async fn compare(
        &self,
        attempt: Attempt<'_>,
        max_age: Duration,
        known: Option<&Arc<UserTable>>,
    ) -> Result<((Outcome, bool), Arc<UserTable>), Denied> {
        let mut error = None;
        let mut chosen: Option<(Arc<UserTable>, bool)> = None;
        for (users, is_web) in [(&self.users, false), (&self.web_users, true)] {
            let Some(users) = users else { continue };
            match users.table(max_age).await {
                Ok(table) if chosen.is_none() || table.contains(attempt.user) => {
                    if chosen.as_ref().is_none_or(|(first, _)| !first.contains(attempt.user)) {
                        chosen = Some((table, is_web));
                    }
                }
                Ok(_) => {}
                Err(cause) => error = Some(Denied::Unavailable(format!("admin: {cause}"))),
            }
        }
        let Some((table, is_web)) = chosen else {
            return Err(error.unwrap_or_else(|| self.unauthenticated(AuthFailure::Wrong)));
        };
        let outcome = match known {
            Some(known) if Arc::ptr_eq(known, &table) => Outcome::Wrong,
            _ => self.registry.comparisons.compare(&table, attempt).await,
        };
        match (outcome, error) {
            (Outcome::Wrong, Some(error)) => Err(error),
            (outcome, _) => Ok(((outcome, is_web), table)),
        }
    }

    /// Tokens in headers of their own, in the order of the settings.
    async fn check_headers(&self, presented: &Presented<'_>) -> Result<Option<Principal>, Denied> {
        let mut denied = None;
        let mut names: Vec<&str> = Vec::new();
        for (settings, _) in &self.jwt {
            let name = settings.header.as_str();
            if name == "authorization" || names.contains(&name) {
                continue;
            }
            names.push(name);
            let value =
                single(presented.headers, name).map_err(|_| self.unauthenticated(AuthFailure::Malformed))?;
            let Some(value) = value else { continue };
            if value.len() > MAX_TOKEN_BYTES {
                return Err(self.unauthenticated(AuthFailure::Malformed));
            }
            match self.verify(name, value.as_bytes().trim_ascii()).await {
                Ok(principal) => return Ok(Some(principal)),
                Err(error) => denied = denied.or(Some(error)),
            }
        }
        denied.map_or(Ok(None), Err)
    }

    /// Verifies a token with the settings of its header, in order.
    async fn verify(&self, header: &str, token: &[u8]) -> Result<Principal, Denied> {
        let Some(token) = Token::read(token) else {
            return Err(self.unauthenticated(AuthFailure::InvalidToken));
        };
        let users = self.users_of_file().await;
        let is_own = |name: &str| {
            self.own_names.contains(name) || users.as_ref().is_some_and(|users| users.has_actor(name))
        };
        let (mut failure, mut other) = (AuthFailure::InvalidToken, None);
        for (settings, verifier) in self.jwt.iter().filter(|(settings, _)| settings.header == header) {
            match verifier.verify(&token, unix_now()).await {
                Ok(claims) if claims.has_group(&settings.groups) => match claims.name(&settings.name_claim) {
                    Some(name) if is_own(name.trim()) => {
                        other = Some(Denied::Forbidden(AuthFailure::Scope));
                    }
                    Some(name) => return Ok(Principal { name: name.to_owned(), scope: settings.scope }),
                    None => failure = AuthFailure::InvalidToken,
                },
                Ok(_) | Err(Rejection::SubjectMismatch) => {
                    other = Some(Denied::Forbidden(AuthFailure::Scope));
                }
                Err(Rejection::Invalid(AuthFailure::Expired)) => failure = AuthFailure::Expired,
                Err(Rejection::Invalid(_)) => {}
                Err(Rejection::Unavailable(cause)) => {
                    other = Some(Denied::Unavailable(format!("admin: {cause}")));
                }
                Err(Rejection::Busy) => other = Some(Denied::Busy),
            }
        }
        Err(other.unwrap_or_else(|| self.unauthenticated(failure)))
    }

    /// The users of `users_file`. While it cannot be read, those that it had: single sign-on does not depend on the file.
    async fn users_of_file(&self) -> Option<Arc<UserTable>> {
        let current = self.users.as_ref()?.current().await;
        let mut last = self.last_users.lock();
        if let Ok(table) = current {
            *last = Some(table);
        }
        last.clone()
    }
}

/// The names of the credentials that are configured here. An issuer that may name its users freely must not make
/// entries of the audit trail under one of them.
fn own_names(auth: &AdminAuth, web_config: Option<&WebConfig>) -> BTreeSet<String> {
    let tokens = auth.tokens.iter().map(|token| &token.name);
    let users = auth.users.iter().map(|user| &user.name);
    let web_users = web_config.into_iter().flat_map(|config| config.basic_auth_users.keys());
    let certificates = auth.client_certs.iter().map(|certificate| &certificate.name);
    tokens.chain(users).chain(web_users).chain(certificates).map(|name| name.trim().to_owned()).collect()
}
