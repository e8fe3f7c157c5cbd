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

use super::page;
use crate::domain::failure::{Class, Failure};

// Codes are compared in the form of [`normalize_code`]: lower case, without namespace and `Exception`.

/// This event can never be delivered, regardless of the state of the destination.
const PERMANENT_CODES: [&str; 12] = [
    // SQS: characters that XML does not allow; a call above the size limit.
    "invalidmessagecontents",
    "batchrequesttoolong",
    // Lambda: invalid JSON; a payload above the size limit, by its names in the model and on the wire.
    "invalidrequestcontent",
    "requesttoolarge",
    "requestentitytoolarge",
    "serializedrequestentitytoolarge",
    "unsupportedmediatype",
    // Lambda and Step Functions: the name of the execution has been taken. Those kinds know if it was by this event.
    "durableexecutionalreadystarted",
    "executionalreadyexists",
    // Step Functions: an input or a name that it does not accept.
    "invalidexecutioninput",
    "invalidname",
    // EventBridge: not a JSON object.
    "malformeddetail",
];

/// Too many calls. Codes that contain `throttl` belong to this class as well.
const THROTTLED_CODES: [&str; 8] = [
    "toomanyrequests",
    "provisionedthroughputexceeded",
    "requestlimitexceeded",
    "limitexceeded",
    "bandwidthlimitexceeded",
    "priorrequestnotcomplete",
    "slowdown",
    // Step Functions: too many running executions.
    "executionlimitexceeded",
];

/// Every call fails until an operator acts. Errors of KMS keys belong to this class as well.
const MISCONFIGURED_CODES: [&str; 58] = [
    // Authentication and authorization.
    "accessdenied",
    "accountproblem",
    "authfailure",
    "authorizationerror",
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
    "notauthorizedfordetailtype",
    "notauthorizedforsource",
    "optinrequired",
    "packedpolicytoolarge",
    "regiondisabled",
    "requestexpired",
    "requesttimetooskewed",
    "signaturedoesnotmatch",
    "subscriptionrequired",
    "unauthorizedoperation",
    "unrecognizedclient",
    // The queue, function, bus, topic or state machine. Entries are valid by construction, so if SQS rejects a parameter, the type of
    // the queue differs from its URL.
    "invalidaddress",
    "invalidaccountid",
    "invalidaction",
    "invalidargument",
    "invalidarn",
    "invalidparameter",
    "invalidparametervalue",
    "missingparameter",
    "nonexistentqueue",
    "nopublishedversion",
    "notfound",
    "parametervalueinvalid",
    "queuedoesnotexist",
    "resourcenotfound",
    "statemachinedeleting",
    "statemachinedoesnotexist",
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
    // Mobile applications, which are no subscribers of a topic of scaling events.
    "endpointdisabled",
    "platformapplicationdisabled",
];

/// A rejected parameter. If it is one of a single entry, it is specific to it: other entries of the same form pass.
const PARAMETER_CODES: [&str; 3] = ["invalidparametervalue", "invalidparameter", "parametervalueinvalid"];

/// The credentials are expired or unknown. Those of the configuration may be newer. They are misconfigured as well.
const REFUSED_CREDENTIALS_CODES: [&str; 8] = [
    "expiredtoken",
    "invalidaccesskeyid",
    "invalidclienttokenid",
    "invalidsecurity",
    "invalidsignature",
    "invalidtoken",
    "signaturedoesnotmatch",
    "unrecognizedclient",
];

/// Misconfigured as well: file systems and networks that the function cannot use.
const UNUSABLE_RESOURCE_CODES: [&str; 4] =
    ["efsmountfailure", "s3filesmountfailure", "invalidsecuritygroupid", "invalidsubnetid"];

/// The maximum length of a message about an answer without an error code.
const MAX_PAGE_CHARS: usize = 300;

/// The failure of a whole call.
pub(crate) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let message = match error {
        SdkError::ServiceError(answer) => match error_code(error) {
            Some(code) => {
                let said = answer.err().message().or_else(|| in_xml(answer.raw(), "Message"));
                let said = said.map_or_else(String::new, |text| format!(": {}", redact(text)));
                page::escape_controls(&format!("{}{said}", strip_namespace(code)))
            }
            None => undocumented_answer(answer.raw()),
        },
        SdkError::ResponseError(answer) => {
            format!("{}; {}", page::escape_controls(&error_chain(error)), undocumented_answer(answer.raw()))
        }
        _ => page::escape_controls(&error_chain(error)),
    };
    Failure::new(classify_call(error), message).with_uncertainty(is_uncertain(error))
}

/// Whether the service refused the credentials, so that newer ones may be accepted.
pub(crate) fn refuses_credentials<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let code = match error {
        SdkError::ServiceError(_) => error_code(error).map(normalize_code),
        _ => find_in_chain(error, |cause| {
            let rejection = cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>();
            rejection.and_then(error_code).map(normalize_code)
        }),
    };
    code.is_some_and(|code| REFUSED_CREDENTIALS_CODES.contains(&code.as_str()))
}

/// The code of an answer, also of one in XML, which SQS gave before it spoke JSON.
fn error_code<E>(error: &SdkError<E, HttpResponse>) -> Option<&str>
where
    E: ProvideErrorMetadata,
{
    let SdkError::ServiceError(answer) = error else { return None };
    let is_code = |code: &&str| {
        let is_in_code = |c: char| c.is_ascii_alphanumeric() || ".#:_-".contains(c);
        !code.is_empty() && code.len() <= 100 && code.chars().all(is_in_code)
    };
    answer.err().code().or_else(|| in_xml(answer.raw(), "Code").filter(is_code))
}

/// The content of the first element of this name in an answer in XML.
fn in_xml<'a>(answer: &'a HttpResponse, name: &str) -> Option<&'a str> {
    page::element(std::str::from_utf8(answer.body().bytes()?).ok()?, name)
}

/// The status, content type and first words of an answer without an error code.
fn undocumented_answer(answer: &HttpResponse) -> String {
    let content_type = answer.headers().get("content-type");
    let content_type = content_type.map_or_else(String::new, |kind| {
        let kind: String = kind.chars().take(80).collect();
        format!(" ({})", page::escape_controls(&kind))
    });
    let mut text = format!("HTTP {} without an error code{content_type}", answer.status().as_u16());
    let words = page::first_words(answer.body().bytes().unwrap_or_default(), MAX_PAGE_CHARS);
    if !words.is_empty() {
        text.push_str(": ");
        text.push_str(redact(&words));
    }
    if let Some((end, _)) = text.char_indices().nth(MAX_PAGE_CHARS) {
        text.truncate(end);
    }
    text
}

/// Whether the event may have arrived although the call failed: no answer of the service says that it did not.
fn is_uncertain<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata + Error + 'static,
{
    // A proxy may have passed the request on. Other failures of the service say that it failed.
    let answer_is_uncertain =
        |status: u16, has_code: bool| status < 300 || !has_code && matches!(status, 502 | 504);
    match error {
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => {
            let is_user_error = failure.as_connector_error().is_some_and(ConnectorError::is_user);
            !is_user_error && !was_never_sent(error)
        }
        SdkError::ResponseError(answer) => answer_is_uncertain(answer.raw().status().as_u16(), false),
        SdkError::ServiceError(answer) => {
            answer_is_uncertain(answer.raw().status().as_u16(), error_code(error).is_some())
        }
        // Among them a time-out.
        _ => true,
    }
}

/// Whether there were no credentials or no connection: the name was not resolved, the connection was refused or timed
/// out, or TLS failed.
fn was_never_sent(error: &(dyn Error + 'static)) -> bool {
    let found = find_in_chain(error, |cause| {
        let no_connection = cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        (no_connection || cause.is::<CredentialsError>()).then_some(())
    });
    found.is_some()
}

/// The first result of `find` for a cause of the error.
fn find_in_chain<T>(
    error: &(dyn Error + 'static),
    find: impl Fn(&(dyn Error + 'static)) -> Option<T>,
) -> Option<T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = find(error) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The failure of one entry of a batch whose call succeeded. With `sender_fault` it is not transient: it is
/// throttled or a misconfiguration if the code says so, and otherwise permanent for this event.
pub(crate) fn entry_failure(code: &str, message: Option<&str>, sender_fault: bool) -> Failure {
    let class = match classify_code(code, 0) {
        Class::Transient if sender_fault => Class::Permanent,
        Class::Misconfigured if sender_fault && PARAMETER_CODES.contains(&&*normalize_code(code)) => {
            Class::Permanent
        }
        Class::Permanent if !sender_fault => Class::Transient,
        class => class,
    };
    failure_of_entry(class, code, message)
}

/// The failure of one entry of a batch of a service that does not say whose fault it is.
pub(crate) fn entry_failure_without_fault(code: &str, message: Option<&str>) -> Failure {
    failure_of_entry(classify_code(code, 0), code, message)
}

/// The failure of an entry about which the response of a successful call says nothing.
pub(crate) fn missing_answer(service: &str) -> Failure {
    let failure = Failure::transient(format!("the response of {service} has no result for the event"));
    failure.with_uncertainty(true)
}

/// Whether the service answered with this code.
pub(crate) fn is_code<E>(error: &SdkError<E, HttpResponse>, code: &str) -> bool
where
    E: ProvideErrorMetadata,
{
    error_code(error).is_some_and(|found| normalize_code(found) == normalize_code(code))
}

fn failure_of_entry(class: Class, code: &str, message: Option<&str>) -> Failure {
    let message = message.map_or_else(String::new, |text| format!(": {}", redact(text)));
    let message = page::escape_controls(&message);
    let code = if code.is_empty() { "entry failed without an error code" } else { strip_namespace(code) };
    Failure::new(class, format!("{code}{message}"))
}

fn classify_call<E>(error: &SdkError<E, HttpResponse>) -> Class
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            classify_code(error_code(error).unwrap_or_default(), answer.raw().status().as_u16())
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
