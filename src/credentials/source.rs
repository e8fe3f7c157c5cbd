//! Who may send to which source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use subtle::Choice;

use super::file::{FileError, MAX_AGE};
use super::header::{Authorization, authorization};
use super::jwt::{Rejection, Token, Verifier};
use super::password::{Attempt, Outcome};
use super::registry::{Registry, TokenFile, Users};
use super::signature::{ClaimedSignature, Signatures};
use super::token::TokenDigest;
use super::{AuthFailure, Denied, Presented, challenge, unix_now};
use crate::config::access::{ClientCertAuth, SourceAuth, WebConfig};
use crate::domain::name::Name;

/// The credentials of all sources. Reads files and starts requests for key sets, so it is made within the runtime.
pub(crate) struct SourceCredentials {
    sources: BTreeMap<Name, Source>,
    registry: Registry,
    /// The users of the listener, for sources without credentials of their own.
    web_users: Option<Users>,
}

/// The credentials of a source.
struct Source {
    tokens: Vec<TokenFile>,
    users: Option<Users>,
    certificates: Option<ClientCertAuth>,
    jwt: Option<Verifier>,
    signatures: Option<Signatures>,
}

/// What the headers of a request to a source say.
pub(crate) enum Check {
    /// It may send.
    Passed,
    /// It may send if its body has the signature that it claims.
    Signed(SignedRequest),
}

/// A request that may send if its body has the signature that it claims.
pub(crate) struct SignedRequest {
    source: Name,
    signature: ClaimedSignature,
    /// What it is denied with if the signature is wrong.
    denied: Denied,
}

impl SignedRequest {
    /// Whether the request may send this body, as it was sent.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check(&self, body: &Bytes) -> Result<(), Denied> {
        match self.signature.verify(body).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.denied.clone()),
            Err(error) => Err(Denied::Unavailable(format!("source {}: {error}", self.source))),
        }
    }
}

impl SourceCredentials {
    /// The credentials of the settings. A file that cannot be read is logged, and denies requests until it can.
    pub(crate) fn new(auth: &BTreeMap<Name, SourceAuth>, web_config: Option<&WebConfig>) -> Self {
        let none = Registry::new();
        Self::build(none.successor(), &none, auth, web_config)
    }

    /// The credentials of reloaded settings, with the caches of what did not change.
    pub(crate) fn reloaded(&self, auth: &BTreeMap<Name, SourceAuth>, web_config: Option<&WebConfig>) -> Self {
        Self::build(self.registry.successor(), &self.registry, auth, web_config)
    }

    fn build(
        mut registry: Registry,
        old: &Registry,
        auth: &BTreeMap<Name, SourceAuth>,
        web_config: Option<&WebConfig>,
    ) -> Self {
        let web_users = registry.web_users(old, web_config);
        let mut source = |(name, auth): (&Name, &SourceAuth)| {
            let used_by = format!("source {name}");
            let tokens = auth.bearer_token_files.iter();
            let source = Source {
                tokens: tokens.map(|path| registry.token(old, path, &used_by)).collect(),
                users: auth.basic_auth_users_file.as_ref().map(|path| registry.users(old, path, &used_by)),
                certificates: auth.client_cert.clone(),
                jwt: auth.jwt.as_ref().map(|settings| registry.verifier(old, settings, &used_by)),
                signatures: auth.hmac.as_ref().map(|hmac| Signatures {
                    keys: hmac
                        .key_files
                        .iter()
                        .map(|path| registry.verifying_key(old, path, &used_by))
                        .collect(),
                    header: hmac.header.clone(),
                    timestamp: hmac.timestamp.clone(),
                }),
            };
            (name.clone(), source)
        };
        let sources = auth.iter().filter(|(_, auth)| !auth.is_empty()).map(&mut source).collect();
        Self { sources, registry, web_users }
    }

    /// Whether requests to `source` need no credential.
    pub(crate) fn is_open(&self, source: &Name) -> bool {
        !self.sources.contains_key(source) && self.web_users.is_none()
    }

    /// Whether a request with these credentials may send to `source`. Its signature counts if nothing else that it
    /// presents does.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check(&self, source: &Name, presented: Presented<'_>) -> Result<Check, Denied> {
        let checked = self.check_headers(source, presented).await;
        let Err(denied) = checked else { return Ok(Check::Passed) };
        let own = self.sources.get(source);
        let Some((own, signatures)) = own.and_then(|own| Some((own, own.signatures.as_ref()?))) else {
            return Err(denied);
        };
        if !signatures.is_presented(presented.headers) {
            return Err(denied);
        }
        let unauthenticated = |failure| Denied::Unauthenticated { failure, challenge: own.challenge() };
        // A secret of the bridge that cannot be read, or was not compared, might be the one that is presented.
        let denied_with = |failure| match &denied {
            Denied::Unavailable(_) | Denied::Busy => denied.clone(),
            Denied::Unauthenticated { .. } | Denied::Forbidden(_) => unauthenticated(failure),
        };
        let signature = signatures.read(presented.headers, unix_now()).map_err(denied_with)?;
        let denied = denied_with(AuthFailure::Wrong);
        Ok(Check::Signed(SignedRequest { source: source.clone(), signature, denied }))
    }

    /// Whether a request may send to `source`, whatever its body is.
    async fn check_headers(&self, source: &Name, presented: Presented<'_>) -> Result<(), Denied> {
        let presented = presented.at(unix_now());
        let Some(own) = self.sources.get(source) else {
            let Some(users) = &self.web_users else { return Ok(()) };
            let challenge = challenge(false, true);
            let credentials = authorization(presented.headers);
            let denied = match credentials {
                Ok(Authorization::Basic { user, password }) => {
                    let attempt = Attempt { peer: presented.peer, user: &user, password: &password };
                    return self.check_password(source, users, attempt).await;
                }
                Ok(Authorization::Missing) => AuthFailure::Missing,
                Ok(Authorization::Bearer(_)) => AuthFailure::Wrong,
                Ok(Authorization::Unknown) | Err(_) => AuthFailure::Malformed,
            };
            return Err(Denied::Unauthenticated { failure: denied, challenge });
        };
        let unauthenticated = |failure| Denied::Unauthenticated { failure, challenge: own.challenge() };
        let credentials =
            authorization(presented.headers).map_err(|_| unauthenticated(AuthFailure::Malformed))?;
        let accepts = |source: &Source| {
            let accepted = source.certificates.as_ref().zip(presented.client_certificate);
            accepted.is_some_and(|(accepted, certificate)| certificate.is_one_of(accepted))
        };
        if accepts(own) {
            return Ok(());
        }
        match credentials {
            Authorization::Missing if presented.client_certificate.is_none() => {
                Err(unauthenticated(AuthFailure::Missing))
            }
            Authorization::Missing if self.sources.values().any(accepts) => {
                Err(Denied::Forbidden(AuthFailure::OtherSource))
            }
            Authorization::Missing => Err(unauthenticated(AuthFailure::UnknownCertificate)),
            Authorization::Unknown => Err(unauthenticated(AuthFailure::Malformed)),
            Authorization::Basic { user, password } => match &own.users {
                Some(users) => {
                    let attempt = Attempt { peer: presented.peer, user: &user, password: &password };
                    self.check_password(source, users, attempt).await
                }
                None => Err(unauthenticated(AuthFailure::Wrong)),
            },
            Authorization::Bearer(token) => self.check_bearer(source, own, token).await,
        }
    }

    async fn check_password(&self, source: &Name, users: &Users, attempt: Attempt<'_>) -> Result<(), Denied> {
        let unavailable = |error: FileError| Denied::Unavailable(format!("source {source}: {error}"));
        let challenge = self.sources.get(source).map_or(challenge(false, true), Source::challenge);
        let comparisons = &self.registry.comparisons;
        let table = users.current().await.map_err(unavailable)?;
        let mut outcome = comparisons.compare(&table, attempt).await;
        if outcome == Outcome::Wrong {
            let newer = users.table(Duration::ZERO).await.map_err(unavailable)?;
            if !Arc::ptr_eq(&newer, &table) {
                outcome = comparisons.compare(&newer, attempt).await;
            }
        }
        match outcome {
            Outcome::Matches => Ok(()),
            Outcome::Wrong => Err(Denied::Unauthenticated { failure: AuthFailure::Wrong, challenge }),
            Outcome::Busy => Err(Denied::Busy),
        }
    }

    async fn check_bearer(&self, source: &Name, own: &Source, token: &[u8]) -> Result<(), Denied> {
        let digest = TokenDigest::of(token);
        let mut error = own.refresh(MAX_AGE).await.err();
        let is_of_other = self.matches_other(source, &digest);
        if own.matches(&digest) {
            return Ok(());
        }
        // Before a request is denied, the files are looked at again.
        if !own.tokens.is_empty() {
            error = own.refresh(Duration::ZERO).await.err();
            if own.matches(&digest) {
                return Ok(());
            }
        }
        let parsed = Token::is_jwt(token).then(|| Token::read(token)).flatten();
        let (mut failure, mut is_busy) = (AuthFailure::Wrong, false);
        if let Some(verifier) = &own.jwt {
            let verified = match &parsed {
                Some(token) => verifier.verify(token, unix_now()).await.map(|_| ()),
                None => Err(Rejection::Invalid(AuthFailure::InvalidToken)),
            };
            match verified {
                Ok(()) => return Ok(()),
                Err(Rejection::Invalid(invalid)) => failure = invalid,
                Err(Rejection::SubjectMismatch) => failure = AuthFailure::InvalidToken,
                Err(Rejection::Unavailable(cause)) => error = error.or(Some(cause)),
                Err(Rejection::Busy) => is_busy = true,
            }
        }
        if let Some(error) = error.filter(|_| !is_busy) {
            return Err(Denied::Unavailable(format!("source {source}: {error}")));
        }
        if bool::from(is_of_other) || parsed.is_some_and(|token| self.verifies_for_other(source, &token)) {
            return Err(Denied::Forbidden(AuthFailure::OtherSource));
        }
        if is_busy {
            return Err(Denied::Busy);
        }
        Err(Denied::Unauthenticated { failure, challenge: own.challenge() })
    }

    /// Whether another source has this token. All tokens are compared, whichever matches.
    fn matches_other(&self, source: &Name, digest: &TokenDigest) -> Choice {
        let others = self.sources.iter().filter(|(name, _)| *name != source);
        others.fold(Choice::from(0), |found, (_, other)| found | other.matches_choice(digest))
    }

    fn verifies_for_other(&self, source: &Name, token: &Token<'_>) -> bool {
        let others = self.sources.iter().filter(|(name, _)| *name != source);
        let now = unix_now();
        others.filter_map(|(_, other)| other.jwt.as_ref()).any(|jwt| jwt.verify_cached(token, now).is_some())
    }
}

impl Source {
    /// Reads the tokens that have changed. An error if one cannot be read: it might be the one that is presented.
    async fn refresh(&self, max_age: Duration) -> Result<(), FileError> {
        let mut result = Ok(());
        for file in &self.tokens {
            result = result.and(file.current(max_age).await.map(|_| ()));
        }
        result
    }

    fn matches(&self, digest: &TokenDigest) -> bool {
        self.matches_choice(digest).into()
    }

    fn matches_choice(&self, digest: &TokenDigest) -> Choice {
        let tokens = self.tokens.iter().filter_map(|file| file.last().ok());
        tokens.fold(Choice::from(0), |found, token| found | token.matches(digest))
    }

    fn challenge(&self) -> &'static str {
        challenge(!self.tokens.is_empty() || self.jwt.is_some(), self.users.is_some())
    }
}
