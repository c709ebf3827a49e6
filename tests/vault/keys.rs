//! Master keys and token keys: rotated online, through crashes, and refused when they do not fit.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use legation::domain::ids::{McpId, UserId};
use legation::domain::seal::{MasterKeys, Place, Sealed};
use secrecy::ExposeSecret;
use serde_json::json;
use sqlx::{Connection, Row, SqliteConnection};

use super::{careless, pid, seen, set, warm};
use crate::world::{LEGATION, World};

/// Values put into the database behind the gateway's back, so that sealing them anew takes a while.
const PLANTED: usize = 1500;
const CRASHES: u64 = 12;
/// Whose value it is, for `credential set`.
const ADA: [&str; 2] = ["--user", "ada"];

fn keys_of(world: &World) -> MasterKeys {
    let bytes = std::fs::read(world.data_dir().join("keys/master.key")).unwrap();
    MasterKeys::parse_file(&bytes).unwrap()
}

fn value(n: usize) -> String {
    format!("planted value {n} {}", "x".repeat(n % 400))
}

async fn database(world: &World) -> SqliteConnection {
    let path = world.data_dir().join("legation.db");
    let url = format!("sqlite://{}", path.display());
    SqliteConnection::connect(&url).await.unwrap()
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Seals values as the stopped gateway would have.
async fn plant(world: &World) {
    let keys = keys_of(world);
    let mut db = database(world).await;
    let row = sqlx::query(
        "SELECT u.id, m.id FROM users u, mcps m WHERE u.name = 'ada' AND m.name = 'gh'",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    let (user, mcp): (String, String) = (row.get(0), row.get(1));
    let (user_id, mcp_id) = (UserId::parse(&user).unwrap(), McpId::parse(&mcp).unwrap());
    let mut tx = db.begin().await.unwrap();
    for n in 0..PLANTED {
        let name = format!("N{n}");
        let place = Place {
            user: &user_id,
            mcp: &mcp_id,
            field: &name,
        };
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let sealed = keys.seal(place, nonce, value(n).as_bytes()).unwrap();
        sqlx::query(
            "INSERT INTO credentials (holder, mcp_id, name, sealed, version, set_at, set_by) \
             VALUES ($1, $2, $3, $4, 1, 0, 'test')",
        )
        .bind(&user)
        .bind(&mcp)
        .bind(&name)
        .bind(sealed.to_text())
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
    db.close().await.unwrap();
}

/// Opens everything that is stored with what is in the key file.
async fn all_open(world: &World) -> usize {
    let keys = keys_of(world);
    let mut db = database(world).await;
    let rows = sqlx::query("SELECT holder, mcp_id, name, sealed FROM credentials")
        .fetch_all(&mut db)
        .await
        .unwrap();
    for row in &rows {
        let (holder, mcp, name): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let (user, mcp) = (UserId::parse(&holder).unwrap(), McpId::parse(&mcp).unwrap());
        let place = Place {
            user: &user,
            mcp: &mcp,
            field: &name,
        };
        let sealed = Sealed::parse(row.get::<&str, _>(3)).unwrap();
        let opened = keys.open(place, &sealed).unwrap();
        if let Some(n) = name.strip_prefix('N').and_then(|n| n.parse().ok()) {
            assert_eq!(opened.expose_secret(), value(n).as_bytes(), "{name}");
        }
    }
    db.close().await.unwrap();
    rows.len()
}

#[test]
fn a_rotation_loses_nothing_however_often_it_is_killed() {
    let mut world = World::new();
    careless(&world, "gh");
    let key = world.key("ada");
    world.stop();
    block(plant(&world));
    // Besides ada's own there is the shared value, with which it was discovered.
    let all = PLANTED + 2;
    let first = keys_of(&world).current_id();
    // Any sequence will do, as long as the moments differ.
    let mut moment = u64::from(std::process::id());
    let mut caught = 0;
    for round in 1..=CRASHES {
        world.start();
        set(&world, &ADA, "gh", &format!("round {round}"), false);
        let mut rotating = Command::new(LEGATION)
            .args(["--yes", "vault", "rotate"])
            .env("LEGATION_DATA_DIR", world.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // The very point: killed at whatever moment it is.
        std::thread::sleep(Duration::from_micros((moment >> 33) % 150_000));
        world.kill_9();
        rotating.wait().unwrap();
        assert_eq!(block(all_open(&world)), all, "round {round}");
        caught += usize::from(keys_of(&world).ids().len() > 1);
    }
    assert!(caught > 0, "no kill fell into a rotation");
    world.start();
    let ada = world.client_of_key(&key);
    warm(&ada);
    assert_eq!(seen(&world, "ada", "gh"), format!("round {CRASHES}"));
    let before = pid(&world, "gh", "ada");
    let last = world.until("it can be rotated again", |world| {
        let ran = world.run(&["--yes", "-o", "json", "vault", "rotate"]);
        let view = serde_json::from_str::<serde_json::Value>(&ran.stdout).ok();
        view.filter(|_| ran.code == 0)
    });
    assert!(last["master_key"].as_u64().unwrap() > u64::from(first));
    world.until("all is sealed anew", |world| {
        let status = world.cli(&["vault", "status"]);
        assert_eq!(status["damaged"], 0, "{status}");
        (status["rotating"] == false && status["remaining"] == 0).then_some(())
    });
    warm(&ada);
    assert_eq!(
        pid(&world, "gh", "ada"),
        before,
        "a rotation restarts nothing"
    );
    world.stop();
    assert_eq!(keys_of(&world).ids().len(), 1, "only the newest is kept");
    assert_eq!(block(all_open(&world)), all);
    world.start();
    warm(&world.client_of_key(&key));
    assert_eq!(seen(&world, "ada", "gh"), format!("round {CRASHES}"));
}

#[test]
fn a_value_that_does_not_open_is_refused_and_keeps_its_key() {
    let mut world = World::new();
    careless(&world, "gh");
    let keys = ["ada", "eve"].map(|user| world.key(user));
    set(&world, &ADA, "gh", "the value of ada", false);
    set(&world, &["--user", "eve"], "gh", "the value of eve", false);
    world.stop();
    // Somebody with the database at hand gives ada the value of eve.
    let of = |name: &str| format!("holder = (SELECT id FROM users WHERE name = '{name}')");
    block(async {
        let (ada, eve) = (of("ada"), of("eve"));
        let moved = format!(
            "UPDATE credentials SET sealed = (SELECT sealed FROM credentials WHERE {eve}) WHERE {ada}"
        );
        let mut db = database(&world).await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(moved))
            .execute(&mut db)
            .await
            .unwrap();
        db.close().await.unwrap();
    });
    world.start();
    let ada = world.client_of_key(&keys[0]);
    let refused = ada.call("echo", json!({"text": "x"}));
    let text = refused.json().to_string();
    assert!(text.contains("does not open"), "{text}");
    assert_ne!(seen(&world, "ada", "gh"), "the value of eve");
    warm(&world.client_of_key(&keys[1]));

    world.cli(&["vault", "rotate"]);
    let status = world.until("the rotation has come to its end", |world| {
        let status = world.cli(&["vault", "status"]);
        (status["damaged"] == 1).then_some(status)
    });
    assert_eq!(
        (&status["rotating"], &status["remaining"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        status["master_keys"],
        json!([1, 2]),
        "the old key is kept for it"
    );
    set(&world, &ADA, "gh", "another value", false);
    world.until("nothing keeps the old key", |world| {
        (world.cli(&["vault", "status"])["master_keys"] == json!([2])).then_some(())
    });
    warm(&ada);
    assert_eq!(seen(&world, "ada", "gh"), "another value");
}

#[test]
fn another_master_key_is_refused_by_name() {
    let mut world = World::new();
    world.stop();
    let file = world.data_dir().join("keys/master.key");
    let right = std::fs::read(&file).unwrap();
    let refused = |world: &World| {
        let out = Command::new(LEGATION)
            .args(["serve", "--config"])
            .arg(world.dir.path().join("legation.toml"))
            .arg("--data-dir")
            .arg(world.data_dir())
            .output()
            .unwrap();
        assert!(!out.status.success());
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains("keys/master.key"), "{said}");
        said
    };
    for wrong in [vec![9; 32], vec![9; 31], Vec::new()] {
        std::fs::write(&file, wrong).unwrap();
        let said = refused(&world);
        assert!(said.contains("E0531"), "{said}");
    }
    // A lost one was replaced before it was missed.
    std::fs::remove_file(&file).unwrap();
    let said = refused(&world);
    assert!(
        said.contains("E0531") && said.contains("is missing"),
        "{said}"
    );
    assert!(!file.exists(), "nothing was put in its place");
    std::fs::write(&file, right).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    world.start();
}

#[test]
fn tokens_of_a_rotated_key_work_for_the_grace_and_no_longer() {
    let world = World::with("[sessions]\ntoken_grace_ms = 3000\n");
    world.demo("demo", &[]);
    let key = world.key("ada");
    let old = world.client_of_key(&key);
    assert_eq!(old.ask("echo", json!({"text": "before"})), "before");
    let rotated = world.cli(&["vault", "rotate-tokens"]);
    assert_eq!(
        (&rotated["token_key"], &rotated["token_keys_in_grace"]),
        (&json!(2), &json!([1]))
    );
    assert_eq!(old.ask("echo", json!({"text": "in grace"})), "in grace");
    let new = world.client_of_key(&key);
    let refused = world.until("the grace is over", |_| {
        let answer = old.call("echo", json!({"text": "x"}));
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (401, "session_expired")
    );
    assert_eq!(new.ask("echo", json!({"text": "after"})), "after");
    assert_eq!(
        world.cli(&["vault", "status"])["token_keys_in_grace"],
        json!([])
    );
}

#[test]
fn so_many_token_keys_are_in_their_grace_and_no_more() {
    let mut world = World::with("[sessions]\ntoken_grace_ms = 3600000\n");
    world.demo("demo", &[]);
    let oldest = world.client("ada");
    for id in 2..=9 {
        assert_eq!(world.cli(&["vault", "rotate-tokens"])["token_key"], id);
    }
    let refused = world.run(&["-y", "vault", "rotate-tokens"]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("token_grace_ms"),
        "{}",
        refused.stderr
    );
    assert_eq!(oldest.ask("echo", json!({"text": "still"})), "still");
    world.stop();
    world.start();
    let oldest = crate::world::Session {
        http: crate::world::Http::new(&world.url),
        ..oldest
    };
    assert_eq!(oldest.ask("echo", json!({"text": "again"})), "again");
    assert_eq!(world.cli(&["vault", "status"])["token_key"], 9);
}
