//! Who may use the admin socket: root, the server's own user, and the members of the configured
//! group, by the credentials the kernel gives for the peer.
//!
//! Groups are read from `/etc/passwd` and `/etc/group` at each request, so a change counts at
//! once. Members that come only from a directory service (LDAP, SSSD) are not seen there; for
//! them the configured group must be their primary one.

use std::fs;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::{About, ApiError};
use crate::actors::control::Control;
use crate::api::peer::PeerCred;
use crate::domain::code::Code;

/// The permission to administer this server. Having one is the proof.
#[derive(Debug, Clone)]
pub struct Admin {
    actor: String,
}

// === impl Admin ===

impl Admin {
    /// Who it is, for the audit log: `uid:1000(ada)`.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    fn of(peer: PeerCred, own_uid: u32, group: Option<&str>, host: &Accounts) -> Option<Self> {
        let name = host.user_name(peer.uid);
        let permitted = peer.uid == 0
            || peer.uid == own_uid
            || group.is_some_and(|group| host.is_member(peer, name.as_deref(), group));
        permitted.then(|| Self {
            actor: match name {
                Some(name) => format!("uid:{}({name})", peer.uid),
                None => format!("uid:{}", peer.uid),
            },
        })
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<About>: FromRef<S>,
    Control: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Some(peer) = parts.extensions.get::<PeerCred>().copied() else {
            let text = "the admin API answers only on its Unix socket";
            return Err(ApiError::new(Code::Denied, text));
        };
        let about = Arc::<About>::from_ref(state);
        let group = about.group.as_deref();
        let own = rustix::process::geteuid().as_raw();
        Self::of(peer, own, group, &Accounts::of_host()).ok_or_else(|| {
            tracing::warn!(
                peer.uid = peer.uid,
                path = parts.uri.path(),
                "admin socket: denied"
            );
            Control::from_ref(state).denied(&format!("uid:{}", peer.uid));
            let text = format!("uid {} may not administer this server", peer.uid);
            ApiError::new(Code::Denied, text).next(match group {
                Some(group) => format!("run it as root or as a member of the group `{group}`"),
                None => "run it as root or as the server's own user".to_owned(),
            })
        })
    }
}

/// The group of this name, where `/etc/group` has one: only of such a one are members seen.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    Accounts::of_host().group_id(name)
}

/// The host's user and group files.
#[derive(Debug, Default)]
struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    fn of_host() -> Self {
        // Unreadable is as good as empty: fewer people are permitted, never more.
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
        }
    }

    /// `name:x:uid:…`
    fn user_name(&self, uid: u32) -> Option<String> {
        self.passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let this: u32 = fields.nth(1)?.parse().ok()?;
            (this == uid).then(|| name.to_owned())
        })
    }

    /// `name:x:gid:…`
    fn group_id(&self, name: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let is_it = fields.next() == Some(name);
            is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    }

    /// `name:x:gid:member,member`
    fn is_member(&self, peer: PeerCred, name: Option<&str>, group: &str) -> bool {
        self.group.lines().any(|line| {
            let mut fields = line.split(':');
            if fields.next() != Some(group) {
                return false;
            }
            let gid: Option<u32> = fields.nth(1).and_then(|gid| gid.parse().ok());
            let mut members = fields.next().unwrap_or_default().split(',');
            gid == Some(peer.gid) || name.is_some_and(|name| members.any(|member| member == name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/\n"
                .into(),
            group: "legation-admin:x:77:ada,eve\nother:x:78:bob\nbroken\n".into(),
        }
    }

    fn actor(uid: u32, gid: u32, group: Option<&str>) -> Option<String> {
        let pid = Some(1);
        Admin::of(PeerCred { uid, gid, pid }, 999, group, &host()).map(|a| a.actor)
    }

    #[test]
    fn root_the_server_and_the_group_may() {
        let group = Some("legation-admin");
        assert_eq!(actor(0, 0, None).as_deref(), Some("uid:0(root)"));
        assert_eq!(actor(999, 5, None).as_deref(), Some("uid:999"));
        assert_eq!(actor(1000, 1000, group).as_deref(), Some("uid:1000(ada)"));
        assert_eq!(
            actor(1001, 77, group).as_deref(),
            Some("uid:1001(bob)"),
            "primary group"
        );
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        assert_eq!(host().group_id("legation-admin"), Some(77));
        assert_eq!(host().group_id("legation"), None);
        assert_eq!(host().group_id("broken"), None);
    }

    #[test]
    fn nobody_else_may() {
        let group = Some("legation-admin");
        assert_eq!(actor(1000, 1000, None), None, "no group is configured");
        assert_eq!(actor(1001, 1001, group), None, "another group");
        assert_eq!(actor(1002, 1002, group), None, "unknown to the host");
        assert_eq!(actor(1000, 1000, Some("missing")), None);
        assert_eq!(actor(1002, 78, Some("")), None);
    }
}
