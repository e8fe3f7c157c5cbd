//! AWS' errors into failures: the only place that knows what each of them means.
//!
//! The list of what can never pass is short on purpose. A delivery that is tried for nothing costs a
//! call a minute until it is too old; one that is given up for nothing is capacity that nobody gets. A
//! missing queue, a denied access, a key that was disabled: a person can mend all of that while the
//! event waits, and has to hear of it. What is not known is judged by its HTTP status, and is
//! transient if that says nothing either.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::{Class, Failure};

// Names are compared as [`name`] makes them: lower case, without namespace and `Exception`.

/// This very event can never pass, whatever becomes of the destination.
const PERMANENT_CODES: [&str; 7] = [
    // SQS: characters outside of XML's; longer than any call may be.
    "invalidmessagecontents",
    "batchrequesttoolong",
    // Lambda: no JSON; larger than a payload may be, by the model's and by the wire's name.
    "invalidrequestcontent",
    "requesttoolarge",
    "requestentitytoolarge",
    "serializedrequestentitytoolarge",
    "unsupportedmediatype",
];

/// Fewer calls would pass. So does everything that has `throttl` in its name.
const THROTTLED_CODES: [&str; 7] = [
    "toomanyrequests",
    "provisionedthroughputexceeded",
    "requestlimitexceeded",
    "limitexceeded",
    "bandwidthlimitexceeded",
    "priorrequestnotcomplete",
    "slowdown",
];

/// Nothing passes until a person has mended something. So does what a KMS key refuses.
const MISCONFIGURED_CODES: [&str; 45] = [
    // Who we are, and what we may do.
    "accessdenied",
    "accountproblem",
    "authfailure",
    "ec2accessdenied",
    "expiredtoken",
    "forbidden",
    "incompletesignature",
    "invalidaccess",
    "invalidaccesskeyid",
    "invalidclienttokenid",
    "invalididentitytoken",
    "invalidsecurity",
    "invalidsignature",
    "invalidtoken",
    "idprejectedclaim",
    "malformedpolicydocument",
    "missingauthenticationtoken",
    "notauthorized",
    "optinrequired",
    "packedpolicytoolarge",
    "regiondisabled",
    "requestexpired",
    "requesttimetooskewed",
    "signaturedoesnotmatch",
    "subscriptionrequired",
    "unauthorizedoperation",
    "unrecognizedclient",
    // What we call. Entries are right by construction, so where SQS refuses a parameter the queue is of
    // another kind than its URL says.
    "invalidaddress",
    "invalidaction",
    "invalidparametervalue",
    "missingparameter",
    "nonexistentqueue",
    "nopublishedversion",
    "queuedoesnotexist",
    "resourcenotfound",
    "unknownoperation",
    "unsupportedoperation",
    "validation",
    "validationerror",
    // A function that cannot run as it is.
    "invalidruntime",
    "invalidzipfile",
    "modenotsupported",
    "recursiveinvocation",
    "codeartifactuserdeleted",
    "codeartifactuserfailed",
];

/// The same: file systems and networks that the function names and does not get.
const UNUSABLE_RESOURCE_CODES: [&str; 4] =
    ["efsmountfailure", "s3filesmountfailure", "invalidsecuritygroupid", "invalidsubnetid"];

/// The failure of a whole call.
pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let class = classify_call(error);
    match error {
        SdkError::ServiceError(answer) => {
            let error = answer.err();
            let code = match error.code() {
                Some(code) => strip_namespace(code).to_owned(),
                None => format!("HTTP {} without an error code", answer.raw().status().as_u16()),
            };
            let message = error.message().map_or_else(String::new, |text| format!(": {}", redact(text)));
            Failure::new(class, format!("{code}{message}"))
        }
        // Nothing, or nothing that can be read, came back: the event may even have arrived.
        _ => Failure::new(class, error_chain(error)),
    }
}

/// The failure of one entry of a batch whose call succeeded. What the sender is at fault for does not
/// pass by itself: it is the destination's settings, where the code says so, and else this event.
pub(super) fn entry_failure(entry: &BatchResultErrorEntry) -> Failure {
    let class = match classify_code(entry.code(), 0) {
        Class::Transient if entry.sender_fault() => Class::Permanent,
        // Of one entry, a refused parameter is its own: others of the same kind have passed.
        Class::Misconfigured
            if entry.sender_fault() && normalize_code(entry.code()) == "invalidparametervalue" =>
        {
            Class::Permanent
        }
        Class::Permanent if !entry.sender_fault() => Class::Transient,
        class => class,
    };
    let message = entry.message().map_or_else(String::new, |text| format!(": {}", redact(text)));
    let code = if entry.code().is_empty() { "an entry failed" } else { strip_namespace(entry.code()) };
    Failure::new(class, format!("{code}{message}"))
}

fn classify_call<E>(error: &SdkError<E, HttpResponse>) -> Class
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            classify_code(answer.err().code().unwrap_or_default(), answer.raw().status().as_u16())
        }
        // A region, an endpoint or a parameter that makes no request.
        SdkError::ConstructionFailure(_) => classify_credentials(error).unwrap_or(Class::Misconfigured),
        SdkError::DispatchFailure(failure) => {
            let is_user_error = failure.as_connector_error().is_some_and(ConnectorError::is_user);
            let default = if is_user_error { Class::Misconfigured } else { Class::Transient };
            classify_credentials(error).unwrap_or(default)
        }
        _ => Class::Transient,
    }
}

/// What it means that credentials could not be had. None if that is not why the call failed.
fn classify_credentials<E>(error: &SdkError<E, HttpResponse>) -> Option<Class>
where
    E: Error + 'static,
{
    let mut credentials = None;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(rejection) = error.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>() {
            return Some(classify_call(rejection));
        }
        let web_identity = error.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>();
        if let Some(rejection) = web_identity {
            return Some(classify_call(rejection));
        }
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            credentials = Some(match error {
                CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                    Class::Misconfigured
                }
                _ => Class::Transient,
            });
        }
        cause = error.source();
    }
    credentials
}

/// The class of an error code, and where that is unknown, of the HTTP status.
fn classify_code(code: &str, status: u16) -> Class {
    let name = normalize_code(code);
    let name = name.as_str();
    let is_kms = code.starts_with("KMS.") || name.starts_with("kms");
    if name.contains("throttl") || THROTTLED_CODES.contains(&name) {
        Class::Throttled
    } else if PERMANENT_CODES.contains(&name) {
        Class::Permanent
    } else if is_kms || MISCONFIGURED_CODES.contains(&name) || UNUSABLE_RESOURCE_CODES.contains(&name) {
        Class::Misconfigured
    } else {
        match status {
            401 | 403 | 404 => Class::Misconfigured,
            413 | 415 => Class::Permanent,
            429 => Class::Throttled,
            _ => Class::Transient,
        }
    }
}

/// A code in the one form in which codes are compared.
fn normalize_code(code: &str) -> String {
    let plain = strip_namespace(code);
    plain.strip_suffix("Exception").unwrap_or(plain).to_ascii_lowercase()
}

/// A code without its namespace: `AWS.SimpleQueueService.BatchRequestTooLong`, `com.amazonaws.sqs#…`.
fn strip_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

/// An error and its causes. Not their `Debug`, which has headers and bodies in it.
fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        let message = redact(&message);
        if !text.ends_with(message) {
            text.push_str(": ");
            text.push_str(message);
        }
        cause = error.source();
    }
    text
}

/// Some of the SDK's errors quote the request that they are about, with the event in it; some of AWS'
/// quote what was signed, with the session's token in it.
fn redact(message: &str) -> &str {
    const QUOTES: [&str; 4] = ["Request {", "SdkBody {", "The Canonical String", "Authorization header"];
    let end = QUOTES.iter().filter_map(|quoted| message.find(quoted)).min();
    end.map_or(message, |end| message[..end].trim_end_matches([' ', '\n', '`', ':', '(']))
}

#[cfg(test)]
mod tests;
