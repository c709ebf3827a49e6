//! A database of an earlier version is brought up to this one with what it holds.

use crate::storage::Store;

#[tokio::test]
async fn suspensions_of_before_kill_switches_are_denies_now() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("legation.db");
    // A database as the first version left it.
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut old = sqlx::migrate!("src/storage/migrations/sqlite");
    old.migrations.to_mut().truncate(1);
    old.run(&pool).await.unwrap();
    let rows = [
        (
            "sus_0000000000000001",
            "user",
            "usr_0000000000000001",
            "left",
            None,
        ),
        (
            "sus_0000000000000002",
            "mcp",
            "mcp_0000000000000002",
            "",
            None,
        ),
        (
            "sus_0000000000000003",
            "user",
            "usr_0000000000000001",
            "before",
            Some(7),
        ),
    ];
    for (id, scope, target, reason, lifted) in rows {
        sqlx::query(
            "INSERT INTO suspensions (id, scope, target, reason, author, created_at, lifted_at) \
             VALUES ($1, $2, $3, $4, 'root', 5, $5)",
        )
        .bind(id)
        .bind(scope)
        .bind(target)
        .bind(reason)
        .bind(lifted)
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;

    let store = Store::open(&file).await.unwrap();
    let active = store.active_denies().await.unwrap();
    let mut told: Vec<_> = active
        .iter()
        .map(|deny| {
            let (kind, scope) = (deny.kind.word(), deny.target.scope().word());
            (kind, scope, deny.label.as_str(), deny.reason.as_str())
        })
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            (
                "kill_switch",
                "mcp",
                "mcp_0000000000000002",
                "no reason given"
            ),
            ("suspension", "user", "usr_0000000000000001", "left"),
        ]
    );
}

/// Nobody could name them any more once another mcp had the name.
#[tokio::test]
async fn what_was_set_for_mcps_that_were_archived_before_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("legation.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut old = sqlx::migrate!("src/storage/migrations/sqlite");
    old.migrations
        .to_mut()
        .retain(|one| !one.description.contains("archived credentials"));
    old.run(&pool).await.unwrap();
    for (n, state) in [(1, "archived"), (2, "published")] {
        let mcp = format!("mcp_000000000000000{n}");
        sqlx::query(
            "INSERT INTO mcps (id, name, description, state, sharing, program, limits, times, \
             created_at, updated_at) VALUES ($1, 'github', '', $2, '', '', '', '', 1, 1)",
        )
        .bind(&mcp)
        .bind(state)
        .execute(&pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO credentials (holder, mcp_id, name, sealed, version, set_at, set_by) \
             VALUES ('usr_0000000000000001', $1, 'TOKEN', $2, 1, 1, 'root')",
        )
        .bind(&mcp)
        .bind(format!("sealed {n}"))
        .execute(&pool)
        .await
        .unwrap();
    }
    pool.close().await;

    let store = Store::open(&file).await.unwrap();
    let left = store.credentials().await.unwrap();
    let seals: Vec<&str> = left.iter().map(|one| one.sealed.as_str()).collect();
    assert_eq!(seals, ["sealed 2"]);
}
