//! What comes of it when a server says that its tools have changed. What is offered of them is what the operator
//! discovered: a server may be taken over after it was looked at. So the change is recorded; only where the mcp says
//! `adopt` is it taken over, by who speaks for all: the one instance that everybody shares, or a discovery, never
//! one user's own isolate.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::domain::ids::McpId;
use crate::domain::limits::{TOOLS_ADOPT_AGAIN, TOOLS_NAMED_MAX};
use crate::domain::mcp::Tool;
use crate::domain::talk::ToolChanges;

use super::audit::Entry;
use super::control::Control;
use super::ctx::Ctx;
use super::slot::{Principal, Slot};
use super::sync::Mutex;

/// When the tools of mcps were taken over the last time.
#[derive(Debug, Default)]
pub struct Adopted(Mutex<HashMap<McpId, Instant>>);

impl Adopted {
    /// Takes the right to do it now, or says when to try again.
    fn claim(&self, mcp: &McpId) -> Result<(), Duration> {
        let mut adopted = self.0.lock();
        adopted.retain(|_, at| at.elapsed() < TOOLS_ADOPT_AGAIN);
        match adopted.get(mcp) {
            Some(at) => Err(TOOLS_ADOPT_AGAIN.saturating_sub(at.elapsed())),
            None => {
                adopted.insert(mcp.clone(), Instant::now());
                Ok(())
            }
        }
    }
}

/// A server lists these tools now.
pub(super) async fn announced(ctx: &Arc<Ctx>, slot: &Slot, tools: Vec<Tool>) {
    let mcp = &slot.mcp;
    let mut told = false;
    loop {
        let known = match ctx.store.tools_of(&mcp.id).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(mcp.name = %mcp.name, "its server says that its tools have changed, which is not looked at: {error}");
                return;
            }
        };
        let changes = Changes::between(&known, &tools);
        if changes.is_empty() {
            slot.told_of(None);
            return;
        }
        // As the definition is now, which may be newer than the run.
        let policy = match ctx.routes.load().published(&mcp.id) {
            Some(published) => published.mcp.talk.tool_changes,
            None => return,
        };
        if !told {
            told = true;
            // One that says it again, or was only listened to anew, says nothing new.
            if slot.told_of(Some(in_short(&changes, &tools, policy))) {
                tell(ctx, slot, &changes, policy);
            }
        }
        match (policy, ctx.adopted.claim(&mcp.id)) {
            (ToolChanges::Keep, _) => return,
            // Another isolate's server has said so as well: what is known then may be the same.
            (ToolChanges::Adopt, Err(wait)) => sleep(wait).await,
            (ToolChanges::Adopt, Ok(())) => {
                adopt(ctx, slot, tools).await;
                return;
            }
        }
    }
}

async fn adopt(ctx: &Arc<Ctx>, slot: &Slot, tools: Vec<Tool>) {
    let (control, mcp) = (Control::new(Arc::clone(ctx)), &slot.mcp);
    let done = match slot.key.principal {
        Principal::Shared => control.keep_tools(&mcp.id, &tools).await,
        _ => control.discover(&mcp.id).await.map(|found| found.changed),
    };
    let outcome = match &done {
        Ok(true) => "adopted",
        Ok(false) => "same",
        Err(error) => {
            tracing::warn!(mcp.name = %mcp.name, "its tools could not be discovered anew: {}", error.message);
            error.code.as_str()
        }
    };
    ctx.audit.post(
        Entry::new("isolate.tools_adopted", ctx.wall_ms())
            .field("mcp", mcp.id.as_str())
            .field("outcome", outcome),
    );
}

fn tell(ctx: &Ctx, slot: &Slot, changes: &Changes, policy: ToolChanges) {
    let user = slot.key.principal.user();
    let entry = Entry::new("isolate.tools_changed", ctx.wall_ms())
        .field("isolate", slot.id.as_str())
        .field("mcp", slot.mcp.id.as_str())
        .field("user", user.map_or("", |user| user.as_str()))
        .field("policy", policy.word())
        .number("added", changes.added.len() as u64)
        .number("removed", changes.removed.len() as u64)
        .number("changed", changes.changed.len() as u64)
        .field("tools", &changes.names());
    ctx.audit.post(entry);
    tracing::warn!(
        isolate.id = %slot.id,
        mcp.name = %slot.mcp.name,
        policy = policy.word(),
        "its server lists other tools than were discovered: {}; legation mcp discover {} takes them over",
        changes.names(),
        slot.mcp.name
    );
}

/// What is told, in a number.
fn in_short(changes: &Changes, tools: &[Tool], policy: ToolChanges) -> u64 {
    let mut tools: Vec<_> = tools
        .iter()
        .map(|tool| (tool.name.as_str(), &tool.description, &tool.definition))
        .collect();
    tools.sort();
    let mut hasher = DefaultHasher::new();
    (changes, tools, policy.word()).hash(&mut hasher);
    hasher.finish()
}

/// How two sets of tools differ, by name.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    fn between(before: &[Tool], after: &[Tool]) -> Self {
        let known: HashMap<&str, &Tool> =
            before.iter().map(|one| (one.name.as_str(), one)).collect();
        let mut changes = Self::default();
        for tool in after {
            match known.get(tool.name.as_str()) {
                None => changes.added.push(tool.name.to_string()),
                Some(known) if **known != *tool => changes.changed.push(tool.name.to_string()),
                Some(_) => {}
            }
        }
        let gone = |tool: &&Tool| after.iter().all(|one| one.name != tool.name);
        let gone = before.iter().filter(gone);
        changes.removed = gone.map(|tool| tool.name.to_string()).collect();
        for names in [
            &mut changes.added,
            &mut changes.removed,
            &mut changes.changed,
        ] {
            names.sort();
        }
        changes
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// The first of them: `+new -gone ~other`.
    fn names(&self) -> String {
        let all = [
            ("+", &self.added),
            ("-", &self.removed),
            ("~", &self.changed),
        ];
        let all = all
            .into_iter()
            .flat_map(|(sign, names)| names.iter().map(move |name| format!("{sign}{name}")));
        all.take(TOOLS_NAMED_MAX).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::ToolName;

    fn tool(name: &str, definition: &str) -> Tool {
        Tool {
            name: ToolName::parse(name).unwrap(),
            description: String::new(),
            definition: definition.to_owned(),
        }
    }

    #[test]
    fn differences_are_named_and_the_order_is_none() {
        let before = [tool("a", "1"), tool("b", "1"), tool("c", "1")];
        let same = [tool("c", "1"), tool("a", "1"), tool("b", "1")];
        assert!(Changes::between(&before, &same).is_empty());
        let after = [tool("d", "1"), tool("a", "2"), tool("b", "1")];
        assert_eq!(Changes::between(&before, &after).names(), "+d -c ~a");
    }

    #[test]
    fn the_same_is_told_once_whatever_order_it_comes_in() {
        let known = [tool("a", "1")];
        let (one, two, three) = (tool("a", "2"), tool("b", "1"), tool("c", "1"));
        let short = |tools: &[Tool]| {
            let changes = Changes::between(&known, tools);
            in_short(&changes, tools, ToolChanges::Keep)
        };
        let all = short(&[one.clone(), two.clone(), three.clone()]);
        assert_eq!(short(&[three.clone(), one.clone(), two.clone()]), all);
        let other = [tool("a", "3"), two, three];
        assert_ne!(short(&other), all, "another definition");
        assert_ne!(short(&[one]), all);
    }

    #[tokio::test(start_paused = true)]
    async fn one_takes_over_at_a_time() {
        let (adopted, mcp) = (Adopted::default(), McpId::from_random([1; 10]));
        assert_eq!(adopted.claim(&mcp), Ok(()));
        let wait = adopted.claim(&mcp).unwrap_err();
        assert!(wait <= TOOLS_ADOPT_AGAIN);
        sleep(wait + Duration::from_millis(1)).await;
        assert_eq!(adopted.claim(&mcp), Ok(()));
    }
}
