//! Constructors of stores and of records to put into them.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::account::{Group, Key, Session, User};
use crate::domain::confinement::{Confinement, Network, Profile};
use crate::domain::ids::{ConnectionId, GroupId, ID_BYTES, KeyId, McpId, SessionId, UserId};
use crate::domain::mcp::{Capture, Limits, Mcp, McpState, Program, Sharing, Times, Tool, Usual};
use crate::domain::name::{Name, ToolName};
use crate::domain::package::{Install, Step};
use crate::domain::talk::{Check, Question, Questions, Talk, ToolChanges};
use crate::storage::Store;

pub(super) async fn sqlite() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("legation.db"))
        .await
        .unwrap();
    (folder, store)
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(super) fn tool_name(text: &str) -> ToolName {
    ToolName::parse(text).unwrap()
}

pub(super) fn user(n: u8, text: &str) -> User {
    User {
        id: UserId::from_random([n; ID_BYTES]),
        name: name(text),
        created_at: 1000 + i64::from(n),
    }
}

pub(super) fn group(n: u8, text: &str) -> Group {
    Group {
        id: GroupId::from_random([n; ID_BYTES]),
        name: name(text),
        created_at: 1000 + i64::from(n),
    }
}

pub(super) fn key(n: u8, user: &User) -> Key {
    Key {
        id: KeyId::from_random([n; ID_BYTES]),
        user: user.id.clone(),
        label: format!("laptop {n}"),
        prefix: format!("prefix{n:02}"),
        pepper_id: 1,
        digest: "ab".repeat(32),
        created_at: 2000 + i64::from(n),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

pub(super) fn mcp(n: u8, text: &str) -> Mcp {
    Mcp {
        id: McpId::from_random([n; ID_BYTES]),
        name: name(text),
        description: "says ‘hello’; \"quoted\"".into(),
        state: McpState::Draft,
        sharing: Sharing::PerSession,
        program: Program {
            command: "/usr/bin/env".into(),
            args: vec!["-S".into(), "{home}/a b".into()],
            env: BTreeMap::from([("TOKEN".into(), "x=\u{1F512}".into())]),
            remote: None,
        },
        limits: Limits {
            memory_bytes: 64 << 20,
            ..Limits::default()
        },
        times: Times {
            idle_ms: None,
            ..Times::default()
        },
        as_configured: BTreeSet::from([Usual::CpuMillis, Usual::CallMs]),
        confinement: Confinement {
            profile: Some(Profile::Standard),
            network: Network::Allowlist,
            hosts: vec!["*.example.com:8443/private".parse().unwrap()],
            read: vec!["/srv/a b".into()],
            write: Vec::new(),
        },
        install: Install {
            step: Step::Off,
            scripts: true,
            within_ms: Some(1),
        },
        audit_arguments: Capture::Full,
        talk: Talk {
            questions: Questions::NONE.with(Question::Roots),
            arguments: Check::Warn,
            tool_changes: ToolChanges::Adopt,
        },
        credentials: serde_json::from_str(r#"{"TOKEN":{"to":{"env":"TOKEN_VARIABLE"}}}"#).unwrap(),
    }
}

pub(super) fn tool(text: &str) -> Tool {
    Tool {
        name: tool_name(text),
        description: format!("does {text}"),
        definition: format!("{{\"name\":\"{text}\",\"x-future\":[1,2]}}"),
    }
}

pub(super) fn session(n: u8, key: &Key) -> Session {
    Session {
        id: SessionId::from_random([n; ID_BYTES]),
        key: key.id.clone(),
        user: key.user.clone(),
        connection: ConnectionId::from_random([n; ID_BYTES]),
        friendly_name: "ada's laptop".into(),
        host_tool: "vscode".into(),
        questions: Questions::NONE.with(Question::Elicitation),
        created_at: 3000 + i64::from(n),
        seen_at: 3000 + i64::from(n),
        expires_at: 10_000,
    }
}

/// A user with a key, stored.
pub(super) async fn keyed(store: &Store, n: u8, text: &str) -> (User, Key) {
    let user = user(n, text);
    let key = key(n, &user);
    store.create_user(&user).await.unwrap();
    store.create_key(&key).await.unwrap();
    (user, key)
}
