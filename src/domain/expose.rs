//! The names under which a key sees its tools.
//!
//! A name is fixed when the subscription is made and never changes, whatever is subscribed later
//! or vanishes: clients cache names. So only newcomers are named here, around the names that are
//! taken: bare if that is free, else `<mcp>_<tool>`, cut to what clients accept, with a short hash
//! where cutting or a clash needs one. The result depends on nothing but the arguments, and not on
//! the order of the tools.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::account::{ExposedPrompt, ExposedTool};
use super::ids::McpId;
use super::limits::EXPOSED_NAME_CHARS_MAX;
use super::name::{Name, ToolName};

/// Hex digits of a hash in a name.
const HASH_CHARS: usize = 8;

/// When a tool's name carries its mcp's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefix {
    /// Only if its own name is taken (the default).
    #[default]
    IfTaken,
    /// Always, as the operator asked.
    Always,
}

/// Names those tools of an mcp that have no name in a key's view yet.
///
/// `view` is everything the key sees or ever saw through a standing subscription. What comes back
/// is to be stored beside it; its order is that of the tools' own names.
#[must_use]
pub fn newcomers(
    view: &[ExposedTool],
    mcp: &McpId,
    mcp_name: &Name,
    tools: &[ToolName],
    prefix: Prefix,
) -> Vec<(ToolName, String)> {
    let taken = view.iter().map(|one| one.exposed.clone()).collect();
    let named: HashSet<&ToolName> = view
        .iter()
        .filter(|one| one.mcp == *mcp)
        .map(|one| &one.tool)
        .collect();
    let waiting = tools.iter().filter(|one| !named.contains(one));
    named_around(taken, mcp, mcp_name, waiting, ToolName::as_str, prefix)
}

/// The same for prompts, whose own names may be any text.
#[must_use]
pub fn prompts(
    view: &[ExposedPrompt],
    mcp: &McpId,
    mcp_name: &Name,
    prompts: &[&str],
    prefix: Prefix,
) -> Vec<(String, String)> {
    let taken = view.iter().map(|one| one.exposed.clone()).collect();
    let named: HashSet<&str> = view
        .iter()
        .filter(|one| one.mcp == *mcp)
        .map(|one| one.prompt.as_str())
        .collect();
    let prompts: Vec<String> = prompts
        .iter()
        .filter(|one| !named.contains(*one))
        .map(|one| (*one).to_owned())
        .collect();
    named_around(taken, mcp, mcp_name, &prompts, String::as_str, prefix)
}

fn named_around<'a, T: Ord + Clone + 'a>(
    mut taken: HashSet<String>,
    mcp: &McpId,
    mcp_name: &Name,
    waiting: impl IntoIterator<Item = &'a T>,
    text: fn(&T) -> &str,
    prefix: Prefix,
) -> Vec<(T, String)> {
    let mut waiting: Vec<&T> = waiting.into_iter().collect();
    // Who can keep their own name as it is goes first: `a_b` before `a.b`, which also ends there.
    waiting.sort_by_key(|one| (bare(text(one)) != text(one), *one));
    waiting.dedup();

    let mut names: Vec<(T, String)> = Vec::with_capacity(waiting.len());
    for one in waiting {
        let exposed = choose(&taken, mcp, mcp_name, text(one), prefix);
        taken.insert(exposed.clone());
        names.push((one.clone(), exposed));
    }
    names.sort();
    names
}

fn choose(
    taken: &HashSet<String>,
    mcp: &McpId,
    mcp_name: &Name,
    tool: &str,
    prefix: Prefix,
) -> String {
    let bare = bare(tool);
    if prefix == Prefix::IfTaken && !taken.contains(&bare) {
        return bare;
    }
    let long = format!("{}_{}", clean(mcp_name.as_str()), clean(tool));
    let seed = (mcp.as_str(), tool);
    let mut name = cut(long.clone(), seed);
    let mut round = 0u32;
    // Each round is another hash, so this ends as soon as one is free of at most some thousands.
    while taken.contains(&name) {
        name = hashed(&long, seed, round);
        round = round.wrapping_add(1);
    }
    name
}

/// A tool's own name in the characters and length clients accept.
fn bare(tool: &str) -> String {
    cut(clean(tool), ("", tool))
}

fn clean(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.chars()
        .map(|c| if fits(c) { c } else { '_' })
        .collect()
}

/// As it is if it is short enough, else with a hash of what was cut.
fn cut(text: String, seed: (&str, &str)) -> String {
    if text.len() <= EXPOSED_NAME_CHARS_MAX {
        text
    } else {
        hashed(&text, seed, 0)
    }
}

fn hashed(text: &str, (mcp, tool): (&str, &str), round: u32) -> String {
    let mut hasher = Sha256::new();
    for part in [mcp, tool, text] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.update(round.to_be_bytes());
    let mut name: String = text
        .chars()
        .take(EXPOSED_NAME_CHARS_MAX - HASH_CHARS - 1)
        .collect();
    name.push('_');
    for byte in hasher.finalize().iter().take(HASH_CHARS / 2) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::ids::{ID_BYTES, KeyId};

    fn mcp(n: u8) -> McpId {
        McpId::from_random([n; ID_BYTES])
    }

    fn tools(names: &[&str]) -> Vec<ToolName> {
        names.iter().map(|n| ToolName::parse(n).unwrap()).collect()
    }

    fn add(view: &mut Vec<ExposedTool>, n: u8, name: &str, names: &[&str]) -> Vec<String> {
        let found = newcomers(
            view,
            &mcp(n),
            &Name::parse(name).unwrap(),
            &tools(names),
            Prefix::IfTaken,
        );
        let exposed = found.iter().map(|(_, exposed)| exposed.clone()).collect();
        view.extend(found.into_iter().map(|(tool, exposed)| ExposedTool {
            key: KeyId::from_random([0; ID_BYTES]),
            mcp: mcp(n),
            tool,
            exposed,
        }));
        exposed
    }

    #[test]
    fn the_first_is_bare_and_only_the_newcomer_is_renamed() {
        let mut view = vec![];
        assert_eq!(
            add(&mut view, 1, "git", &["push", "pull"]),
            ["pull", "push"]
        );
        assert_eq!(
            add(&mut view, 2, "hg", &["push", "log"]),
            ["log", "hg_push"]
        );
        // The first mcp finds a new tool whose name the second took.
        assert_eq!(
            add(&mut view, 1, "git", &["push", "log", "pull"]),
            ["git_log"]
        );
        // Nothing new: nothing to name, nothing renamed.
        assert!(add(&mut view, 2, "hg", &["push", "log"]).is_empty());
    }

    #[test]
    fn an_operator_may_ask_for_the_prefix_always() {
        let found = newcomers(
            &[],
            &mcp(1),
            &Name::parse("git.hub").unwrap(),
            &tools(&["push"]),
            Prefix::Always,
        );
        assert_eq!(found[0].1, "git_hub_push");
    }

    #[test]
    fn dots_give_way_and_the_exact_name_goes_first() {
        let mut view = vec![];
        assert_eq!(
            add(&mut view, 1, "m", &["a.b", "a_b", "c.d"]),
            ["m_a_b", "a_b", "c_d"]
        );
    }

    #[test]
    fn a_taken_long_name_gets_a_hash() {
        let mut view = vec![];
        add(&mut view, 1, "a", &["b_c", "c"]);
        add(&mut view, 2, "x", &["c"]);
        assert_eq!(view.last().unwrap().exposed, "x_c");
        // `a_b` as an mcp of its own: its `c` would be `a_b_c`; a tool of that name is there.
        add(&mut view, 3, "y", &["a_b_c"]);
        let names = add(&mut view, 4, "a_b", &["c"]);
        assert_eq!(names.len(), 1);
        assert!(names[0].starts_with("a_b_c_"), "{names:?}");
        assert_eq!(names[0].len(), "a_b_c_".len() + HASH_CHARS);
    }

    #[test]
    fn long_names_are_cut_with_a_hash_of_the_whole() {
        let (one, two) = (
            format!("{}1", "x".repeat(100)),
            format!("{}2", "x".repeat(100)),
        );
        let mut view = vec![];
        let names = add(&mut view, 1, "m", &[&one, &two]);
        assert_eq!(names[0].len(), EXPOSED_NAME_CHARS_MAX);
        assert_ne!(names[0], names[1]);
    }

    fn tool_names() -> impl Strategy<Value = Vec<String>> {
        // Few letters, so that names clash often.
        prop::collection::vec("[ab._-]{1,4}|[ab.]{60,128}", 0..12)
    }

    proptest! {
        #[test]
        fn names_are_unique_fit_and_never_change(
            steps in prop::collection::vec((0u8..4, tool_names()), 1..8),
        ) {
            let mut view: Vec<ExposedTool> = vec![];
            for (n, names) in &steps {
                let before = view.clone();
                let name = ["a", "b", "a.b", "a_b"][usize::from(*n)];
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                add(&mut view, *n, name, &names);
                prop_assert_eq!(&view[..before.len()], &before[..]);
                for tool in &names {
                    let mine = view.iter().filter(|o| o.mcp == mcp(*n) && o.tool.as_str() == *tool);
                    prop_assert_eq!(mine.count(), 1);
                }
                let unique: HashSet<&str> = view.iter().map(|o| o.exposed.as_str()).collect();
                prop_assert_eq!(unique.len(), view.len());
                for one in &view {
                    prop_assert!((1..=EXPOSED_NAME_CHARS_MAX).contains(&one.exposed.len()));
                    prop_assert!(one.exposed.bytes().all(
                        |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
                    ));
                }
            }
        }

        #[test]
        fn the_order_of_the_tools_does_not_matter(names in tool_names()) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let turned: Vec<&str> = names.iter().rev().copied().collect();
            let (mut one, mut two) = (vec![], vec![]);
            add(&mut one, 1, "m", &names);
            add(&mut two, 1, "m", &turned);
            prop_assert_eq!(one, two);
        }
    }
}
