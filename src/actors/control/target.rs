//! From what an administrator typed to what is meant, also while the store is away.
//!
//! The snapshot that calls are routed by knows the names; what it does not know is read from the
//! store, so that nothing new is missed. A name that neither knows is answered with the nearest.

use std::sync::Arc;

use tokio::time::timeout;

use crate::config::nearest;
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::kill::{Deny, Kind, Scope, Target};
use crate::domain::limits::KILL_LOOKUP_MAX;
use crate::domain::name::ToolName;

use super::super::catalog::Directory;
use super::{Control, ControlError};

/// A target, and what people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The target.
    pub target: Target,
    /// Its name.
    pub label: String,
}

fn named(target: Target, label: impl ToString) -> Named {
    Named {
        target,
        label: label.to_string(),
    }
}

/// Why a text names nothing.
pub(super) struct Unknown {
    kind: &'static str,
    nearest: Option<String>,
    several: bool,
}

impl Control {
    /// The scope of that word.
    ///
    /// # Errors
    /// There is none: names the nearest.
    pub fn scope(&self, word: &str) -> Result<Scope, ControlError> {
        Scope::parse(word).ok_or_else(|| {
            let words = Scope::ALL.map(Scope::word);
            let shown: String = word.chars().take(64).collect();
            let message = format!("`{shown}` is no scope; scopes are {}", words.join(", "));
            let error = ControlError::new(Code::InvalidRequest, message);
            match nearest::word(&words, word) {
                Some(near) => error.next(format!("did you mean --scope {near}?")),
                None => error,
            }
        })
    }

    /// What a text means within a scope: a name, `mcp/tool`, an id, or for clients a part of a
    /// key's id that no other key begins with.
    ///
    /// # Errors
    /// It means nothing: names the nearest; or more than one thing.
    pub async fn target(&self, scope: Scope, text: &str) -> Result<Named, ControlError> {
        let routes = self.ctx.routes.load_full();
        if let Ok(found) = find(&routes.directory, scope, text) {
            return Ok(found);
        }
        let read = timeout(KILL_LOOKUP_MAX, Directory::read(&self.ctx.store)).await;
        let unknown = match &read {
            Ok(Ok(fresh)) => match find(fresh, scope, text) {
                Ok(found) => return Ok(found),
                Err(unknown) => unknown,
            },
            // An id needs nobody to explain it, and a deny may come before what it denies.
            _ => match (
                Target::parse(scope, text),
                find(&routes.directory, scope, text),
            ) {
                (Ok(target), _) => return Ok(named(target, text)),
                (Err(_), Ok(found)) => return Ok(found),
                (Err(_), Err(unknown)) => unknown,
            },
        };
        let shown: String = text.chars().take(128).collect();
        let kind = unknown.kind;
        if unknown.several {
            let message = format!("several {kind}s have an id that begins with `{shown}`");
            return Err(ControlError::new(Code::Conflict, message).next("give more of the id"));
        }
        let away = match read {
            Ok(Ok(_)) => "",
            _ => " (the store does not answer: only what was known before can be named)",
        };
        let message = format!("{kind} `{shown}` does not exist{away}");
        let next = match (&unknown.nearest, kind) {
            (Some(near), _) => format!("did you mean {near}?"),
            (None, "tool") => "legation mcp show MCP; the form is mcp/tool".to_owned(),
            (None, _) => format!("legation {kind} list"),
        };
        Err(ControlError::new(Code::NotFound, message).next(next))
    }

    /// What a text means of what is denied now in this way, also if it is gone since.
    pub(super) fn denied_target(&self, kind: Kind, scope: Scope, text: &str) -> Option<Target> {
        let listing = self.ctx.kill.listing();
        let routes = self.ctx.routes.load();
        let now = find(&routes.directory, scope, text).ok();
        denied(&listing.active, (kind, scope, text), now)
    }
}

/// What an id means, or a name now; only then what had the name before it was gone.
fn denied(
    active: &[Arc<Deny>],
    (kind, scope, text): (Kind, Scope, &str),
    now: Option<Named>,
) -> Option<Target> {
    let of = |is: &dyn Fn(&Deny) -> bool| {
        let mut alike = active.iter().filter(|deny| deny.kind == kind);
        let found = alike.find(|deny| deny.target.scope() == scope && is(deny))?;
        Some(found.target.clone())
    };
    of(&|deny| deny.target.text() == text)
        .or_else(|| of(&|deny| now.as_ref().is_some_and(|now| now.target == deny.target)))
        .or_else(|| of(&|deny| deny.label == text))
}

pub(super) fn find(names: &Directory, scope: Scope, text: &str) -> Result<Named, Unknown> {
    match scope {
        Scope::All if text.is_empty() || text == Scope::All.word() => {
            Ok(named(Target::All, "everything"))
        }
        Scope::All => Err(unknown("target of scope all", Some("all".to_owned()))),
        Scope::Mcp => mcp(names, text).map(|(id, name)| named(Target::Mcp(id), name)),
        Scope::User => {
            if let Ok(id) = UserId::parse(text)
                && let Some(name) = names.user_name(&id)
            {
                return Ok(named(Target::User(id), name));
            }
            let found = names.users.iter().find(|(name, _)| name.as_str() == text);
            match found {
                Some((name, id)) => Ok(named(Target::User(id.clone()), name)),
                None => {
                    let words: Vec<&str> = names.users.keys().map(|name| name.as_str()).collect();
                    Err(unknown("user", near(&words, text)))
                }
            }
        }
        Scope::Client => key(names, text),
        Scope::Tool => {
            let (of, tool) = text.split_once('/').unwrap_or((text, ""));
            let (id, name) = mcp(names, of)?;
            let tools = names.tools.get(&id).map_or(&[][..], Vec::as_slice);
            match tools.iter().find(|known| known.as_str() == tool) {
                Some(tool) => {
                    let label = format!("{name}/{tool}");
                    Ok(named(Target::Tool(id, tool.clone()), label))
                }
                None => {
                    let words: Vec<&str> = tools.iter().map(ToolName::as_str).collect();
                    let near = near(&words, tool).map(|near| format!("{name}/{near}"));
                    Err(unknown("tool", near))
                }
            }
        }
    }
}

fn mcp(names: &Directory, text: &str) -> Result<(McpId, String), Unknown> {
    if let Ok(id) = McpId::parse(text)
        && let Some(name) = names.mcp_name(&id)
    {
        let name = name.to_string();
        return Ok((id, name));
    }
    let found = names.mcps.iter().find(|(name, _)| name.as_str() == text);
    match found {
        Some((name, id)) => Ok((id.clone(), name.to_string())),
        None => {
            let words: Vec<&str> = names.mcps.keys().map(|name| name.as_str()).collect();
            Err(unknown("mcp", near(&words, text)))
        }
    }
}

fn key(names: &Directory, text: &str) -> Result<Named, Unknown> {
    let start = text.strip_prefix(KeyId::PREFIX).unwrap_or(text);
    let fits = |id: &&KeyId| !start.is_empty() && id.short().starts_with(start);
    let mut hits = names.keys.keys().filter(fits);
    match (hits.next(), hits.next()) {
        (Some(id), None) => {
            let user = names.keys.get(id).and_then(|user| names.user_name(user));
            let of = user.map_or_else(String::new, |user| format!(" of {user}"));
            Ok(named(Target::Client(id.clone()), format!("{id}{of}")))
        }
        (None, _) => Err(unknown("key", None)),
        (Some(_), Some(_)) => Err(Unknown {
            several: true,
            ..unknown("key", None)
        }),
    }
}

fn unknown(kind: &'static str, nearest: Option<String>) -> Unknown {
    Unknown {
        kind,
        nearest,
        several: false,
    }
}

fn near(words: &[&str], text: &str) -> Option<String> {
    nearest::word(words, text).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{DenyId, ID_BYTES};
    use crate::domain::name::Name;

    fn names() -> Directory {
        let mut names = Directory::default();
        let (ada, demo) = (
            UserId::from_random([1; ID_BYTES]),
            McpId::from_random([2; ID_BYTES]),
        );
        names.users.insert(Name::parse("ada").unwrap(), ada.clone());
        names
            .mcps
            .insert(Name::parse("demo.x").unwrap(), demo.clone());
        names
            .tools
            .insert(demo, vec![ToolName::parse("echo").unwrap()]);
        for n in [3, 4] {
            let mut bits = [9; ID_BYTES];
            bits[9] = n;
            names.keys.insert(KeyId::from_random(bits), ada.clone());
        }
        names
    }

    #[test]
    fn names_and_ids_mean_the_same() {
        let names = names();
        let label = |scope, text: &str| find(&names, scope, text).map(|found| found.label).ok();
        let id = |scope, text: &str| find(&names, scope, text).ok().map(|f| f.target.text());
        for (scope, text) in [
            (Scope::User, "ada"),
            (Scope::Mcp, "demo.x"),
            (Scope::Tool, "demo.x/echo"),
            (Scope::All, ""),
        ] {
            let by_id = id(scope, text).unwrap();
            assert_eq!(label(scope, text), label(scope, &by_id), "{scope} {text}");
        }
        let key = names.keys.keys().next().unwrap();
        assert_eq!(
            label(Scope::Client, key.as_str()),
            Some(format!("{key} of ada"))
        );
    }

    /// An archived mcp's kill switch has the same label as its successor's.
    #[test]
    fn a_name_is_what_it_means_now_before_it_is_what_is_gone() {
        let deny = |n: u8, kind| {
            Arc::new(Deny {
                id: DenyId::from_random([n; ID_BYTES]),
                kind,
                target: Target::User(UserId::from_random([n; ID_BYTES])),
                label: "ada".into(),
                reason: String::new(),
                author: String::new(),
                created_at: 1,
                expires_at: None,
                lifted: None,
            })
        };
        let gone = deny(7, Kind::KillSwitch);
        let (ada, other) = (deny(1, Kind::KillSwitch), deny(1, Kind::Suspension));
        let meant = |active: &[&Arc<Deny>], kind, text: &str| {
            let active: Vec<_> = active.iter().map(|deny| Arc::clone(deny)).collect();
            let now = find(&names(), Scope::User, text).ok();
            denied(&active, (kind, Scope::User, text), now)
        };
        let switch = Kind::KillSwitch;
        let (both, now) = ([&gone, &ada, &other], Some(ada.target.clone()));
        assert_eq!(meant(&both, switch, "ada"), now);
        assert_eq!(meant(&both, Kind::Suspension, "ada"), now);
        let before = Some(gone.target.clone());
        assert_eq!(meant(&both, switch, &gone.target.text()), before);
        assert_eq!(meant(&[&gone, &other], switch, "ada"), before);
        assert_eq!(meant(&[&gone], Kind::Suspension, "ada"), None);
    }

    #[test]
    fn what_means_nothing_is_answered_with_the_nearest() {
        let names = names();
        for (scope, text, near) in [
            (Scope::User, "adda", Some("ada")),
            (Scope::User, "zebulon", None),
            (Scope::Mcp, "demox", Some("demo.x")),
            (Scope::Tool, "demo.x/ecko", Some("demo.x/echo")),
            (Scope::Tool, "demo.y/echo", Some("demo.x")),
            (Scope::All, "al", Some("all")),
            (Scope::Client, "", None),
        ] {
            let Err(unknown) = find(&names, scope, text) else {
                panic!("{scope} {text} was found");
            };
            assert_eq!(unknown.nearest.as_deref(), near, "{scope} {text}");
        }
        let start = names.keys.keys().next().unwrap().short().get(..5).unwrap();
        assert!(find(&names, Scope::Client, start).is_err_and(|unknown| unknown.several));
    }
}
