//! Whom and what an administrator's act was about, in ids: a search of the log by user, mcp, tool or
//! key finds the act among what it changed. What nobody knows is not named.

use crate::domain::kill::{Scope, Target};

use super::super::audit::Entry;
use super::super::catalog::Directory;
use super::Control;
use super::target::find;

impl Control {
    /// What an act was about, from its words: `user.suspend` of `ada`, `group.grant` of
    /// `staff/demo`. Ask before it is done as well: what it takes away has no name afterwards.
    #[must_use]
    pub fn about(&self, action: &str, target: &str) -> Vec<Target> {
        if matches!(action, "isolate.restart" | "isolate.kill") {
            let Ok(slot) = self.find_slot(target) else {
                return Vec::new();
            };
            let user = slot.key.principal.user().cloned().map(Target::User);
            let mcp = Target::Mcp(slot.key.mcp.clone());
            return user.into_iter().chain([mcp]).collect();
        }
        let routes = self.ctx.routes.load();
        about(&routes.directory, action, target)
    }
}

/// Names the ids of a target in the columns that searches look at.
pub(in crate::actors) fn with_ids(entry: Entry, target: &Target, names: &Directory) -> Entry {
    match target {
        Target::Tool(mcp, tool) => entry
            .field("mcp", mcp.as_str())
            .field("tool", tool.as_str()),
        Target::Mcp(mcp) => entry.field("mcp", mcp.as_str()),
        Target::User(user) => entry.field("user", user.as_str()),
        Target::Client(key) => {
            let entry = entry.field("key", key.as_str());
            match names.keys.get(key) {
                Some(user) => entry.field("user", user.as_str()),
                None => entry,
            }
        }
        Target::All => entry,
    }
}

fn about(names: &Directory, action: &str, target: &str) -> Vec<Target> {
    words(action, target)
        .into_iter()
        .filter_map(|(scope, text)| find(names, scope, text).ok())
        .map(|found| found.target)
        .collect()
}

/// The words of a target that name something, each with what it names; no scope twice.
fn words<'a>(action: &str, target: &'a str) -> Vec<(Scope, &'a str)> {
    let (first, rest) = target.split_once('/').unwrap_or((target, ""));
    match action {
        "kill_switch.on" | "kill_switch.off" => {
            let (scope, text) = target.split_once(':').unwrap_or_default();
            let scope = Scope::parse(scope);
            scope.map(|scope| (scope, text)).into_iter().collect()
        }
        "key.create" => vec![(Scope::User, target)],
        "subscription.add" | "subscription.remove" => {
            vec![(Scope::Client, first), (Scope::Mcp, rest)]
        }
        "credential.set" | "credential.remove" => {
            let mcp = rest.split('/').next().unwrap_or_default();
            vec![(Scope::User, first), (Scope::Mcp, mcp)]
        }
        "group.member.add" | "group.member.remove" => vec![(Scope::User, rest)],
        "group.grant" | "group.revoke" => vec![(Scope::Mcp, rest)],
        _ => match action.split('.').next() {
            Some("user") => vec![(Scope::User, target)],
            Some("key") => vec![(Scope::Client, target)],
            Some("mcp") => vec![(Scope::Mcp, target)],
            _ => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ID_BYTES, KeyId, McpId, UserId};
    use crate::domain::name::{Name, ToolName};

    #[test]
    fn acts_are_about_those_they_name() {
        let (ada, demo, key) = (
            UserId::from_random([1; ID_BYTES]),
            McpId::from_random([2; ID_BYTES]),
            KeyId::from_random([3; ID_BYTES]),
        );
        let echo = ToolName::parse("echo").unwrap();
        let mut names = Directory::default();
        names.users.insert(Name::parse("ada").unwrap(), ada.clone());
        names
            .mcps
            .insert(Name::parse("demo").unwrap(), demo.clone());
        names.tools.insert(demo.clone(), vec![echo.clone()]);
        names.keys.insert(key.clone(), ada.clone());
        let (user, mcp) = (Target::User(ada), Target::Mcp(demo.clone()));
        let (client, tool) = (Target::Client(key.clone()), Target::Tool(demo, echo));
        for (action, target, targets) in [
            ("user.suspend", "ada", vec![&user]),
            ("user.suspend", "eve", vec![]),
            ("key.create", "ada", vec![&user]),
            ("key.revoke", key.as_str(), vec![&client]),
            ("mcp.update", "demo", vec![&mcp]),
            ("kill_switch.on", "tool:demo/echo", vec![&tool]),
            ("kill_switch.off", "user:ada", vec![&user]),
            ("credential.set", "ada/demo/TOKEN", vec![&user, &mcp]),
            ("credential.set", "shared/demo/TOKEN", vec![&mcp]),
            ("group.member.add", "staff/ada", vec![&user]),
            ("group.grant", "staff/demo", vec![&mcp]),
            ("vault.rotate", "master key", vec![]),
        ] {
            let found = about(&names, action, target);
            let found: Vec<&Target> = found.iter().collect();
            assert_eq!(found, targets, "{action} {target}");
        }
        let pair = format!("{key}/demo");
        assert_eq!(about(&names, "subscription.add", &pair), [client, mcp]);
    }
}
