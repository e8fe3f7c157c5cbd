//! Bounds what is read of a response.

use aws_sdk_lambda::primitives::SdkBody;
use aws_sdk_sts::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use bytes::Bytes;
use http_body_util::BodyExt as _;

/// The maximum size of a response that is kept. What AWS answers is much smaller; a function can answer with more.
pub(crate) const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Keeps the first [`MAX_RESPONSE_BYTES`] of a response.
pub(crate) const BOUNDED_RESPONSE: ResponseLimit = ResponseLimit(MAX_RESPONSE_BYTES);

/// Keeps this many bytes of a response. The SDK would collect all of it in memory.
#[derive(Debug)]
pub(crate) struct ResponseLimit(pub usize);

impl Intercept for ResponseLimit {
    fn name(&self) -> &'static str {
        "ResponseLimit"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = truncated(whole, self.0);
        Ok(())
    }
}

/// The first bytes of a body. The rest is read and dropped, so that the connection can be used again.
fn truncated(body: SdkBody, mut remaining: usize) -> SdkBody {
    SdkBody::from_body_1_x(body.map_frame(move |frame| {
        frame.map_data(|mut data: Bytes| {
            data.truncate(remaining);
            remaining -= data.len();
            data
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_bytes_of_a_body_are_kept() {
        let bytes = async |body: SdkBody| body.collect().await.unwrap().to_bytes();
        let text = "x".repeat(100);
        for (limit, expected) in [(0, 0), (99, 99), (100, 100), (101, 100)] {
            assert_eq!(bytes(truncated(SdkBody::from(&*text), limit)).await.len(), expected);
        }
    }
}
