//! What an isolate's way out is spoken in: name queries, a proxy's requests, and the beginning of TLS.
//!
//! All of it comes from a server nobody trusts: every reader here is bounded by what it is given, and
//! what it does not understand it says so.

pub mod dns;
pub mod hello;
pub mod tunnel;
