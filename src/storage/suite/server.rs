//! Databases of a real PostgreSQL server for the suite: `LEGATION_TEST_POSTGRES` names one by the
//! URL of a superuser, and `scripts/test.sh` starts one.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::domain::dsn::{Dsn, Host};
use crate::storage::{Postgres, Store, StoreError};

#[path = "../../../tests/servers/tools.rs"]
#[expect(
    dead_code,
    reason = "the suite needs only its way to say what is skipped"
)]
pub(crate) mod tools;

/// Names a server by the URL of a superuser.
const VARIABLE: &str = "LEGATION_TEST_POSTGRES";

/// A database of a test's own.
pub(super) struct Database {
    server: Dsn,
    pub(super) name: String,
}

impl Database {
    /// A fresh, empty one; `None` without a server, and says so once.
    pub(super) async fn new() -> Option<Self> {
        static SAID: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var(VARIABLE) else {
            SAID.call_once(|| {
                let why = format!("{VARIABLE} names no server; scripts/test.sh starts one");
                tools::skip("postgres: the storage suite", &why);
            });
            return None;
        };
        let server = Dsn::parse(&url).unwrap();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("suite_{}_{n}", std::process::id());
        let it = Self { server, name };
        it.on_server(&format!("CREATE DATABASE {}", it.name)).await;
        Some(it)
    }

    /// How a store connects to it; `role` in place of the superuser.
    pub(super) fn postgres(&self, application: &str) -> Postgres {
        Postgres {
            dsn: self.dsn(&self.name, self.server.user()),
            password_file: None,
            ca_file: None,
            pool_max: 4,
            wait: Duration::from_secs(20),
            application: application.to_owned(),
            installation: None,
        }
    }

    pub(super) fn dsn(&self, database: &str, user: &str) -> Dsn {
        let (host, port) = match self.server.host() {
            Host::Tcp(name) => (name.clone(), self.server.port()),
            Host::Socket(folder) => {
                let folder = folder.display().to_string().replace('/', "%2F");
                (folder, self.server.port())
            }
        };
        Dsn::parse(&format!("postgres://{user}@{host}:{port}/{database}")).unwrap()
    }

    pub(super) async fn store(&self) -> Store {
        Store::connect(self.postgres("suite")).await.unwrap()
    }

    pub(super) async fn refused(&self, application: &str) -> StoreError {
        Store::connect(self.postgres(application))
            .await
            .unwrap_err()
    }

    /// A session beside the store's.
    pub(super) async fn session(&self) -> PgConnection {
        connect(&self.dsn(&self.name, self.server.user())).await
    }

    /// A session on its server, in no test's database.
    pub(super) async fn elsewhere(&self) -> PgConnection {
        connect(&self.server).await
    }

    /// Runs a statement in it, as its administrator.
    pub(super) async fn run(&self, sql: &str) {
        let mut session = self.session().await;
        run(&mut session, sql).await;
        session.close().await.unwrap();
    }

    async fn on_server(&self, sql: &str) {
        let mut session = connect(&self.server).await;
        run(&mut session, sql).await;
        session.close().await.unwrap();
    }

    pub(super) async fn drop(self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.on_server(&sql).await;
    }
}

async fn connect(dsn: &Dsn) -> PgConnection {
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .port(dsn.port())
        .username(dsn.user())
        .database(dsn.database());
    let options = match dsn.host() {
        Host::Tcp(name) => options.host(name),
        Host::Socket(folder) => options.host(folder.to_str().unwrap()),
    };
    options.connect().await.unwrap()
}

/// Runs statements that are the test's own text.
pub(super) async fn run(session: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(session)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}
