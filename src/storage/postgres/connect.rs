//! How one connection is opened: place, password, certificates, and the settings of its session,
//! among them those by which the server notices that we are gone.

use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgConnection};
use tokio::time::timeout;

use super::super::error::NotLent;
use super::Postgres;
use crate::domain::dsn::{Host, Tls};
use crate::domain::limits::{
    PASSWORD_BYTES_MAX, STORE_CONNECT_MAX, STORE_RETRY_CAP, STORE_STATEMENT_MAX, millis,
};

/// The shortest pause between two tries to reach a server that is away.
const RETRY_FLOOR: Duration = Duration::from_millis(100);

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// Settings of every session. The server looks every few seconds whether a client it works or
/// waits for is still there, so that a host that died without a word gives its locks back.
const SESSION: [(&str, &str); 6] = [
    ("client_connection_check_interval", "5s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "25s"),
];

/// How to connect.
pub(super) struct How {
    postgres: Postgres,
    /// Commits wait for the server's disk without being told to.
    pub(super) durable: bool,
}

impl How {
    pub(super) fn new(postgres: Postgres) -> Self {
        Self {
            postgres,
            durable: true,
        }
    }

    pub(super) fn application(&self) -> &str {
        &self.postgres.application
    }

    pub(super) fn installation(&self) -> Option<&str> {
        self.postgres.installation.as_deref()
    }

    /// Opens a connection, within a bound.
    pub(super) async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = self.options().await?;
        timeout(STORE_CONNECT_MAX, options.connect())
            .await
            .unwrap_or_else(|_| Err(NotLent::Silent.into()))
    }

    async fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let Postgres { dsn, .. } = &self.postgres;
        let mut options = PgConnectOptions::new_without_pgpass()
            .port(dsn.port())
            .username(dsn.user())
            .database(dsn.database())
            .application_name(self.application())
            .ssl_mode(match dsn.tls() {
                Tls::Disable => PgSslMode::Disable,
                Tls::Require => PgSslMode::Require,
                Tls::VerifyCa => PgSslMode::VerifyCa,
                Tls::VerifyFull => PgSslMode::VerifyFull,
            })
            .options(SESSION)
            .options([("statement_timeout", millis(STORE_STATEMENT_MAX).to_string())])
            .disable_statement_logging();
        options = match dsn.host() {
            Host::Tcp(name) => options.host(name),
            Host::Socket(folder) => options.host(&folder.to_string_lossy()),
        };
        if !self.durable {
            options = options.options([("synchronous_commit", "on")]);
        }
        if let Some(file) = &self.postgres.ca_file {
            options = options.ssl_root_cert(file);
        }
        if let Some(file) = self.postgres.password_file.clone() {
            // Read each time: a rotated password needs no restart.
            let read = tokio::task::spawn_blocking(move || password(&file)).await;
            let password = read.map_err(|_| sqlx::Error::WorkerCrashed)??;
            options = options.password(password.expose_secret());
        } else if let Some(password) = dsn.password() {
            options = options.password(password.expose_secret());
        }
        Ok(options)
    }
}

/// The pause before try `n + 1`: doubled each time, capped, and half of it random, so that many
/// servers do not come back in step.
pub(super) fn backoff(n: u32) -> Duration {
    let whole = RETRY_FLOOR.saturating_mul(1 << n.min(10));
    let half = whole.min(STORE_RETRY_CAP) / 2;
    half + half.mul_f64(rand::random::<f64>())
}

/// Reads a password file that is nobody else's to read.
fn password(path: &Path) -> Result<SecretString, sqlx::Error> {
    let wrong = |why: String| {
        let text = format!("cannot use the password file {}: {why}", path.display());
        sqlx::Error::Configuration(text.into())
    };
    let io = |error: std::io::Error| wrong(error.to_string());
    // A pipe in its place would be waited for.
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(NONBLOCK)
        .open(path)
        .map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(wrong("it is no regular file".into()));
    }
    let mode = meta.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!("its mode is {:o}; run: chmod 600", mode & 0o777);
        return Err(wrong(why));
    }
    let mut text = String::new();
    file.take(PASSWORD_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(io)?;
    if text.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(wrong(format!(
            "it has more than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(['\0', '\n']) {
        return Err(wrong("it does not hold one line with a password".into()));
    }
    Ok(password.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_cap_and_are_never_nothing() {
        for n in 0..100 {
            let pause = backoff(n);
            assert!(
                pause >= RETRY_FLOOR / 2 && pause <= STORE_RETRY_CAP,
                "{n}: {pause:?}"
            );
        }
        assert!(backoff(90) >= STORE_RETRY_CAP / 2);
    }

    #[test]
    fn a_password_file_is_private_and_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let refused = || password(&path).unwrap_err().to_string();
        assert!(refused().contains("No such file"));
        std::fs::write(&path, "hunter2\n").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o640);
        assert!(refused().contains("chmod 600"), "{}", refused());
        mode(0o600);
        assert_eq!(password(&path).unwrap().expose_secret(), "hunter2");
        for bad in ["", "\n", "one\ntwo\n", "a\0b"] {
            std::fs::write(&path, bad).unwrap();
            assert!(refused().contains("one line"), "{bad:?}");
        }
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(refused().contains("4096 bytes"));
        std::fs::remove_file(&path).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
        assert!(refused().contains("no regular file"), "{}", refused());
    }
}
