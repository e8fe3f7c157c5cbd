//! Why a call of Nomad has failed, and whether it may have changed something.

use crate::apply::PlatformError;

/// A call that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nomad has answered so. It has no codes of errors beside the status.
    Answered { status: u16, message: String },
    /// Nothing was sent.
    NotSent(String),
    /// The answer was lost, or cannot be read.
    Lost(String),
}

/// Errors that Nomad answers before it changes anything, by a part of their texts: some of them have the status 500.
const BUSY: [&str; 4] = [
    "job scaling blocked due to active deployment",
    // `JobModifyIndex` is not the job's any more.
    "Enforcing job modify index",
    "Permission denied",
    "job registration, dispatch, and scale are disabled",
];
const REFUSED: [&str; 1] = ["total count was greater than configured job_max_count"];

impl Failure {
    /// A read changes nothing, and may work later; what is missing will not.
    pub(super) fn of_read(self, what: &str) -> PlatformError {
        let message = format!("{what} cannot be read: {}", self.explain());
        match self {
            Self::Answered { status: 404, message: text } if is_nomads(&text) => {
                PlatformError::Refused(message)
            }
            _ => PlatformError::Busy(message),
        }
    }

    pub(super) fn of_write(self, what: &str) -> PlatformError {
        let message = format!("{what} cannot be scaled: {}", self.explain());
        let has = |parts: &[&str], text: &str| parts.iter().any(|part| text.contains(part));
        match self {
            Self::NotSent(_) => PlatformError::Busy(message),
            Self::Lost(_) => PlatformError::Unknown(message),
            Self::Answered { message: text, .. } if has(&BUSY, &text) => PlatformError::Busy(message),
            Self::Answered { message: text, .. } if has(&REFUSED, &text) => PlatformError::Refused(message),
            Self::Answered { status: 400, .. } => PlatformError::Refused(message),
            Self::Answered { status: 404, message: text } if is_nomads(&text) => {
                PlatformError::Refused(message)
            }
            Self::Answered { status: 500.., .. } => PlatformError::Unknown(message),
            Self::Answered { .. } => PlatformError::Busy(message),
        }
    }

    fn explain(&self) -> String {
        match self {
            Self::Answered { status: 401 | 403, message } => {
                format!("access denied: {message}: the token needs read-job, read-job-scaling and scale-job")
            }
            Self::Answered { message, .. } if message.contains(BUSY[1]) => {
                format!("it was changed meanwhile: {message}")
            }
            Self::Answered { status, message } => format!("{message} (status {status})"),
            Self::NotSent(message) | Self::Lost(message) => message.clone(),
        }
    }
}

/// Whether the job is what was not found: a proxy has other texts.
fn is_nomads(message: &str) -> bool {
    message.contains("job") && message.contains("not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_classified_by_whether_they_can_have_been_made_and_can_be_later() {
        let answered = |status, message: &str| Failure::Answered { status, message: message.to_owned() };
        let cases = [
            (answered(400, "job scaling blocked due to active deployment"), "busy"),
            (
                answered(
                    500,
                    "Enforcing job modify index 7: job exists with conflicting job modify index: 9",
                ),
                "busy",
            ),
            (answered(403, "Permission denied"), "busy"),
            (answered(500, "rpc error: Permission denied"), "busy"),
            (answered(403, "ACL token not found"), "busy"),
            (answered(429, "too many concurrent connections"), "busy"),
            (answered(404, "<html>no such page</html>"), "busy"),
            (Failure::NotSent("connection refused".to_owned()), "busy"),
            (answered(400, "group count was greater than scaling policy maximum: 9 > 5"), "refused"),
            (answered(400, "task group \"api\" specified for scaling does not exist in job"), "refused"),
            (answered(404, "job \"web\" not found"), "refused"),
            (answered(500, "total count was greater than configured job_max_count: 9 > 5"), "refused"),
            (answered(500, "No cluster leader"), "unknown"),
            (answered(502, "bad gateway"), "unknown"),
            (Failure::Lost("connection reset".to_owned()), "unknown"),
        ];
        for (failure, expected) in cases {
            let class = match failure.clone().of_write("job web") {
                PlatformError::Refused(_) => "refused",
                PlatformError::Busy(_) => "busy",
                PlatformError::Unknown(_) => "unknown",
            };
            assert_eq!(class, expected, "{failure:?}");
        }
    }
}
