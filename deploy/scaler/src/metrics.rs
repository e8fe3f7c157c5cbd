use crate::outcome::Outcome;
#[derive(Clone, Debug, Default)]
pub struct Metrics;
impl Metrics {
    pub fn new() -> Self {
        Self
    }
    pub fn event(&self, _: &str, _: Outcome) {}
    pub fn capacity_change(&self, _: &str, _: u32) {}
    pub fn ledger_error(&self) {}
}
