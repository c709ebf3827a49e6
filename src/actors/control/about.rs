//! Whom and what an administrator's act was about, in ids: a search of the log by user, mcp, tool or
//! key finds the act among what it changed. What nobody knows is not named.

use std::sync::Arc;

use crate::domain::ids::{CallId, KeyId};
use crate::domain::kill::{Scope, Target};
use crate::domain::limits::KEYS_NAMED_MAX;

use super::super::audit::Entry;
use super::super::catalog::Directory;
use super::super::sync::Mutex;
use super::Control;
use super::target::find;

/// What an act is about: how its record calls it, and what that names, each thing with what it is. Names are never
/// read out of the text: a user may be called `shared` or `group`.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    text: String,
    named: Vec<Named>,
    found: Found,
}

#[derive(Debug, Clone)]
enum Named {
    /// A name or an id within its scope.
    In(Scope, String),
    Isolate(String),
    Call(String),
}

/// What the act itself finds out about what it is about, while it is done.
#[derive(Debug, Clone, Default)]
pub struct Found(Arc<Mutex<Learnt>>);

#[derive(Debug, Default)]
struct Learnt {
    targets: Vec<Target>,
    keys: Option<(u64, String)>,
}

impl Found {
    /// It is about this as well.
    pub fn add(&self, target: Target) {
        self.0.lock().targets.push(target);
    }

    /// These keys were changed: their number is recorded, and the first of them.
    pub fn keys(&self, changed: &[KeyId]) {
        let first: Vec<&str> = changed
            .iter()
            .take(KEYS_NAMED_MAX)
            .map(KeyId::as_str)
            .collect();
        self.0.lock().keys = Some((changed.len() as u64, first.join(" ")));
    }
}

impl From<String> for Subject {
    fn from(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }
}

impl From<&str> for Subject {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Subject {
    /// Something that has a name of its own.
    #[must_use]
    pub fn one(scope: Scope, name: impl Into<String>) -> Self {
        let name = name.into();
        Self::from(name.clone()).of(scope, name)
    }

    /// An isolate, by its id.
    #[must_use]
    pub fn isolate(id: String) -> Self {
        let named = vec![Named::Isolate(id.clone())];
        Self { named, ..id.into() }
    }

    /// A call, by its id.
    #[must_use]
    pub fn call(id: String) -> Self {
        let named = vec![Named::Call(id.clone())];
        Self { named, ..id.into() }
    }

    /// Which is about what this names in that scope.
    #[must_use]
    pub fn of(mut self, scope: Scope, name: impl Into<String>) -> Self {
        self.named.push(Named::In(scope, name.into()));
        self
    }

    /// Where the act puts what it finds out.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found.clone()
    }

    /// How its record calls it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Control {
    /// What an act is about. Ask before it is done as well: what it takes away has no name afterwards.
    #[must_use]
    pub fn about(&self, subject: &Subject) -> Vec<Target> {
        let routes = self.ctx.routes.load();
        let mut targets = subject.found.0.lock().targets.clone();
        for named in &subject.named {
            match named {
                Named::In(scope, text) => {
                    let found = find(&routes.directory, *scope, text).ok();
                    targets.extend(found.map(|found| found.target));
                }
                Named::Isolate(id) => {
                    let Ok(slot) = self.find_slot(id) else {
                        continue;
                    };
                    targets.extend(slot.key.principal.user().cloned().map(Target::User));
                    targets.push(Target::Mcp(slot.key.mcp.clone()));
                }
                Named::Call(id) => {
                    let id = CallId::parse(id).ok();
                    targets.extend(id.map(|id| self.of_call(&id)).unwrap_or_default());
                }
            }
        }
        targets
    }
}

/// Names the ids of what it is about in the columns that searches look at, each once.
pub(in crate::actors) fn with_ids(mut entry: Entry, about: &[Target], names: &Directory) -> Entry {
    let (mut user, mut mcp, mut tool, mut key) = (None, None, None, None);
    for target in about {
        match target {
            Target::Tool(of, name) => {
                mcp.get_or_insert(of.as_str());
                tool.get_or_insert(name.as_str());
            }
            Target::Mcp(id) => {
                mcp.get_or_insert(id.as_str());
            }
            Target::User(id) => {
                user.get_or_insert(id.as_str());
            }
            Target::Client(id) => {
                key.get_or_insert(id.as_str());
                if let Some(of) = names.keys.get(id) {
                    user.get_or_insert(of.as_str());
                }
            }
            Target::All => {}
        }
    }
    let columns = [("user", user), ("mcp", mcp), ("tool", tool), ("key", key)];
    for (name, id) in columns {
        if let Some(id) = id {
            entry = entry.field(name, id);
        }
    }
    entry
}

/// Names the keys that were changed, of an act that is for many.
pub(super) fn with_keys(entry: Entry, subject: &Subject) -> Entry {
    match &subject.found.0.lock().keys {
        Some((count, first)) => entry.number("keys", *count).field("key_ids", first),
        None => entry,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::audit::chain::Tip;
    use crate::domain::ids::{ID_BYTES, McpId, UserId};
    use crate::domain::name::ToolName;

    #[test]
    fn each_column_is_there_once_whatever_names_it() {
        let (ada, demo, key) = (
            UserId::from_random([1; ID_BYTES]),
            McpId::from_random([2; ID_BYTES]),
            KeyId::from_random([3; ID_BYTES]),
        );
        let echo = ToolName::parse("echo").unwrap();
        let mut names = Directory::default();
        names.keys.insert(key.clone(), ada.clone());
        let all = [
            Target::User(ada.clone()),
            Target::Client(key.clone()),
            Target::Mcp(demo.clone()),
            Target::Tool(demo.clone(), echo),
            Target::All,
        ];
        let mut line = Vec::new();
        let entry = with_ids(Entry::new("admin.action", 1), &all, &names);
        Tip::START.clone().seal(entry.fields(), &mut line);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches("\"user\"").count(), 1, "{text}");
        assert_eq!(text.matches("\"mcp\"").count(), 1, "{text}");
        let record: Value = serde_json::from_str(&text).unwrap();
        let is = [
            ("user", ada.as_str()),
            ("mcp", demo.as_str()),
            ("tool", "echo"),
            ("key", key.as_str()),
        ];
        for (name, id) in is {
            assert_eq!(record[name], id, "{text}");
        }
    }

    #[test]
    fn of_many_keys_the_first_are_named() {
        let subject = Subject::from("group/staff/demo");
        let keys: Vec<KeyId> = (0..=u8::try_from(KEYS_NAMED_MAX).unwrap())
            .map(|n| KeyId::from_random([n; ID_BYTES]))
            .collect();
        subject.found().keys(&keys);
        let entry = with_keys(Entry::new("admin.action", 1), &subject);
        let mut line = Vec::new();
        Tip::START.clone().seal(entry.fields(), &mut line);
        let record: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(record["keys"], KEYS_NAMED_MAX + 1, "{record}");
        let named = record["key_ids"].as_str().unwrap().split(' ');
        let first = keys.iter().take(KEYS_NAMED_MAX).map(KeyId::as_str);
        assert!(named.eq(first), "{record}");
    }
}
