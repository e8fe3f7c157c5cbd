//! Tests of credentials, through `check` of sources and of the admin listener.

mod admin;
mod bearer;
mod jwt;
mod key_sets;
mod outgoing;
mod passwords;
mod properties;
mod signatures;
mod support;
