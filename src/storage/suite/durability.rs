//! What holds whatever happens: deletion, reopening, a full disk, a damaged file.

use std::os::unix::fs::PermissionsExt as _;

use super::samples::{group, keyed, mcp, name, session, sqlite, tool, tool_name, user};
use crate::storage::pools::Pools;
use crate::storage::stats::Class;
use crate::storage::{Fault, Store, StoreError};

pub(super) async fn deleting_takes_what_depends_along(store: Store) {
    let (ada, key) = keyed(&store, 1, "ada").await;
    let (_, other) = keyed(&store, 2, "bob").await;
    let (devs, demo) = (group(1, "devs"), mcp(1, "demo"));
    store.create_group(&devs).await.unwrap();
    store.create_mcp(&demo, 1).await.unwrap();
    store.add_member(&devs.id, &ada.id).await.unwrap();
    store.grant(&devs.id, &demo.id).await.unwrap();
    store
        .replace_tools(&demo.id, &[tool("echo")])
        .await
        .unwrap();
    let names = [(tool_name("echo"), "echo".to_owned())];
    for (n, each) in [(1, &key), (2, &other)] {
        store
            .subscribe(&each.id, &demo.id, 1, &names)
            .await
            .unwrap();
        store.create_session(&session(n, each)).await.unwrap();
    }

    on!(store, |db| sqlx::query("DELETE FROM users WHERE id = $1")
        .bind(ada.id.as_str())
        .execute(&db.writer)
        .await
        .map(drop))
    .unwrap();
    assert!(store.members(&devs.id).await.unwrap().is_empty());
    assert_eq!(
        store.keys(None).await.unwrap(),
        std::slice::from_ref(&other)
    );
    let views = store.views().await.unwrap();
    assert_eq!((views.subscriptions.len(), views.exposed.len()), (1, 1));
    assert_eq!(store.live_sessions(0).await.unwrap().len(), 1);
    assert_eq!(store.groups().await.unwrap()[0].grants.len(), 1);

    on!(store, |db| sqlx::query("DELETE FROM mcps WHERE id = $1")
        .bind(demo.id.as_str())
        .execute(&db.writer)
        .await
        .map(drop))
    .unwrap();
    assert!(store.tools().await.unwrap().is_empty());
    assert!(store.groups().await.unwrap()[0].grants.is_empty());
    let views = store.views().await.unwrap();
    assert_eq!((views.subscriptions.len(), views.exposed.len()), (0, 0));
    assert_eq!(store.key(&other.id).await.unwrap(), other);
}

pub(super) async fn many_writers_at_once_lose_nothing(store: Store) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..32u8 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .create_user(&user(n, &format!("u{n:02}")))
                .await
                .unwrap();
            store.users().await.unwrap().len()
        });
    }
    let mut seen = 0;
    while let Some(count) = tasks.join_next().await {
        seen = seen.max(count.unwrap());
    }
    assert!((1..=32).contains(&seen));
    assert_eq!(store.users().await.unwrap().len(), 32);
}

pub(super) async fn a_closed_store_says_so(store: Store) {
    store.create_user(&user(1, "ada")).await.unwrap();
    store.close().await;
    for error in [
        store.users().await.unwrap_err(),
        store.create_user(&user(2, "bob")).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert_eq!(fault(&error), Some(Fault::Closed));
    }
}

pub(super) async fn ping_answers(store: Store) {
    store.ping().await.unwrap();
    store.ping().await.unwrap();
}

pub(super) async fn lists_are_in_the_order_of_bytes(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    // A dictionary's order would mix cases and look past the signs.
    let sorted = ["Mid", "Zeta", "a-b", "a.b", "aB", "a_b", "ab"];
    let names = sorted.map(|name| (tool_name(name), name.to_owned()));
    let shuffled: Vec<_> = names.iter().rev().cloned().collect();
    store
        .subscribe(&key.id, &demo.id, 1, &shuffled)
        .await
        .unwrap();
    let exposed = store.exposed_to(&key.id).await.unwrap();
    let exposed: Vec<_> = exposed.into_iter().map(|one| one.exposed).collect();
    assert_eq!(exposed, sorted);
}

pub(super) async fn a_transaction_that_failed_keeps_nothing_and_leaves_nothing_open(store: Store) {
    let (_, key) = keyed(&store, 1, "ada").await;
    let (one, two) = (mcp(1, "one"), mcp(2, "two"));
    for each in [&one, &two] {
        store.create_mcp(each, 1).await.unwrap();
    }
    let name = |tool: &str| [(tool_name(tool), "same".to_owned())];
    store
        .subscribe(&key.id, &one.id, 1, &name("a"))
        .await
        .unwrap();
    // More often than there are connections.
    for _ in 0..20 {
        let taken = store.subscribe(&key.id, &two.id, 1, &name("b")).await;
        assert!(
            matches!(taken, Err(StoreError::Conflict { .. })),
            "{taken:?}"
        );
    }
    assert_eq!(store.subscriptions(None).await.unwrap().len(), 1);
    store.ping().await.unwrap();
}

pub(super) async fn what_was_done_is_counted(store: Store) {
    let before = Class::ALL.map(|class| store.stats().of(class).count());
    store.create_user(&user(1, "ada")).await.unwrap();
    store.create_user(&user(2, "ada")).await.unwrap_err();
    store.users().await.unwrap();
    store.views().await.unwrap();
    store.ping().await.unwrap();
    let after = Class::ALL.map(|class| store.stats().of(class).count());
    let done: Vec<u64> = before.iter().zip(after).map(|(b, a)| a - b).collect();
    assert_eq!(done, [2, 2, 1], "reads, writes, transactions");
    assert_eq!(store.stats().of(Class::Write).failed, 1);
    assert_eq!(
        store.stats().of(Class::Tx).failed,
        0,
        "a rollback by order is none"
    );
    let connections = store.connections();
    assert!(
        (1..=connections.max).contains(&connections.open),
        "{connections:?}"
    );
}

fn fault(error: &StoreError) -> Option<Fault> {
    match error {
        StoreError::Unavailable { fault, .. } => Some(*fault),
        _ => None,
    }
}

async fn pragma(store: &Store, text: &'static str) {
    on!(store, |db| sqlx::query(text)
        .fetch_all(&db.writer)
        .await
        .map(drop))
    .unwrap();
}

// What follows is about SQLite's file and has no meaning on another database.

#[tokio::test]
async fn reopening_the_file_keeps_everything() {
    let (folder, store) = sqlite().await;
    let (ada, key) = keyed(&store, 1, "ada").await;
    let demo = mcp(1, "demo");
    store.create_mcp(&demo, 1).await.unwrap();
    store.replace_tools(&demo.id, &[tool("a")]).await.unwrap();
    let names = [(tool_name("a"), "a".to_owned())];
    store.subscribe(&key.id, &demo.id, 1, &names).await.unwrap();
    store.create_session(&session(1, &key)).await.unwrap();
    store.init_setting("installation", "x").await.unwrap();
    store.close().await;

    let path = folder.path().join("legation.db");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.users().await.unwrap(), [ada]);
    assert_eq!(store.keys(None).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(store.mcps().await.unwrap(), std::slice::from_ref(&demo));
    assert_eq!(store.tools_of(&demo.id).await.unwrap(), [tool("a")]);
    assert_eq!(store.views().await.unwrap().exposed.len(), 1);
    assert_eq!(store.live_sessions(0).await.unwrap(), [session(1, &key)]);
    assert_eq!(
        store.setting("installation").await.unwrap().as_deref(),
        Some("x")
    );
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_files_without_a_close() {
    let (folder, store) = sqlite().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    // What a crash leaves behind: the file and its log, copied while the server holds them.
    let copy = tempfile::tempdir().unwrap();
    for file in ["legation.db", "legation.db-wal"] {
        std::fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
    }
    let after = Store::open(&copy.path().join("legation.db")).await.unwrap();
    assert_eq!(after.users().await.unwrap(), [user(1, "ada")]);
    after.close().await;
    store.close().await;
}

#[tokio::test]
async fn what_is_only_in_a_log_that_was_removed_is_saved() {
    for also_shared_memory in [false, true] {
        let (folder, store) = sqlite().await;
        let file = |end: &str| folder.path().join(format!("legation.db{end}"));
        store.create_user(&user(1, "ada")).await.unwrap();
        assert_eq!(store.users().await.unwrap().len(), 1);
        std::fs::remove_file(file("-wal")).unwrap();
        if also_shared_memory {
            std::fs::remove_file(file("-shm")).unwrap();
        }
        store.ping().await.unwrap();
        store.create_user(&user(2, "ben")).await.unwrap();
        assert_eq!(store.users().await.unwrap().len(), 2);
        // What a kill -9 would leave.
        let copy = tempfile::tempdir().unwrap();
        for end in ["", "-wal"] {
            std::fs::copy(file(end), copy.path().join(format!("legation.db{end}"))).unwrap();
        }
        let after = Store::open(&copy.path().join("legation.db")).await.unwrap();
        let users = [user(1, "ada"), user(2, "ben")];
        assert_eq!(after.users().await.unwrap(), users);
        after.close().await;
        store.close().await;
        let again = Store::open(&file("")).await.unwrap();
        assert_eq!(again.users().await.unwrap(), users);
        again.close().await;
    }
}

#[tokio::test]
async fn the_writer_is_durable_and_refers() {
    let (_folder, store) = sqlite().await;
    let read = async |text: &'static str| {
        on!(store, |db| sqlx::query_scalar::<_, i64>(text)
            .fetch_one(&db.writer)
            .await)
        .unwrap()
    };
    assert_eq!(read("PRAGMA synchronous").await, 2, "FULL");
    assert_eq!(read("PRAGMA foreign_keys").await, 1);
    let mode = on!(store, |db| sqlx::query_scalar::<_, String>(
        "PRAGMA journal_mode"
    )
    .fetch_one(&db.writer)
    .await)
    .unwrap();
    assert_eq!(mode, "wal");
    let written = on!(store, |db| sqlx::query("DELETE FROM users")
        .execute(&db.reader)
        .await
        .map(drop));
    assert!(written.is_err(), "readers cannot write");
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_keeps_nothing_half() {
    let (_folder, store) = sqlite().await;
    let one = mcp(1, "one");
    store.create_mcp(&one, 1).await.unwrap();
    store.replace_tools(&one.id, &[tool("old")]).await.unwrap();
    pragma(&store, "PRAGMA max_page_count = 1").await;
    let mut large = tool("large");
    large.definition = "x".repeat(4 << 20);
    let error = store
        .replace_tools(&one.id, &[tool("first"), large])
        .await
        .unwrap_err();
    assert_eq!(fault(&error), Some(Fault::Full));
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(store.tools_of(&one.id).await.unwrap(), [tool("old")]);
    store.close().await;
}

#[tokio::test]
async fn a_read_only_database_is_named() {
    let (_folder, store) = sqlite().await;
    pragma(&store, "PRAGMA query_only = ON").await;
    let error = store.create_user(&user(1, "ada")).await.unwrap_err();
    assert_eq!(fault(&error), Some(Fault::ReadOnly));
    let error = store.ping().await.unwrap_err();
    assert_eq!(
        fault(&error),
        Some(Fault::ReadOnly),
        "and does not pass for well"
    );
    assert!(store.users().await.unwrap().is_empty(), "reading goes on");
    store.close().await;
}

#[tokio::test]
async fn damage_is_told_apart() {
    let (folder, store) = sqlite().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    pragma(&store, "UPDATE users SET name = 'Not A Name'").await;
    let error = store.users().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { place, .. } if place == "users.name"),
        "{error}"
    );
    store.close().await;

    let path = folder.path().join("garbage.db");
    std::fs::write(&path, "this is no database at all ".repeat(200)).unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let error = Store::open(&folder.path().join("no/such/folder.db"))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (folder, store) = sqlite().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    pragma(
        &store,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'future', TRUE, x'00', 0)",
    )
    .await;
    store.close().await;
    let path = folder.path().join("legation.db");
    let error = Store::open(&path).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Incompatible { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("9999"), "{error}");
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_waited_for_within_a_bound() {
    let (folder, store) = sqlite().await;
    let other = Store::open(&folder.path().join("legation.db"))
        .await
        .unwrap();
    // Shorten the wait: the bound itself is five seconds.
    pragma(&store, "PRAGMA busy_timeout = 50").await;
    let Pools::Sqlite(db) = &*other.pools else {
        unreachable!("it is SQLite");
    };
    let held = db.begin().await.unwrap();
    let error = store.create_user(&user(1, "ada")).await.unwrap_err();
    assert_eq!(fault(&error), Some(Fault::Busy), "{error:?}");
    let error = store.ping().await.unwrap_err();
    assert_eq!(fault(&error), Some(Fault::Busy), "{error:?}");
    held.rollback().await.unwrap();
    store.create_user(&user(1, "ada")).await.unwrap();
    assert_eq!(
        other.user_by_name(&name("ada")).await.unwrap().name,
        name("ada")
    );
    other.close().await;
    store.close().await;
}
