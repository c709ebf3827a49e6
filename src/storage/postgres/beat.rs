//! The beat: a number in the database that grows when something was written, so that a database that was put back to an
//! earlier state is known, though nobody else served it meanwhile and no epoch has passed.
//!
//! The lock's session writes it, at the next look after a write. It is committed without waiting for a standby, which would keep
//! the lock's session from looking. So where there may be a synchronous one, a beat counts only when it has been there for
//! a while: one that the standby has not heard of yet must not make its promotion look like an earlier state.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, timeout};

use super::super::error::{Fault, NotLent, fault_of, is_no_table};
use super::pool::Shared;
use crate::domain::limits::{STORE_BEAT_COUNTS, STORE_LOCK_LOOK, STORE_TRY_MAX, millis};

const READ: &str = "SELECT value FROM settings WHERE name = 'store_beat'";
/// The commit waits for the database's own disk alone.
const WRITE: &str = "WITH how AS (SELECT set_config('synchronous_commit', 'local', true)) \
    INSERT INTO settings (name, value) SELECT 'store_beat', $1 FROM how \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
/// Whoever locks the table keeps us from the beat, not from the lock.
const BEGIN: &str = "SELECT set_config('lock_timeout', $1, false), \
    current_setting('synchronous_standby_names') <> ''";

/// What is known of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beat {
    /// The last that counts: the database is never earlier.
    counts: u64,
    /// The last that was written, and when.
    written: Option<(u64, Instant)>,
    /// How long it takes until one counts.
    grace: Duration,
}

/// What a look at it found.
pub(super) enum Found {
    /// Nothing new.
    Well,
    /// It is earlier than it was, or gone.
    Earlier,
}

impl Beat {
    /// Whether a database with this beat is in an earlier state.
    pub(super) fn is_earlier(&self, found: u64) -> bool {
        found < self.counts
    }

    /// What is known of it when an epoch begins with this one.
    pub(super) fn again(self, found: u64) -> Self {
        let is_new = found > self.counts;
        Self {
            counts: self.counts,
            written: is_new.then(|| (found, Instant::now())),
            grace: self.grace,
        }
    }

    /// Before the first look of a session, which from here on waits for nobody's lock for longer than between two looks.
    pub(super) async fn begin(&mut self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        let most = millis(STORE_LOCK_LOOK).to_string();
        let told = sqlx::query_as(BEGIN).bind(most).fetch_one(session);
        let (_, has_standby): (String, bool) = within(told).await?;
        self.grace = match has_standby {
            true => STORE_BEAT_COUNTS,
            false => Duration::ZERO,
        };
        Ok(())
    }

    /// Reads it, and writes the next one if something was written.
    pub(super) async fn look(
        &mut self,
        shared: &Shared,
        session: &mut PgConnection,
    ) -> Result<Found, sqlx::Error> {
        let found = match of(session).await {
            Ok(found) => found,
            Err(error) if is_no_table(&error) => return Ok(Found::Earlier),
            // Somebody locks the table; it is seen the next time.
            Err(error) if fault_of(&error) == Fault::Busy => return Ok(Found::Well),
            Err(error) => return Err(error),
        };
        let counts = |(_, at): &mut (u64, Instant)| at.elapsed() >= self.grace;
        if let Some((beat, _)) = self.written.take_if(counts) {
            self.counts = beat;
        }
        if self.is_earlier(found) {
            return Ok(Found::Earlier);
        }
        // One after the other, or none would ever count.
        if self.written.is_some() || !shared.take_written() {
            return Ok(Found::Well);
        }
        let next = found.saturating_add(1);
        let writing = sqlx::query(WRITE)
            .bind(next.to_string())
            .execute(&mut *session);
        match within(writing).await {
            Ok(_) => {
                self.written = Some((next, Instant::now()));
                Ok(Found::Well)
            }
            Err(error) => {
                shared.wrote();
                match fault_of(&error) {
                    Fault::Busy | Fault::Full => Ok(Found::Well),
                    _ => Err(error),
                }
            }
        }
    }
}

/// The beat of a database; 0 where there is none yet.
pub(super) async fn of(session: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let value: Option<String> = within(sqlx::query_scalar(READ).fetch_optional(session)).await?;
    // What is no number was not written by us.
    Ok(value.and_then(|text| text.parse().ok()).unwrap_or_default())
}

async fn within<T>(asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(STORE_TRY_MAX, asking)
        .await
        .unwrap_or_else(|_| Err(NotLent::Silent.into()))
}
