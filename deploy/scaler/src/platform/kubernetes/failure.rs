//! Why a call of the API server has failed, and whether it may have changed something.

use kube::core::Status;

use super::cluster::text;
use crate::apply::PlatformError;

/// A call that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The server, or a proxy before it, has answered so.
    Answered { code: u16, reason: String },
    /// Nothing was sent.
    NotSent,
    /// The answer was lost.
    Lost,
}

impl Failure {
    pub(super) fn not_sent(message: String) -> Self {
        Self { kind: Kind::NotSent, message }
    }

    pub(super) fn from_kube(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from_status(status),
            kube::Error::BuildRequest(_) | kube::Error::Auth(_) | kube::Error::HttpError(_) => {
                Self::not_sent(text(error))
            }
            _ if is_connect_error(error) => Self::not_sent(text(error)),
            _ => Self { kind: Kind::Lost, message: text(error) },
        }
    }

    fn from_status(status: &Status) -> Self {
        let Status { code, reason, message, .. } = status;
        let message = if message.is_empty() { reason } else { message };
        let kind = Kind::Answered { code: *code, reason: reason.clone() };
        Self { kind, message: message.lines().next().unwrap_or_default().to_owned() }
    }

    /// The server knows no such object, or no such resource.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(&self.kind, Kind::Answered { reason, .. } if reason == "NotFound")
    }

    /// The API server was not reached, or does not know who asks.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self.kind, Kind::NotSent | Kind::Answered { code: 401, .. })
    }

    /// The object has no number of replicas yet. Only custom resources can be so.
    pub(super) fn has_no_replicas(&self) -> bool {
        self.message.contains("the spec replicas field") && self.message.contains("does not exist")
    }

    /// A read changes nothing, and may work later; what is missing will not.
    pub(super) fn of_read(self, what: &str) -> PlatformError {
        let message = format!("{what} cannot be read: {}", self.explain());
        if self.is_not_found() { PlatformError::Refused(message) } else { PlatformError::Busy(message) }
    }

    /// The reasons are those of Kubernetes' API; an answer without one comes from a proxy, or from an admission webhook.
    pub(super) fn of_write(self, what: &str) -> PlatformError {
        let message = format!("{what} cannot be changed: {}", self.explain());
        match &self.kind {
            Kind::Lost | Kind::Answered { code: 500.., .. } => PlatformError::Unknown(message),
            Kind::Answered { reason, .. } => match reason.as_str() {
                "BadRequest"
                | "Invalid"
                | "MethodNotAllowed"
                | "NotAcceptable"
                | "NotFound"
                | "RequestEntityTooLarge"
                | "UnsupportedMediaType" => PlatformError::Refused(message),
                _ => PlatformError::Busy(message),
            },
            Kind::NotSent => PlatformError::Busy(message),
        }
    }

    fn explain(&self) -> String {
        let message = &self.message;
        match &self.kind {
            Kind::Answered { code: 401, .. } => {
                format!(
                    "access denied: {message}: check the credentials of the cluster, for EKS the access entry of the role"
                )
            }
            // Also what admission plugins and quotas deny.
            Kind::Answered { code: 403, .. } => {
                format!(
                    "access denied: {message}: grant it as `iam-policy` prints it, or lift the quota or policy"
                )
            }
            Kind::Answered { code: 409, .. } => format!("it was changed meanwhile: {message}"),
            Kind::Answered { code, .. } => format!("{message} (status {code})"),
            Kind::NotSent | Kind::Lost => message.clone(),
        }
    }
}

/// Whether no connection was made, so that nothing was sent.
fn is_connect_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, reason: &str) -> Failure {
        Failure::from_status(&Status::failure("the message", reason).with_code(code))
    }

    #[test]
    fn writes_are_classified_by_whether_they_can_have_been_made_and_can_be_later() {
        let lost = Failure { kind: Kind::Lost, message: String::new() };
        let cases = [
            (answered(400, "BadRequest"), "refused"),
            (answered(404, "NotFound"), "refused"),
            (answered(405, "MethodNotAllowed"), "refused"),
            (answered(406, "NotAcceptable"), "refused"),
            (answered(413, "RequestEntityTooLarge"), "refused"),
            (answered(415, "UnsupportedMediaType"), "refused"),
            (answered(422, "Invalid"), "refused"),
            (answered(401, "Unauthorized"), "busy"),
            (answered(403, "Forbidden"), "busy"),
            (answered(409, "Conflict"), "busy"),
            (answered(429, "TooManyRequests"), "busy"),
            // A webhook's, and those of proxies.
            (answered(400, ""), "busy"),
            (answered(404, "Failed to parse error data"), "busy"),
            (answered(413, "Failed to parse error data"), "busy"),
            (Failure::not_sent("connection refused".to_owned()), "busy"),
            (answered(500, "InternalError"), "unknown"),
            (answered(500, "ServerTimeout"), "unknown"),
            (answered(502, "Failed to parse error data"), "unknown"),
            (answered(503, "ServiceUnavailable"), "unknown"),
            (answered(504, "Timeout"), "unknown"),
            (lost, "unknown"),
        ];
        for (failure, expected) in cases {
            let error = failure.clone().of_write("deployment web");
            let class = match error {
                PlatformError::Refused(_) => "refused",
                PlatformError::Busy(_) => "busy",
                PlatformError::Unknown(_) => "unknown",
            };
            assert_eq!(class, expected, "{failure:?}");
        }
    }

    #[test]
    fn reads_are_refused_only_if_there_is_no_such_object() {
        assert!(matches!(answered(404, "NotFound").of_read("x"), PlatformError::Refused(_)));
        for failure in [answered(404, ""), answered(403, "Forbidden"), answered(500, "InternalError")] {
            assert!(matches!(failure.of_read("x"), PlatformError::Busy(_)));
        }
    }
}
