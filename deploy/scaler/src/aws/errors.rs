//! Classifies the errors of AWS. This is the only place that interprets them.
//!
//! The list of what is refused is short on purpose. A refused event is lost; one that is retried in vain costs a call
//! now and then until it expires, and says why, so that an operator can mend a denied access or a key meanwhile.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

/// What an error of a call says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The same call never succeeds; nothing was changed.
    Refused,
    /// It may succeed later; nothing was changed.
    Busy,
    /// It may have been carried out.
    Unknown,
}

// Codes are compared in the form of [`normalize`]: lower case, without namespace, `Exception` and `Fault`.

/// The call is not valid, or what it names does not exist.
const REFUSED_CODES: [&str; 12] = [
    "clusternotfound",
    "invalidparameter",
    "invalidparametercombination",
    "invalidparametervalue",
    "missingparameter",
    "platformtaskdefinitionincompatibility",
    "resourcenotfound",
    "servicenotactive",
    "servicenotfound",
    "unsupportedfeature",
    "validation",
    "validationerror",
];

/// Nothing was changed, although the status of the answer is that of a server's error. Codes that contain `throttl`
/// belong to this class as well.
const BUSY_CODES: [&str; 7] = [
    "concurrentupdate",
    "limitexceeded",
    "provisionedthroughputexceeded",
    "requestlimitexceeded",
    "resourcecontention",
    "slowdown",
    "toomanyrequests",
];

/// The permissions of the role do not suffice.
const DENIED_CODES: [&str; 4] = ["accessdenied", "notauthorized", "unauthorized", "unauthorizedoperation"];

/// The maximum length of what an error says, in characters.
const MAX_CHARS: usize = 500;

/// The class of a call that changes something.
pub(crate) fn classify<E>(error: &SdkError<E, HttpResponse>) -> Class
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        // It was not sent: no credentials, or a setting that is not valid.
        SdkError::ConstructionFailure(_) => Class::Busy,
        SdkError::DispatchFailure(failure) => {
            let is_user_error = failure.as_connector_error().is_some_and(ConnectorError::is_user);
            if is_user_error || was_never_sent(error) { Class::Busy } else { Class::Unknown }
        }
        SdkError::ServiceError(answer) => {
            classify_answer(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16())
        }
        SdkError::ResponseError(answer) => classify_answer("", answer.raw().status().as_u16()),
        // Among them a time-out.
        _ => Class::Unknown,
    }
}

fn classify_answer(code: &str, status: u16) -> Class {
    let code = normalize(code);
    let code = code.as_str();
    if code.contains("throttl") || BUSY_CODES.contains(&code) {
        return Class::Busy;
    }
    if REFUSED_CODES.contains(&code) {
        return Class::Refused;
    }
    match status {
        // A proxy has waited for the answer in vain.
        408 => Class::Unknown,
        300..=499 => Class::Busy,
        _ => Class::Unknown,
    }
}

/// Whether there were no credentials or no connection: the name was not resolved, the connection was refused or timed
/// out, or TLS failed.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let is_connect = cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        is_connect || cause.is::<CredentialsError>()
    })
}

/// What the error says, in one line without secrets: `ResourceInUseException: the node group is being updated`.
pub(crate) fn text<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let text = match error {
        SdkError::ServiceError(answer) => said(answer.err(), answer.raw()),
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        _ => chain(error),
    };
    one_line(&text)
}

/// Whether the call was not allowed, so that an operator has to grant it.
pub(crate) fn is_denied<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    let SdkError::ServiceError(answer) = error else { return false };
    answer.err().code().is_some_and(|code| DENIED_CODES.contains(&normalize(code).as_str()))
}

fn said(error: &impl ProvideErrorMetadata, answer: &HttpResponse) -> String {
    let Some(code) = error.code() else {
        return format!("an answer of status {} without an error code", answer.status().as_u16());
    };
    match error.message() {
        Some(message) => format!("{}: {}", without_namespace(code), redact(message)),
        None => without_namespace(code).to_owned(),
    }
}

/// An error and its causes, by `Display`: their `Debug` has headers and bodies. An answer of STS ends it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let role = cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>();
        let token = cause.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>();
        let sts = match (role, token) {
            (Some(SdkError::ServiceError(answer)), _) => Some(said(answer.err(), answer.raw())),
            (_, Some(SdkError::ServiceError(answer))) => Some(said(answer.err(), answer.raw())),
            _ => None,
        };
        let is_last = sts.is_some();
        let message = sts.unwrap_or_else(|| redact(&cause.to_string()).to_owned());
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        if is_last {
            break;
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// A code in the form in which codes are compared.
fn normalize(code: &str) -> String {
    let plain = without_namespace(code);
    let plain = plain.strip_suffix("Exception").or_else(|| plain.strip_suffix("Fault")).unwrap_or(plain);
    plain.to_ascii_lowercase()
}

/// A code without its namespace, for example `com.amazonaws.ecs#`, and without what some services append.
fn without_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.split(':').next().unwrap_or(code)
}

/// Cuts a message before quoted data: some errors of AWS quote the signed text with the session token.
fn redact(message: &str) -> &str {
    const QUOTES: [&str; 4] = ["Request {", "SdkBody {", "The Canonical String", "Authorization header"];
    let end = QUOTES.iter().filter_map(|quoted| message.find(quoted)).min();
    end.map_or(message, |end| message[..end].trim_end_matches([' ', '\n', '`', ':', '(']))
}

fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
