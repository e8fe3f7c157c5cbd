//! Classifies the errors of AWS. This is the only place that interprets them.
//!
//! The list of permanent errors is short on purpose. A delivery that is retried in vain costs about one
//! call a minute until it expires; one that is given up wrongly is a lost scaling action. An operator
//! can fix a missing queue, denied access or a disabled key while the event waits, and is alerted to it.
//! Unknown codes are classified by their HTTP status, and are transient if that is inconclusive.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use crate::dispatch::{Class, Failure};

// Codes are compared in the form of [`normalize_code`]: lower case, without namespace and `Exception`.

/// This event can never be delivered, regardless of the state of the destination.
const PERMANENT_CODES: [&str; 7] = [
    // SQS: characters that XML does not allow; a call above the size limit.
    "invalidmessagecontents",
    "batchrequesttoolong",
    // Lambda: invalid JSON; a payload above the size limit, by its names in the model and on the wire.
    "invalidrequestcontent",
    "requesttoolarge",
    "requestentitytoolarge",
    "serializedrequestentitytoolarge",
    "unsupportedmediatype",
];

/// Too many calls. Codes that contain `throttl` belong to this class as well.
const THROTTLED_CODES: [&str; 7] = [
    "toomanyrequests",
    "provisionedthroughputexceeded",
    "requestlimitexceeded",
    "limitexceeded",
    "bandwidthlimitexceeded",
    "priorrequestnotcomplete",
    "slowdown",
];

/// Every call fails until an operator acts. Errors of KMS keys belong to this class as well.
const MISCONFIGURED_CODES: [&str; 45] = [
    // Authentication and authorization.
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
    // The queue or function. Entries are valid by construction, so if SQS rejects a parameter, the type of
    // the queue differs from its URL.
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
    // A function that cannot run.
    "invalidruntime",
    "invalidzipfile",
    "modenotsupported",
    "recursiveinvocation",
    "codeartifactuserdeleted",
    "codeartifactuserfailed",
];

/// Misconfigured as well: file systems and networks that the function cannot use.
const UNUSABLE_RESOURCE_CODES: [&str; 4] =
    ["efsmountfailure", "s3filesmountfailure", "invalidsecuritygroupid", "invalidsubnetid"];

/// The failure of a whole call.
pub(in crate::dispatch) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
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
        // No response, or an unreadable one: the event may have arrived.
        _ => Failure::new(class, error_chain(error)),
    }
}

/// The failure of one entry of a batch whose call succeeded. With `sender_fault` it is not transient: it is
/// throttled or a misconfiguration if the code says so, and otherwise permanent for this event.
pub(in crate::dispatch) fn entry_failure(code: &str, message: Option<&str>, sender_fault: bool) -> Failure {
    let class = match classify_code(code, 0) {
        Class::Transient if sender_fault => Class::Permanent,
        // A rejected parameter of a single entry is specific to it: other entries of the same form pass.
        Class::Misconfigured if sender_fault && normalize_code(code) == "invalidparametervalue" => {
            Class::Permanent
        }
        Class::Permanent if !sender_fault => Class::Transient,
        class => class,
    };
    let message = message.map_or_else(String::new, |text| format!(": {}", redact(text)));
    let code = if code.is_empty() { "entry failed without an error code" } else { strip_namespace(code) };
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
        // An invalid region, endpoint or parameter.
        SdkError::ConstructionFailure(_) => classify_credentials(error).unwrap_or(Class::Misconfigured),
        SdkError::DispatchFailure(failure) => {
            let is_user_error = failure.as_connector_error().is_some_and(ConnectorError::is_user);
            let default = if is_user_error { Class::Misconfigured } else { Class::Transient };
            classify_credentials(error).unwrap_or(default)
        }
        _ => Class::Transient,
    }
}

/// The class of a failure to obtain credentials. None if the call failed for another reason.
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

/// The class of an error code, or of the HTTP status if the code is unknown.
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

/// A code in the form in which codes are compared.
fn normalize_code(code: &str) -> String {
    let plain = strip_namespace(code);
    plain.strip_suffix("Exception").unwrap_or(plain).to_ascii_lowercase()
}

/// A code without its namespace: `AWS.SimpleQueueService.BatchRequestTooLong`, `com.amazonaws.sqs#…`.
fn strip_namespace(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or(code);
    code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code)
}

/// An error and its causes, by `Display`: their `Debug` contains headers and bodies.
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

/// Cuts a message before quoted data: some errors of the SDK quote the request with the event, some of
/// AWS the signed text with the session token.
fn redact(message: &str) -> &str {
    const QUOTES: [&str; 4] = ["Request {", "SdkBody {", "The Canonical String", "Authorization header"];
    let end = QUOTES.iter().filter_map(|quoted| message.find(quoted)).min();
    end.map_or(message, |end| message[..end].trim_end_matches([' ', '\n', '`', ':', '(']))
}

#[cfg(test)]
mod tests;
