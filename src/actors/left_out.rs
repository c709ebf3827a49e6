//! Tools that servers list and nobody is offered, with the reason, as an operator is shown them: of each mcp those of
//! the list that was read last. Kept in memory alone: the next start says them again.

use std::sync::Arc;

use crate::domain::ids::McpId;
use crate::domain::limits::TOOLS_REFUSED_LOGGED_MAX;

/// What is known, with the hash of the definition that it is of.
#[derive(Debug, Default)]
pub struct LeftOut(papaya::HashMap<McpId, (Arc<str>, Arc<[String]>)>);

impl LeftOut {
    /// Those of an mcp, by its definition of now.
    pub(super) fn of(&self, mcp: &McpId, config: &str) -> Vec<String> {
        match self.0.pin().get(mcp) {
            Some((of, left_out)) if **of == *config => left_out.to_vec(),
            _ => Vec::new(),
        }
    }

    /// A server's list was read.
    pub(super) fn learn(&self, mcp: &McpId, config: &str, left_out: Reasons) {
        let known = self.0.pin();
        match left_out.shown() {
            none if none.is_empty() => known.remove(mcp),
            some => known.insert(mcp.clone(), (config.into(), some.into())),
        };
    }
}

/// Those of one list: so many are named, and more are counted.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    named: Vec<String>,
    more: usize,
}

impl Reasons {
    /// One more; says whether it is named.
    pub(super) fn add(&mut self, why: String) -> bool {
        let is_named = self.named.len() < TOOLS_REFUSED_LOGGED_MAX;
        match is_named {
            true => self.named.push(why),
            false => self.more += 1,
        }
        is_named
    }

    fn shown(self) -> Vec<String> {
        let Self { mut named, more } = self;
        if more > 0 {
            named.push(format!("{more} more"));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    #[test]
    fn the_last_list_of_the_definition_counts_and_not_all_are_named() {
        let (left_out, mcp) = (LeftOut::default(), McpId::from_random([1; ID_BYTES]));
        let mut many = Reasons::default();
        for n in 0..TOOLS_REFUSED_LOGGED_MAX + 3 {
            assert_eq!(many.add(n.to_string()), n < TOOLS_REFUSED_LOGGED_MAX);
        }
        left_out.learn(&mcp, "now", many);
        let told = left_out.of(&mcp, "now");
        assert_eq!(told.len(), TOOLS_REFUSED_LOGGED_MAX + 1);
        assert_eq!(
            (told[0].as_str(), told.last().unwrap().as_str()),
            ("0", "3 more")
        );
        assert!(left_out.of(&mcp, "before").is_empty());
        left_out.learn(&mcp, "now", Reasons::default());
        assert!(left_out.of(&mcp, "now").is_empty());
    }
}
