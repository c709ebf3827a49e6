//! The deny table: what is in force, made once per change and read by every call.
//!
//! A few look-ups by id; nothing is searched. Expiry is checked when an entry is found: a switch
//! whose time is over denies nothing, also before it is swept.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Deny, Kind, Target};
use crate::domain::account::Millis;
use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::name::ToolName;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The key of the session.
    pub key: &'a KeyId,
}

/// What is in force. Replaced whole.
#[derive(Debug, Default)]
pub struct Table {
    all: Option<Arc<Deny>>,
    tools: HashMap<McpId, HashMap<ToolName, Arc<Deny>>>,
    mcps: HashMap<McpId, Arc<Deny>>,
    users: HashMap<UserId, Arc<Deny>>,
    clients: HashMap<KeyId, Arc<Deny>>,
    suspended_users: HashMap<UserId, Arc<Deny>>,
    suspended_clients: HashMap<KeyId, Arc<Deny>>,
}

impl Table {
    /// The table of these denies; those that are over are left out.
    pub fn new<'a>(denies: impl IntoIterator<Item = &'a Arc<Deny>>) -> Self {
        let mut table = Self::default();
        for deny in denies.into_iter().filter(|deny| deny.lifted.is_none()) {
            let one = Arc::clone(deny);
            match (deny.kind, deny.target.clone()) {
                (Kind::Suspension, Target::User(user)) => {
                    table.suspended_users.insert(user, one);
                }
                (Kind::Suspension, Target::Client(key)) => {
                    table.suspended_clients.insert(key, one);
                }
                // There is no other suspension; if there were, it would deny calls at least.
                (_, Target::User(user)) => {
                    table.users.insert(user, one);
                }
                (_, Target::Client(key)) => {
                    table.clients.insert(key, one);
                }
                (_, Target::Mcp(mcp)) => {
                    table.mcps.insert(mcp, one);
                }
                (_, Target::Tool(mcp, tool)) => {
                    table.tools.entry(mcp).or_default().insert(tool, one);
                }
                (_, Target::All) => table.all = Some(one),
            }
        }
        table
    }

    /// What denies this call: the widest deny that does.
    #[must_use]
    pub fn call(
        &self,
        who: Caller<'_>,
        mcp: &McpId,
        tool: &ToolName,
        now: impl Fn() -> Millis,
    ) -> Option<&Arc<Deny>> {
        let tool = || self.tools.get(mcp).and_then(|tools| tools.get(tool));
        self.suspension(who, &now)
            .or_else(|| in_force(self.all.as_ref(), &now))
            .or_else(|| in_force(self.users.get(who.user), &now))
            .or_else(|| in_force(self.clients.get(who.key), &now))
            .or_else(|| in_force(self.mcps.get(mcp), &now))
            .or_else(|| in_force(tool(), &now))
    }

    /// The suspension of a user or of the key: no session, no registration.
    #[must_use]
    pub fn suspension(&self, who: Caller<'_>, now: impl Fn() -> Millis) -> Option<&Arc<Deny>> {
        in_force(self.suspended_users.get(who.user), &now)
            .or_else(|| in_force(self.suspended_clients.get(who.key), &now))
    }

    /// What keeps a whole process from running: its user, the key it is for alone, or its mcp.
    #[must_use]
    pub fn process(
        &self,
        user: Option<&UserId>,
        key: Option<&KeyId>,
        mcp: &McpId,
        now: impl Fn() -> Millis,
    ) -> Option<&Arc<Deny>> {
        let of_user = |user| {
            in_force(self.suspended_users.get(user), &now)
                .or_else(|| in_force(self.users.get(user), &now))
        };
        let of_key = |key| {
            in_force(self.suspended_clients.get(key), &now)
                .or_else(|| in_force(self.clients.get(key), &now))
        };
        in_force(self.all.as_ref(), &now)
            .or_else(|| user.and_then(of_user))
            .or_else(|| key.and_then(of_key))
            .or_else(|| in_force(self.mcps.get(mcp), &now))
    }

    /// Whether a key can make a difference to a process.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty() || !self.suspended_clients.is_empty()
    }

    /// Whether nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_none()
            && self.tools.is_empty()
            && self.mcps.is_empty()
            && self.users.is_empty()
            && self.clients.is_empty()
            && self.suspended_users.is_empty()
            && self.suspended_clients.is_empty()
    }
}

/// The entry, unless its time is over. The clock is read only for one that has a time.
fn in_force<'a>(found: Option<&'a Arc<Deny>>, now: &impl Fn() -> Millis) -> Option<&'a Arc<Deny>> {
    found.filter(|deny| deny.expires_at.is_none() || !deny.is_expired(now()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{deny, targets};
    use super::*;
    use crate::domain::ids::ID_BYTES;

    struct House {
        user: UserId,
        key: KeyId,
        mcp: McpId,
        tool: ToolName,
    }

    /// Another house in which everything has another id.
    fn house(n: u8) -> House {
        House {
            user: UserId::from_random([n + 1; ID_BYTES]),
            key: KeyId::from_random([n + 2; ID_BYTES]),
            mcp: McpId::from_random([n; ID_BYTES]),
            tool: ToolName::parse("a_b.c").unwrap(),
        }
    }

    fn reason(table: &Table, house: &House, now: Millis) -> Option<String> {
        let who = Caller {
            user: &house.user,
            key: &house.key,
        };
        let found = table.call(who, &house.mcp, &house.tool, || now);
        found.map(|deny| deny.reason.clone())
    }

    #[test]
    fn each_scope_denies_its_own_and_nobody_elses() {
        for target in targets() {
            let table = Table::new(&[Arc::new(deny(1, Kind::KillSwitch, target.clone()))]);
            assert_eq!(
                reason(&table, &house(2), 0).as_deref(),
                Some("reason 1"),
                "{target:?}"
            );
            let other = reason(&table, &house(20), 0);
            assert_eq!(other.is_some(), target == Target::All, "{target:?}");
            let mut sibling = house(2);
            sibling.tool = ToolName::parse("other").unwrap();
            let spared = reason(&table, &sibling, 0).is_none();
            assert_eq!(spared, matches!(target, Target::Tool(..)), "{target:?}");
        }
    }

    #[test]
    fn a_process_goes_on_when_only_a_tool_of_it_is_denied() {
        let here = house(2);
        for target in targets() {
            let table = Table::new(&[Arc::new(deny(1, Kind::KillSwitch, target.clone()))]);
            let process = table.process(Some(&here.user), Some(&here.key), &here.mcp, || 0);
            assert_eq!(
                process.is_none(),
                matches!(target, Target::Tool(..)),
                "{target:?}"
            );
            // A shared process is nobody's: only its mcp or everything stops it.
            let shared = table.process(None, None, &here.mcp, || 0);
            assert_eq!(
                shared.is_some(),
                matches!(target, Target::Mcp(_) | Target::All),
                "{target:?}"
            );
        }
    }

    #[test]
    fn only_a_suspension_keeps_from_registering() {
        let here = house(2);
        let who = Caller {
            user: &here.user,
            key: &here.key,
        };
        for target in targets() {
            let switch = Table::new(&[Arc::new(deny(1, Kind::KillSwitch, target.clone()))]);
            assert!(switch.suspension(who, || 0).is_none(), "{target:?}");
        }
        for target in [
            Target::User(here.user.clone()),
            Target::Client(here.key.clone()),
        ] {
            let both = [
                Arc::new(deny(1, Kind::KillSwitch, target.clone())),
                Arc::new(deny(2, Kind::Suspension, target)),
            ];
            let table = Table::new(&both);
            assert_eq!(table.suspension(who, || 0).unwrap().reason, "reason 2");
            assert_eq!(reason(&table, &here, 0).as_deref(), Some("reason 2"));
            let table = Table::new(&both[..1]);
            assert_eq!(reason(&table, &here, 0).as_deref(), Some("reason 1"));
        }
    }

    #[test]
    fn what_is_expired_or_lifted_denies_nothing() {
        let here = house(2);
        let mut one = deny(1, Kind::KillSwitch, Target::Mcp(here.mcp.clone()));
        one.expires_at = Some(50);
        let table = Table::new(&[Arc::new(one.clone())]);
        assert!(reason(&table, &here, 49).is_some());
        assert!(reason(&table, &here, 50).is_none());
        one.lifted = Some(super::super::Lifted {
            at: 3,
            by: "root".into(),
            how: super::super::Ending::Lifted,
        });
        let table = Table::new(&[Arc::new(one)]);
        assert!(table.is_empty());
        // An expired wide switch does not hide a narrower one.
        let mut wide = deny(2, Kind::KillSwitch, Target::All);
        wide.expires_at = Some(10);
        let narrow = deny(3, Kind::KillSwitch, Target::User(here.user.clone()));
        let table = Table::new(&[Arc::new(wide), Arc::new(narrow)]);
        assert_eq!(reason(&table, &here, 20).as_deref(), Some("reason 3"));
    }
}
