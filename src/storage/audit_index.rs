//! The audit index: where in the log which record is, one row for a call with both its records and
//! one for any other. A SQLite file of its own beside the segments, whatever the store stands on.
//!
//! It is a cache: written behind, thrown away when it is damaged or of another version, and never
//! believed against the log.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::sqlite::create_private;
use crate::domain::audit::chain::{Hash, Tip};
use crate::domain::audit::filter::{CALL_END, CALL_START, Columns, Filter};
use crate::domain::limits;

/// The version of the schema and of what is put into it; a file of another one is made anew.
const VERSION: i64 = 2;
/// Of the same schema, and without records whose columns are no text (`system.lost`): filled anew, after what it knows of
/// the log was held against it.
const FILLED_BADLY: i64 = 1;
/// Readers at once, and how long an idle one is kept.
const READERS_MAX: u32 = 2;
const READER_IDLE: Duration = Duration::from_secs(30);
/// Page cache of one connection in KiB (negative is SQLite's way to say KiB).
const CACHE_SIZE: &str = "-512";
/// The write-ahead log is cut back to this after a checkpoint.
const JOURNAL_BYTES_MAX: &str = "4194304";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS high (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    call TEXT,
    user TEXT,
    mcp TEXT,
    tool TEXT,
    client TEXT,
    outcome TEXT,
    segment INTEGER NOT NULL,
    place INTEGER NOT NULL,
    end_segment INTEGER,
    end_place INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_call ON events (call) WHERE call IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_user ON events (user, seq) WHERE user IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_by_mcp ON events (mcp, seq) WHERE mcp IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_other ON events (seq) WHERE event <> 'call.start';
CREATE INDEX IF NOT EXISTS events_open ON events (seq)
    WHERE event = 'call.start' AND end_place IS NULL;
";
const READ_VERSION: &str = "PRAGMA user_version";
const WRITE_VERSION: &str = "PRAGMA user_version = 2";
const HIGH: &str = "SELECT seq, hash FROM high WHERE one = 1";
const SET_HIGH: &str = "INSERT INTO high (one, seq, hash) VALUES (1, $1, $2) \
    ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, hash = excluded.hash";
/// A whole batch travels as one JSON text: one statement, one hand-over to the driver's thread.
const ADD: &str = "INSERT OR REPLACE INTO events \
    (seq, at, event, call, user, mcp, tool, client, outcome, segment, place, end_segment, end_place) \
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
    value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12 \
    FROM json_each($1)";
const END: &str = "UPDATE events SET outcome = ends.value ->> 1, \
    end_segment = ends.value ->> 2, end_place = ends.value ->> 3 \
    FROM json_each($1) AS ends \
    WHERE events.call = ends.value ->> 0 AND events.event = 'call.start'";
const PRUNE: &str = "DELETE FROM events WHERE seq < $1";
const CLEAR: &str = "DELETE FROM events";
const CLEAR_HIGH: &str = "DELETE FROM high";

macro_rules! find {
    ($which:literal) => {
        concat!(
            "SELECT seq, segment, place, end_segment, end_place FROM events WHERE ",
            $which,
            " AND seq < $1 AND ($2 IS NULL OR at >= $2) AND ($3 IS NULL OR at < $3) \
             AND ($4 IS NULL OR user = $4) AND ($5 IS NULL OR mcp = $5) \
             AND ($6 IS NULL OR tool = $6) AND ($7 IS NULL OR client = $7) \
             AND ($8 IS NULL OR call = $8) \
             AND ($9 IS NULL OR event = $9 OR substr(event, 1, length($9) + 1) = $9 || '.' \
                  OR ($9 = 'call.end' AND event = 'call.start')) \
             AND ($10 IS NULL OR outcome = $10 \
                  OR (event = 'call.start' AND end_place IS NULL)) \
             ORDER BY seq DESC LIMIT $11"
        )
    };
}
const FIND: &str = find!("TRUE");
const FIND_CALL: &str = find!("call = $8");
const FIND_USER: &str = find!("user = $4");
const FIND_MCP: &str = find!("mcp = $5");
const FIND_OPEN: &str = find!("event = 'call.start' AND end_place IS NULL");
const FIND_OTHER: &str = find!("event <> 'call.start'");

/// A record to be indexed.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// By what it is found.
    pub columns: Columns,
    /// The first record of its segment.
    pub segment: u64,
    /// Where its line begins.
    pub place: u64,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The first record of its segment.
    pub segment: u64,
    /// Where its line begins.
    pub place: u64,
}

/// A thing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its (first) record's number.
    pub seq: u64,
    /// Where that record is.
    pub spot: Spot,
    /// Where the record of a call's end is.
    pub end: Option<Spot>,
}

/// Why the index did not do it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not usable any more and must be made anew.
    #[error("the audit index is damaged: {0}")]
    Damaged(String),
    /// It does not answer now.
    #[error("the audit index does not answer: {0}")]
    Away(String),
}

impl From<sqlx::Error> for IndexError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        // SQLITE_ERROR (no such table or column), SQLITE_CORRUPT and what extends it, SQLITE_NOTADB.
        let code: Option<u32> = code.and_then(|code| code.parse().ok());
        match code.map(|code| code & 0xff) {
            Some(1 | 11 | 26) => Self::Damaged(error.to_string()),
            _ => Self::Away(error.to_string()),
        }
    }
}

/// The index.
#[derive(Debug, Clone)]
pub struct AuditIndex {
    writer: SqlitePool,
    reader: SqlitePool,
    filled_badly: bool,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(limits::STORE_BUSY_MAX)
        .pragma("cache_size", CACHE_SIZE)
}

impl AuditIndex {
    /// Opens the file, or makes it, mode 0600.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] also for one of another version.
    pub async fn open(path: &Path) -> Result<Self, IndexError> {
        create_private(path).map_err(|error| IndexError::Away(error.to_string()))?;
        let options = options(path)
            .journal_mode(SqliteJournalMode::Wal)
            // What a power cut takes is read again from the log.
            .synchronous(SqliteSynchronous::Normal)
            .pragma("journal_size_limit", JOURNAL_BYTES_MAX);
        let writer = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .acquire_timeout(limits::STORE_ACQUIRE_MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        let version: i64 = sqlx::query_scalar(READ_VERSION).fetch_one(&writer).await?;
        if ![0, FILLED_BADLY, VERSION].contains(&version) {
            return Err(IndexError::Damaged(format!("it is of version {version}")));
        }
        sqlx::raw_sql(SCHEMA).execute(&writer).await?;
        let filled_badly = version == FILLED_BADLY;
        if !filled_badly {
            sqlx::query(WRITE_VERSION).execute(&writer).await?;
        }
        let reader = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(READERS_MAX)
            .acquire_timeout(limits::STORE_ACQUIRE_MAX)
            .idle_timeout(READER_IDLE)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self {
            writer,
            reader,
            filled_badly,
        })
    }

    /// Empties one of an older version, to be filled anew; tells whether it was one.
    ///
    /// # Errors
    /// [`IndexError`]: it is tried again when it is opened again.
    pub async fn renew(&self) -> Result<bool, IndexError> {
        if self.filled_badly {
            self.clear().await?;
            sqlx::query(WRITE_VERSION).execute(&self.writer).await?;
        }
        Ok(self.filled_badly)
    }

    /// Up to which record somebody else's index goes, without changing it; `None` if there is none
    /// or it cannot be read.
    pub async fn witness(path: &Path) -> Option<Tip> {
        if !path.exists() {
            return None;
        }
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(limits::STORE_ACQUIRE_MAX)
            .connect_with(options(path).read_only(true))
            .await
            .ok()?;
        let high = high(&pool).await.ok().flatten();
        pool.close().await;
        high
    }

    /// Up to which record it goes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn high(&self) -> Result<Option<Tip>, IndexError> {
        high(&self.reader).await
    }

    /// Adds records that follow each other, and with them where it goes up to.
    ///
    /// # Errors
    /// [`IndexError`]: nothing was added.
    pub async fn add(&self, records: &[Fresh], upto: Tip) -> Result<(), IndexError> {
        let (rows, ends) = rows_of(records).map_err(|error| IndexError::Away(error.to_string()))?;
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(ADD).bind(rows).execute(&mut *tx).await?;
        if let Some(ends) = ends {
            sqlx::query(END).bind(ends).execute(&mut *tx).await?;
        }
        sqlx::query(SET_HIGH)
            .bind(number(upto.seq))
            .bind(upto.hash.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Finds what fits the filter before a record, newest first. A call without an end in here is
    /// given for any outcome: its end may not be indexed yet.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn find(
        &self,
        filter: &Filter,
        before: u64,
        most: usize,
    ) -> Result<Vec<Found>, IndexError> {
        let is_call = filter
            .event
            .as_deref()
            .is_some_and(|event| [CALL_START, CALL_END, "call"].contains(&event));
        let sql = match filter {
            Filter { call: Some(_), .. } => FIND_CALL,
            Filter {
                unfinished: true, ..
            } => FIND_OPEN,
            Filter { user: Some(_), .. } => FIND_USER,
            Filter { mcp: Some(_), .. } => FIND_MCP,
            Filter { event: Some(_), .. } if !is_call => FIND_OTHER,
            _ => FIND,
        };
        type Row = (i64, i64, i64, Option<i64>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(number(before))
            .bind(filter.since)
            .bind(filter.until)
            .bind(filter.user.as_deref())
            .bind(filter.mcp.as_deref())
            .bind(filter.tool.as_deref())
            .bind(filter.client.as_deref())
            .bind(filter.call.as_deref())
            .bind(filter.event.as_deref())
            .bind(filter.outcome.as_deref())
            .bind(number(most as u64))
            .fetch_all(&self.reader)
            .await?;
        let spot = |segment: i64, place: i64| Spot {
            segment: unsigned(segment),
            place: unsigned(place),
        };
        Ok(rows
            .into_iter()
            .map(|(seq, segment, place, end_segment, end_place)| Found {
                seq: unsigned(seq),
                spot: spot(segment, place),
                end: end_segment
                    .zip(end_place)
                    .map(|(segment, place)| spot(segment, place)),
            })
            .collect())
    }

    /// Forgets what retention removed.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn prune(&self, first: u64) -> Result<(), IndexError> {
        sqlx::query(PRUNE)
            .bind(number(first))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn clear(&self) -> Result<(), IndexError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(CLEAR).execute(&mut *tx).await?;
        sqlx::query(CLEAR_HIGH).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Closes its connections.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// The rows of these records, and the ends of calls that began before them. Most calls have both their records here:
/// they are one row, written once.
fn rows_of(records: &[Fresh]) -> serde_json::Result<(String, Option<String>)> {
    let mut rows: Vec<(&Fresh, Option<&Fresh>)> = Vec::with_capacity(records.len());
    let (mut begun, mut ends) = (HashMap::new(), Vec::new());
    for record in records {
        let of = &record.columns;
        let call = of.call.as_deref();
        if of.event != CALL_END {
            if of.event == CALL_START {
                begun.insert(call, rows.len());
            }
            rows.push((record, None));
        } else if let Some(row) = begun.remove(&call).and_then(|row| rows.get_mut(row)) {
            row.1 = Some(record);
        } else {
            ends.push((call, of.outcome(), record.segment, record.place));
        }
    }
    let rows = rows.into_iter().map(|(start, end)| {
        let of = &start.columns;
        let outcome = end.unwrap_or(start).columns.outcome();
        let (end_segment, end_place) = end.map(|end| (end.segment, end.place)).unzip();
        (
            of.seq,
            of.at,
            &of.event,
            &of.call,
            &of.user,
            &of.mcp,
            &of.tool,
            &of.key,
            outcome,
            start.segment,
            start.place,
            end_segment,
            end_place,
        )
    });
    let rows = serde_json::to_string(&rows.collect::<Vec<_>>())?;
    let ends = (!ends.is_empty()).then(|| serde_json::to_string(&ends));
    Ok((rows, ends.transpose()?))
}

async fn high(pool: &SqlitePool) -> Result<Option<Tip>, IndexError> {
    let row: Option<(i64, String)> = sqlx::query_as(HIGH).fetch_optional(pool).await?;
    Ok(row.and_then(|(seq, hash)| {
        Some(Tip {
            seq: unsigned(seq),
            hash: Hash::parse(hash.as_bytes())?,
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(text: &str, place: u64) -> Fresh {
        Fresh {
            columns: Columns::of(text.as_bytes()).unwrap(),
            segment: 1,
            place,
        }
    }

    fn tip(seq: u64) -> Tip {
        Tip {
            seq,
            hash: Hash::of_bytes(&seq.to_be_bytes()),
        }
    }

    async fn sample(path: &Path) -> AuditIndex {
        let index = AuditIndex::open(path).await.unwrap();
        let rows = [
            fresh(
                r#"{"seq":1,"at":10,"event":"call.start","call":"a","user":"u","key":"k","mcp":"m","tool":"t"}"#,
                0,
            ),
            fresh(
                r#"{"seq":2,"at":11,"event":"call.start","call":"b","user":"v","key":"l","mcp":"m","tool":"t"}"#,
                1,
            ),
            fresh(
                r#"{"seq":3,"at":12,"event":"call.end","call":"a","outcome":"answered"}"#,
                2,
            ),
            fresh(
                r#"{"seq":4,"at":13,"event":"admin.action","outcome":"ok","text":"'; DROP TABLE events"}"#,
                3,
            ),
            fresh(
                r#"{"seq":5,"at":14,"event":"call.refused","call":"c","user":"u","code":"busy"}"#,
                4,
            ),
        ];
        index.add(&rows, tip(5)).await.unwrap();
        index
    }

    #[tokio::test]
    async fn rows_are_found_by_what_they_are_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let index = sample(&dir.path().join("index.db")).await;
        let find = async |change: fn(&mut Filter)| -> Vec<u64> {
            let mut filter = Filter::default();
            change(&mut filter);
            let found = index.find(&filter, 99, 10).await.unwrap();
            found.into_iter().map(|one| one.seq).collect()
        };
        assert_eq!(find(|_| ()).await, [5, 4, 2, 1]);
        assert_eq!(find(|f| f.user = Some("u".into())).await, [5, 1]);
        assert_eq!(find(|f| f.client = Some("l".into())).await, [2]);
        assert_eq!(find(|f| f.mcp = Some("m".into())).await, [2, 1]);
        assert_eq!(find(|f| f.call = Some("a".into())).await, [1]);
        assert_eq!(find(|f| f.event = Some("call".into())).await, [5, 2, 1]);
        assert_eq!(find(|f| f.event = Some("admin".into())).await, [4]);
        assert_eq!(find(|f| f.unfinished = true).await, [2]);
        assert_eq!(find(|f| f.since = Some(13)).await, [5, 4]);
        assert_eq!(find(|f| f.until = Some(12)).await, [2, 1]);
        // The call that has no end yet may still end so.
        assert_eq!(find(|f| f.outcome = Some("busy".into())).await, [5, 2]);
        let page = index.find(&Filter::default(), 4, 1).await.unwrap();
        assert_eq!(page[0].seq, 2);
        let one = Filter {
            call: Some("a".into()),
            ..Filter::default()
        };
        let end = index.find(&one, 99, 1).await.unwrap()[0].end.unwrap();
        assert_eq!((end.segment, end.place), (1, 2));
    }

    #[tokio::test]
    async fn one_of_an_older_version_tells_what_it_knows_and_is_filled_anew_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let index = sample(&path).await;
        assert!(!index.renew().await.unwrap(), "it is of this version");
        sqlx::query("PRAGMA user_version = 1")
            .execute(&index.writer)
            .await
            .unwrap();
        index.close().await;
        let index = AuditIndex::open(&path).await.unwrap();
        assert_eq!(index.high().await.unwrap(), Some(tip(5)));
        assert!(index.renew().await.unwrap());
        assert_eq!(index.high().await.unwrap(), None);
        let left = index.find(&Filter::default(), 99, 9).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
        index.close().await;
        let index = AuditIndex::open(&path).await.unwrap();
        assert!(!index.renew().await.unwrap());
        index.close().await;
    }

    #[tokio::test]
    async fn it_outlives_a_restart_and_can_be_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.db");
        let index = sample(&path).await;
        assert_eq!(AuditIndex::witness(&path).await, Some(tip(5)));
        index.prune(4).await.unwrap();
        assert_eq!(
            index.find(&Filter::default(), 99, 9).await.unwrap().len(),
            2
        );
        index.close().await;
        let index = AuditIndex::open(&path).await.unwrap();
        assert_eq!(index.high().await.unwrap(), Some(tip(5)));
        index.clear().await.unwrap();
        assert_eq!(index.high().await.unwrap(), None);
        index.close().await;
        std::fs::write(
            &path,
            "this is no database, however long it may be".repeat(99),
        )
        .unwrap();
        for old in ["index.db-wal", "index.db-shm"] {
            let _ = std::fs::remove_file(dir.path().join(old));
        }
        let damaged = AuditIndex::open(&path).await.unwrap_err();
        assert!(matches!(damaged, IndexError::Damaged(_)), "{damaged}");
        assert_eq!(AuditIndex::witness(&path).await, None);
        assert_eq!(AuditIndex::witness(&dir.path().join("none")).await, None);
    }
}
