//! Gateways whose store is a PostgreSQL server: each test has a server of its own, so that it can
//! be halted, killed and started again under load.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::tools;
use crate::world::{Http, LEGATION, Session, World};

mod answers;
mod disk;

/// A server of a test's own; dropping it removes it.
struct Server {
    _dir: tempfile::TempDir,
    folder: PathBuf,
    sockets: String,
}

fn script(words: &[&str]) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres.sh");
    Command::new(script)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

impl Server {
    /// Starts one; skips where PostgreSQL is not installed.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        // nobody must reach what is in it.
        open(dir.path());
        let folder = dir.path().join("pg");
        Self::start_in(dir, folder)
    }

    /// The same in a folder that need not be in the directory of its own.
    fn start_in(dir: tempfile::TempDir, folder: PathBuf) -> Option<Self> {
        if !script(&["bin"]).status.success() {
            tools::skip("postgres: gateways", "no initdb here; install postgresql");
            return None;
        }
        let started = script(&["start", folder.to_str().unwrap()]);
        let (out, err) = (text(&started.stdout), text(&started.stderr));
        assert!(started.status.success(), "{err}");
        let sockets = out.trim().split_once("host=").unwrap().1.to_owned();
        Some(Self {
            _dir: dir,
            folder,
            sockets,
        })
    }

    fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn tell(&self, word: &str) {
        let done = script(&[word, self.folder().to_str().unwrap()]);
        assert!(done.status.success(), "{word}: {}", text(&done.stderr));
    }

    /// kill -9, as an accident would.
    fn kill_9(&self) {
        let pid = std::fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let killed = Command::new("kill").args(["-9", pid]).status().unwrap();
        assert!(killed.success());
        let since = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(since.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it is, for a configuration. Its server asks for no password, so any will do.
    fn url(&self) -> String {
        let folder = self.sockets.replace('/', "%2F");
        format!("postgres://legation:hunter2@{folder}/postgres")
    }

    fn config(&self) -> String {
        format!("[storage]\nurl = \"{}\"\n", self.url())
    }

    async fn session(&self, port: u16) -> PgConnection {
        PgConnectOptions::new_without_pgpass()
            .host(&self.sockets)
            .port(port)
            .username("legation")
            .database("postgres")
            .connect()
            .await
            .unwrap()
    }

    fn tell_sql(&self, sql: &'static str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut session = self.session(5432).await;
            sqlx::raw_sql(sql).execute(&mut session).await.unwrap();
            session.close().await.unwrap();
        });
    }

    fn ask(&self, sql: &'static str) -> i64 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut session = self.session(5432).await;
            let answer = sqlx::query_scalar(sql)
                .fetch_one(&mut session)
                .await
                .unwrap();
            session.close().await.unwrap();
            answer
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script(&["stop", self.folder().to_str().unwrap()]);
    }
}

/// Lets everybody through a folder.
fn open(folder: &Path) {
    let through = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(folder, through).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn status(world: &World) -> Value {
    serde_json::from_str(&world.run(&["status", "-o", "json"]).stdout).unwrap()
}

/// The problem that a refused command ends with.
fn problem(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{stderr}"))
}

/// Runs `serve` where it must not come up.
fn refused(config: &str, data: &Path) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("legation.toml");
    let uids = crate::world::am_root().then(crate::world::uids::Slice::take);
    let degrade = crate::world::sandbox(uids.as_ref());
    let text = format!("[client]\nlisten = \"127.0.0.1:0\"\ntls = \"off\"\n{degrade}{config}");
    std::fs::write(&file, text).unwrap();
    let ran = Command::new(LEGATION)
        .args(["-o", "json", "serve", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = self::text(&ran.stderr);
    assert!(!stderr.contains("hunter2"), "{stderr}");
    (ran.status.code().unwrap(), problem(&stderr))
}

/// The same client at a gateway that came back on another port.
fn moved(session: &Session, world: &World) -> Session {
    Session {
        http: Http::new(&world.url),
        ..session.clone()
    }
}

#[test]
fn a_gateway_serves_from_it_and_a_restart_keeps_all() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut world = World::with(&server.config());
    world.demo("demo", &[]);
    let key = world.key("ada");
    let ada = world.client_of_key(&key);
    assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
    let store = &status(&world)["store"];
    assert_eq!(store["kind"], "postgresql");
    let place = format!("{}/.s.PGSQL.5432 postgres", server.sockets);
    assert_eq!(store["place"], place.as_str());
    assert!(!world.data_dir().join("legation.db").exists());

    assert_eq!(world.stop(), 0);
    world.start();
    let again = moved(&ada, &world);
    assert_eq!(again.ask("demo.echo", json!({"text": "y"})), "y");
    world.kill_9();
    world.start();
    let again = moved(&ada, &world);
    assert_eq!(again.ask("demo.echo", json!({"text": "z"})), "z");
    assert_eq!(server.ask("SELECT count(*) FROM sessions"), 1);
    world.client_of_key(&key);

    // Its password is nowhere to be read.
    let shown = world.run(&[
        "config",
        "show",
        "--config",
        world.dir.path().join("legation.toml").to_str().unwrap(),
    ]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("legation:<set>@"), "{}", shown.stdout);
    for said in [&shown.stdout, &world.log(), &status(&world).to_string()] {
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// The same as of a `legation.db` that was deleted.
#[test]
fn an_empty_schema_where_a_server_has_lived_is_refused() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut world = World::with(&server.config());
    world.demo("demo", &[]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
    assert_eq!(world.stop(), 0);
    let schema = "ALTER SCHEMA public RENAME TO aside; CREATE SCHEMA public";
    server.tell_sql(schema);
    for _ in 0..2 {
        let (code, problem) = refused(&server.config(), &world.data_dir());
        assert_eq!(code, 2, "{problem}");
        assert_eq!(problem["code"], "store_lost", "{problem}");
        let next = problem["next"].to_string();
        assert!(next.contains("audit.before"), "{problem}");
    }
    server.tell_sql("DROP SCHEMA public CASCADE; ALTER SCHEMA aside RENAME TO public");
    world.start();
    let again = moved(&ada, &world);
    assert_eq!(again.ask("demo.echo", json!({"text": "y"})), "y");
}

#[test]
fn while_it_is_away_calls_go_on_and_changes_are_refused() {
    let Some(server) = Server::start() else {
        return;
    };
    let world = World::with(&server.config());
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let key = world.key("ben");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let (over, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let ada = ada.clone();
                while !over.load(Ordering::Relaxed) {
                    let n = calls.fetch_add(1, Ordering::Relaxed).to_string();
                    assert_eq!(ada.ask("demo.echo", json!({ "text": n })), n);
                }
            });
        }
        // Whatever fails here must not leave the callers calling.
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            server.tell("halt");
            away(&world, &ada, &key, &calls);
            server.tell("again");
            back(&world, &server, "one");
            server.kill_9();
            away(&world, &ada, &key, &calls);
            server.tell("again");
            back(&world, &server, "two");
        }));
        over.store(true, Ordering::Relaxed);
        tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let ben = Http::new(&world.url).register(&key);
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    let tree = world.cli(&["tree"]);
    for service in tree["children"].as_array().unwrap() {
        assert_eq!(service["restarts"], 0, "{service}");
        assert_eq!(service["state"], "up", "{service}");
    }
}

/// What holds while there is no database.
fn away(world: &World, ada: &Session, key: &str, calls: &AtomicU64) {
    let said = world.until("status says that the store is away", |world| {
        let said = status(world);
        (said["ready"] == false).then_some(said)
    });
    assert_eq!(said["not_ready"], json!(["store"]), "{said}");
    let why = said["store"]["away"].as_str().unwrap();
    assert!(why.contains("does not answer"), "{why}");
    let ran = world.run(&["status"]);
    assert_eq!(ran.code, 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("AWAY, postgresql"), "{}", ran.stdout);

    let since = Instant::now();
    for _ in 0..20 {
        let refused = Http::new(&world.url).register_with(key);
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.code(), "store_unavailable", "{refused:?}");
        let ran = world.run(&["-o", "json", "user", "add", "eve"]);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert_eq!(problem(&ran.stderr)["code"], "store_unavailable");
    }
    // Refused at once, not each after a wait of its own.
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "{:?}",
        since.elapsed()
    );
    let before = calls.load(Ordering::Relaxed);
    world.until("calls go on", |_| {
        (calls.load(Ordering::Relaxed) > before + 100).then_some(())
    });
    let restarted = world.isolate("demo", Some("ada"));
    assert_eq!(restarted["state"], "ready", "{restarted}");
    assert!(!ada.ask("demo.whoami", json!({})).is_empty());
}

/// What holds when it is back.
fn back(world: &World, server: &Server, name: &str) {
    world.until("the store is back", |world| {
        (status(world)["ready"] == true).then_some(())
    });
    world.cli(&["user", "add", name]);
    let seen = "SELECT max(seen_at) FROM sessions";
    let before = server.ask(seen);
    world.until("session times are saved", |_| {
        (server.ask(seen) > before).then_some(())
    });
}

#[test]
fn session_times_of_the_outage_are_saved_after_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let world = World::with(&server.config());
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let registered = server.ask("SELECT max(seen_at) FROM sessions");
    server.tell("halt");
    ada.ask("demo.echo", json!({"text": "the last thing ada does"}));
    world.until("status says that the store is away", |world| {
        (status(world)["ready"] == false).then_some(())
    });
    // At least one save was tried in vain.
    world.until("a save failed", |world| {
        world
            .log()
            .contains("session times are not saved yet")
            .then_some(())
    });
    server.tell("again");
    world.until("what was seen is saved", |_| {
        (server.ask("SELECT max(seen_at) FROM sessions") > registered).then_some(())
    });
}

#[test]
fn a_second_gateway_on_its_database_is_refused() {
    let Some(server) = Server::start() else {
        return;
    };
    let world = World::with(&server.config());
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let other = tempfile::tempdir().unwrap();
    let (code, problem) = refused(&server.config(), other.path());
    assert_eq!(code, 6, "{problem}");
    assert_eq!(problem["code"], "store_held", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("pid {}", world.pid())), "{detail}");
    assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
    assert_eq!(status(&world)["ready"], true);
}

#[test]
fn a_start_without_it_says_so_after_a_bounded_number_of_tries() {
    let Some(server) = Server::start() else {
        return;
    };
    server.tell("halt");
    let data = tempfile::tempdir().unwrap();
    let since = Instant::now();
    let (code, problem) = refused(&server.config(), data.path());
    assert!(since.elapsed() < Duration::from_secs(60));
    assert_eq!(code, 1, "{problem}");
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains(&server.sockets) && detail.contains("does not answer"),
        "{detail}"
    );
}

#[test]
fn over_the_network_it_is_reached_with_tls_and_a_password() {
    let Some(server) = Server::start() else {
        return;
    };
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (data, home) = (server.folder().join("data"), tempfile::tempdir().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let owner = std::fs::metadata(&data).unwrap();
    let owner = |path: &Path| {
        let (uid, gid) = {
            use std::os::unix::fs::MetadataExt as _;
            (owner.uid(), owner.gid())
        };
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        private(path);
    };
    for (name, content) in [
        ("server.crt", made.cert.pem()),
        ("server.key", made.signing_key.serialize_pem()),
        (
            "pg_hba.conf",
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n".into(),
        ),
    ] {
        std::fs::write(data.join(name), content).unwrap();
        owner(&data.join(name));
    }
    let mut conf = std::fs::OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.conf"))
        .unwrap();
    writeln!(
        conf,
        "listen_addresses = '127.0.0.1'\nport = {port}\nssl = on"
    )
    .unwrap();
    server.tell("halt");
    server.tell("again");
    role(&server, port);

    let (ca, wrong_ca) = (home.path().join("ca.pem"), home.path().join("other.pem"));
    std::fs::write(&ca, made.cert.pem()).unwrap();
    std::fs::write(&wrong_ca, other.cert.pem()).unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    private(&password);
    let config = |ca: &Path| {
        format!(
            "[storage]\nurl = \"postgres://house@localhost:{port}/postgres?sslmode=verify-full\"\n\
             password_file = \"{}\"\nca_file = \"{}\"\n",
            password.display(),
            ca.display()
        )
    };
    {
        let world = World::with(&config(&ca));
        world.demo("demo", &[]);
        let ada = world.client("ada");
        assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
    }
    let (code, problem) = refused(&config(&wrong_ca), home.path());
    assert_eq!(
        (code, &problem["code"]),
        (1, &json!("store_unavailable")),
        "{problem}"
    );
    assert!(
        problem["detail"].as_str().unwrap().contains("certificate"),
        "{problem}"
    );
    std::fs::write(&password, "hunter3\n").unwrap();
    let since = Instant::now();
    let (code, problem) = refused(&config(&ca), home.path());
    assert_eq!(
        (code, &problem["code"]),
        (1, &json!("store_unavailable")),
        "{problem}"
    );
    assert!(
        problem["detail"].as_str().unwrap().contains("password"),
        "{problem}"
    );
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "a refusal is not tried again"
    );
}

fn private(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).unwrap();
}

/// A role with a password and the rights that docs/postgres.md names.
fn role(server: &Server, port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut session = server.session(port).await;
        let sql =
            "CREATE ROLE house LOGIN PASSWORD 'hunter2'; GRANT CREATE ON SCHEMA public TO house";
        sqlx::raw_sql(sql).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
    });
}
