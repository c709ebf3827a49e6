//! A network that fails between the store and its server: silence, resets, nobody there. The
//! proxy is real, and so is the server behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::samples::{keyed, user};
use super::server::Database;
use crate::domain::dsn::{Dsn, Host};
use crate::domain::limits;
use crate::storage::stats::Class;
use crate::storage::{Fault, Postgres, Store, StoreError};

/// How long anything may take before a test calls it stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Connections are accepted, and nothing passes.
    Silent,
    /// All connections break, and new ones at once.
    Resets,
    /// What is said to the server arrives, and nothing of what it answers.
    Mute,
}

struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    accepted: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Proxy {
    async fn before(server: &Dsn) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let Host::Socket(folder) = server.host() else {
            panic!("the tests' server is at a socket");
        };
        let socket = folder.join(format!(".s.PGSQL.{}", server.port()));
        let weather = watch::Sender::new(Weather::Fair);
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let (changes, count) = (weather.subscribe(), Arc::clone(&accepted));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(pass(client, socket.clone(), changes.clone()));
            }
        });
        Self {
            port,
            weather,
            accepted,
            _task: task,
        }
    }

    fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// One connection, as long as the weather lets it be. What was once silent stays so: the packets
/// are lost, and the peers do not know.
async fn pass(
    mut client: TcpStream,
    socket: std::path::PathBuf,
    mut changes: watch::Receiver<Weather>,
) {
    if *changes.borrow() == Weather::Silent {
        let _ = changes.wait_for(|now| *now == Weather::Resets).await;
        return;
    }
    if *changes.borrow() == Weather::Resets {
        return;
    }
    let mut server = UnixStream::connect(socket).await.unwrap();
    let changed = {
        let passing = tokio::io::copy_bidirectional(&mut client, &mut server);
        tokio::select! {
            _ = passing => return,
            changed = changes.wait_for(|now| *now != Weather::Fair) => *changed.unwrap(),
        }
    };
    if changed == Weather::Mute {
        let (mut to, mut away) = (server.split().1, client.split().0);
        let saying = tokio::io::copy(&mut away, &mut to);
        tokio::select! {
            _ = saying => {}
            _ = changes.wait_for(|now| *now == Weather::Resets) => {}
        }
        return;
    }
    if changed == Weather::Silent {
        let _ = changes.wait_for(|now| *now == Weather::Resets).await;
    }
}

async fn behind(proxy: &Proxy, database: &Database) -> Result<Store, StoreError> {
    Store::connect(through(proxy, database)).await
}

fn through(proxy: &Proxy, database: &Database) -> Postgres {
    let mut postgres = database.postgres("suite");
    let url = format!(
        "postgres://legation@127.0.0.1:{}/{}",
        proxy.port, database.name
    );
    postgres.dsn = Dsn::parse(&url).unwrap();
    postgres
}

fn fault(error: &StoreError) -> Fault {
    match error {
        StoreError::Unavailable { fault, .. } => *fault,
        other => panic!("{other:?}"),
    }
}

async fn heals(store: &Store) {
    let since = Instant::now();
    while let Err(error) = store.ping().await {
        assert!(since.elapsed() < PATIENCE, "never: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_silent_server_keeps_nobody_waiting_and_is_not_stormed() {
    let Some(database) = Database::new().await else {
        return;
    };
    let proxy = Proxy::before(&database.dsn(&database.name, "legation")).await;
    let store = behind(&proxy, &database).await.unwrap();
    store.create_user(&user(1, "ada")).await.unwrap();
    proxy.turn(Weather::Silent);
    // Bounded for each, however many; once it is known, refused at once.
    let mut asked = JoinSet::new();
    for n in 2..100u8 {
        let store = store.clone();
        asked.spawn(async move {
            let since = Instant::now();
            let read = store.users().await.map(drop);
            let done = store
                .create_user(&user(n, &format!("u{n}")))
                .await
                .and(read);
            (done, since.elapsed())
        });
    }
    while let Some(answer) = asked.join_next().await {
        let (done, took) = answer.unwrap();
        assert_eq!(fault(&done.unwrap_err()), Fault::Away);
        // The read and the write, each within three seconds and a bit.
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    let before = proxy.accepted();
    for n in 0..1000u32 {
        let error = store.users().await.unwrap_err();
        assert_eq!(fault(&error), Fault::Away, "{n}");
    }
    assert!(store.stats().of(Class::Read).failed >= 1000);
    let knocks = proxy.accepted() - before;
    assert!(knocks <= 3, "{knocks} connections for refused requests");
    assert_eq!(store.connections().open, 0, "what is silent is closed");
    proxy.turn(Weather::Fair);
    heals(&store).await;
    store.create_user(&user(100, "zoe")).await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_known_to_be_doubtful() {
    let Some(database) = Database::new().await else {
        return;
    };
    let proxy = Proxy::before(&database.dsn(&database.name, "legation")).await;
    let store = behind(&proxy, &database).await.unwrap();
    let (_, first) = keyed(&store, 1, "ada").await;
    let (_, second) = keyed(&store, 2, "ben").await;
    // The connection knows the statement now, so the next time it goes out in one.
    store.revoke_key(&first.id, 1).await.unwrap();
    let turns = store.turns();
    proxy.turn(Weather::Mute);
    let error = store.revoke_key(&second.id, 2).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Away);
    assert!(error.may_be_done(), "{error:?}");
    assert!(error.to_string().contains("may be done"), "{error}");
    // What is refused without being sent is not.
    let error = store.revoke_key(&second.id, 3).await.unwrap_err();
    assert!(!error.may_be_done(), "{error:?}");
    proxy.turn(Weather::Fair);
    heals(&store).await;
    let stored = store.key(&second.id).await.unwrap();
    assert_eq!(stored.revoked_at, Some(2), "it was done");
    assert!(store.turns() > turns);
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn what_a_commit_waits_for_is_ended_and_caught_up_with() {
    let Some(database) = Database::new().await else {
        return;
    };
    let store = database.store().await;
    let (_, key) = keyed(&store, 1, "ada").await;
    let mut other = database.session().await;
    let lock = "BEGIN; LOCK TABLE client_keys IN ACCESS EXCLUSIVE MODE";
    super::server::run(&mut other, lock).await;
    let turns = store.turns();
    let left = tokio::time::timeout(Duration::from_millis(200), store.revoke_key(&key.id, 2));
    assert!(left.await.is_err(), "it waits");
    // Nobody waits for it any more; its backend neither, and then it is looked what became of it.
    let since = Instant::now();
    while store.turns() == turns {
        assert!(
            since.elapsed() < Duration::from_secs(4),
            "its backend stays"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    super::server::run(&mut other, "COMMIT").await;
    store.revoke_key(&key.id, 3).await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_network_that_resets_is_survived() {
    let Some(database) = Database::new().await else {
        return;
    };
    let proxy = Proxy::before(&database.dsn(&database.name, "legation")).await;
    let store = behind(&proxy, &database).await.unwrap();
    for n in 0..10u8 {
        proxy.turn(Weather::Resets);
        let error = loop {
            match store.users().await {
                Err(error) => break error,
                // The break is on its way.
                Ok(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(fault(&error), Fault::Away, "{error:?}");
        proxy.turn(Weather::Fair);
        heals(&store).await;
        store.create_user(&user(n, &format!("u{n}"))).await.unwrap();
    }
    assert_eq!(store.users().await.unwrap().len(), 10);
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_start_without_the_server_gives_up_within_a_bound() {
    let Some(database) = Database::new().await else {
        return;
    };
    let proxy = Proxy::before(&database.dsn(&database.name, "legation")).await;
    proxy.turn(Weather::Resets);
    let error = behind(&proxy, &database).await.unwrap_err();
    assert_eq!(fault(&error), Fault::Away, "{error:?}");
    assert_eq!(proxy.accepted(), limits::STORE_BOOT_TRIES as usize);
    // Nobody there at all; then somebody, while it is still being tried.
    let starting = tokio::spawn(Store::connect(through(&proxy, &database)));
    let before = proxy.accepted();
    while proxy.accepted() == before {
        tokio::task::yield_now().await;
    }
    proxy.turn(Weather::Fair);
    let store = starting.await.unwrap().unwrap();
    store.ping().await.unwrap();
    store.close().await;
    database.drop().await;
}

#[tokio::test]
async fn closing_waits_for_no_silent_server() {
    let Some(database) = Database::new().await else {
        return;
    };
    let proxy = Proxy::before(&database.dsn(&database.name, "legation")).await;
    let store = behind(&proxy, &database).await.unwrap();
    store.ping().await.unwrap();
    proxy.turn(Weather::Silent);
    let asked = {
        let store = store.clone();
        tokio::spawn(async move { store.users().await.map(drop) })
    };
    while store.connections().idle > 0 {
        tokio::task::yield_now().await;
    }
    let since = Instant::now();
    store.close().await;
    assert!(
        since.elapsed() < Duration::from_secs(8),
        "{:?}",
        since.elapsed()
    );
    asked.await.unwrap().unwrap_err();
    proxy.turn(Weather::Resets);
    database.drop().await;
}
