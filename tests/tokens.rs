//! Keys and tokens: who may speak, for how long, and that nobody's mistake ends another's session.

use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::world::{Answer, Http, Session, World};

fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (status, code),
        "{answer:?}"
    );
    answer.json()["message"].as_str().unwrap().to_owned()
}

fn works(session: &Session) {
    assert_eq!(session.ask("echo", json!({"text": "on"})), "on");
}

fn key_ids(world: &World, user: &str) -> Vec<String> {
    let keys = world.cli(&["key", "list", "--user", user]);
    let keys = keys.as_array().unwrap().iter();
    keys.map(|key| key["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Milliseconds since the epoch, to the database.
const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Changes the database of a stopped gateway.
fn sql(world: &World, statement: &str) {
    let path = world.data_dir().join("legation.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    });
}

fn rows(world: &World, statement: &'static str) -> i64 {
    let path = world.data_dir().join("legation.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let asked = sqlx::query_scalar(statement).fetch_one(&mut connection);
        let count = asked.await.unwrap();
        connection.close().await.unwrap();
        count
    })
}

#[test]
fn a_key_that_is_revoked_while_it_registers_leaves_no_session() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    world.stop();
    sql(
        &world,
        "CREATE TRIGGER revoked AFTER INSERT ON sessions BEGIN \
         UPDATE client_keys SET revoked_at = 1 WHERE id = NEW.key_id; END",
    );
    world.start();
    let answer = Http::new(&world.url).register_with(&key);
    refused(&answer, 401, "key_unknown");
    assert_eq!(rows(&world, "SELECT count(*) FROM sessions"), 0);
    assert_eq!(world.cli(&["session", "list"]), json!([]));
}

#[test]
fn registering_never_ends_another_token() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let http = Http::new(&world.url);
    let mut sessions: Vec<Session> = (0..3).map(|_| http.register(&key)).collect();
    // And at once, as several windows of one editor do.
    let at_once: Vec<_> = (0..8)
        .map(|_| {
            let (http, key) = (http.clone(), key.clone());
            std::thread::spawn(move || http.register(&key))
        })
        .collect();
    sessions.extend(at_once.into_iter().map(|one| one.join().unwrap()));
    let mut tokens: Vec<&str> = sessions
        .iter()
        .map(|session| session.token.as_str())
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), sessions.len());
    sessions.iter().for_each(works);
    assert_eq!(
        world.isolates().len(),
        1,
        "one isolate of one user, however many sessions"
    );
}

/// A client that is started for every task locked its key out for a day.
#[test]
fn a_session_that_was_left_makes_room_and_one_in_use_does_not() {
    let world = World::with("[sessions]\nper_key_max = 2\n");
    world.demo("demo", &[]);
    let key = world.key("ada");
    let http = Http::new(&world.url);
    let (stays, leaves) = (http.register(&key), http.register(&key));
    let text = refused(&http.register_with(&key), 429, "sessions_max");
    assert!(text.contains("2 live sessions"), "{text}");
    let path = format!("/v1/sessions/connections/{}", leaves.connection);
    assert_eq!(leaves.send("DELETE", &path, None).status, 200);
    // Goodbye alone ends nothing: another process may use the token.
    works(&leaves);
    refused(&http.register_with(&key), 429, "sessions_max");
    assert_eq!(leaves.send("DELETE", &path, None).status, 200);
    let next = http.register(&key);
    works(&next);
    works(&stays);
    let answer = leaves.call("echo", json!({"text": "x"}));
    refused(&answer, 401, "session_expired");
}

#[test]
fn a_revoked_key_ends_its_sessions_at_the_next_call_and_no_others() {
    let world = World::new();
    world.demo("demo", &[]);
    let kept = world.client("ada");
    let before = key_ids(&world, "ada");
    let key = world.key("ada");
    let id = key_ids(&world, "ada")
        .into_iter()
        .find(|id| !before.contains(id))
        .unwrap();
    let http = Http::new(&world.url);
    let lost = [http.register(&key), http.register(&key)];
    lost.iter().for_each(works);
    works(&kept);
    assert_eq!(world.cli(&["key", "revoke", &id])["sessions_ended"], 2);
    for session in &lost {
        refused(
            &session.call("echo", json!({"text": "x"})),
            401,
            "session_suspended",
        );
        refused(
            &session.send("GET", "/v1/tools", None),
            401,
            "session_suspended",
        );
        refused(
            &session.send("POST", "/v1/sessions/heartbeat", Some(b"{}")),
            401,
            "session_suspended",
        );
    }
    refused(&http.register_with(&key), 401, "key_unknown");
    works(&kept);
    assert_eq!(
        world.run(&["-y", "key", "revoke", &id]).code,
        0,
        "twice is fine"
    );
}

#[test]
fn a_suspended_user_is_out_until_resumed() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let http = Http::new(&world.url);
    let ada = http.register(&key);
    let bob = world.client("bob");
    works(&ada);
    works(&bob);
    let report = world.cli(&["user", "suspend", "ada", "--reason", "lost her laptop"]);
    assert_eq!(
        (
            report["sessions_ended"].as_u64(),
            report["isolates_stopped"].as_u64()
        ),
        (Some(1), Some(1)),
        "{report}"
    );
    assert_eq!(report["survivors"], json!([]));
    refused(
        &ada.call("echo", json!({"text": "x"})),
        401,
        "session_suspended",
    );
    let text = refused(&http.register_with(&key), 403, "user_disabled");
    assert!(text.contains("lost her laptop"), "{text}");
    works(&bob);
    world.cli(&["user", "resume", "ada"]);
    // What was ended stays ended; the client registers anew by itself.
    assert_eq!(ada.call("echo", json!({"text": "x"})).status, 401);
    works(&http.register(&key));
}

#[test]
fn sessions_and_suspensions_survive_a_restart_and_a_kill() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let mut ada = world.client("ada");
    works(&ada);
    let key = world.key("eve");
    world.cli(&["user", "suspend", "eve"]);
    for kill in [false, true] {
        if kill {
            world.kill_9();
        } else {
            assert_eq!(world.stop(), 0);
        }
        world.start();
        ada.http = Http::new(&world.url);
        works(&ada);
        refused(&ada.http.register_with(&key), 403, "user_disabled");
    }
}

#[test]
fn a_revoked_session_stays_revoked_after_a_restart() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let mut ada = world.client("ada");
    world.cli(&["key", "revoke", key_ids(&world, "ada").first().unwrap()]);
    world.kill_9();
    world.start();
    ada.http = Http::new(&world.url);
    assert_eq!(ada.call("echo", json!({"text": "x"})).status, 401);
}

#[test]
fn a_forged_token_opens_nothing() {
    let (world, other) = (World::new(), World::new());
    for one in [&world, &other] {
        one.demo("demo", &[]);
    }
    let (ada, foreign) = (world.client("ada"), other.client("ada"));
    works(&ada);
    let token = ada.token.as_bytes();
    let mut forged = vec![
        foreign.token.clone(),
        format!("{}A", ada.token),
        ada.token.to_uppercase(),
    ];
    for at in (0..token.len()).step_by(3).chain([token.len() - 1]) {
        let mut bytes = token.to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push(String::from_utf8(bytes).unwrap());
        forged.push(ada.token.get(..at).unwrap().to_owned());
    }
    forged.push("x".repeat(8000));
    for token in forged {
        let answer = ada.http.send("GET", "/v1/tools", Some(&token), None);
        refused(&answer, 401, "unauthorized");
    }
    works(&ada);
}

#[test]
fn an_aged_token_has_its_grace_and_then_ends() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let mut sessions = [world.client("ada"), world.client("ada")];
    assert_eq!(world.stop(), 0);
    let ids: Vec<String> = sessions
        .iter()
        .map(|session| session.connection.clone())
        .collect();
    for (id, ago) in ids.iter().zip([20_000, 120_000]) {
        sql(
            &world,
            &format!("UPDATE sessions SET expires_at = {NOW} - {ago} WHERE connection_id = '{id}'"),
        );
    }
    world.start();
    for session in &mut sessions {
        session.http = Http::new(&world.url);
    }
    let [graced, expired] = sessions;
    works(&graced);
    refused(
        &expired.call("echo", json!({"text": "x"})),
        401,
        "session_expired",
    );
}

#[test]
fn a_key_works_until_it_expires() {
    let mut world = World::new();
    world.demo("demo", &[]);
    world.key("ada");
    let made = world.cli(&["key", "create", "ada", "--expires-in", "1h"]);
    let key = made["secret"].as_str().unwrap();
    let mut session = Http::new(&world.url).register(key);
    works(&session);
    let id = made["key"]["id"].as_str().unwrap();
    assert_eq!(world.stop(), 0);
    sql(
        &world,
        &format!("UPDATE client_keys SET expires_at = {NOW} - 1000 WHERE id = '{id}'"),
    );
    world.start();
    refused(
        &Http::new(&world.url).register_with(key),
        401,
        "key_unknown",
    );
    session.http = Http::new(&world.url);
    refused(
        &session.call("echo", json!({"text": "x"})),
        401,
        "session_suspended",
    );
    let keys = world.cli(&["key", "list"]);
    let state = keys
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["id"] == id)
        .unwrap()["state"]
        .clone();
    assert_eq!(state, "expired");
}

#[test]
fn failures_count_for_a_key_and_lock_out_neither_its_owner_nor_the_office() {
    let world = World::with("[sessions]\nfailed_tries_max = 3\nfailed_window_ms = 600000\n");
    world.demo("demo", &[]);
    let http = Http::new(&world.url);
    let (key, other) = (world.key("ada"), world.key("bob"));
    let wrong = |n: usize| {
        let mut bytes = key.clone().into_bytes();
        let last = bytes.len() - 1 - n;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for n in 0..3 {
        refused(&http.register_with(&wrong(n)), 401, "key_unknown");
    }
    let limited = http.register_with(&wrong(4));
    let text = refused(&limited, 429, "rate_limited");
    assert!(text.contains(" s"), "{text}");
    let headers = limited.headers.to_lowercase();
    let wait = headers
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "))
        .unwrap();
    assert!(
        (1..=600).contains(&wait.trim().parse::<u32>().unwrap()),
        "{wait}"
    );
    assert!(limited.json()["retry_after"].is_u64(), "{}", limited.json());
    // The same address, another key.
    works(&http.register(&other));
    // A prefix is public: whoever knows it must not be able to lock its owner out.
    works(&http.register(&key));
    refused(&http.register_with(&wrong(5)), 429, "rate_limited");
}

#[test]
fn a_key_has_so_many_sessions_and_no_more() {
    let world = World::with("[sessions]\nper_key_max = 2\n");
    world.demo("demo", &[]);
    let http = Http::new(&world.url);
    let (key, other) = (world.key("ada"), world.key("ada"));
    let sessions = [http.register(&key), http.register(&key)];
    let full = http.register_with(&key);
    refused(&full, 429, "sessions_max");
    assert!(
        full.headers.to_lowercase().contains("retry-after:"),
        "{}",
        full.headers
    );
    sessions.iter().for_each(works);
    works(&http.register(&other));
}
