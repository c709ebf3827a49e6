//! The integration tests: each starts gateways of this build and drives them from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod accounts;
mod admin;
mod arguments;
mod audit;
mod bad_face;
mod bridge;
mod certificate;
mod client_node;
mod clients_real;
mod conformance;
mod egress;
mod everywhere;
mod face;
mod failures;
mod hostile;
mod install;
mod isolation;
mod kill;
mod lifecycle;
mod metrics;
mod newer;
mod old_transport;
mod packaging;
mod passing;
mod postgres;
mod processes;
mod prometheus;
mod proxy;
mod questions;
mod rate;
mod real;
mod remote;
mod removal;
mod resuming;
mod room;
mod rounds;
mod sharing;
mod siege;
mod signals;
mod soak;
mod standard;
mod stateless;
mod tasks;
mod tokens;
mod told;
#[path = "servers/tools.rs"]
mod tools;
mod tree;
mod vault;
mod vault_files;
mod walls;
mod watched;
mod watching;
mod world;
