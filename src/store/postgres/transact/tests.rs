//! Transactions on a server.
