//! The platforms of AWS against a server that refuses what emulators never refuse, and against emulators.

mod calls;
mod ec2;
mod ecs;
mod eks;
mod emulators;

use crate::apply::{Capacity, PlatformError};
use crate::aws::{Account, Accounts};
use crate::plan::Present;
use crate::test_support::REGION;
use crate::test_support::stub::{Reply, Stub};

/// The clients of a stub.
async fn account(stub: &Stub) -> Account {
    Accounts::new(stub.config().await).account(REGION, None).await
}

fn ok(body: &str) -> [Reply; 1] {
    [Reply::Ok(body.to_owned())]
}

async fn refusal<T: std::fmt::Debug>(result: impl Future<Output = Result<T, PlatformError>>) -> String {
    match result.await {
        Err(PlatformError::Refused(why)) => why,
        other => panic!("not refused, but {other:?}"),
    }
}

/// Sets the capacity after reading it.
async fn read_and_set(capacity: &impl Capacity, to: u32) -> Result<Present, PlatformError> {
    let read = capacity.read().await?;
    capacity.set(&read, to, "b3f0").await?;
    Ok(read)
}
