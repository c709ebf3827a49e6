//! What can go wrong in storage, sorted by what the caller can do about it.

use std::fmt;
use std::path::PathBuf;

use sqlx::error::DatabaseError as _;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::domain::code::Code;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there: look at the name.
    #[error("{kind} `{id}` does not exist")]
    NotFound {
        /// What kind of thing was wanted.
        kind: &'static str,
        /// Its id or name.
        id: String,
    },
    /// It stands against what is there: change the request.
    #[error("{kind} `{id}` {why}")]
    Conflict {
        /// What kind of thing it is about.
        kind: &'static str,
        /// Its id or name.
        id: String,
        /// What stands against it.
        why: String,
    },
    /// The database did not answer or could not write: repair what `fault` says, then try again.
    /// Nothing of the failed call was kept, unless it [may be done](StoreError::may_be_done).
    #[error("could not {doing}: {fault}{}", doubt(source))]
    Unavailable {
        /// What was under way.
        doing: &'static str,
        /// What is wrong, as far as the database says.
        fault: Fault,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// Another server uses the database: stop it, or use another database.
    #[error("the database {place} is in use by {holder}")]
    Held {
        /// Which database.
        place: String,
        /// By whom.
        holder: String,
    },
    /// The database is none this build can stand on: do what `detail` says.
    #[error("the database {place} will not do: {detail}")]
    Unfit {
        /// Which database.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file cannot be made or opened.
    #[error("could not open the store `{}`: check the folder and its permissions", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is stored cannot be what we wrote: restore a backup.
    #[error("the store is damaged at {place}: {detail}; restore a backup")]
    Corrupt {
        /// Where: a table and column, or what was under way.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// Another build's schema: start the build that wrote it, or a newer one.
    #[error("the store was written by another version of legation ({detail}); start that version")]
    Incompatible {
        /// Which migration says so.
        detail: String,
    },
}

/// What keeps a database from doing its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space for another page.
    Full,
    /// The file or its file system is read-only.
    ReadOnly,
    /// Another process holds the lock, or every connection is taken.
    Busy,
    /// The disk failed.
    Io,
    /// The file could not be opened.
    CannotOpen,
    /// [`Store::close`](super::Store::close) was called.
    Closed,
    /// The database's server cannot be reached, or went away.
    Away,
    /// The server does not let us in, or not do this.
    Refused,
    /// Another server of ours uses the database.
    Held,
    /// What answers is not this installation's database.
    Unfit,
    /// Something else; the source says what.
    Other,
}

impl Fault {
    /// Whether it may be over in a moment without anybody doing anything.
    pub(super) const fn may_pass(self) -> bool {
        matches!(self, Self::Away | Self::Busy)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the database or its disk is full; free some space",
            Self::ReadOnly => {
                "the database is read-only; check its permissions and its mount, or whether it is \
                 a standby"
            }
            Self::Busy => "the database is busy; another process may hold its lock",
            Self::Away => "the database does not answer; check that it runs and can be reached",
            Self::Refused => {
                "the database refuses us; check role, password, rights and TLS in its log"
            }
            Self::Held => "another server uses the database; stop one of them",
            Self::Unfit => {
                "what answers there is not this installation's database; legation status says more"
            }
            Self::Io => "the disk failed; check the kernel's log",
            Self::CannotOpen => "the file cannot be opened; check the folder and its permissions",
            Self::Closed => "the store is closed; the server is stopping",
            Self::Other => "the database refused",
        })
    }
}

/// SQLite's primary result codes that mean something to the operator.
mod sqlite_code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READONLY: u32 = 8;
    pub(super) const IOERR: u32 = 10;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const NOTADB: u32 = 26;
}

/// SQLite's primary code, the low byte of what its driver reports; other databases' codes look
/// like numbers too and mean something else.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    let code: u32 = error.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// What SQLSTATEs of PostgreSQL mean to the operator, by their beginnings; the longest wins
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
const SQLSTATES: &[(&str, Fault)] = &[
    ("08", Fault::Away),
    // An idle session of ours was ended by the server's own rules.
    ("25P03", Fault::Away),
    ("57P", Fault::Away),
    ("25006", Fault::ReadOnly),
    ("40", Fault::Busy),
    ("53300", Fault::Busy),
    ("53400", Fault::Busy),
    ("55P03", Fault::Busy),
    ("57014", Fault::Busy),
    ("53100", Fault::Full),
    ("58030", Fault::Io),
    ("28", Fault::Refused),
    ("3D000", Fault::Refused),
    ("42501", Fault::Refused),
];

/// PostgreSQL's texts hold no zero character.
const UNTYPABLE: [&str; 2] = ["22021", "22P05"];
/// PostgreSQL says that what it stored is damaged.
const DAMAGED: [&str; 2] = ["XX001", "XX002"];
/// It gave a statement up for another's sake: a serialization failure, a deadlock.
const VICTIM: [&str; 2] = ["40001", "40P01"];

/// There is no such table.
const NO_TABLE: &str = "42P01";

fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    let error = Unsure::within(error).as_database_error()?;
    Some(error.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// Whether the database undid a statement for another's sake: it may be tried again.
pub(super) fn is_victim(error: &sqlx::Error) -> bool {
    sqlstate(error).is_some_and(|code| VICTIM.contains(&code))
}

/// Whether a table is missing.
pub(super) fn is_no_table(error: &sqlx::Error) -> bool {
    sqlstate(error) == Some(NO_TABLE)
}

/// A change was sent and no answer came: whether it was done, nobody here knows. It travels as
/// the driver's error, around the one that says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unsure(sqlx::Error);

impl Unsure {
    fn of(error: &sqlx::Error) -> Option<&Self> {
        match error {
            sqlx::Error::Io(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    /// The error that says what happened.
    fn within(error: &sqlx::Error) -> &sqlx::Error {
        Self::of(error).map_or(error, |unsure| &unsure.0)
    }
}

/// The error of a change that was sent, and whose answer did not come.
pub(super) fn unsure(error: sqlx::Error) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::other(Unsure(error)))
}

/// What an administrator must know of a change that may be done.
fn doubt(error: &sqlx::Error) -> &'static str {
    match Unsure::of(error).map(|unsure| NotLent::of(&unsure.0)) {
        None => "",
        Some(Some(NotLent::Silent)) => {
            "; it may be done all the same, so look before you repeat it (a commit without an \
             answer: is a synchronous standby away?)"
        }
        Some(_) => "; it may be done all the same, so look before you repeat it",
    }
}

/// Why a connection was not lent, or is not waited for any longer. It travels as the driver's
/// error, like all that can go wrong on the way to an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NotLent {
    #[error("the server cannot be reached: {0}")]
    Away(String),
    #[error("the server refuses us: {0}")]
    Refused(String),
    #[error("another server took the database: {0}")]
    Held(String),
    #[error("the server takes no writes: it is a standby, or set to read only")]
    ReadOnly,
    #[error("a pooler in transaction mode is between us; connect directly or in session mode")]
    Pooled,
    #[error("the server is silent")]
    Silent,
    #[error("{0}")]
    Unfit(String),
}

impl NotLent {
    fn of(error: &sqlx::Error) -> Option<&Self> {
        match Unsure::within(error) {
            sqlx::Error::Io(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    pub(super) fn is(error: &sqlx::Error) -> bool {
        Self::of(error).is_some()
    }

    const fn fault(&self) -> Fault {
        match self {
            Self::Away(_) | Self::Silent => Fault::Away,
            Self::Refused(_) | Self::Pooled => Fault::Refused,
            Self::Held(_) => Fault::Held,
            Self::ReadOnly => Fault::ReadOnly,
            Self::Unfit(_) => Fault::Unfit,
        }
    }
}

impl From<NotLent> for sqlx::Error {
    fn from(why: NotLent) -> Self {
        Self::Io(std::io::Error::other(why))
    }
}

pub(super) fn fault_of(error: &sqlx::Error) -> Fault {
    match Unsure::within(error) {
        sqlx::Error::PoolClosed => return Fault::Closed,
        sqlx::Error::PoolTimedOut => return Fault::Busy,
        sqlx::Error::Io(_) => return NotLent::of(error).map_or(Fault::Away, NotLent::fault),
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) => return Fault::Refused,
        _ => {}
    }
    if let Some(code) = sqlstate(error) {
        let known = SQLSTATES
            .iter()
            .filter(|(begin, _)| code.starts_with(begin));
        return known
            .max_by_key(|(begin, _)| begin.len())
            .map_or(Fault::Other, |(_, fault)| *fault);
    }
    match primary_code(error) {
        Some(sqlite_code::FULL) => Fault::Full,
        Some(sqlite_code::READONLY) => Fault::ReadOnly,
        Some(sqlite_code::BUSY | sqlite_code::LOCKED) => Fault::Busy,
        Some(sqlite_code::IOERR) => Fault::Io,
        Some(sqlite_code::CANTOPEN) => Fault::CannotOpen,
        _ => Fault::Other,
    }
}

impl StoreError {
    /// The stable code that stands for it towards clients and operators.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Conflict { .. } => Code::Conflict,
            Self::Unavailable { .. } | Self::Open { .. } => Code::StoreUnavailable,
            Self::Held { .. } => Code::StoreHeld,
            Self::Unfit { .. } => Code::StoreUnfit,
            Self::Corrupt { .. } => Code::StoreDamaged,
            Self::Incompatible { .. } => Code::StoreIncompatible,
        }
    }

    /// Whether the database is away as a whole, which its keeper has said already: each request
    /// that is refused for it need not say so again.
    #[must_use]
    pub const fn is_away(&self) -> bool {
        matches!(
            self,
            Self::Unavailable {
                fault: Fault::Away | Fault::Held | Fault::Unfit | Fault::Closed,
                ..
            }
        )
    }

    /// Whether the failed change may be done all the same, now or in a moment: it was sent, and its
    /// answer did not come. What takes something away goes by it as if it were done.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Unavailable { source, .. } if Unsure::of(source).is_some())
    }

    pub(super) fn not_found(kind: &'static str, id: impl fmt::Display) -> Self {
        Self::NotFound {
            kind,
            id: id.to_string(),
        }
    }

    pub(super) fn conflict(
        kind: &'static str,
        id: impl fmt::Display,
        why: impl Into<String>,
    ) -> Self {
        Self::Conflict {
            kind,
            id: id.to_string(),
            why: why.into(),
        }
    }

    pub(super) fn migrating(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_)
            | MigrateError::VersionMismatch(_)
            | MigrateError::VersionTooNew(..) => Self::Incompatible {
                detail: error.to_string(),
            },
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                doing("migrate the store")(source)
            }
            other => doing("migrate the store")(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

/// For a statement that can only fail because the database does.
pub(super) fn doing(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |source| {
        let damaged = matches!(
            primary_code(&source),
            Some(sqlite_code::CORRUPT | sqlite_code::NOTADB)
        ) || matches!(
            source,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)
        ) || sqlstate(&source).is_some_and(|code| DAMAGED.contains(&code));
        if damaged {
            return StoreError::Corrupt {
                place: doing.to_owned(),
                detail: source.to_string(),
            };
        }
        if sqlstate(&source).is_some_and(|code| UNTYPABLE.contains(&code)) {
            return StoreError::conflict("text", doing, "holds a zero character; leave it out");
        }
        StoreError::Unavailable {
            doing,
            fault: fault_of(&source),
            source,
        }
    }
}

/// For a statement that may break a constraint: a taken name is a [`StoreError::Conflict`] of
/// `kind`, a broken reference a [`StoreError::NotFound`] of `refers`.
pub(super) fn adding(
    what: &'static str,
    kind: &'static str,
    refers: &'static str,
    id: impl fmt::Display,
) -> impl Fn(sqlx::Error) -> StoreError {
    let id = id.to_string();
    move |source| match source.as_database_error() {
        Some(error) if error.is_unique_violation() => {
            StoreError::conflict(kind, &id, "exists already")
        }
        Some(error) if error.is_foreign_key_violation() => StoreError::not_found(refers, &id),
        _ => doing(what)(source),
    }
}
