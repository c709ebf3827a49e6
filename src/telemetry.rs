//! What operators watch the house by: metrics. (Log lines are `tracing`'s; `cli::logging` sets
//! them up.)
//!
//! Read by every floor but `domain` and `protocol`, and reads only `domain` itself.

pub mod metrics;
pub mod process;
