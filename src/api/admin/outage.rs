//! An hour without PostgreSQL, in fast motion: the server is a real one that is halted and started
//! again, wall time is moved by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::house::TestHouse;
use super::suite::World;
use crate::actors::clock::SetClock;
use crate::actors::front::{Aside, Called, Front, Outcome, Registration};
use crate::config::Config;
use crate::domain::code::Code;
use crate::domain::dsn::Dsn;
use crate::storage::suite::server::tools;

const PATIENCE: Duration = Duration::from_secs(60);
const MINUTE: i64 = 60_000;

/// A server of the test's own.
struct Server(PathBuf);

impl Server {
    fn tell(&self, word: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres.sh");
        Command::new(script)
            .arg(word)
            .arg(&self.0)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn start(folder: &Path) -> Option<(Self, Dsn)> {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(folder, open).unwrap();
        let server = Self(folder.join("pg"));
        if !server.tell("bin").status.success() {
            tools::skip(
                "postgres: an hour without it",
                "no initdb here; install postgresql",
            );
            return None;
        }
        let started = server.tell("start");
        let said = String::from_utf8_lossy(&started.stdout).into_owned();
        let sockets = said.trim().split_once("host=").unwrap().1;
        let url = format!(
            "postgres://legation@{}/postgres",
            sockets.replace('/', "%2F")
        );
        Some((server, Dsn::parse(&url).unwrap()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell("stop");
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn register(front: &Front, key: &str) -> SecretString {
    let registration = Registration {
        questions: crate::domain::talk::Questions::NONE,
        preshared_key: SecretString::from(key),
        friendly_name: "test".to_owned(),
        host_tool: "cli".to_owned(),
        from: None,
    };
    front.register(registration).await.unwrap().token
}

/// The code that a call fails with, if it does.
async fn call(front: &Front, token: &SecretString, tool: &str) -> Option<Code> {
    let session = match front.authenticate(Some(token.expose_secret()), None) {
        Ok(session) => session,
        Err(refusal) => return Some(refusal.code),
    };
    let none = serde_json::from_str("{}").unwrap();
    let aside = Aside::default();
    match front
        .call(&session, Called::Exposed(tool), none, &aside)
        .await
    {
        Outcome::Answered(_) => None,
        Outcome::Failed(failure) => Some(failure.code),
    }
}

async fn switch_on(world: &World, scope: &str, target: &str, minutes: Option<i64>) {
    let mut wanted = json!({"scope": scope, "target": target, "reason": "drill"});
    if let Some(minutes) = minutes {
        wanted["expires_in_ms"] = json!(minutes * MINUTE);
    }
    let (status, answer) = world.post("/v1/kill-switches", wanted).await;
    assert!(status < 300, "{answer}");
}

/// How many switches are as they should be: on, over, and not yet stored.
async fn switches(world: &World) -> (usize, usize, usize) {
    let (_, all) = world.get("/v1/kill-switches?history=true").await;
    let all = all.as_array().unwrap();
    let count = |fits: &dyn Fn(&Value) -> bool| all.iter().filter(|one| fits(one)).count();
    (
        count(&|one| one["state"] == "on"),
        count(&|one| one["state"] == "expired"),
        count(&|one| one["stored"] == false),
    )
}

#[tokio::test]
async fn an_hour_without_the_database_loses_nothing_and_lifts_nothing() {
    const STEPS: usize = 30;
    const TOOLS: [&str; 3] = ["m0.echo", "m1.echo", "m2.echo"];
    let folder = tempfile::tempdir().unwrap();
    let Some((server, dsn)) = Server::start(folder.path()) else {
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.data_dir = data.path().to_owned();
    config.storage.url = Some(dsn);
    config.sessions.ttl_ms = 30 * 60_000;
    let clock = Arc::new(SetClock::at(1_700_000_000_000));
    let start = || TestHouse::on(config.clone(), Arc::clone(&clock) as _);
    let world = World(start().await);
    let mut keys = Vec::new();
    world.post("/v1/groups", json!({"name": "dev"})).await;
    for name in ["calm", "m0", "m1", "m2"] {
        let mcp = json!({"name": name, "program": {"command": "cat"}});
        world.post("/v1/mcps", mcp).await;
        world
            .post(&format!("/v1/mcps/{name}/publish"), Value::Null)
            .await;
        let (status, answer) = world
            .post("/v1/groups/dev/grants", json!({"mcp": name}))
            .await;
        assert!(status < 300, "{answer}");
    }
    for name in ["ada", "ben", "cid"] {
        world.post("/v1/users", json!({"name": name})).await;
        world
            .post("/v1/groups/dev/members", json!({"user": name}))
            .await;
        let (_, made) = world
            .post("/v1/keys", json!({"user": name, "label": "x"}))
            .await;
        keys.push(made["secret"].as_str().unwrap().to_owned());
    }
    let front = world.0.front();
    let mut tokens = Vec::new();
    for key in &keys {
        tokens.push(register(&front, key).await);
    }
    let [ada, ben, cid] = &tokens[..] else {
        panic!("three");
    };
    for token in &tokens {
        assert_eq!(call(&front, token, "calm.echo").await, None);
    }

    server.tell("halt");
    let not_ready = || world.0.control().status().not_ready;
    until("it is known to be away", async || not_ready() == ["store"]).await;
    for step in 0..STEPS {
        clock.advance(2 * MINUTE);
        if step == 5 {
            switch_on(&world, "user", "cid", None).await;
        }
        // Its last switch is six minutes old, and was for five.
        let one = step % 3;
        switch_on(&world, "mcp", &format!("m{one}"), Some(5)).await;
        assert_eq!(
            call(&front, ada, TOOLS[one]).await,
            Some(Code::KillSwitchActive)
        );
        assert_eq!(call(&front, ada, "calm.echo").await, None, "calls go on");
        let (status, answer) = world
            .post("/v1/users", json!({"name": format!("u{step}")}))
            .await;
        assert_eq!(
            (status, &answer["code"]),
            (503, &json!("store_unavailable")),
            "{answer}"
        );
        // Sweeps of switches and of sessions, saves that fail, looks for the database.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(not_ready(), ["store"]);
    clock.advance(6 * MINUTE);
    until("what had an end is over", async || {
        let (on, over, unsaved) = switches(&world).await;
        (on, over, unsaved) == (1, STEPS, STEPS + 1)
    })
    .await;
    for tool in TOOLS {
        assert_eq!(call(&front, ada, tool).await, None, "{tool}");
    }
    assert_eq!(
        call(&front, ben, "calm.echo").await,
        Some(Code::SessionExpired)
    );
    let denied = call(&front, cid, "calm.echo").await;
    assert!(
        matches!(denied, Some(Code::KillSwitchActive | Code::SessionExpired)),
        "{denied:?}"
    );
    for service in &world.0.control().tree().children {
        assert_eq!(
            (service.state.as_str(), service.restarts),
            ("up", 0),
            "{}",
            service.name
        );
    }

    server.tell("again");
    until("it is ready again", async || not_ready().is_empty()).await;
    until("all switches are stored", async || {
        switches(&world).await == (1, STEPS, 0)
    })
    .await;
    let (status, answer) = world.post("/v1/users", json!({"name": "eve"})).await;
    assert!(status < 300, "{answer}");
    let verified = world.0.control().audit_verify().await.unwrap();
    assert!(verified.whole, "{verified:?}");

    // A new life has it from the database: what is on is on, and ada's session is as fresh as it was.
    until("session times are saved", async || {
        let control = world.0.control();
        let rows = control.store().live_sessions(0).await.unwrap();
        rows.iter()
            .any(|row| row.seen_at > 1_700_000_000_000 + 60 * MINUTE)
    })
    .await;
    assert!(world.0.stop().await, "it stops in time");
    let world = World(start().await);
    let front = world.0.front();
    assert_eq!(call(&front, ada, "calm.echo").await, None);
    assert_eq!(switches(&world).await, (1, STEPS, 0));
    let cid = register(&front, &keys[2]).await;
    assert_eq!(
        call(&front, &cid, "calm.echo").await,
        Some(Code::KillSwitchActive)
    );
    assert!(world.0.stop().await, "it stops in time");
}
