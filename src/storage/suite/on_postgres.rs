//! What only a database that is a server has: a lock between servers, faults with SQLSTATEs,
//! victims, connections that are lost.

mod whose;

use std::error::Error as _;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::time::timeout;

use super::samples::{key, keyed, mcp, session, tool, user};
use super::server::{Database, run};
use crate::domain::limits;
use crate::storage::stats::Class;
use crate::storage::{Fault, SessionSeen, Store, StoreError};

/// How long anything may take before a test calls it stuck.
const PATIENCE: Duration = Duration::from_secs(60);

fn fault(error: &StoreError) -> Fault {
    match error {
        StoreError::Unavailable { fault, .. } => *fault,
        other => panic!("{other:?}"),
    }
}

/// Asks until the store answers.
async fn until_it_answers(store: &Store) {
    let since = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(since.elapsed() < PATIENCE, "never: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the store's sessions: all, or the lock's alone.
async fn terminate(session: &mut PgConnection, which: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = \
         current_database() AND application_name = 'suite' {which}"
    );
    run(session, &sql).await;
}

const THE_LOCK: &str =
    "AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 1)";

#[tokio::test]
async fn a_second_server_is_refused_and_learns_whose_it_is() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let since = Instant::now();
    let error = database.refused("other").await;
    assert!(since.elapsed() >= limits::STORE_HELD_WAIT);
    let StoreError::Held { holder, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(
        holder.starts_with("suite from a socket since 20"),
        "{holder}"
    );
    store.ping().await.unwrap();
    store.close().await;
    let other = Store::connect(database.postgres("other")).await.unwrap();
    // Dropped without a word, as by a start that fails later on.
    drop(other);
    database.store().await.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_lost_lock_is_taken_again_and_until_then_nothing_is_written() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    let mut admin = database.session().await;
    terminate(&mut admin, THE_LOCK).await;
    until_it_answers(&store).await;
    store.create_user(&user(2, "bob")).await.unwrap();

    // Another server is faster, in the very moment. What the first still writes before the
    // second serves is written by the only one; then, nothing.
    let writing = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 10..u8::MAX {
                match store.create_user(&user(n, &format!("u{n}"))).await {
                    Err(error) if fault(&error) == Fault::Held => return Some(error),
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            None
        })
    };
    let second = loop {
        terminate(&mut admin, THE_LOCK).await;
        match Store::connect(database.postgres("other")).await {
            Ok(second) => break second,
            Err(StoreError::Held { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    let users = second.users().await.unwrap();
    let refused = timeout(PATIENCE, writing).await.unwrap().unwrap();
    assert!(refused.is_some(), "the first never learnt of the second");
    assert_eq!(second.users().await.unwrap(), users, "one writes at a time");
    let error = store.ping().await.unwrap_err();
    assert!(
        error.source().unwrap().to_string().contains("other"),
        "{error:?}"
    );
    assert!(store.superseded().is_none());
    second.close().await;
    // The database is free again, and what the first knows is old: it does not go on.
    let since = Instant::now();
    while store.superseded().is_none() {
        assert!(since.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let why = store.superseded().unwrap();
    assert!(why.contains("served by other"), "{why}");
    let error = store.ping().await.unwrap_err();
    assert_eq!(fault(&error), Fault::Unfit, "{error:?}");
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn lost_connections_cost_reads_nothing_and_heal() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    store.create_user(&user(1, "ada")).await.unwrap();
    let mut admin = database.session().await;
    let not_the_lock = THE_LOCK.replace("IN", "NOT IN");
    for _ in 0..5 {
        assert!(store.connections().open > 0);
        terminate(&mut admin, &not_the_lock).await;
        assert_eq!(store.users().await.unwrap().len(), 1);
    }
    assert!(store.stats().of(Class::Read).again > 0);
    terminate(&mut admin, "").await;
    until_it_answers(&store).await;
    assert_eq!(store.users().await.unwrap().len(), 1);
    store.close().await;
    database.drop().await;
}

/// Makes the database refuse new users with an error of this code, the first `times` times.
async fn refuse_users(database: &Database, code: &str, times: u32) {
    database
        .run(&format!(
            "CREATE SEQUENCE IF NOT EXISTS tries; ALTER SEQUENCE tries RESTART; \
             CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; \
             END IF; RETURN NEW; END $$; \
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON users \
             FOR EACH ROW EXECUTE FUNCTION refuse(); \
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON sessions \
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
}

#[tokio::test]
async fn what_the_server_says_is_told_apart() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    for (code, expected) in [
        ("53100", Fault::Full),
        ("53300", Fault::Busy),
        ("25006", Fault::ReadOnly),
        ("57014", Fault::Busy),
        ("55P03", Fault::Busy),
        ("42501", Fault::Refused),
        ("58030", Fault::Io),
        ("57P01", Fault::Away),
        ("08006", Fault::Away),
        ("40001", Fault::Busy),
        ("P0001", Fault::Other),
    ] {
        refuse_users(&database, code, 1000).await;
        let error = store.create_user(&user(1, "ada")).await.unwrap_err();
        assert_eq!(fault(&error), expected, "{code}: {error:?}");
    }
    refuse_users(&database, "XX001", 1000).await;
    let error = store.create_user(&user(1, "ada")).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    refuse_users(&database, "XX001", 0).await;
    until_it_answers(&store).await;
    let mut zero = key(1, &user(1, "ada"));
    store.create_user(&user(1, "ada")).await.unwrap();
    zero.label = "a\0b".into();
    let error = store.create_key(&zero).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Conflict { kind: "text", .. }),
        "{error:?}"
    );
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_server_that_turns_read_only_is_named_until_it_is_not() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let name = &database.name;
    let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    database.run(&sql).await;
    let mut admin = database.session().await;
    run(&mut admin, "SET default_transaction_read_only = off").await;
    terminate(&mut admin, "").await;
    let since = Instant::now();
    loop {
        match store.create_user(&user(1, "ada")).await {
            Err(error) if fault(&error) == Fault::ReadOnly => break,
            Err(_) => assert!(since.elapsed() < PATIENCE),
            Ok(()) => panic!("it wrote to what is read only"),
        }
    }
    let sql = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    run(&mut admin, &sql).await;
    until_it_answers(&store).await;
    store.create_user(&user(1, "ada")).await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn victims_are_tried_again_within_a_bound() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let (_, key) = keyed(&store, 9, "zoe").await;
    store.create_session(&session(1, &key)).await.unwrap();
    let few = limits::STORE_WRITE_TRIES - 1;
    for (n, code) in [(1, "40001"), (2, "40P01")] {
        refuse_users(&database, code, few).await;
        let name = format!("u{n}");
        store.create_user(&user(n, &name)).await.unwrap();
        // The same for many at once.
        refuse_users(&database, code, few).await;
        let seen = SessionSeen {
            id: session(1, &key).id,
            seen_at: 4000 + i64::from(n),
            expires_at: 20_000 + i64::from(n),
        };
        store
            .extend_sessions(std::slice::from_ref(&seen))
            .await
            .unwrap();
        let stored = store.live_sessions(0).await.unwrap();
        assert_eq!(stored[0].expires_at, seen.expires_at);
    }
    assert_eq!(store.stats().of(Class::Write).again, 4 * u64::from(few));
    refuse_users(&database, "40001", limits::STORE_WRITE_TRIES).await;
    let error = store.create_user(&user(5, "eve")).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Busy, "{error:?}");
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_deadlock_with_somebody_elses_session_is_survived() {
    let Some(database) = Database::new().await else {
        return;
    };
    let sql = format!(
        "ALTER DATABASE {} SET deadlock_timeout = '50ms'",
        database.name
    );
    database.run(&sql).await;
    let store = database.store().await;
    let (_, key) = keyed(&store, 9, "zoe").await;
    for n in [1, 2] {
        store.create_session(&session(n, &key)).await.unwrap();
    }
    let mut other = database.session().await;
    let lock = |n: u8| {
        let id = session(n, &key).id;
        format!("SELECT 1 FROM sessions WHERE id = '{id}' FOR UPDATE")
    };
    run(&mut other, "BEGIN").await;
    run(&mut other, "SET LOCAL deadlock_timeout = '1h'").await;
    run(&mut other, &lock(2)).await;
    let seen = |n: u8| SessionSeen {
        id: session(n, &key).id,
        seen_at: 5000,
        expires_at: 30_000,
    };
    let ours = {
        let (store, batch) = (store.clone(), [seen(1), seen(2)]);
        tokio::spawn(async move { store.extend_sessions(&batch).await })
    };
    let mut admin = database.session().await;
    let waiting = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'suite' \
            AND datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = sqlx::query_scalar(sql).fetch_one(&mut admin).await.unwrap();
        waiting > 0
    };
    let mut waiting = waiting;
    while !waiting().await {}
    // Closes the circle: ours looks first, finds it, and gives way.
    run(&mut other, &lock(1)).await;
    run(&mut other, "COMMIT").await;
    timeout(PATIENCE, ours).await.unwrap().unwrap().unwrap();
    for stored in store.live_sessions(0).await.unwrap() {
        assert_eq!(stored.expires_at, 30_000);
    }
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn of_two_who_replace_tools_the_last_wins_and_neither_fails() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let one = mcp(1, "one");
    store.create_mcp(&one, 1).await.unwrap();
    store.replace_tools(&one.id, &[tool("old")]).await.unwrap();
    let sets = [[tool("a"), tool("b")], [tool("b"), tool("a")]];
    for _ in 0..20 {
        let (x, y) = tokio::join!(
            store.replace_tools(&one.id, &sets[0]),
            store.replace_tools(&one.id, &sets[1])
        );
        x.unwrap();
        y.unwrap();
        let stored = store.tools_of(&one.id).await.unwrap();
        assert!(sets.iter().any(|set| stored == *set), "{stored:?}");
    }
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_lock_that_somebody_holds_is_waited_for_within_a_bound() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let mut other = database.session().await;
    run(
        &mut other,
        "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    let error = timeout(PATIENCE, store.create_user(&user(1, "ada")))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(fault(&error), Fault::Busy, "{error:?}");
    run(&mut other, "COMMIT").await;
    store.create_user(&user(1, "ada")).await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn what_a_caller_leaves_in_the_middle_is_not_lent_again() {
    let Some(database) = Database::new().await else {
        return;
    };
    let mut postgres = database.postgres("suite");
    postgres.pool_max = 2;
    let store = Store::connect(postgres).await.unwrap();
    let mut other = database.session().await;
    run(
        &mut other,
        "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE",
    )
    .await;
    for n in 0..10 {
        let user = user(n, &format!("u{n}"));
        let left = timeout(Duration::from_millis(20), store.create_user(&user)).await;
        assert!(left.is_err(), "it waits");
    }
    assert_eq!(store.connections().open, 0, "each was closed");
    run(&mut other, "COMMIT").await;
    for _ in 0..4 {
        store.ping().await.unwrap();
    }
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(database) = Database::new().await else {
        return;
    };
    database.store().await.close().await;
    database
        .run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, \
             execution_time) VALUES (9999, 'future', TRUE, '\\x00', 0)",
        )
        .await;
    let error = database.refused("suite").await;
    assert!(
        matches!(error, StoreError::Incompatible { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("9999"), "{error}");
    database.drop().await;
}

#[tokio::test]
async fn who_may_not_enter_is_told_at_once() {
    let Some(database) = Database::new().await else {
        return;
    };
    let since = Instant::now();
    let mut postgres = database.postgres("suite");
    postgres.dsn = database.dsn(&database.name, "nobody_we_know");
    let error = Store::connect(postgres).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Refused, "{error:?}");
    let mut postgres = database.postgres("suite");
    postgres.dsn = database.dsn("no_such_database", "legation");
    let error = Store::connect(postgres).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Refused, "{error:?}");

    // A role that may make nothing; then one that may, with no place for a second session.
    let role = format!("role_{}", database.name);
    database.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let mut postgres = database.postgres("suite");
    postgres.dsn = database.dsn(&database.name, &role);
    let error = Store::connect(postgres.clone()).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Refused, "{error:?}");
    let grant =
        format!("GRANT CREATE ON SCHEMA public TO {role}; ALTER ROLE {role} CONNECTION LIMIT 1");
    database.run(&grant).await;
    let store = Store::connect(postgres).await.unwrap();
    let error = store.create_user(&user(1, "ada")).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Busy, "{error:?}");
    let more = format!("ALTER ROLE {role} CONNECTION LIMIT -1");
    database.run(&more).await;
    store.create_user(&user(1, "ada")).await.unwrap();
    assert!(since.elapsed() < PATIENCE);
    store.close().await;
    let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    database.run(&gone).await;
    database.drop().await;
}
