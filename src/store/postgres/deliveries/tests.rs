//! Deliveries on a server.
