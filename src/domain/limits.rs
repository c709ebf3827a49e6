//! Every bound of the house in one place (rule 9): what is not configurable is a constant here,
//! what is configurable has its default and its ceiling here. `legation config show` prints them.

/// Constants, and the rows that show them: name, value, and what their doc comments say.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ pub const $name:ident: $type:ty = $value:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: $type = $value;)+

        pub(super) fn rows() -> Vec<super::Row> {
            use super::Shown as _;
            vec![$((stringify!($name), $name.shown(), concat!($($doc),+).trim_ascii_start()),)+]
        }
    };
}

mod admin;
mod arguments;
mod audit;
mod bridge;
mod calls;
mod client;
mod definitions;
mod egress;
mod era;
mod gather;
mod isolates;
mod kill;
mod mcp;
mod ops;
mod packages;
mod remote;
mod room;
mod sessions;
mod store;
mod tasks;
mod tree;
mod vault;

use std::time::Duration;

pub use admin::*;
pub use arguments::*;
pub use audit::*;
pub use bridge::*;
pub use calls::*;
pub use client::*;
pub use definitions::*;
pub use egress::*;
pub use era::*;
pub use gather::*;
pub use isolates::*;
pub use kill::*;
pub use mcp::*;
pub use ops::*;
pub use packages::*;
pub use remote::*;
pub use room::*;
pub use sessions::*;
pub use store::*;
pub use tasks::*;
pub use tree::*;
pub use vault::*;

/// A duration in whole milliseconds, as configuration and storage count.
#[must_use]
pub const fn millis(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1000);
    whole.saturating_add(duration.subsec_millis() as u64)
}

/// A bound: its name, its value, what it bounds.
pub type Row = (&'static str, String, &'static str);

/// Every bound, for `legation config show` and `docs/config.md`.
#[must_use]
pub fn table() -> Vec<Row> {
    let rooms = [
        definitions::rows(),
        isolates::rows(),
        packages::rows(),
        room::rows(),
        egress::rows(),
        calls::rows(),
        arguments::rows(),
        gather::rows(),
        mcp::rows(),
        era::rows(),
        tasks::rows(),
        remote::rows(),
        client::rows(),
        sessions::rows(),
        bridge::rows(),
        admin::rows(),
        store::rows(),
        vault::rows(),
        kill::rows(),
        audit::rows(),
        ops::rows(),
        tree::rows(),
    ];
    rooms.into_iter().flatten().collect()
}

/// How a bound's value is shown.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        format!("{} ms", self.as_millis())
    }
}

macro_rules! shown {
    ($($type:ty),+) => {
        $(impl Shown for $type { fn shown(&self) -> String { self.to_string() } })+
    };
}
shown!(u16, u32, u64, usize, i64);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_bound_is_described() {
        let mut seen = HashSet::new();
        for (name, value, what) in table() {
            assert!(seen.insert(name), "{name} is there twice");
            assert!(!value.is_empty() && what.ends_with('.'), "{name}: {what}");
        }
    }
}
