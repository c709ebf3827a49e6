//! The way of every statement to a connection and back: one road for both databases, on which
//! statements are timed, counted, bounded, and tried again where the database gave one up for
//! another's sake.
//!
//! A [`Lane`] stands where sqlx would take a pool, a [`Tx`] where it would take a transaction, so
//! the aggregates know neither. Invariants: a connection that was left in the middle of anything
//! (its answer is late, its caller left) is not lent again; an answer is whole before it is given,
//! so that what `RETURNING` returned is committed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::{Database, Describe, Either, Execute, Executor, SqlSafeStr as _, SqlStr};
use tokio::time::Instant;

use super::error::{Fault, NotLent, fault_of, unsure};
use super::stats::{Class, StoreStats, Timer};

/// The steps of an answer: its rows, and how many rows it changed.
pub(super) type Steps<DB> = Vec<Step<DB>>;
type Step<DB> = Either<<DB as Database>::QueryResult, <DB as Database>::Row>;
type Arguments<DB> = <DB as Database>::Arguments;
/// A statement with its arguments; without any it is not prepared.
pub(super) type Statement<DB> = (SqlStr, Option<Arguments<DB>>);

/// What lends connections to one database.
pub(super) trait Source: Clone + Send + Sync + 'static {
    /// The database.
    type DB: Database;
    /// A connection on loan: given back when dropped.
    type Lent: Lent<Self::DB>;
    /// How long an answer is waited for; `None` where the driver bounds it itself.
    const ANSWER_MAX: Option<Duration>;
    /// Begins a transaction that writes: no other one that writes is under way until it ends.
    const BEGIN_WRITE: &'static str;
    /// Begins a transaction that reads, all of it as of one moment.
    const BEGIN_READ: &'static str;

    /// Lends a connection, within a bound.
    fn lend(&self) -> impl Future<Output = Result<Self::Lent, sqlx::Error>> + Send;

    /// The same arguments once more, if a statement of this database is ever tried again.
    fn copy(arguments: &Arguments<Self::DB>) -> Option<Arguments<Self::DB>>;

    /// How long to wait before a statement that failed so for the `n`th time is tried again;
    /// `None` if that is of no use or could do it twice.
    fn again(class: Class, error: &sqlx::Error, n: u32) -> Option<Duration>;
}

/// A connection on loan.
pub(super) trait Lent<DB: Database>: Send + 'static {
    /// Runs a statement to its end.
    fn run(
        &mut self,
        statement: Statement<DB>,
    ) -> impl Future<Output = Result<Steps<DB>, sqlx::Error>> + Send;

    /// Whether the connection is of no use after this error.
    fn is_lost(error: &sqlx::Error) -> bool;

    /// It is in the middle of something, or lost. `true`: it closes instead of being given back;
    /// `false`: the driver brings it to its end by itself.
    fn spoil(&mut self, class: Class) -> bool;

    /// A statement of what writes was done.
    fn wrote(&self) {}
}

/// Where statements of one class go.
pub(super) struct Lane<S> {
    source: S,
    class: Class,
    stats: Arc<StoreStats>,
}

/// A transaction; rolled back when dropped.
pub(super) struct Tx<S: Source> {
    bound: Bound<S>,
    open: bool,
    timer: Timer,
}

/// A connection on loan, and until when it is waited for.
pub(super) struct Bound<S: Source> {
    lent: Option<S::Lent>,
    class: Class,
    stats: Arc<StoreStats>,
    until: Option<Instant>,
    /// A statement failed: the databases differ in what becomes of the transaction's others.
    failed: bool,
    /// A statement is under way: still so in `drop` if its caller left or its answer is late.
    busy: bool,
}

// === impl Lane ===

impl<S: Source> Lane<S> {
    pub(super) fn new(source: S, class: Class, stats: &Arc<StoreStats>) -> Self {
        Self {
            source,
            class,
            stats: Arc::clone(stats),
        }
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// Begins a transaction, for reading or for writing as the lane is.
    pub(super) async fn begin(&self) -> Result<Tx<S>, sqlx::Error> {
        let (class, how) = match self.class {
            Class::Read => (Class::Read, S::BEGIN_READ),
            Class::Write | Class::Tx => (Class::Tx, S::BEGIN_WRITE),
        };
        let mut timer = self.stats.begin(class);
        let lent = timer.note(self.source.lend().await)?;
        // From here on, dropping it rolls back: also if the beginning itself is given up.
        let mut tx = Tx {
            bound: Bound::new(lent, class, &self.stats),
            open: true,
            timer,
        };
        let begun = tx.bound.run((how.into_sql_str(), None)).await;
        tx.timer.note(begun)?;
        Ok(tx)
    }

    /// Runs one statement on a connection of its own, and again if that is safe and of use.
    async fn run(&self, (sql, arguments): Statement<S::DB>) -> Result<Steps<S::DB>, sqlx::Error> {
        let mut timer = self.stats.begin(self.class);
        let mut next = Some(arguments);
        let mut n = 0;
        while let Some(arguments) = next.take() {
            n += 1;
            let spare = match &arguments {
                Some(arguments) => S::copy(arguments).map(Some),
                None => Some(None),
            };
            let done = match self.source.lend().await {
                Ok(lent) => {
                    let mut bound = Bound::<S>::new(lent, self.class, &self.stats);
                    let done = bound.run((sql.clone(), arguments)).await;
                    done.map_err(|error| match self.class {
                        Class::Write if S::Lent::is_lost(&error) => unsure(error),
                        _ => error,
                    })
                }
                Err(error) => Err(error),
            };
            let Err(error) = done else { return done };
            match (S::again(self.class, &error, n), spare) {
                (Some(pause), Some(spare)) => {
                    self.stats.again(self.class);
                    tokio::time::sleep(pause).await;
                    next = Some(spare);
                }
                _ => return timer.note(Err(error)),
            }
        }
        // The loop is left by its returns only.
        timer.note(Err(sqlx::Error::WorkerCrashed))
    }
}

// === impl Bound ===

impl<S: Source> Bound<S> {
    fn new(lent: S::Lent, class: Class, stats: &Arc<StoreStats>) -> Self {
        Self {
            lent: Some(lent),
            class,
            stats: Arc::clone(stats),
            until: S::ANSWER_MAX.map(|most| Instant::now() + most),
            failed: false,
            busy: false,
        }
    }

    async fn run(&mut self, statement: Statement<S::DB>) -> Result<Steps<S::DB>, sqlx::Error> {
        let lent = self.lent.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        self.busy = true;
        let running = lent.run(statement);
        let done = match self.until {
            Some(until) => tokio::time::timeout_at(until, running)
                .await
                .unwrap_or_else(|_| Err(NotLent::Silent.into())),
            None => running.await,
        };
        if let Err(error) = &done {
            if fault_of(error) == Fault::Full {
                self.stats.note_full(true);
            }
            self.failed = true;
            self.busy = S::Lent::is_lost(error);
        } else {
            self.busy = false;
            if self.class != Class::Read {
                lent.wrote();
            }
        }
        done
    }
}

impl<S: Source> Drop for Bound<S> {
    fn drop(&mut self) {
        if self.busy
            && let Some(lent) = &mut self.lent
        {
            lent.spoil(self.class);
        }
    }
}

// === impl Tx ===

impl<S: Source> Tx<S> {
    /// Makes it last.
    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        if self.bound.failed {
            // PostgreSQL would roll back and call it done, SQLite would keep the rest.
            let text = "a statement of the transaction failed; nothing of it is kept";
            return self.timer.note(Err(sqlx::Error::Protocol(text.into())));
        }
        let done = self.bound.run(("COMMIT".into_sql_str(), None)).await;
        self.open = done.is_err();
        let done = done.map_err(|error| match S::Lent::is_lost(&error) {
            true => unsure(error),
            false => error,
        });
        self.timer.note(done.map(drop))
    }

    /// Gives it up, and waits until that is done.
    pub(super) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let done = self.bound.run(("ROLLBACK".into_sql_str(), None)).await;
        self.open = done.is_err();
        self.timer.note(done.map(drop))
    }
}

impl<S: Source> Drop for Tx<S> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.timer.failed();
        let Some(mut lent) = self.bound.lent.take() else {
            return;
        };
        // A closed connection rolls back by itself.
        if self.bound.busy && lent.spoil(self.bound.class) {
            return;
        }
        let mut bound = Bound::<S>::new(lent, self.bound.class, &self.bound.stats);
        let rollback = async move {
            // If there is nothing to roll back, so much the better.
            let _ = bound.run(("ROLLBACK".into_sql_str(), None)).await;
        };
        // Without a runtime the process is ending, and the database rolls back by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(rollback);
        }
    }
}

impl<S: Source> Deref for Tx<S> {
    type Target = Bound<S>;
    fn deref(&self) -> &Bound<S> {
        &self.bound
    }
}

impl<S: Source> DerefMut for Tx<S> {
    fn deref_mut(&mut self) -> &mut Bound<S> {
        &mut self.bound
    }
}

// === what sqlx's queries take ===

/// Takes a query apart.
fn taken<'q, DB: Database>(mut query: impl Execute<'q, DB>) -> Result<Statement<DB>, sqlx::Error> {
    let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
    Ok((query.sql(), arguments))
}

/// An answer as the stream that sqlx wants.
fn streamed<'e, DB: Database>(
    answer: impl Future<Output = Result<Steps<DB>, sqlx::Error>> + Send + 'e,
) -> BoxStream<'e, Result<Step<DB>, sqlx::Error>> {
    stream::once(answer)
        .map_ok(|steps| stream::iter(steps.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

fn first_row<DB: Database>(steps: Steps<DB>) -> Option<DB::Row> {
    steps.into_iter().find_map(Either::right)
}

/// Statements are prepared by the connection that runs them, not ahead of it.
fn not_ahead<'e, T: Send + 'e>() -> BoxFuture<'e, Result<T, sqlx::Error>> {
    let text = "a lane prepares no statement ahead of running it";
    Box::pin(future::ready(Err(sqlx::Error::Protocol(text.into()))))
}

macro_rules! executor {
    ($lifetime:lifetime, $on:ty) => {
        impl<$lifetime, S: Source> Executor<$lifetime> for $on {
            type Database = S::DB;

            fn fetch_many<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxStream<'e, Result<Step<S::DB>, sqlx::Error>>
            where
                $lifetime: 'e,
                E: 'q + Execute<'q, S::DB>,
            {
                let statement = taken(query);
                streamed::<S::DB>(async move { self.run(statement?).await })
            }

            fn fetch_optional<'e, 'q: 'e, E>(
                self,
                query: E,
            ) -> BoxFuture<'e, Result<Option<<S::DB as Database>::Row>, sqlx::Error>>
            where
                $lifetime: 'e,
                E: 'q + Execute<'q, S::DB>,
            {
                let statement = taken(query);
                Box::pin(async move { self.run(statement?).await.map(first_row::<S::DB>) })
            }

            fn prepare_with<'e>(
                self,
                _sql: SqlStr,
                _parameters: &'e [<S::DB as Database>::TypeInfo],
            ) -> BoxFuture<'e, Result<<S::DB as Database>::Statement, sqlx::Error>>
            where
                $lifetime: 'e,
            {
                not_ahead()
            }

            fn describe<'e>(
                self,
                _sql: SqlStr,
            ) -> BoxFuture<'e, Result<Describe<S::DB>, sqlx::Error>>
            where
                $lifetime: 'e,
            {
                not_ahead()
            }
        }
    };
}

executor!('c, &'c Lane<S>);
executor!('c, &'c mut Bound<S>);

impl<S> fmt::Debug for Lane<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

impl<S: Source> fmt::Debug for Bound<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").finish_non_exhaustive()
    }
}
