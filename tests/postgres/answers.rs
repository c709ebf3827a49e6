//! Answers of the database that do not come: a change that takes something away holds here, whether it was heard of
//! or not; and a start that waits for the database can be told to stop.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::*;

/// Stands before a server. Of a statement with the words that it was told, it hands on the execution, and breaks the
/// connection in place of the answer.
struct Proxy {
    port: u16,
    words: Arc<Mutex<Option<&'static str>>>,
}

impl Proxy {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let words = Arc::new(Mutex::new(None));
        let (own, socket) = (
            Arc::clone(&words),
            format!("{}/.s.PGSQL.5432", server.sockets),
        );
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&socket)) else {
                    continue;
                };
                let (back, from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let mute = Arc::new(AtomicBool::new(false));
                let heard = Arc::clone(&mute);
                std::thread::spawn(move || answers(from, back, &heard));
                let words = Arc::clone(&own);
                std::thread::spawn(move || pass(client, server, &words, &mute));
            }
        });
        Self { port, words }
    }

    /// The answer to the next statement with these words is lost.
    fn lose(&self, words: &'static str) {
        *self.words.lock().unwrap() = Some(words);
    }

    fn has_lost(&self) -> bool {
        self.words.lock().unwrap().is_none()
    }
}

fn answers(mut server: UnixStream, mut client: TcpStream, mute: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if !mute.load(Ordering::SeqCst) && client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

fn pass(
    mut client: TcpStream,
    mut server: UnixStream,
    words: &Mutex<Option<&'static str>>,
    mute: &AtomicBool,
) {
    let (mut buffer, mut prepared) = (vec![0; 64 << 10], false);
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let said = &buffer[..n];
        // Before it is done: nothing of its answer goes back.
        mute.store(prepared, Ordering::SeqCst);
        if server.write_all(said).is_err() {
            break;
        }
        if prepared {
            // The server brings it to its end.
            std::thread::sleep(Duration::from_millis(500));
            *words.lock().unwrap() = None;
            break;
        }
        prepared = (*words.lock().unwrap()).is_some_and(|words| {
            said.windows(words.len())
                .any(|part| part == words.as_bytes())
        });
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// A command whose change the database makes, and whose answer is lost.
fn doubtful(world: &World, proxy: &Proxy, words: &'static str, args: &[&str]) {
    proxy.lose(words);
    let mut all = vec!["-o", "json", "--yes"];
    all.extend(args);
    let ran = world.run(&all);
    assert!(proxy.has_lost(), "{}", ran.stderr);
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    let problem = problem(&ran.stderr);
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("may be done all the same"), "{detail}");
}

/// Waits until the gateway has ended by itself with the code for that.
fn ends_to_be_started_anew(world: &mut World) {
    let mut child = world.child.take().unwrap();
    let since = Instant::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{}", world.log());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(ended.code(), Some(70), "{}", world.log());
}

#[test]
fn what_was_taken_away_is_gone_though_the_answer_was_lost() {
    let Some(server) = Server::start() else {
        return;
    };
    let proxy = Proxy::before(&server);
    let url = format!(
        "postgres://legation:hunter2@127.0.0.1:{}/postgres",
        proxy.port
    );
    let world = World::with(&format!("[storage]\nurl = \"{url}\"\n"));
    world.demo("demo", &["--credential", "TOKEN=env:TOKEN:optional"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for one in [&ada, &ben] {
        assert_eq!(one.ask("demo.echo", json!({"text": "x"})), "x");
    }

    let of_ada = ["--user", "ada"];
    let set = crate::vault::try_set(&world, &of_ada, "demo", "TOKEN", b"s3cret-value");
    assert_eq!(set.code, 0, "{}", set.stderr);
    let remove = [
        "credential",
        "remove",
        "--user",
        "ada",
        "--mcp",
        "demo",
        "TOKEN",
    ];
    doubtful(&world, &proxy, "UPDATE credentials SET sealed", &remove);
    let again = world.run(&[&["--yes"][..], &remove].concat());
    assert_eq!(again.code, 5, "it is in nobody's hand: {}", again.stdout);

    let keys = world.cli(&["key", "list"]);
    let key = keys.as_array().unwrap().iter();
    let key = key.clone().find(|key| key["user_name"] == "ada").unwrap();
    let id = key["id"].as_str().unwrap();
    doubtful(
        &world,
        &proxy,
        "UPDATE client_keys SET revoked_at",
        &["key", "revoke", id],
    );
    let refused = ada.call("demo.echo", json!({"text": "still in"}));
    assert_eq!(refused.status, 401, "{refused:?}");

    let revoke = ["group", "revoke", "all", "demo"];
    doubtful(&world, &proxy, "DELETE FROM grants", &revoke);
    world.until("the grant is seen to be gone", |_| {
        ben.tools().is_empty().then_some(())
    });
}

#[test]
fn a_start_that_waits_for_the_database_can_be_stopped() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut world = World::with(&server.config());
    world.key_alone("ada");
    assert_eq!(world.stop(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut other = runtime.block_on(server.session(5432));
    let lock = "BEGIN; LOCK TABLE _sqlx_migrations IN ACCESS EXCLUSIVE MODE";
    runtime
        .block_on(sqlx::raw_sql(lock).execute(&mut other))
        .unwrap();

    let log = world.dir.path().join("waiting");
    let mut child = Command::new(LEGATION)
        .args(["serve", "--config"])
        .arg(world.dir.path().join("legation.toml"))
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    world.until("it says what it waits for", |_| {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("the start still waits for the database")
            .then_some(())
    });
    let since = Instant::now();
    let told = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(told.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?}",
        since.elapsed()
    );
    runtime.block_on(other.close()).unwrap();
    world.start();
}

#[test]
fn a_gateway_that_was_served_for_meanwhile_ends_to_be_started_anew() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut world = World::with(&server.config());
    world.key_alone("ada");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut other = server.session(5432).await;
        let sql = "UPDATE settings SET value = 'legation elsewhere pid 1' WHERE name = 'store_holder'; \
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE application_name LIKE 'legation %'";
        sqlx::raw_sql(sql).execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    });
    ends_to_be_started_anew(&mut world);
    assert!(
        world.log().contains("served by legation elsewhere pid 1"),
        "{}",
        world.log()
    );
    world.start();
    assert_eq!(status(&world)["ready"], true);
}

fn program(name: &str, server: &Server, args: &[&str]) {
    let bin = text(&script(&["bin"]).stdout);
    let ran = Command::new(Path::new(bin.trim()).join(name))
        .args(["-h", &server.sockets, "-U", "legation", "-d", "postgres"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{name}: {}", text(&ran.stderr));
}

/// A key that was revoked since the backup would be good again, and what this process knows is of another state.
#[test]
fn a_gateway_whose_database_is_put_back_ends_to_be_started_anew() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut world = World::with(&server.config());
    world.key_alone("ada");
    let beat = || {
        server.ask("SELECT coalesce(max(value::bigint), 0) FROM settings WHERE name = 'store_beat'")
    };
    let beats_past = |world: &World, before: i64| {
        world.until("what was written shows", |_| {
            Some(beat()).filter(|now| *now > before)
        })
    };
    beats_past(&world, 0);
    let dump = server.folder().join("dump");
    let dump = dump.to_str().unwrap();
    program("pg_dump", &server, &["-Fc", "-f", dump]);
    let dumped = beat();
    let keys = world.cli(&["key", "list"]);
    world.cli(&["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    // One counts when the next one is written.
    let after = beats_past(&world, dumped);
    world.cli(&["user", "add", "ben"]);
    beats_past(&world, after);
    let how = ["--clean", "--if-exists", "--single-transaction", dump];
    program("pg_restore", &server, &how);
    ends_to_be_started_anew(&mut world);
    let log = world.log();
    assert!(log.contains("put back to an earlier state"), "{log}");
    world.start();
    assert_eq!(world.cli(&["user", "list"]).as_array().unwrap().len(), 1);
}
