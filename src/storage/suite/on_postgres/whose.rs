//! Whose database it is that answers, and whom its locks keep out.

use std::error::Error as _;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tokio::time::timeout;

use super::super::samples::{keyed, session, user};
use super::super::server::{Database, run};
use super::{PATIENCE, fault, terminate, until_it_answers};
use crate::domain::limits;
use crate::storage::{Fault, Store, StoreError};

/// The reason why the store is away, once it is this.
async fn until_it_says(store: &Store, words: &str) {
    let since = Instant::now();
    loop {
        if let Err(error) = store.ping().await {
            let why = error.source().unwrap().to_string();
            if fault(&error) == Fault::Unfit && why.contains(words) {
                return;
            }
        }
        assert!(since.elapsed() < PATIENCE, "never: {words}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whatever_else_answers_after_an_outage_is_not_used() {
    let Some(database) = Database::new().await else {
        return;
    };
    let mut postgres = database.postgres("suite");
    postgres.installation = Some("aaaa".into());
    let store = Store::connect(postgres.clone()).await.unwrap();
    let kept = store.setting("installation").await.unwrap();
    assert_eq!(kept.as_deref(), Some("aaaa"));
    let mut admin = database.session().await;
    let turns = store.turns();
    let set = |name: &str, value: &str| {
        format!("UPDATE settings SET value = '{value}' WHERE name = '{name}'")
    };
    run(&mut admin, &set("installation", "bbbb")).await;
    terminate(&mut admin, "").await;
    until_it_says(&store, "of installation bbbb").await;
    run(&mut admin, &set("installation", "aaaa")).await;
    until_it_answers(&store).await;
    assert!(store.turns() > turns, "what was read before may be old");

    run(&mut admin, "ALTER TABLE settings RENAME TO elsewhere").await;
    terminate(&mut admin, "").await;
    until_it_says(&store, "none of this server's tables").await;
    run(&mut admin, "ALTER TABLE elsewhere RENAME TO settings").await;
    until_it_answers(&store).await;
    assert!(store.superseded().is_none());

    // Put back to an earlier state.
    run(&mut admin, &set("store_epoch", "1")).await;
    terminate(&mut admin, "").await;
    until_it_says(&store, "put back to an earlier state").await;
    assert!(store.superseded().is_some());
    store.close().await;

    // Another copy of it, of the same epoch.
    let store = Store::connect(postgres.clone()).await.unwrap();
    let copy = format!("{}_copy", database.name);
    let mut server = database.elsewhere().await;
    let name = &database.name;
    let wall = format!("UPDATE pg_database SET datallowconn = false WHERE datname = '{name}'");
    run(&mut server, &wall).await;
    admin.close().await.unwrap();
    loop {
        // Until nobody is in it, whoever knocks meanwhile.
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        run(&mut server, &end).await;
        let made = sqlx::AssertSqlSafe(format!("CREATE DATABASE {copy} TEMPLATE {name}"));
        if sqlx::raw_sql(made).execute(&mut server).await.is_ok() {
            break;
        }
    }
    for sql in [
        format!("ALTER DATABASE {name} RENAME TO {name}_old"),
        format!("ALTER DATABASE {copy} RENAME TO {name}"),
        format!("UPDATE pg_database SET datallowconn = true WHERE datname = '{name}'"),
    ] {
        run(&mut server, &sql).await;
    }
    until_it_says(&store, "is another copy").await;
    assert!(store.superseded().is_some());
    store.close().await;
    run(&mut server, &format!("DROP DATABASE {name}_old")).await;
    server.close().await.unwrap();

    // A start looks as well, before it writes anything.
    postgres.installation = Some("cccc".into());
    let error = Store::connect(postgres).await.unwrap_err();
    assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
    assert!(
        error.to_string().contains("of installation aaaa"),
        "{error}"
    );
    database.drop().await;
}

/// The beat that the database has, once it is past this one.
async fn beat_past(store: &mut sqlx::PgConnection, before: i64) -> i64 {
    let since = Instant::now();
    loop {
        let sql = "SELECT coalesce(max(value::bigint), 0) FROM settings WHERE name = 'store_beat'";
        let now = sqlx::query_scalar(sql)
            .fetch_one(&mut *store)
            .await
            .unwrap();
        if now > before {
            return now;
        }
        assert!(since.elapsed() < PATIENCE, "never past {before}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// By the same server, in the same epoch, and without an outage.
#[tokio::test]
async fn an_earlier_state_of_the_same_life_is_noticed() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let mut admin = database.session().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    let first = beat_past(&mut admin, 0).await;
    // A lock on the table keeps nobody from the store.
    run(
        &mut admin,
        "BEGIN; LOCK TABLE settings IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    store.create_user(&user(2, "ben")).await.unwrap();
    tokio::time::sleep(limits::STORE_LOCK_LOOK * 4).await;
    store.create_user(&user(3, "cyd")).await.unwrap();
    run(&mut admin, "COMMIT").await;
    let second = beat_past(&mut admin, first).await;
    store.create_user(&user(4, "dan")).await.unwrap();
    // Written only when the one before counts.
    beat_past(&mut admin, second).await;
    assert!(store.superseded().is_none());
    // Gone, as in the middle of a restore: nothing is said yet.
    run(&mut admin, "ALTER TABLE settings RENAME TO elsewhere; CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)").await;
    until_it_says(&store, "is it being restored").await;
    assert!(store.superseded().is_none());
    run(
        &mut admin,
        "DROP TABLE settings; ALTER TABLE elsewhere RENAME TO settings",
    )
    .await;
    until_it_answers(&store).await;
    let back = format!("UPDATE settings SET value = '{first}' WHERE name = 'store_beat'");
    run(&mut admin, &back).await;
    until_it_says(&store, "put back to an earlier state").await;
    assert!(store.superseded().is_some());
    admin.close().await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn something_elses_database_is_left_as_it_is() {
    let Some(database) = Database::new().await else {
        return;
    };
    let tables = "CREATE TABLE orders (id int); CREATE TABLE invoices (id int)";
    database.run(tables).await;
    let error = database.refused("suite").await;
    assert!(matches!(error, StoreError::Unfit { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("`invoices` and 1 more"), "{text}");
    let mut admin = database.session().await;
    let ours = "SELECT count(*) FROM pg_class WHERE relname = '_sqlx_migrations'";
    let ours: i64 = sqlx::query_scalar(ours)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(ours, 0, "nothing was made in it");
    database.drop().await;
}

#[tokio::test]
async fn a_start_waits_for_a_lock_within_a_bound() {
    let Some(database) = Database::new().await else {
        return;
    };
    database.store().await.close().await;
    let mut other = database.session().await;
    run(
        &mut other,
        "BEGIN; LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let since = Instant::now();
    let error = timeout(PATIENCE, database.refused("suite")).await.unwrap();
    assert_eq!(fault(&error), Fault::Busy, "{error:?}");
    assert!(since.elapsed() >= limits::STORE_MIGRATE_LOCK_MAX);
    run(&mut other, "COMMIT").await;
    database.store().await.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_locked_table_leaves_administrators_a_connection() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let (_, key) = keyed(&store, 9, "zoe").await;
    let mut other = database.session().await;
    run(
        &mut other,
        "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (store, session) = (store.clone(), session(n, &key));
        clients.spawn(async move { store.create_session(&session).await });
    }
    // All that clients may have is taken.
    while store.connections().open - store.connections().idle < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for n in 20..25 {
        let since = Instant::now();
        store.ping().await.unwrap();
        store.create_user(&user(n, &format!("u{n}"))).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(2));
    }
    run(&mut other, "COMMIT").await;
    while let Some(done) = clients.join_next().await {
        done.unwrap().unwrap();
    }
    store.close().await;
    database.drop().await;
}
