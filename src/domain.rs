//! Pure types and decisions: nothing here waits, reads a file or knows a runtime.

pub mod account;
pub mod arguments;
pub mod audit;
#[cfg(test)]
pub(crate) mod bless;
pub mod code;
pub mod confinement;
pub mod credential;
pub mod dsn;
pub mod egress;
pub mod era;
pub mod expose;
pub(crate) mod hex;
pub mod ids;
pub mod kill;
pub mod limits;
pub mod login;
pub mod mcp;
pub mod name;
pub mod package;
pub mod pressure;
pub mod redact;
pub mod remote;
pub mod restart;
pub mod seal;
pub mod talk;
pub mod token;
pub mod uri;
pub mod usage;
pub mod verdict;
