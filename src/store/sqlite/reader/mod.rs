//! Reads on a connection of their own, beside the writer: what claims need, and the queries of the API.

pub(crate) mod claims;
pub(crate) mod query;
