//! What the platforms of AWS have in common.

use std::error::Error;

use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};

use crate::apply::PlatformError;
use crate::aws::errors::{self, Class};

/// A call of a service, for the texts of its errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// As in IAM: `eks:DescribeNodegroup`.
    pub action: &'static str,
    /// What it is about: ``node group `workers` of cluster `prod` ``.
    pub of: &'a str,
}

impl Call<'_> {
    /// The error of a call that changes nothing.
    pub(super) fn read_error<E>(self, error: &SdkError<E, HttpResponse>) -> PlatformError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match errors::classify(error) {
            Class::Refused => PlatformError::Refused(self.text(error)),
            Class::Busy | Class::Unknown => PlatformError::Busy(self.text(error)),
        }
    }

    /// The error of a call that changes something.
    pub(super) fn write_error<E>(self, error: &SdkError<E, HttpResponse>) -> PlatformError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match errors::classify(error) {
            Class::Refused => PlatformError::Refused(self.text(error)),
            Class::Busy => PlatformError::Busy(self.text(error)),
            Class::Unknown => PlatformError::Unknown(self.text(error)),
        }
    }

    fn text<E>(self, error: &SdkError<E, HttpResponse>) -> String
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Self { action, of } = self;
        let help = match errors::is_denied(error) {
            true => "; grant it to the scaler's role, see `scalebridge-scaler iam-policy`",
            false => "",
        };
        format!("{action} of {of}: {}{help}", errors::text(error))
    }
}

/// A capacity as the services write it. They have none below 0.
pub(super) fn units(value: Option<i32>) -> u32 {
    value.map_or(0, |value| u32::try_from(value).unwrap_or(0))
}

/// A capacity as the services read it.
pub(super) fn capacity(to: u32) -> Result<i32, PlatformError> {
    i32::try_from(to).map_err(|_| PlatformError::Refused(format!("{to} is more than AWS has of anything")))
}
