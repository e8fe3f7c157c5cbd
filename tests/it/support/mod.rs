//! Test support: a bridge, a local AWS, Prometheus and Alertmanager.

pub(crate) mod aws_stub;
pub(crate) mod bridge;
#[allow(dead_code, reason = "shared with the unit tests of `credentials`")]
pub(crate) mod certificates;
pub(crate) mod disk;
pub(crate) mod fleet;
pub(crate) mod https;
pub(crate) mod https_stub;
pub(crate) mod ledger;
pub(crate) mod load;
#[allow(dead_code, reason = "shared with the unit tests of `store`")]
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod schema;
pub(crate) mod secrets;
pub(crate) mod signing;
pub(crate) mod sources;
pub(crate) mod sqs_stub;
pub(crate) mod tools;

/// The seed of this run, which `.ci/with-seed` sets for the property tests too: `SCALEBRIDGE_TEST_SEED`, or the day.
/// The test prints it if it fails.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SCALEBRIDGE_TEST_SEED").ok();
    let today = || jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).strftime("%Y%m%d").to_string();
    let text = given.unwrap_or_else(today);
    eprintln!("SCALEBRIDGE_TEST_SEED={text}");
    text.parse().unwrap_or_else(|error| panic!("SCALEBRIDGE_TEST_SEED={text}: {error}"))
}
