//! What the benches share: a load generator that checks every answer, the things to compare
//! with, and the reading of CPU time and memory.

pub(crate) mod bare;
pub(crate) mod disk;
pub(crate) mod face;
pub(crate) mod gates;
pub(crate) mod groups;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod ours;
pub(crate) mod peers;
pub(crate) mod pipe;
pub(crate) mod proc;
pub(crate) mod report;
pub(crate) mod rounds;
pub(crate) mod target;
pub(crate) mod words;
